//! The store's ways that no configuration asks for: the lock, the index, damage, restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use fs2::FileExt;
use serde_json::{Value, json};

use super::*;
use crate::owner::Owner;
use crate::tests::machine::{Machine, addresses, failure, msg, result, silent};

/// A configuration with room for many.
fn wide(machine: &Machine) -> Value {
    machine.conf("1.1.0", json!([[{ "subnet": "10.1.0.0/16" }]]))
}

/// A configuration with room for two.
fn narrow(machine: &Machine) -> Value {
    machine.conf(
        "1.1.0",
        json!([[{ "subnet": "10.1.2.0/29", "rangeEnd": "10.1.2.3" }]]),
    )
}

/// Will the next call take the index's word?
fn is_trusted(machine: &Machine) -> bool {
    Index::new(&machine.index(), &machine.folder()).is_complete()
}

/// What the index says, if the next call will take its word: names of files with their content.
pub(crate) fn believed(machine: &Machine) -> Option<BTreeMap<String, String>> {
    let index = Index::new(&machine.index(), &machine.folder());
    let (leases, _) = index.is_complete().then(|| index.list().unwrap())?;
    let files = |(owner, entry): (Owner, Entry)| {
        entry
            .leases
            .into_iter()
            .map(move |it| (it.name, owner.text()))
    };
    Some(leases.into_iter().flat_map(files).collect())
}

/// The index's entries as a person sees them, without the times.
fn entries(machine: &Machine) -> Vec<String> {
    let (leases, others) = Index::new(&machine.index(), &machine.folder())
        .list()
        .unwrap();
    assert!(others.is_empty());
    let names = |entry: &Entry| {
        entry
            .leases
            .iter()
            .map(|it| it.name.clone())
            .collect::<Vec<_>>()
            .join(" ")
    };
    leases
        .iter()
        .map(|(owner, entry)| format!("{}: {}", owner.text().replace("\r\n", ":"), names(entry)))
        .collect()
}

#[test]
fn c04_the_lock_keeps_others_out() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    let lock = File::open(machine.folder().join("lock")).unwrap();
    lock.lock_exclusive().unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let added = machine.add("two", &conf);
            done.send(()).unwrap();
            result(&added);
        });
        let waited = is_done.recv_timeout(Duration::from_millis(100));
        assert_eq!(
            waited,
            Err(mpsc::RecvTimeoutError::Timeout),
            "the store was changed under somebody else's lock"
        );
        fs2::FileExt::unlock(&lock).unwrap();
    });
    assert_eq!(machine.leases(), ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(
        fs::metadata(machine.folder().join("lock")).unwrap().len(),
        0
    );
}

#[test]
fn nobody_waits_for_ever_for_one_that_is_stuck() {
    let mut machine = Machine::new();
    machine.patience = Duration::from_millis(100);
    let mut conf = wide(&machine);
    conf["cni.dev/valid-attachments"] = json!([]);
    result(&machine.add("one", &conf));
    let path = machine.folder().join("lock");
    let lock = File::open(&path).unwrap();
    lock.lock_exclusive().unwrap();
    for verb in ["ADD", "DEL", "CHECK", "GC"] {
        let (code, msg, details) = failure(&machine.call(verb, ("one", "eth0"), "", &conf));
        let held = format!("lock {}: held by another process for 100ms", path.display());
        assert_eq!((code, msg), (11, held), "{verb}");
        let fuser = format!("`fuser -v {}` names the process: ", path.display());
        assert!(details.starts_with(&fuser), "{details}");
    }
    assert_eq!(machine.leases(), ["10.1.0.2"]);
    // Those that gave up do not keep the lock that they get later.
    fs2::FileExt::unlock(&lock).unwrap();
    machine.patience = Duration::from_secs(60);
    silent(&machine.del("one", &conf));
    assert!(machine.leases().is_empty());
    assert!(is_trusted(&machine));
}

