//! What was measured, as a table for people and as JSON for programs.

use std::fmt::{self, Write};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::Failure;
use crate::case::{Case, Setting};
use crate::contender::{Contender, Role};
use crate::goals;
use crate::node::Node;
use crate::statistics::{median, quantile};
use crate::trace::Traced;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A process that does nothing; of a plugin, VERSION.
    Start,
    Add,
    Check,
    Del,
    /// A DEL that finds nothing left.
    DelAgain,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Start => "start",
            Verb::Add => "ADD",
            Verb::Check => "CHECK",
            Verb::Del => "DEL",
            Verb::DelAgain => "DEL again",
        })
    }
}

/// One contender's verb in one setting of one case.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) setting: &'static str,
    pub(crate) contender: String,
    pub(crate) role: Role,
    pub(crate) verb: Verb,
    /// Milliseconds.
    pub(crate) samples: Vec<f64>,
    /// Milliseconds on processors; empty where it cannot be told apart.
    pub(crate) cpu: Vec<f64>,
    pub(crate) per_second: f64,
    pub(crate) traced: Option<Traced>,
    pub(crate) outcome: Outcome,
}

/// Why a row has samples or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Measured,
    /// It lacks what the case needs.
    Absent(String),
    /// A call failed.
    Failed(String),
}

impl Row {
    pub(crate) fn new(
        case: &Case,
        setting: &Setting,
        contender: &Contender,
        verb: Verb,
        samples: Vec<f64>,
    ) -> Row {
        Row {
            case: case.name,
            setting: setting.label,
            contender: contender.name.clone(),
            role: contender.role,
            verb,
            samples,
            cpu: Vec::new(),
            per_second: 0.0,
            traced: None,
            outcome: Outcome::Measured,
        }
    }

    pub(crate) fn absent(
        case: &Case,
        setting: &Setting,
        contender: &Contender,
        why: String,
    ) -> Row {
        Row {
            outcome: Outcome::Absent(why),
            ..Row::new(case, setting, contender, Verb::Add, Vec::new())
        }
    }

    pub(crate) fn failed(
        case: &Case,
        setting: &Setting,
        contender: &Contender,
        why: String,
    ) -> Row {
        Row {
            outcome: Outcome::Failed(why),
            ..Row::new(case, setting, contender, Verb::Add, Vec::new())
        }
    }

    fn is_like(&self, other: &Row) -> bool {
        (self.case, self.setting, self.verb) == (other.case, other.setting, other.verb)
    }
}

/// Everything measured so far.
pub(crate) struct Report {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) rows: Vec<Row>,
    /// Of the machine, before anything was measured.
    load: f64,
}

impl Report {
    pub(crate) fn new(contenders: &[Contender]) -> Report {
        Report {
            contenders: contenders.to_vec(),
            rows: Vec::new(),
            load: load(),
        }
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Did a call fail of what is built here?
    pub(crate) fn ours_failed(&self) -> bool {
        let failed = |row: &&Row| matches!(row.outcome, Outcome::Failed(_));
        self.rows
            .iter()
            .filter(failed)
            .any(|row| matches!(row.role, Role::Ours | Role::Executed | Role::Floor))
    }

    /// The rows of a case and verb by a role, in order.
    pub(crate) fn rows_of<'a>(
        &'a self,
        case: &'a str,
        verb: Verb,
        role: Role,
    ) -> impl Iterator<Item = &'a Row> {
        self.rows
            .iter()
            .filter(move |row| row.case == case && row.verb == verb && row.role == role)
    }

    /// The machine, and who takes part.
    pub(crate) fn header(&self, node: &Node) -> String {
        let (kernel, processors) = machine();
        let mut text = format!(
            "Linux {kernel}, {processors} processors, data in {}\n",
            node.data.display()
        );
        if self.is_busy() {
            let _ = writeln!(
                text,
                "The machine is busy (load {:.1}): only a quiet one gives figures to quote",
                self.load
            );
        }
        for contender in self.contenders.iter().filter(|it| it.role != Role::Floor) {
            let _ = writeln!(text, "{:<16} {}", contender.name, contender.about);
        }
        text
    }

    /// Did others work when this began?
    fn is_busy(&self) -> bool {
        self.load > 1.0
    }

    /// The table of one case.
    pub(crate) fn section(&self, case: &Case, rows: &[Row]) -> String {
        let mut text = format!("\n{}\n", case.title);
        let _ = writeln!(
            text,
            "  {:<10} {:<11} {:<16} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>11} {:>8} {:>6} {:>6}",
            "",
            "",
            "ms:",
            "p50",
            "p90",
            "p99",
            "cpu",
            "calls",
            "per s",
            "reference",
            "floor",
            "MiB",
            "procs"
        );
        for verb in [
            Verb::Start,
            Verb::Add,
            Verb::Check,
            Verb::Del,
            Verb::DelAgain,
        ] {
            for row in rows.iter().filter(|row| row.verb == verb) {
                text.push_str(&line(row, rows));
            }
        }
        text
    }

    /// The goals, and which are met.
    pub(crate) fn verdicts(&self) -> String {
        let doubt = if self.is_busy() {
            ", on a busy machine: measure again"
        } else {
            ""
        };
        let mut text = format!("\nGoals{doubt}\n");
        for verdict in goals::all(self) {
            let _ = writeln!(
                text,
                "  {:<8} {:<62} {}",
                verdict.word(),
                verdict.goal,
                verdict.measured
            );
        }
        text
    }

    pub(crate) fn to_json(&self) -> Result<String, Failure> {
        let (kernel, processors) = machine();
        let contenders = self
            .contenders
            .iter()
            .map(|it| json!({ "name": it.name, "about": it.about }));
        let goals = goals::all(self);
        let goals = goals
            .iter()
            .map(|it| json!({ "goal": it.goal, "measured": it.measured, "verdict": it.word() }));
        let document = json!({
            "machine": { "kernel": kernel, "processors": processors, "load": self.load },
            "contenders": contenders.collect::<Vec<_>>(),
            "goals": goals.collect::<Vec<_>>(),
            "rows": self.rows.iter().map(to_json).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&document)?)
    }
}

