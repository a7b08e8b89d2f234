//! A question, and three candidates: ours, and two releases of the reference.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cni::{Plugins, path, with};
use tests::differences::{DIFFERENCES, Deviation, History, Stage};
use tests::names::Names;
use tests::state::{Lines, State, flatten, without_details};
use tests::{Node, Outcome, Pod, Release};

use super::case::{Case, Step, Which};

/// What came of a case.
#[derive(Default)]
pub(super) struct Report {
    /// Ids of the reasons that were needed, and for which release.
    pub(super) reasons: Vec<(&'static str, Release)>,
    /// What has no reason, for a person; empty if all has one.
    pub(super) text: String,
}

/// Ours and the references, each on a node of its own, at the same time.
pub(super) fn examine(case: &Case) -> Report {
    let seats = case.releases.iter().copied().map(Some).chain([None]);
    let mut sheets: Vec<Vec<Sheet>> = thread::scope(|scope| {
        let seats: Vec<_> = seats
            .map(|whose| scope.spawn(move || sit(case, whose)))
            .collect();
        let joined = seats.into_iter().map(|it| it.join());
        joined
            .map(|it| it.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let ours = sheets.pop().unwrap();
    let mut report = Report::default();
    for (release, theirs) in case.releases.iter().zip(&sheets) {
        report.compare(case, *release, &ours, theirs);
    }
    if !report.text.is_empty() {
        report.text = format!("{}: {}\n{}", case.name, case.conf, report.text);
    }
    report
}

impl Report {
    fn compare(&mut self, case: &Case, release: Release, ours: &[Sheet], theirs: &[Sheet]) {
        let mut history = History::default();
        for ((step, ours), theirs) in case.steps.iter().zip(ours).zip(theirs) {
            step.note(&mut history, ours, theirs);
            let pair = Pair {
                case,
                release,
                history: &history,
                ours,
                theirs,
            };
            let unexplained = pair.compare(&mut self.reasons);
            if !unexplained.is_empty() {
                let lines = unexplained.join("\n    ");
                let text = format!("  {release:?}, after {step:?}:\n    {lines}\n");
                self.text.push_str(&text);
            }
        }
    }
}

impl Step {
    fn note(self, history: &mut History, ours: &Sheet, theirs: &Sheet) {
        match self {
            Step::Add(which) | Step::Move(which) => {
                history.verb = "ADD";
                let pod = &mut history.pods[which as usize];
                *pod = match (ours.succeeded || theirs.succeeded, *pod) {
                    (true, Stage::Away | Stage::Refused) => Stage::Attached,
                    (true, Stage::Attached | Stage::Again) => Stage::Again,
                    (false, Stage::Away | Stage::Refused) => Stage::Refused,
                    (false, before) => before,
                };
                history.attached |= *pod != Stage::Refused;
            }
            Step::Check(_) => history.verb = "CHECK",
            Step::Status => history.verb = "STATUS",
            Step::Gc => history.verb = "GC",
            Step::Del(which) | Step::DelGone(which) => {
                history.verb = "DEL";
                history.pods[which as usize] = Stage::Away;
            }
            Step::DelWithoutNetns(_) => {
                history.verb = "DEL";
                history.without_netns = true;
            }
        }
    }
}

/// What one candidate said after a step, and what there was then.
struct Sheet {
    succeeded: bool,
    answer: String,
    lines: Lines,
}

/// What ours and one release said after a step.
struct Pair<'p> {
    case: &'p Case,
    release: Release,
    history: &'p History,
    ours: &'p Sheet,
    theirs: &'p Sheet,
}

impl Pair<'_> {
    /// The lines that one has and the other has not, and that no reason explains.
    fn compare(&self, reasons: &mut Vec<(&'static str, Release)>) -> Vec<String> {
        let (ours, theirs) = (self.ours, self.theirs);
        let only_ours = only(ours, theirs).into_iter().map(|it| (true, it));
        let only_theirs = only(theirs, ours).into_iter().map(|it| (false, it));
        let mut unexplained = Vec::new();
        for (is_ours, line) in only_theirs.chain(only_ours) {
            let other = if is_ours { theirs } else { ours };
            let deviation = Deviation {
                plugin: self.case.plugin,
                conf: &self.case.conf,
                history: self.history,
                ours: is_ours,
                answers: [&ours.answer, &theirs.answer],
                line,
                other: &other.lines,
            };
            let mut holding = DIFFERENCES
                .iter()
                .filter(|it| it.from.contains(&self.release));
            match holding.find(|it| (it.explains)(&deviation)) {
                Some(reason) => reasons.push((reason.id, self.release)),
                None => unexplained.push(format!("{} {line}", if is_ours { '+' } else { '-' })),
            }
        }
        unexplained
    }
}

fn only<'s>(one: &'s Sheet, other: &'s Sheet) -> Vec<&'s str> {
    let lines = one.lines.difference(&other.lines).map(String::as_str);
    without_details(&lines.collect::<Vec<_>>())
}

/// A candidate at work on a fresh node.
struct Candidate<'c> {
    case: &'c Case,
    node: Node,
    /// A release of the reference; ours if none.
    whose: Option<Release>,
    pods: [Pod; 2],
    /// What ADD printed last for each.
    results: [Value; 2],
    /// How the addresses of each end, where nobody but the configuration gives them.
    ends: [&'static str; 2],
    names: Names,
}

fn sit(case: &Case, whose: Option<Release>) -> Vec<Sheet> {
    let node = Node::with(&[]).unwrap();
    let mut candidate = Candidate {
        case,
        pods: ["one", "two"].map(|id| {
            let mut pod = node.pod();
            pod.id = id.into();
            if !case.patient {
                pod.set_sysctl("net/ipv6/conf/default/dad_transmits", "0");
            }
            pod
        }),
        node,
        whose,
        results: [Value::Null, Value::Null],
        ends: ["2", "3"],
        names: Names::default(),
    };
    for command in &case.before {
        candidate.node.run("sh", &["-ec", command]);
    }
    case.steps.iter().map(|it| candidate.take(*it)).collect()
}

impl Candidate<'_> {
    fn take(&mut self, step: Step) -> Sheet {
        let outcome = match step {
            Step::Add(which) => self.add(which),
            Step::Move(which) => {
                self.ends[which as usize] = "4";
                self.add(which)
            }
            Step::Check(which) => {
                let result = self.results[which as usize].clone();
                let conf = with(&self.conf(which), "prevResult", result);
                self.call("CHECK", which, &conf, None)
            }
            Step::Status => self
                .plugins()
                .status(self.case.plugin, &self.conf(Which::One)),
            Step::Gc => {
                let valid = [&self.pods[0], &self.pods[1]];
                let conf = self.conf(Which::One);
                self.plugins().gc(self.case.plugin, &conf, &valid)
            }
            Step::Del(which) => self.call("DEL", which, &self.conf(which), None),
            Step::DelWithoutNetns(which) => self.call("DEL", which, &self.conf(which), Some("")),
            Step::DelGone(which) => {
                self.destroy(which);
                let gone = self.node.gone();
                self.call("DEL", which, &self.conf(which), Some(&gone))
            }
        };
        self.sheet(&outcome)
    }

    fn add(&mut self, which: Which) -> Outcome {
        let outcome = self.call("ADD", which, &self.conf(which), None);
        if outcome.status.success() {
            self.results[which as usize] = outcome.result();
        }
        outcome
    }

    fn sheet(&mut self, outcome: &Outcome) -> Sheet {
        let State { names, mut lines } = self.state();
        self.names = names;
        let folder = self.whose.map_or_else(path, Release::path);
        self.names.learn(&folder.display().to_string(), "CNI_PATH");
        let mut plain = self.names.plain(&outcome.stdout);
        if !outcome.status.success() {
            plain = self.without_ends(plain); // whose cable it was is not known any more where it was undone
        }
        lines.insert(format!("answer status: {}", outcome.status));
        let object: Option<Value> = serde_json::from_str(&plain).ok();
        let answer = match &object {
            Some(error) if !outcome.status.success() => {
                error["msg"].as_str().unwrap_or_default().to_owned()
            }
            Some(_) | None => plain.clone(),
        };
        if outcome.status.success() || object.is_none() {
            lines.insert(format!("answer layout: {plain:?}"));
        }
        let mut leaves = Vec::new();
        flatten("", &object.unwrap_or(json!({})), &mut leaves);
        let told = leaves.iter().filter(|it| !it.0.is_empty());
        lines.extend(told.map(|(key, value)| format!("answer {key}: {value}")));
        Sheet {
            succeeded: outcome.status.success(),
            answer,
            lines,
        }
    }

    /// Ours has its ports up when it returns. What the kernel has yet to tell of other links, and what the reference does
    /// not wait for, is given time.
    fn state(&self) -> State {
        const PATIENCE: Duration = Duration::from_secs(5);
        let pods = match self.case.plugin {
            "portmap" => Vec::new(), // which never touches them
            _ => self.case.pods().map(|it| &self.pods[it as usize]).collect(),
        };
        if self.case.plugin == "host-local" {
            return State::of_store(&self.node, &pods);
        }
        let is_late = |it: &String| {
            let of_ours = self.whose.is_none() && it.starts_with("host ");
            !of_ours && it.contains("NO-CARRIER") && it.contains("LOWER_UP")
        };
        let start = Instant::now();
        loop {
            let state = State::of(&self.node, &pods);
            if !state.lines.iter().any(is_late) || start.elapsed() > PATIENCE {
                return state;
            }
        }
    }

    fn without_ends(&self, text: String) -> String {
        let ends = self
            .pods
            .iter()
            .map(|it| format!("VETH-{}-{}", it.id, it.ifname));
        ends.fold(text, |text, end| text.replace(&end, "VETH"))
    }

    /// What is configured; the reference of 1.1.1 is given 1.0.0 for the version it does not know.
    fn conf(&self, which: Which) -> Value {
        let mut conf = self.case.conf.clone();
        if let Some(mappings) = conf["runtimeConfig"]["portMappings"].as_array_mut() {
            for port in mappings.iter_mut().filter_map(|it| it.get_mut("hostPort")) {
                let its_own = port.as_u64().map(|it| it + 1000 * which as u64);
                *port = its_own.map_or(port.take(), Value::from);
            }
        }
        let mut text = conf.to_string().replace('@', self.ends[which as usize]);
        if self.whose == Some(Release::V1_1_1) {
            text = text.replace("\"cniVersion\":\"1.1.0\"", "\"cniVersion\":\"1.0.0\"");
        }
        serde_json::from_str(&text).unwrap()
    }

    fn call(&self, verb: &str, which: Which, conf: &Value, netns: Option<&str>) -> Outcome {
        let mut call = self
            .plugins()
            .call(self.case.plugin, verb)
            .pod(&self.pods[which as usize])
            .conf(conf);
        if let Some(netns) = netns {
            call = call.env("CNI_NETNS", netns);
        }
        for (name, value) in &self.case.env {
            call = call.env(name, value);
        }
        call.run()
    }

    fn plugins(&self) -> Plugins<'_> {
        match self.whose {
            Some(release) => self.node.reference(release).unwrap(),
            None => self.node.plugins(),
        }
    }

    /// Takes the pod's namespace away and waits for the kernel to take down what was in it.
    fn destroy(&mut self, which: Which) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let fresh = self.node.pod();
        let pod = std::mem::replace(&mut self.pods[which as usize], fresh);
        let ports = self.node.links().len();
        let had_port = pod.links().contains(&pod.ifname) && matches!(self.case.plugin, "bridge");
        self.pods[which as usize] = self.node.destroy(pod);
        let start = Instant::now();
        while had_port && self.node.links().len() == ports {
            assert!(start.elapsed() < PATIENCE, "the namespace does not go");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