#[test]
fn status_does_not_wait_for_the_lock() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    let lock = File::open(machine.folder().join("lock")).unwrap();
    lock.lock_exclusive().unwrap();
    let asked = Instant::now();
    silent(&machine.call("STATUS", ("", ""), "", &conf));
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert!(is_trusted(&machine), "the store was changed under a lock");
}

#[test]
fn many_at_once_get_an_address_each() {
    let machine = Machine::new();
    let conf = wide(&machine);
    let given = std::thread::scope(|scope| {
        let pods: Vec<_> = (0..8)
            .map(|thread| {
                let (machine, conf) = (&machine, &conf);
                let pod = move |pod| addresses(&machine.add(&format!("pod-{thread}-{pod}"), conf));
                scope.spawn(move || (0..10).flat_map(pod).collect::<Vec<_>>())
            })
            .collect();
        pods.into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect::<BTreeSet<_>>()
    });
    assert_eq!(given.len(), 80);
    assert!(is_trusted(&machine));
}

#[test]
fn after_each_verb_the_index_is_complete() {
    let machine = Machine::new();
    let mut conf = wide(&machine);
    for (verb, id, expected) in [
        ("DEL", "one", &[][..]),
        ("ADD", "one", &["one:eth0: 10.1.0.2"]),
        ("ADD", "one", &["one:eth0: 10.1.0.2"]),
        ("ADD", "two", &["one:eth0: 10.1.0.2", "two:eth0: 10.1.0.3"]),
        (
            "CHECK",
            "two",
            &["one:eth0: 10.1.0.2", "two:eth0: 10.1.0.3"],
        ),
        (
            "STATUS",
            "two",
            &["one:eth0: 10.1.0.2", "two:eth0: 10.1.0.3"],
        ),
        ("DEL", "one", &["two:eth0: 10.1.0.3"]),
        ("GC", "one", &[]),
    ] {
        conf["cni.dev/valid-attachments"] = json!([]);
        machine.call(verb, (id, "eth0"), "", &conf);
        assert!(is_trusted(&machine), "after {verb}");
        assert_eq!(entries(&machine), expected, "after {verb}");
        assert!(!machine.index().join(".lease").exists());
    }
}

/// What others do to the store or to the index; after each the index must not be believed, or be right.
#[test]
fn the_index_is_believed_only_while_it_is_right() {
    type Change = fn(&Machine);
    let changes: [(&str, Change); 11] = [
        ("the index is gone", |it| {
            fs::remove_dir_all(it.data_dir().join(".index")).unwrap()
        }),
        ("an entry is gone", |it| {
            fs::remove_file(it.index().join("one:eth0")).unwrap()
        }),
        ("an entry lies", |it| {
            fs::remove_file(it.index().join("one:eth0")).unwrap();
            symlink("0000000100004000/10.1.0.9/1", it.index().join("one:eth0")).unwrap();
        }),
        ("an entry is garbage", |it| {
            fs::remove_file(it.index().join("one:eth0")).unwrap();
            symlink("garbage", it.index().join("one:eth0")).unwrap();
        }),
        ("an entry is an empty file", |it| {
            fs::remove_file(it.index().join("one:eth0")).unwrap();
            fs::write(it.index().join("one:eth0"), "").unwrap();
        }),
        ("an entry is a folder", |it| {
            fs::remove_file(it.index().join("one:eth0")).unwrap();
            fs::create_dir(it.index().join("one:eth0")).unwrap();
        }),
        ("the index is a file", |it| {
            fs::remove_dir_all(it.index()).unwrap();
            fs::write(it.index(), "").unwrap();
        }),
        ("the index belongs to another folder", |it| {
            fs::rename(it.folder(), it.data_dir().join("aside")).unwrap();
            fs::create_dir(it.folder()).unwrap();
            fs::copy(
                it.data_dir().join("aside/10.1.0.2"),
                it.folder().join("10.1.0.2"),
            )
            .unwrap();
        }),
        ("leftovers of a crash", |it| {
            for name in [".lease", ".cursor"] {
                fs::write(it.index().join(name), "half").unwrap();
            }
        }),
        ("the reference wrote a lease", |it| {
            it.write("10.1.0.3", "three\r\neth0")
        }),
        ("a folder in the folder", |it| {
            fs::create_dir(it.folder().join("sub")).unwrap();
            it.write("sub/10.1.0.7", "deep\r\neth0");
        }),
    ];
    for (what, change) in changes {
        let machine = Machine::new();
        let conf = wide(&machine);
        result(&machine.add("one", &conf));
        change(&machine);
        assert!(
            msg(&machine.add("one", &conf)).contains("10.1.0.2 has been allocated to one"),
            "{what}"
        );
        silent(&machine.check("one", &conf));
        let busy = machine.folder().join("10.1.0.3").exists();
        let next = if busy { "10.1.0.4/16" } else { "10.1.0.3/16" };
        assert_eq!(addresses(&machine.add("two", &conf)), [next], "{what}");
        for id in ["one", "two", "three", "deep"] {
            silent(&machine.del(id, &conf));
        }
        assert!(machine.leases().is_empty(), "{what}");
        assert!(!machine.folder().join("sub/10.1.0.7").exists(), "{what}");
        let can_be_kept = ![
            "the index is a file",
            "an entry is a folder",
            "a folder in the folder",
        ]
        .contains(&what);
        assert_eq!(is_trusted(&machine), can_be_kept, "{what}");
    }
}