fn line(row: &Row, rows: &[Row]) -> String {
    let start = format!(
        "  {:<10} {:<11} {:<16}",
        row.verb.to_string(),
        row.setting,
        row.contender
    );
    match &row.outcome {
        Outcome::Absent(why) => return format!("{start}      n/a: {why}\n"),
        Outcome::Failed(why) => return format!("{start}   FAILED: {why}\n"),
        Outcome::Measured => {}
    }
    let part = |part| quantile(&row.samples, part).map_or(String::new(), |ms| format!("{ms:.2}"));
    let other = |role| {
        rows.iter()
            .find(|it| it.role == role && it.is_like(row))
            .and_then(|it| median(&it.samples))
    };
    let own = median(&row.samples);
    let versus = |role: Role| own.zip(other(role)).filter(|_| row.role != role);
    let faster = versus(Role::Reference).map(|(own, other)| format!("{:.1} x", other / own));
    let slower = versus(Role::Floor).map(|(own, other)| format!("{:.2} x", own / other));
    let traced = row.traced.as_ref();
    format!(
        "{start} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7.0} {:>11} {:>8} {:>6} {:>6}\n",
        part(0.5),
        part(0.9),
        part(0.99),
        median(&row.cpu).map_or(String::new(), |ms| format!("{ms:.2}")),
        row.samples.len(),
        row.per_second,
        faster.unwrap_or_default(),
        slower.unwrap_or_default(),
        traced.map_or(String::new(), |it| format!("{:.1}", it.kib as f64 / 1024.0)),
        traced.map_or(String::new(), |it| it.processes.to_string()),
    )
}

fn to_json(row: &Row) -> Value {
    let rounded = |ms: f64| (ms * 1e3).round() / 1e3;
    let mut object = json!({
        "case": row.case,
        "setting": row.setting,
        "contender": row.contender,
        "verb": row.verb.to_string(),
    });
    match &row.outcome {
        Outcome::Absent(why) => object["absent"] = why.as_str().into(),
        Outcome::Failed(why) => object["failed"] = why.as_str().into(),
        Outcome::Measured => {
            for (key, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
                object[key] = quantile(&row.samples, part).map(rounded).into();
            }
            object["cpuP50"] = median(&row.cpu).map(rounded).into();
            object["perSecond"] = rounded(row.per_second).into();
            object["milliseconds"] = row
                .samples
                .iter()
                .copied()
                .map(rounded)
                .collect::<Vec<_>>()
                .into();
        }
    }
    if let Some(traced) = &row.traced {
        object["memoryKiB"] = traced.kib.into();
        object["processes"] = traced.processes.into();
        object["threads"] = traced.threads.into();
    }
    object
}

/// The kernel's release and the number of processors.
fn machine() -> (String, usize) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (
        kernel.trim().to_owned(),
        thread::available_parallelism().map_or(1, |count| count.get()),
    )
}

/// How many tasks wanted a processor in the last minute, on average.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or_default()
}
