//! One call at a time: the contenders, and what the case varies, take turns.

use std::mem;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failure;
use crate::arguments::Arguments;
use crate::call::Call;
use crate::case::{self, Case, Setting};
use crate::contender::{Attachment, Contender, Role};
use crate::node::{Node, Pod};
use crate::report::{Row, Verb};
use crate::store;
use crate::trace::{self, Traced};
use crate::witness;

/// Runs the case; a row for every setting, contender and verb.
pub(crate) fn measure(
    node: &Node,
    case: &Case,
    contenders: &[Contender],
    arguments: &Arguments,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    for setting in &case.settings {
        for contender in contenders {
            match contender.obstacle(case) {
                Some(why) if contender.role != Role::Floor => {
                    rows.push(Row::absent(case, setting, contender, why))
                }
                Some(_) => {}
                None => entries.push(Entry::new(node, case, setting, contender)?),
            }
        }
    }
    // The first time is no measurement: a bridge is made, an index built, a file read from disk.
    entries.iter_mut().for_each(Entry::warm_up);
    take_turns(&mut entries, case, arguments);
    entries.iter_mut().for_each(Entry::watch);
    rows.extend(entries.into_iter().flat_map(Entry::into_rows));
    Ok(rows)
}

/// Rounds until the time is over. Who is slow sits out so many that all get the same time in the end.
fn take_turns(entries: &mut [Entry<'_>], case: &Case, arguments: &Arguments) {
    let (start, budget, count) = (Instant::now(), arguments.budget(case.budget), entries.len());
    let at_least = if arguments.quick { 2 } else { 5 };
    for round in 0.. {
        let elapsed = start.elapsed();
        let is_due = |entry: &Entry<'_>| match arguments.rounds {
            _ if entry.failed.is_some() => false,
            Some(rounds) => entry.rounds < rounds,
            None => {
                entry.rounds < at_least
                    || (elapsed < budget && entry.spent * count as u32 <= elapsed)
            }
        };
        let over = arguments.rounds.is_some() || elapsed >= budget;
        if entries
            .iter()
            .all(|entry| !is_due(entry) && (over || entry.failed.is_some()))
        {
            return;
        }
        for position in shuffled(count, round) {
            let entry = &mut entries[position];
            if is_due(entry) {
                entry.turn();
            }
        }
    }
}