#[test]
fn a_lease_that_somebody_removed_is_free() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    result(&machine.add("two", &conf));
    fs::remove_file(machine.folder().join("10.1.0.2")).unwrap();
    assert_eq!(addresses(&machine.add("one", &conf)), ["10.1.0.4/16"]);
    assert_eq!(
        entries(&machine),
        ["one:eth0: 10.1.0.4", "two:eth0: 10.1.0.3"]
    );
}

/// An edit in place does not show in the folder's time; the entry is checked against the file.
#[test]
fn a_lease_that_changed_hands_in_place_is_not_freed() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    machine.write("10.1.0.2", "two\r\neth0");
    silent(&machine.del("one", &conf));
    assert_eq!(machine.read("10.1.0.2"), "two\r\neth0");
    silent(&machine.del("two", &conf));
    assert!(machine.leases().is_empty());
}

/// A scan in the middle of ADD sees lease files that may yet go back.
#[test]
fn what_is_only_reserved_is_not_in_the_index() {
    let machine = Machine::new();
    result(&machine.add("one", &wide(&machine)));
    let owner = |id: &str| Owner {
        id: id.to_owned(),
        ifname: Some("eth0".to_owned()),
    };
    let boot_id = machine.data_dir().with_file_name("boot_id");
    let store = Store::new(
        &machine.data_dir(),
        &NetworkName::new("net").unwrap(),
        Node {
            boot_id: &boot_id,
            patience: machine.patience,
        },
    );
    let ip = "10.1.0.9".parse().unwrap();
    for keep in [false, true] {
        let mut locked = store.lock().unwrap();
        assert!(locked.reserve(ip, &owner("two")).unwrap());
        symlink("garbage", machine.index().join("three:eth0")).unwrap();
        assert_eq!(locked.held(&owner("three")).unwrap(), None);
        if keep {
            locked.keep(&owner("two")).unwrap();
        } else {
            drop(locked);
        }
        let two: &[&str] = if keep { &["two:eth0: 10.1.0.9"] } else { &[] };
        assert_eq!(entries(&machine), [&["one:eth0: 10.1.0.2"], two].concat());
        assert!(is_trusted(&machine));
    }
}

#[test]
fn no_time_is_believed_that_the_kernel_could_have_set() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    let now = SystemTime::now();
    for folder in [machine.folder(), machine.index()] {
        File::open(folder).unwrap().set_modified(now).unwrap();
    }
    assert!(!is_trusted(&machine));
}

