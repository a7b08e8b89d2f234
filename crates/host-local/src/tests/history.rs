//! Random histories of one store: our verbs, the reference's, damage, restarts, and crashes between any two changes.
//!
//! A [`Model`] says after each event what the files must be and what was answered. It is written for clarity: it knows
//! every file and looks at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use cni_plugin::Outcome;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::machine::{Machine, addresses, msg};
use crate::store::crash;
use crate::store::tests::believed;

/// Every owner that occurs, with a lease file of long ago that names only the container for each.
const OWNERS: [(&str, &str); 6] = [
    ("a", "eth0"),
    ("a", "eth1"),
    ("b", "eth0"),
    ("c", "eth0"),
    ("d", "eth0"),
    ("e", "net1"),
];

/// The range sets of a history: the configuration, and the addresses that each may give, in order.
struct Layout {
    ranges: fn() -> Value,
    sets: &'static [(&'static str, &'static [&'static str])],
}

const LAYOUTS: [Layout; 3] = [
    Layout {
        ranges: || json!([[{ "subnet": "10.0.0.0/29" }]]),
        sets: &[(
            "10.0.0.1-10.0.0.6",
            &["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"],
        )],
    },
    Layout {
        ranges: || {
            json!([[{ "subnet": "10.0.0.0/30" }, { "subnet": "10.0.1.0/29", "rangeStart": "10.0.1.4" }],
                          [{ "subnet": "fd00::/64", "rangeEnd": "fd00::4" }]])
        },
        sets: &[
            (
                "10.0.0.1-10.0.0.2,10.0.1.4-10.0.1.6",
                &["10.0.0.2", "10.0.1.4", "10.0.1.5", "10.0.1.6"],
            ),
            ("fd00::1-fd00::4", &["fd00::2", "fd00::3", "fd00::4"]),
        ],
    },
    Layout {
        ranges: || json!([[{ "subnet": "fd00::/64", "rangeEnd": "fd00::5" }], [{ "subnet": "10.0.0.0/30" }]]),
        sets: &[
            (
                "fd00::1-fd00::5",
                &["fd00::2", "fd00::3", "fd00::4", "fd00::5"],
            ),
            ("10.0.0.1-10.0.0.2", &["10.0.0.2"]),
        ],
    },
];

#[derive(Clone, Debug)]
enum Verb {
    /// With an address asked for: of which set, at which place.
    Add(usize, Option<(usize, usize)>),
    Del(usize),
    Check(usize),
    /// With the valid attachments as bits.
    Gc(u8),
}

#[derive(Clone, Debug)]
enum Event {
    /// One of our verbs, which dies after so many changes.
    Ours(Verb, Option<u32>),
    /// The reference's verb; it has no GC.
    Reference(Verb),
    /// The reference dies between making a lease file and writing it.
    ReferenceCrash(usize),
    /// A reference of long ago leases an address to a container.
    OldLease(usize, usize),
    /// Somebody removes a file, a lease or a cursor.
    RemoveFile(usize),
    LoseIndex,
    LoseEntry(usize),
    SpoilEntry(usize, Spoiled),
    Restart,
}

#[derive(Clone, Debug)]
enum Spoiled {
    Garbage,
    Lie,
    Truncated,
}