/// The order of a round: each time another one, so that nobody always follows the same one, whose traces the kernel is
/// still sweeping up. (A link that is taken apart waits for the kernel's next beat, and who is in step waits less.)
fn shuffled(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = round as u64;
    for last in (1..count).rev() {
        // The steps of SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
    order
}

/// Milliseconds, a figure a round.
#[derive(Default)]
struct Samples {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Samples {
    fn push(&mut self, (wall, cpu): (Duration, Duration)) {
        self.wall.push(wall.as_secs_f64() * 1e3);
        self.cpu.push(cpu.as_secs_f64() * 1e3);
    }
}

/// Runs one call and gives back what it printed.
type Runner<'r, E> = dyn FnMut(&E, Part, Call) -> Result<Vec<u8>, Failure> + 'r;

/// Which call of a round it is: a verb is a call for each plugin of the list.
#[derive(Clone, Copy)]
struct Part {
    verb: Verb,
    is_last: bool,
}

/// One contender in one setting.
struct Entry<'a> {
    case: &'a Case,
    setting: &'a Setting,
    contender: &'a Contender,
    pod: Pod,
    confs: Vec<Value>,
    /// What the first ADD is handed.
    result_before: Option<Value>,
    rounds: usize,
    spent: Duration,
    samples: Vec<(Verb, Samples)>,
    traced: Vec<(Verb, Traced)>,
    failed: Option<String>,
    /// Why its CHECK is left out.
    no_check: Option<String>,
}

impl<'a> Entry<'a> {
    fn new(
        node: &Node,
        case: &'a Case,
        setting: &'a Setting,
        contender: &'a Contender,
    ) -> Result<Entry<'a>, Failure> {
        let number = node.next_number()?;
        let confs = case.network.confs(number, &node.data)?;
        let pod = node.pod()?;
        let result_before = case.network.result_before(number, &pod.path());
        if result_before.is_some() {
            node.add_bridge(&case::bridge_name(number), &case::gateway(number))?;
        }
        store::fill(
            &node.data,
            &case::network_name(number),
            number,
            setting.leases,
        )?;
        let verbs = match contender.role {
            Role::Floor => case.floor.to_vec(),
            Role::Ours | Role::Executed | Role::Reference | Role::Peer => {
                vec![
                    Verb::Start,
                    Verb::Add,
                    Verb::Check,
                    Verb::Del,
                    Verb::DelAgain,
                ]
            }
        };
        Ok(Entry {
            case,
            setting,
            contender,
            pod,
            confs,
            result_before,
            rounds: 0,
            spent: Duration::ZERO,
            samples: verbs
                .into_iter()
                .map(|verb| (verb, Samples::default()))
                .collect(),
            traced: Vec::new(),
            failed: None,
            no_check: None,
        })
    }

    fn warm_up(&mut self) {
        let mut no_check = None;
        let done = self.verbs(&mut |entry, Part { verb, is_last }, call| {
            let stdout = match call.run() {
                Ok(done) => done.stdout,
                // The reference's bridge refuses routes that its own ADD has made, its portmap misses rules for IPv6
                // where there is only IPv4; the rest can be compared all the same.
                Err(error) if verb == Verb::Check && !entry.contender.is_ours() => {
                    no_check = Some(error.to_string());
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            if !is_last {
                return Ok(stdout);
            }
            let attached = matches!(verb, Verb::Add | Verb::Check);
            let seen = witness::verify(entry.case.network, &entry.pod, attached);
            seen.map(|()| stdout)
                .map_err(|error| format!("after {verb}, {error}").into())
        });
        self.failed = done.err().map(|error| error.to_string());
        self.no_check = no_check;
        if self.no_check.is_some() {
            self.samples.retain(|(verb, _)| *verb != Verb::Check);
        }
    }

    fn turn(&mut self) {
        let start = Instant::now();
        let (mut times, mut sum) = (Vec::new(), (Duration::ZERO, Duration::ZERO));
        match self.verbs(&mut |_, part, call| {
            let done = call.run()?;
            sum = (sum.0 + done.time, sum.1 + done.cpu);
            if part.is_last {
                times.push(mem::take(&mut sum));
            }
            Ok(done.stdout)
        }) {
            Ok(()) => {
                for ((_, samples), time) in self.samples.iter_mut().zip(times) {
                    samples.push(time);
                }
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
        self.rounds += 1;
        self.spent += start.elapsed();
    }

    /// One more round under trace. How the others' memory grows with their leases is not worth the seconds it takes.
    fn watch(&mut self) {
        let is_first = self
            .case
            .settings
            .first()
            .is_some_and(|it| it.label == self.setting.label);
        if self.failed.is_some() || !(is_first || self.contender.is_ours()) {
            return;
        }
        let (mut seen, mut sum) = (Vec::new(), Traced::default());
        let done = self.verbs(&mut |entry, part, call| {
            let traced = trace::run(&call, |program| entry.contender.owns(program))?;
            sum.add(&traced);
            if part.is_last {
                seen.push((part.verb, mem::take(&mut sum)));
            }
            Ok(traced.stdout)
        });
        if let Err(error) = done {
            eprintln!("cni-bench: {}: {error}", self.contender.name);
        }
        self.traced = seen;
    }

    /// All verbs in their order, done by `run`, which gives back what the call printed.
    fn verbs(&self, run: &mut Runner<'_, Self>) -> Result<(), Failure> {
        if self.contender.role == Role::Floor {
            for verb in self.case.floor.iter().copied() {
                let word = verb.to_string().to_lowercase();
                let part = Part {
                    verb,
                    is_last: true,
                };
                run(
                    self,
                    part,
                    self.contender.floor_call(&word, &self.pod, "veth-floor"),
                )?;
            }
            return Ok(());
        }
        self.start(run)?;
        // As a runtime does: every plugin's ADD gets the result of the one before, and all that follows the last one's.
        let result = self.add(run)?;
        for (verb, command) in [
            (Verb::Check, "CHECK"),
            (Verb::Del, "DEL"),
            (Verb::DelAgain, "DEL"),
        ] {
            if verb == Verb::Check && self.no_check.is_some() {
                continue;
            }
            let mut order: Vec<&Value> = self.confs.iter().collect();
            if command == "DEL" {
                order.reverse();
            }
            for (part, conf) in parts(verb, order) {
                run(self, part, self.call(command, conf, Some(&result)))?;
            }
        }
        Ok(())
    }

    fn start(&self, run: &mut Runner<'_, Self>) -> Result<(), Failure> {
        for (part, conf) in parts(Verb::Start, self.confs.iter().collect()) {
            run(self, part, self.call("VERSION", conf, None))?;
        }
        Ok(())
    }

    /// The last plugin's result.
    fn add(&self, run: &mut Runner<'_, Self>) -> Result<Value, Failure> {
        let mut result = self.result_before.clone();
        for (part, conf) in parts(Verb::Add, self.confs.iter().collect()) {
            let stdout = run(self, part, self.call("ADD", conf, result.as_ref()))?;
            result = Some(
                serde_json::from_slice(&stdout)
                    .map_err(|error| format!("ADD printed no result: {error}"))?,
            );
        }
        Ok(result.unwrap_or_default())
    }

    fn call(&self, command: &str, conf: &Value, result: Option<&Value>) -> Call {
        let id = format!("{:064x}", 0xbe9c_0000 + self.rounds);
        let mut conf = conf.clone();
        if let Some(result) = result {
            conf["prevResult"] = result.clone();
        }
        self.contender.call(
            self.case,
            command,
            &Attachment {
                id: &id,
                pod: &self.pod,
                conf: &conf,
            },
        )
    }

    fn into_rows(self) -> Vec<Row> {
        if let Some(why) = self.failed {
            return vec![Row::failed(self.case, self.setting, self.contender, why)];
        }
        let absent = |why| Row {
            verb: Verb::Check,
            ..Row::absent(self.case, self.setting, self.contender, why)
        };
        let absent = self.no_check.map(absent);
        let row = |(verb, samples): (Verb, Samples)| {
            let traced = self
                .traced
                .iter()
                .find(|(it, _)| *it == verb)
                .map(|(_, traced)| traced.clone());
            let per_second = 1e3 * samples.wall.len() as f64 / samples.wall.iter().sum::<f64>();
            Row {
                traced,
                per_second,
                cpu: samples.cpu,
                ..Row::new(self.case, self.setting, self.contender, verb, samples.wall)
            }
        };
        self.samples.into_iter().map(row).chain(absent).collect()
    }
}

/// The calls of one verb, a plugin each.
fn parts(verb: Verb, confs: Vec<&Value>) -> impl Iterator<Item = (Part, &Value)> {
    let count = confs.len();
    confs.into_iter().enumerate().map(move |(position, conf)| {
        let is_last = position + 1 == count;
        (Part { verb, is_last }, conf)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn everybody_follows_everybody_alike() {
        let mut followers: HashMap<(usize, usize), usize> = HashMap::new();
        for round in 0..1000 {
            let order = shuffled(4, round);
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3]);
            for pair in order.windows(2) {
                *followers.entry((pair[0], pair[1])).or_default() += 1;
            }
        }
        assert_eq!(followers.len(), 12);
        assert!(followers.values().all(|count| (200..300).contains(count)));
    }
}