#[test]
fn a_filesystem_of_whole_seconds_has_no_index_to_believe() {
    let machine = Machine::new();
    let conf = wide(&machine);
    coarse::during(|| {
        for id in ["one", "two"] {
            result(&machine.add(id, &conf));
            assert!(!is_trusted(&machine));
        }
        silent(&machine.del("one", &conf));
        assert!(!is_trusted(&machine));
        assert!(machine.add("two", &conf).failed);
    });
    assert_eq!(machine.leases(), ["10.1.0.3"]);
}

#[test]
fn an_owner_with_too_long_a_name_for_the_index_is_found_without_it() {
    let machine = Machine::new();
    let conf = wide(&machine);
    let long = "a".repeat(1000);
    result(&machine.add(&long, &conf));
    assert!(!is_trusted(&machine));
    assert!(msg(&machine.add(&long, &conf)).contains("10.1.0.2 has been allocated to"));
    silent(&machine.del(&long, &conf));
    assert!(machine.leases().is_empty());
}

#[test]
fn an_empty_lease_is_reclaimed_when_its_address_is_wanted() {
    for content in ["", "\r\n", "\0\0\0\0\0"] {
        let machine = Machine::new();
        let conf = wide(&machine);
        machine.write("10.1.0.2", content);
        assert_eq!(
            addresses(&machine.add("one", &conf)),
            ["10.1.0.2/16"],
            "{content:?}"
        );
        machine.write("10.1.0.9", content);
        assert_eq!(
            addresses(&machine.call("ADD", ("two", "eth0"), "IP=10.1.0.9", &conf)),
            ["10.1.0.9/16"]
        );
        assert_eq!(machine.read("10.1.0.9"), "two\r\neth0");

        // Behind others, and far behind the cursor: found when nothing else is left.
        let machine = Machine::new();
        let conf = narrow(&machine);
        machine.write("10.1.2.2", "other\r\neth0");
        machine.write("10.1.2.3", content);
        assert_eq!(
            addresses(&machine.add("one", &conf)),
            ["10.1.2.3/29"],
            "{content:?}"
        );
        assert!(machine.add("two", &conf).failed);
    }
}

#[test]
fn a_note_by_hand_reserves_an_address() {
    let machine = Machine::new();
    let mut conf = narrow(&machine);
    machine.write("10.1.2.2", "the printer");
    assert_eq!(addresses(&machine.add("one", &conf)), ["10.1.2.3/29"]);
    assert!(machine.add("two", &conf).failed);
    conf["cni.dev/valid-attachments"] = json!([]);
    silent(&machine.call("GC", ("", ""), "", &conf));
    assert_eq!(machine.read("10.1.2.2"), "the printer");
}

#[test]
fn a_lease_file_has_one_name() {
    let machine = Machine::new();
    let conf = machine.conf(
        "1.0.0",
        json!([[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "fd00::/64" }]]),
    );
    result(&machine.add("one", &conf));
    for name in ["10.1.0.2", "fd00::2"] {
        assert_eq!(
            fs::metadata(machine.folder().join(name)).unwrap().nlink(),
            1
        );
    }
}

#[test]
fn a_cursor_is_written_over_or_anew() {
    let machine = Machine::new();
    let conf = wide(&machine);
    let next = |last: &str, expected: &str| {
        machine.write("last_reserved_ip.0", last);
        result(&machine.add(&format!("after-{expected}"), &conf));
        assert_eq!(machine.read("last_reserved_ip.0"), expected);
        assert!(is_trusted(&machine));
    };
    next("10.1.0.9", "10.1.0.10");
    next("10.1.0.99", "10.1.0.100");
    next("10.1.255.254", "10.1.0.2");
    next("10.1.0.77", "10.1.0.78");
    next("10.1.7.7\n", "10.1.0.3");
    next("", "10.1.0.4");
    next(&"x".repeat(1000), "10.1.0.5");
}