fn verbs() -> impl Strategy<Value = Verb> {
    let owner = 0..OWNERS.len();
    prop_oneof![
        8 => owner.clone().prop_map(|owner| Verb::Add(owner, None)),
        2 => (owner.clone(), 0..2_usize, 0..5_usize).prop_map(|(owner, set, at)| Verb::Add(owner, Some((set, at)))),
        5 => owner.clone().prop_map(Verb::Del),
        1 => owner.prop_map(Verb::Check),
        1 => any::<u8>().prop_map(Verb::Gc),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let spoiled = prop_oneof![
        Just(Spoiled::Garbage),
        Just(Spoiled::Lie),
        Just(Spoiled::Truncated)
    ];
    prop_oneof![
        14 => verbs().prop_map(|verb| Event::Ours(verb, None)),
        5 => (verbs(), 0..25_u32).prop_map(|(verb, changes)| Event::Ours(verb, Some(changes))),
        3 => verbs().prop_map(Event::Reference),
        1 => (0..10_usize).prop_map(Event::ReferenceCrash),
        1 => (0..OWNERS.len(), 0..10_usize).prop_map(|(owner, at)| Event::OldLease(owner, at)),
        1 => (0..20_usize).prop_map(Event::RemoveFile),
        1 => Just(Event::LoseIndex),
        1 => (0..OWNERS.len()).prop_map(Event::LoseEntry),
        1 => (0..OWNERS.len(), spoiled).prop_map(|(owner, how)| Event::SpoilEntry(owner, how)),
        3 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_gives_an_address_twice_or_loses_one(layout in 0..LAYOUTS.len(), events in vec(events(), 1..60)) {
        History::new(&LAYOUTS[layout]).play(&events);
    }
}

/// Every verb, in states of every kind, dies after each of its changes in turn.
#[test]
fn after_a_crash_anywhere_everything_is_found_again() {
    use Verb::{Add, Del, Gc};
    let ours = |verb| Event::Ours(verb, None);
    let states: [&[Event]; 6] = [
        &[],
        &[ours(Add(0, None)), ours(Add(2, None))],
        &[ours(Add(0, None)), ours(Add(2, None)), Event::LoseIndex],
        &[ours(Add(0, None)), ours(Add(2, None)), Event::Restart],
        &[
            ours(Add(0, None)),
            Event::Reference(Add(2, None)),
            Event::ReferenceCrash(2),
            Event::OldLease(3, 3),
        ],
        &[
            ours(Add(0, None)),
            ours(Add(1, None)),
            ours(Add(2, None)),
            ours(Add(3, None)),
            ours(Add(5, None)),
            Event::Restart,
        ],
    ];
    for layout in &LAYOUTS {
        for state in states {
            for verb in [
                Add(0, None),
                Add(4, None),
                Add(4, Some((0, 3))),
                Del(0),
                Del(3),
                Gc(1),
            ] {
                let mut died = true;
                for changes in 0.. {
                    if !died {
                        break;
                    }
                    let mut history = History::new(layout);
                    history.play(state);
                    died = history.event(&Event::Ours(verb.clone(), Some(changes)));
                    let rest = [Add(5, None), Add(0, None), Del(4), Del(0), Del(3)].map(ours);
                    history.play(&rest);
                    assert!(changes < 200, "{verb:?} never ends");
                }
            }
        }
    }
}

/// A machine and what must be true of it.
struct History {
    machine: Machine,
    model: Model,
    boot: u32,
    /// Makes the times of the reference's files differ, as they do when processes do not follow each other so fast.
    clock: u64,
}

impl History {
    fn new(layout: &'static Layout) -> History {
        let model = Model {
            layout,
            files: BTreeMap::new(),
            known: BTreeMap::new(),
            live: BTreeSet::new(),
            boot: 1,
        };
        History {
            machine: Machine::in_memory(),
            model,
            boot: 1,
            clock: 0,
        }
    }

    fn play(&mut self, events: &[Event]) {
        for event in events {
            self.event(event);
        }
    }

    /// Was it a crash?
    fn event(&mut self, event: &Event) -> bool {
        match event {
            Event::Ours(verb, None) => self.ours(verb),
            Event::Ours(verb, Some(changes)) => return self.ours_dying(verb, *changes),
            Event::Reference(verb) => {
                let mut after = self.model.clone();
                let _ = after.reference(verb);
                self.change_by_others(after);
            }
            Event::ReferenceCrash(at) => self.write_if_free(*at, ""),
            Event::OldLease(owner, at) => self.write_if_free(*at, OWNERS[*owner].0),
            Event::RemoveFile(at) => {
                let mut after = self.model.clone();
                if let Some(name) = after.files.keys().nth(*at).cloned() {
                    after.remove(&name);
                }
                self.change_by_others(after);
            }
            Event::LoseIndex => {
                let _ = fs::remove_dir_all(self.machine.data_dir().join(".index"));
                self.model.known.clear();
            }
            Event::LoseEntry(owner) => drop(self.lose_entry(*owner)),
            Event::SpoilEntry(owner, how) => {
                if let Some(entry) = self.lose_entry(*owner) {
                    match how {
                        Spoiled::Garbage => symlink("garbage", entry).unwrap(),
                        Spoiled::Lie => symlink("0000000100004000/10.0.0.5/1", entry).unwrap(),
                        Spoiled::Truncated => fs::write(entry, "").unwrap(),
                    }
                }
            }
            Event::Restart => {
                self.boot += 1;
                self.machine.boot(self.boot);
                self.model.boot = self.boot;
                self.model.live.clear();
            }
        }
        false
    }

    /// Removes an entry of the index, if it is there; its path.
    fn lose_entry(&mut self, owner: usize) -> Option<std::path::PathBuf> {
        let (id, ifname) = OWNERS[owner];
        let entry = self.machine.index().join(format!("{id}:{ifname}"));
        fs::remove_file(&entry).ok()?;
        let lost = self.model.files_with(&text(owner));
        self.model.known.retain(|name, _| !lost.contains(name));
        Some(entry)
    }

    fn write_if_free(&mut self, at: usize, content: &str) {
        let mut after = self.model.clone();
        let names: Vec<&str> = after
            .layout
            .sets
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        let name = names[at % names.len()];
        if !after.files.contains_key(name) {
            after.write(name, content);
        }
        self.change_by_others(after);
    }

    /// Makes the files what somebody else has made of them.
    fn change_by_others(&mut self, after: Model) {
        fs::create_dir_all(self.machine.folder()).unwrap();
        for name in self
            .model
            .files
            .keys()
            .filter(|name| !after.files.contains_key(*name))
        {
            fs::remove_file(self.machine.folder().join(name)).unwrap();
        }
        for (name, content) in after
            .files
            .iter()
            .filter(|(name, content)| self.model.files.get(*name) != Some(content))
        {
            self.machine.write(name, content);
            self.clock += 1;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock);
            let file = File::options()
                .write(true)
                .open(self.machine.folder().join(name))
                .unwrap();
            file.set_modified(time).unwrap();
        }
        self.model = after;
        self.compare(&self.model);
    }

    fn call(&self, verb: &Verb) -> Outcome {
        let mut conf = self.machine.conf("1.1.0", (self.model.layout.ranges)());
        match verb {
            Verb::Add(owner, request) => {
                let args = match self.model.requested(*request) {
                    Some(ip) => format!("IP={ip}"),
                    None => String::new(),
                };
                self.machine.call("ADD", OWNERS[*owner], &args, &conf)
            }
            Verb::Del(owner) => self.machine.call("DEL", OWNERS[*owner], "", &conf),
            Verb::Check(owner) => self.machine.call("CHECK", OWNERS[*owner], "", &conf),
            Verb::Gc(valid) => {
                let valid = valid_owners(*valid).map(|owner| OWNERS[owner]);
                let valid =
                    valid.map(|(id, ifname)| json!({ "containerID": id, "ifname": ifname }));
                conf["cni.dev/valid-attachments"] = valid.collect();
                self.machine.call("GC", OWNERS[0], "", &conf)
            }
        }
    }

    fn ours(&mut self, verb: &Verb) {
        let answer = answer(verb, &self.call(verb));
        let mut possible = Vec::new();
        for mut after in self.model.possible() {
            let expected = after.ours(verb);
            if expected == answer && after.files == self.files() {
                self.model = Model {
                    known: self.model.merged(&after),
                    ..after
                };
                return self.compare(&self.model);
            }
            possible.push((expected, after.files));
        }
        panic!(
            "{verb:?} answered {answer:?} and left {:?}; possible: {possible:?}",
            self.files()
        );
    }

    /// What a crash may leave: all that was there before, but what the verb is to free and what nobody can use, and
    /// leases that are being made, whole.
    fn ours_dying(&mut self, verb: &Verb, changes: u32) -> bool {
        let before = self.files();
        let (outcome, died) = crash::after(changes, || self.call(verb));
        if !died {
            // Nothing went wrong, so all must be as if nothing had been meant to.
            let answer = answer(verb, &outcome);
            let mut possible = self.model.possible();
            let after = possible.iter_mut().find_map(|after| {
                let expected = after.ours(verb);
                (expected == answer && after.files == self.files()).then(|| after.clone())
            });
            let after = after.unwrap_or_else(|| {
                panic!("{verb:?} answered {answer:?} and left {:?}", self.files())
            });
            self.model = Model {
                known: self.model.merged(&after),
                ..after
            };
            self.compare(&self.model);
            return false;
        }
        let freed = match verb {
            Verb::Add(..) | Verb::Check(_) => BTreeSet::new(),
            Verb::Del(owner) => BTreeSet::from([text(*owner), OWNERS[*owner].0.to_owned()]),
            Verb::Gc(valid) => {
                let valid: BTreeSet<usize> = valid_owners(*valid).collect();
                let gone = (0..OWNERS.len()).filter(|owner| !valid.contains(owner));
                let ids: BTreeSet<&str> = valid.iter().map(|owner| OWNERS[*owner].0).collect();
                let old = OWNERS
                    .iter()
                    .map(|(id, _)| *id)
                    .filter(|id| !ids.contains(id))
                    .map(str::to_owned);
                gone.map(text).chain(old).collect()
            }
        };
        let after = self.files();
        self.model
            .live
            .retain(|(_, content)| !freed.contains(content));
        for (name, content) in &before {
            let is_lease = !name.starts_with("last_reserved_ip.");
            if after.get(name) != Some(content) && is_lease {
                let lost = self
                    .model
                    .known
                    .get(name)
                    .is_some_and(|known| known.iter().any(|it| *it < self.boot));
                let may_go = freed.contains(content)
                    || (matches!(verb, Verb::Add(..)) && (lost || content.is_empty()));
                assert!(may_go, "{verb:?} lost {name} ({content:?})");
                assert!(!self.model.live.contains(&(name.clone(), content.clone())));
            }
        }
        for (name, content) in &after {
            if before.get(name) != Some(content) {
                let Verb::Add(owner, _) = verb else {
                    panic!("{verb:?} made {name}")
                };
                if let Some(set) = name.strip_prefix("last_reserved_ip.") {
                    let (_, given) = self.model.layout.sets[set.parse::<usize>().unwrap()];
                    assert!(given.contains(&content.as_str()), "{name} says {content:?}");
                } else {
                    assert_eq!(*content, text(*owner), "{name}");
                    assert!(
                        self.model
                            .layout
                            .sets
                            .iter()
                            .any(|(_, given)| given.contains(&name.as_str()))
                    );
                }
            }
        }
        // A boot that was known may be known no longer, and a lease may just have been seen for the first time.
        self.model
            .known
            .retain(|name, _| after.get(name) == self.model.files.get(name));
        for name in after.keys() {
            self.model
                .known
                .entry(name.clone())
                .or_default()
                .extend([self.boot, NOT_SEEN]);
        }
        self.model.files = after;
        self.compare_index();
        true
    }

    fn files(&self) -> BTreeMap<String, String> {
        let text = |content: Vec<u8>| String::from_utf8(content).unwrap();
        self.machine
            .files()
            .into_iter()
            .map(|(name, content)| (name, text(content)))
            .collect()
    }

    /// The files are what they must be, and whoever lives has its address.
    fn compare(&self, model: &Model) {
        assert_eq!(self.files(), model.files);
        for (name, content) in &model.live {
            assert_eq!(
                model.files.get(name),
                Some(content),
                "a living pod lost {name}"
            );
        }
        self.compare_index();
    }

    /// While the index is believed it says what the files say, and no more.
    fn compare_index(&self) {
        let Some(believed) = believed(&self.machine) else {
            return;
        };
        let mut leases = self.files();
        leases
            .retain(|name, content| !name.starts_with("last_reserved_ip.") && !content.is_empty());
        assert_eq!(believed, leases);
    }
}

/// An answer without what tells nothing of the store.
fn answer(verb: &Verb, outcome: &Outcome) -> Result<Vec<String>, String> {
    if outcome.failed {
        return Err(msg(outcome));
    }
    match verb {
        Verb::Add(..) => {
            let plain = |ip: String| ip.split('/').next().unwrap_or_default().to_owned();
            Ok(addresses(outcome).into_iter().map(plain).collect())
        }
        Verb::Del(_) | Verb::Check(_) | Verb::Gc(_) => Ok(Vec::new()),
    }
}

fn text(owner: usize) -> String {
    let (id, ifname) = OWNERS[owner];
    format!("{id}\r\n{ifname}")
}

fn valid_owners(bits: u8) -> impl Iterator<Item = usize> {
    (0..OWNERS.len()).filter(move |owner| bits >> owner & 1 == 1)
}

/// Stands for the boot in which our plugin will next look at the store.
const NOT_SEEN: u32 = u32::MAX;

/// Who owns what.
#[derive(Clone)]
struct Model {
    layout: &'static Layout,
    /// Every file but the lock, with its content.
    files: BTreeMap<String, String>,
    /// The boot that a lease is taken to be of, where our plugin has seen it; more than one where a crash may have
    /// lost the older.
    known: BTreeMap<String, BTreeSet<u32>>,
    /// Name and content of the leases of pods that were told of them since the last restart.
    live: BTreeSet<(String, String)>,
    boot: u32,
}

impl Model {
    fn requested(&self, request: Option<(usize, usize)>) -> Option<&'static str> {
        let (set, at) = request?;
        let (_, given) = self.layout.sets[set % self.layout.sets.len()];
        Some(given[at % given.len()])
    }

    fn files_with(&self, content: &str) -> Vec<String> {
        let leases = self
            .files
            .iter()
            .filter(|(name, _)| !name.starts_with("last_reserved_ip."));
        leases
            .filter(|(_, it)| *it == content)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn write(&mut self, name: &str, content: &str) {
        self.files.insert(name.to_owned(), content.to_owned());
        self.known.remove(name);
    }

    fn remove(&mut self, name: &str) {
        self.files.remove(name);
        self.known.remove(name);
        self.live.retain(|(lease, _)| lease != name);
    }

    /// What the reference does; its answer.
    fn reference(&mut self, verb: &Verb) -> Result<Vec<String>, String> {
        match verb {
            Verb::Add(owner, request) => self.add(*owner, *request, None),
            Verb::Del(owner) => {
                let of_owner = self.files_with(&text(*owner));
                let freed = if of_owner.is_empty() {
                    self.files_with(OWNERS[*owner].0)
                } else {
                    of_owner
                };
                freed.iter().for_each(|name| self.remove(name));
                Ok(Vec::new())
            }
            Verb::Check(owner) => {
                let id = OWNERS[*owner].0;
                if self.files_with(&text(*owner)).is_empty() && self.files_with(id).is_empty() {
                    return Err(format!(
                        "host-local: Failed to find address added by container {id}"
                    ));
                }
                Ok(Vec::new())
            }
            Verb::Gc(_) => Ok(Vec::new()),
        }
    }

    /// What ours does: the same, but for boots, empty files, GC and the extent of giving back.
    fn ours(&mut self, verb: &Verb) -> Result<Vec<String>, String> {
        self.see();
        match verb {
            Verb::Add(owner, request) => {
                let mut former = Vec::new();
                for content in [text(*owner), OWNERS[*owner].0.to_owned()] {
                    for name in self.files_with(&content) {
                        if self.known[&name].iter().all(|boot| *boot < self.boot) {
                            self.remove(&name);
                            former.push(name);
                        }
                    }
                }
                former.sort();
                self.add(*owner, *request, Some(&former))
            }
            Verb::Gc(valid) => {
                let valid: Vec<usize> = valid_owners(*valid).collect();
                for owner in (0..OWNERS.len()).filter(|owner| !valid.contains(owner)) {
                    self.files_with(&text(owner))
                        .iter()
                        .for_each(|name| self.remove(name));
                    if !valid.iter().any(|it| OWNERS[*it].0 == OWNERS[owner].0) {
                        self.files_with(OWNERS[owner].0)
                            .iter()
                            .for_each(|name| self.remove(name));
                    }
                }
                Ok(Vec::new())
            }
            Verb::Del(_) | Verb::Check(_) => self.reference(verb),
        }
    }

    /// Our plugin looks at the store: what it has not seen before counts as of this boot, and with it all that the
    /// same owner holds.
    fn see(&mut self) {
        let contents: BTreeSet<String> = self
            .files
            .values()
            .filter(|it| !it.is_empty())
            .cloned()
            .collect();
        for content in contents {
            let names = self.files_with(&content);
            if names.iter().any(|name| !self.known.contains_key(name)) {
                self.known.extend(
                    names
                        .into_iter()
                        .map(|name| (name, BTreeSet::from([self.boot]))),
                );
            }
        }
        for boots in self.known.values_mut() {
            *boots = boots
                .iter()
                .map(|&boot| if boot == NOT_SEEN { self.boot } else { boot })
                .collect();
        }
    }

    /// ADD; by ours if there are `former` addresses to be had back, be it none.
    fn add(
        &mut self,
        owner: usize,
        request: Option<(usize, usize)>,
        former: Option<&[String]>,
    ) -> Result<Vec<String>, String> {
        let mut given = Vec::new();
        let request = self.requested(request);
        for (at, &(windows, addresses)) in self.layout.sets.iter().enumerate() {
            let refusal = match request.filter(|ip| addresses.contains(ip)) {
                Some(ip) if self.is_free(ip, former.is_some()) => Ok(ip),
                Some(ip) => Err(format!(
                    "requested IP address {ip} is not available in range set {windows}"
                )),
                None => self.next(owner, at, former, &given),
            };
            match refusal {
                Ok(ip) => {
                    self.write(ip, &text(owner));
                    self.write(&format!("last_reserved_ip.{at}"), ip);
                    given.push(ip.to_owned());
                }
                Err(refusal) => {
                    if former.is_some() {
                        given.iter().for_each(|name| self.remove(name));
                    } else if at > 0 {
                        // The reference frees everything that the owner has.
                        let _ = self.reference(&Verb::Del(owner));
                    }
                    return Err(format!("failed to allocate for range {at}: {refusal}"));
                }
            }
        }
        if former.is_some() {
            let all = self.files_with(&text(owner));
            self.known.extend(
                all.into_iter()
                    .map(|name| (name, BTreeSet::from([self.boot]))),
            );
        }
        self.live
            .extend(given.iter().map(|name| (name.clone(), text(owner))));
        Ok(given)
    }

    fn is_free(&self, ip: &str, by_ours: bool) -> bool {
        self.files
            .get(ip)
            .is_none_or(|content| by_ours && content.is_empty())
    }

    fn next(
        &mut self,
        owner: usize,
        set: usize,
        former: Option<&[String]>,
        given: &[String],
    ) -> Result<&'static str, String> {
        let (windows, addresses) = self.layout.sets[set];
        let id = OWNERS[owner].0;
        let mut held = self.files_with(&text(owner));
        held.extend(self.files_with(id));
        held.sort();
        if let Some(ip) = held
            .iter()
            .find(|ip| addresses.contains(&ip.as_str()) && !given.contains(ip))
        {
            return Err(format!(
                "{ip} has been allocated to {id}, duplicate allocation is not allowed"
            ));
        }
        if let Some(ip) = addresses
            .iter()
            .find(|ip| former.unwrap_or_default().first_of(addresses) == Some(**ip))
        {
            return Ok(ip);
        }
        let last = self.files.get(&format!("last_reserved_ip.{set}"));
        let first = last
            .and_then(|last| addresses.iter().position(|ip| ip == last))
            .map_or(0, |at| at + 1);
        let round = || {
            addresses[first..]
                .iter()
                .chain(&addresses[..first])
                .copied()
        };
        let free = |model: &Model| round().find(|ip| model.is_free(ip, former.is_some()));
        if let Some(ip) = free(self) {
            return Ok(ip);
        }
        if former.is_some() {
            let lost = |name: &&str| {
                self.known
                    .get(*name)
                    .is_some_and(|it| it.iter().all(|boot| *boot < self.boot))
            };
            let owners: Vec<String> = addresses
                .iter()
                .filter(|it| lost(it))
                .map(|it| self.files[*it].clone())
                .collect();
            for name in owners
                .iter()
                .flat_map(|owner| self.files_with(owner))
                .collect::<Vec<_>>()
            {
                self.remove(&name);
            }
        }
        free(self).ok_or_else(|| format!("no IP addresses available in range set: {windows}"))
    }

    /// This model for each way in which boots may have been lost in a crash: an owner's all together.
    fn possible(&self) -> Vec<Model> {
        let mut possible = vec![self.clone()];
        let contents: BTreeSet<String> = self.files.values().cloned().collect();
        for content in contents {
            let names = self.files_with(&content);
            let known: Vec<&BTreeSet<u32>> = names
                .iter()
                .filter_map(|name| self.known.get(name))
                .collect();
            // With one that was never seen all are of this boot.
            if known.len() == names.len() && known.iter().any(|boots| boots.len() > 1) {
                let boots: BTreeSet<u32> = known.into_iter().flatten().copied().collect();
                let with = |model: &Model, boot: u32| {
                    let mut model = model.clone();
                    model.known.extend(
                        names
                            .iter()
                            .map(|name| (name.clone(), BTreeSet::from([boot]))),
                    );
                    model
                };
                possible = possible
                    .iter()
                    .flat_map(|model| boots.iter().map(|boot| with(model, *boot)))
                    .collect();
            }
        }
        possible
    }

    /// What is known after one possible history, with what it leaves uncertain.
    fn merged(&self, after: &Model) -> BTreeMap<String, BTreeSet<u32>> {
        let mut known = after.known.clone();
        for (name, boots) in &mut known {
            let before = self.known.get(name).filter(|before| before.len() > 1);
            let before = before.filter(|_| self.files.get(name) == after.files.get(name));
            // What the verb itself has taken anew is certain.
            if let Some(before) = before.filter(|_| {
                !after
                    .live
                    .contains(&(name.clone(), after.files[name].clone()))
            }) {
                boots.extend(
                    before
                        .iter()
                        .map(|boot| if *boot == NOT_SEEN { self.boot } else { *boot }),
                );
            }
        }
        known
    }
}

trait FirstOf {
    fn first_of<'a>(&self, addresses: &[&'a str]) -> Option<&'a str>;
}

impl FirstOf for [String] {
    /// The first of these that is one of the `addresses`.
    fn first_of<'a>(&self, addresses: &[&'a str]) -> Option<&'a str> {
        self.iter()
            .find_map(|it| addresses.iter().copied().find(|ip| it == ip))
    }
}
