//! Many pods at once: what a node's start looks like.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::Failure;
use crate::arguments::Arguments;
use crate::call::Call;
use crate::case::{Case, Setting};
use crate::contender::{Attachment, Contender, Role};
use crate::node::{Node, Pod};
use crate::report::{Row, Verb};
use crate::statistics::median;

/// Runs the case; two rows for every setting and contender.
pub(crate) fn measure(
    node: &Node,
    case: &Case,
    contenders: &[Contender],
    arguments: &Arguments,
) -> Result<Vec<Row>, Failure> {
    let count = if arguments.quick { 32 } else { 64 };
    let pods = (0..count)
        .map(|_| node.pod())
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let mut crowds = Vec::new();
    for setting in &case.settings {
        for contender in contenders {
            match contender.obstacle(case) {
                Some(why) => rows.push(Row::absent(case, setting, contender, why)),
                None => {
                    let confs = case.network.confs(node.next_number()?, &node.data)?;
                    let [conf] = <[Value; 1]>::try_from(confs)
                        .map_err(|_| "many pods at once have one plugin each")?;
                    crowds.push(Crowd {
                        case,
                        setting,
                        contender,
                        conf,
                        times: [(); 2].map(|()| Times::default()),
                        failed: None,
                    });
                }
            }
        }
    }
    let (start, budget) = (Instant::now(), arguments.budget(case.budget));
    for round in 0.. {
        let over = match arguments.rounds {
            Some(rounds) => round >= rounds,
            // One at least, and no other unless it fits.
            None => round > 0 && start.elapsed().mul_f64(1.0 + 1.0 / round as f64) > budget,
        };
        if over {
            break;
        }
        let count = crowds.len();
        for position in 0..count {
            crowds[(position + round) % count].round(&pods);
        }
    }
    rows.extend(crowds.into_iter().flat_map(Crowd::into_rows));
    Ok(rows)
}

/// One contender in one setting.
struct Crowd<'a> {
    case: &'a Case,
    setting: &'a Setting,
    contender: &'a Contender,
    conf: Value,
    /// Of ADD and of DEL.
    times: [Times; 2],
    failed: Option<String>,
}

#[derive(Default)]
struct Times {
    /// Milliseconds of each call.
    samples: Vec<f64>,
    /// Calls a second, a figure a round.
    per_second: Vec<f64>,
}

impl Crowd<'_> {
    /// ADD for all pods, then DEL for all, so many at a time.
    fn round(&mut self, pods: &[Pod]) {
        if self.failed.is_some() {
            return;
        }
        let mut results = vec![Value::Null; pods.len()];
        for (position, command) in ["ADD", "DEL"].into_iter().enumerate() {
            let calls = pods
                .iter()
                .zip(&results)
                .enumerate()
                .map(|(number, (pod, result))| self.call(command, number, pod, result));
            let start = Instant::now();
            match all(calls.collect(), self.setting.at_once) {
                Ok(done) => {
                    let times = &mut self.times[position];
                    times
                        .per_second
                        .push(done.len() as f64 / start.elapsed().as_secs_f64());
                    times.samples.extend(done.iter().map(|(time, _)| time));
                    results = done.into_iter().map(|(_, result)| result).collect();
                }
                Err(error) => self.failed = Some(error.to_string()),
            }
        }
    }

    fn call(&self, command: &str, number: usize, pod: &Pod, result: &Value) -> Call {
        if self.contender.role == Role::Floor {
            return self.contender.floor_call(
                &command.to_lowercase(),
                pod,
                &format!("veth-floor{number}"),
            );
        }
        let mut conf = self.conf.clone();
        if !result.is_null() {
            conf["prevResult"] = result.clone();
        }
        let id = format!("{:064x}", 0xbe9c_0000 + number);
        self.contender.call(
            self.case,
            command,
            &Attachment {
                id: &id,
                pod,
                conf: &conf,
            },
        )
    }

    fn into_rows(self) -> Vec<Row> {
        if let Some(why) = self.failed {
            return vec![Row::failed(self.case, self.setting, self.contender, why)];
        }
        let row = |(verb, times): (Verb, Times)| Row {
            per_second: median(&times.per_second).unwrap_or_default(),
            ..Row::new(self.case, self.setting, self.contender, verb, times.samples)
        };
        [Verb::Add, Verb::Del]
            .into_iter()
            .zip(self.times)
            .map(row)
            .collect()
    }
}

/// Runs all calls, `at_once` at a time; the milliseconds that each took and the JSON that it printed, in their order.
fn all(calls: Vec<Call>, at_once: usize) -> Result<Vec<(f64, Value)>, Failure> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<(), Failure> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(call) = calls.get(number) else {
                return Ok(());
            };
            let it = call.run()?;
            let result = if it.stdout.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&it.stdout)?
            };
            let mut done = done.lock().map_err(|_| "another worker has panicked")?;
            done.push((number, it.time.as_secs_f64() * 1e3, result));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        // All of them, so that nothing runs on behind an error.
        let ends: Vec<_> = workers
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect();
        ends.into_iter().collect::<Result<(), Failure>>()
    })?;
    let mut done = done.into_inner().map_err(|_| "a worker has panicked")?;
    done.sort_by_key(|(number, _, _)| *number);
    Ok(done
        .into_iter()
        .map(|(_, time, result)| (time, result))
        .collect())
}