#[test]
fn the_search_goes_on_behind_the_first_thousand() {
    let machine = Machine::new();
    let conf = wide(&machine);
    for number in 2..3000 {
        machine.write(
            &format!("10.1.{}.{}", number >> 8, number & 255),
            "other\r\neth0",
        );
    }
    assert_eq!(addresses(&machine.add("one", &conf)), ["10.1.11.184/16"]);
    machine.write("last_reserved_ip.0", "10.1.0.9");
    assert_eq!(addresses(&machine.add("two", &conf)), ["10.1.11.185/16"]);
    machine.write("last_reserved_ip.0", "10.1.255.254");
    fs::remove_file(machine.folder().join("10.1.8.8")).unwrap();
    machine.write("10.1.8.7", "");
    assert_eq!(addresses(&machine.add("three", &conf)), ["10.1.8.8/16"]);
}

// K02
#[test]
fn a_restart_frees_leases_only_when_nothing_else_is_left() {
    let machine = Machine::new();
    let conf = narrow(&machine);
    result(&machine.add("one", &conf));
    machine.boot(2);
    assert_eq!(
        addresses(&machine.add("two", &conf)),
        ["10.1.2.3/29"],
        "there was a free one"
    );
    assert_eq!(addresses(&machine.add("three", &conf)), ["10.1.2.2/29"]);
    assert_eq!(
        entries(&machine),
        ["three:eth0: 10.1.2.2", "two:eth0: 10.1.2.3"]
    );
    let full =
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.3";
    assert_eq!(
        msg(&machine.add("four", &conf)),
        full,
        "a lease of this boot was freed"
    );
    machine.boot(3);
    assert_eq!(addresses(&machine.add("four", &conf)).len(), 1);
    silent(&machine.del("one", &conf));
}

#[test]
fn leases_of_the_reference_count_as_of_the_boot_in_which_they_were_first_seen() {
    let machine = Machine::new();
    let conf = narrow(&machine);
    machine.write("10.1.2.2", "one\r\neth0");
    machine.write("10.1.2.3", "two");
    machine.boot(2);
    assert!(machine.add("three", &conf).failed);
    machine.boot(3);
    assert_eq!(addresses(&machine.add("three", &conf)), ["10.1.2.2/29"]);
}

/// A rebuilt index keeps the boot of a lease only if the file is still the same one.
#[test]
fn a_lease_that_was_made_again_is_of_this_boot() {
    let machine = Machine::new();
    let conf = narrow(&machine);
    result(&machine.add("one", &conf));
    result(&machine.add("two", &conf));
    machine.boot(2);
    // By the reference: a container that was started again under its old id, with its old address.
    fs::remove_file(machine.folder().join("10.1.2.2")).unwrap();
    machine.write("10.1.2.2", "one\r\neth0");
    // The kernel's clock for files has coarse steps, and no restart is as quick as this one.
    let file = File::options()
        .write(true)
        .open(machine.folder().join("10.1.2.2"))
        .unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(1))
        .unwrap();
    assert_eq!(addresses(&machine.add("three", &conf)), ["10.1.2.3/29"]);
    assert_eq!(machine.read("10.1.2.2"), "one\r\neth0");
    assert!(machine.add("four", &conf).failed);
}

// K03
#[test]
fn after_a_restart_an_owner_gets_its_addresses_back() {
    let machine = Machine::new();
    let conf = machine.conf(
        "1.0.0",
        json!([[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "fd00::/64" }]]),
    );
    machine.write("10.1.0.100", "old");
    for id in ["one", "two", "three"] {
        result(&machine.add(id, &conf));
    }
    machine.boot(2);
    assert_eq!(
        addresses(&machine.add("one", &conf)),
        ["10.1.0.2/16", "fd00::2/64"]
    );
    assert!(
        machine.add("one", &conf).failed,
        "now it is a lease of this boot"
    );
    assert_eq!(
        addresses(&machine.add("old", &conf)),
        ["10.1.0.100/16", "fd00::5/64"]
    );
    assert_eq!(machine.read("10.1.0.100"), "old\r\neth0");
    // Asked for by name it is had, too.
    let again = machine.call("ADD", ("three", "eth0"), "IP=10.1.0.4", &conf);
    assert_eq!(addresses(&again), ["10.1.0.4/16", "fd00::4/64"]);
}

#[test]
fn without_a_boot_id_nothing_is_freed() {
    let machine = Machine::new();
    let conf = narrow(&machine);
    result(&machine.add("one", &conf));
    result(&machine.add("two", &conf));
    fs::remove_file(machine.data_dir().with_file_name("boot_id")).unwrap();
    assert!(machine.add("three", &conf).failed);
    assert!(machine.add("one", &conf).failed);
    assert_eq!(machine.leases(), ["10.1.2.2", "10.1.2.3"]);
}

#[test]
fn what_cannot_be_made_is_named() {
    let machine = Machine::new();
    let mut conf = wide(&machine);
    fs::write(machine.data_dir(), "a file").unwrap();
    let error = format!("mkdir {}: ", machine.folder().display());
    for outcome in [
        machine.add("one", &conf),
        machine.del("one", &conf),
        machine.check("one", &conf),
    ] {
        assert!(
            msg(&outcome).starts_with(&error) || msg(&outcome).contains("not a directory"),
            "{}",
            msg(&outcome)
        );
    }
    conf["ipam"]["dataDir"] = "/proc/nowhere".into();
    assert_eq!(
        msg(&machine.add("one", &conf)),
        "mkdir /proc/nowhere/net: no such file or directory"
    );
}

/// Nobody has written to them, so reading one would wait for ever.
#[test]
fn pipes_are_not_waited_on() {
    let machine = Machine::new();
    let conf = narrow(&machine);
    result(&machine.add("one", &conf));
    for name in ["10.1.2.3", "pipe"] {
        let pipe = machine.folder().join(name);
        let made = Command::new("mkfifo").arg(pipe).status().unwrap();
        assert!(made.success());
    }
    // A pipe in an address's place takes it, as any file does that nobody can read.
    assert!(msg(&machine.add("two", &conf)).contains("no IP addresses available"));
    silent(&machine.check("one", &conf));
    silent(&machine.del("one", &conf));
    assert!(machine.folder().join("10.1.2.3").exists());

    // Through a link as well: the kind of a lease file is its target's.
    symlink("pipe", machine.folder().join("10.1.2.2")).unwrap();
    assert!(msg(&machine.add("two", &conf)).contains("no IP addresses available"));
    fs::remove_file(machine.folder().join("10.1.2.2")).unwrap();

    let cursor = machine.folder().join("last_reserved_ip.0");
    fs::remove_file(&cursor).unwrap();
    fs::rename(machine.folder().join("pipe"), &cursor).unwrap();
    let (code, msg, _) = failure(&machine.add("two", &conf));
    let special = format!(
        "failed to allocate for range 0: open {}: not a regular file",
        cursor.display()
    );
    assert_eq!((code, msg), (5, special));
}

#[test]
fn a_lease_in_a_folder_below_is_its_owner_s() {
    let machine = Machine::new();
    let conf = wide(&machine);
    result(&machine.add("one", &conf));
    fs::create_dir(machine.folder().join("sub")).unwrap();
    machine.write("sub/10.1.2.44", "deep\r\neth0");
    let (code, msg, details) = failure(&machine.add("deep", &conf));
    let duplicate = "failed to allocate for range 0: 10.1.2.44 has been allocated to deep, \
                     duplicate allocation is not allowed";
    assert_eq!((code, msg.as_str()), (100, duplicate));
    let file = machine.folder().join("sub/10.1.2.44").display().to_string();
    assert!(
        details.starts_with(&format!("`{file}` is the lease; ")),
        "{details}"
    );
    silent(&machine.check("deep", &conf));
    silent(&machine.del("deep", &conf));
    assert!(!machine.folder().join("sub/10.1.2.44").exists());
    assert_eq!(addresses(&machine.add("deep", &conf)), ["10.1.0.3/16"]);
}
