//! The goals, and what the run says of them. All are ratios of medians, or differences to the start of a process.

use crate::case::{EIGHT_AT_ONCE, MANY_LEASES, NEARLY_FULL, NO_LEASES};
use crate::contender::Role;
use crate::report::{Report, Row, Verb};
use crate::statistics::median;

/// One goal.
pub(crate) struct Verdict {
    pub(crate) goal: &'static str,
    /// The figure; `not measured` where there is none.
    pub(crate) measured: String,
    met: Option<bool>,
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "-",
        }
    }

    fn new(goal: &'static str, measured: Option<(String, bool)>) -> Verdict {
        let (measured, met) = measured.unzip();
        Verdict {
            goal,
            measured: measured.unwrap_or_else(|| NOT_MEASURED.to_owned()),
            met,
        }
    }

    /// A figure to know, without a limit.
    fn figure(goal: &'static str, ratio: Option<f64>) -> Verdict {
        let measured = ratio.map(|ratio| format!("{ratio:.1} x"));
        Verdict {
            met: None,
            measured: measured.unwrap_or_else(|| NOT_MEASURED.to_owned()),
            goal,
        }
    }
}

const NOT_MEASURED: &str = "not measured";

/// All goals, in order.
pub(crate) fn all(report: &Report) -> Vec<Verdict> {
    let ms = |case, setting, verb, role| milliseconds(report, case, setting, verb, role);
    let of_floor =
        |case, verb| Some(ms(case, "", verb, Role::Ours)? / ms(case, "", verb, Role::Floor)?);
    let faster =
        |case, verb| Some(ms(case, "", verb, Role::Reference)? / ms(case, "", verb, Role::Ours)?);
    let above_start = |case, verb| {
        Some(ms(case, "", verb, Role::Ours)? - ms(case, "", Verb::Start, Role::Floor)?)
    };
    let of_empty = |setting, verb| {
        Some(ms("leases", setting, verb, Role::Ours)? / ms("leases", NO_LEASES, verb, Role::Ours)?)
    };
    let mut goals = vec![
        at_most(
            "bridge + host-local ADD <= 1.5 x floor",
            of_floor("bridge", Verb::Add),
            1.5,
        ),
        at_least(
            "bridge + host-local ADD >= 5 x Debian's reference",
            faster("bridge", Verb::Add),
            5.0,
        ),
        at_least(
            "bridge + host-local ADD >= 7 x v1.9.1 (a --peer)",
            faster_than_newest(report),
            7.0,
        ),
        at_most(
            "flannel chain ADD <= 1.7 x floor",
            of_floor("flannel", Verb::Add),
            1.7,
        ),
        at_most(
            "bridge + host-local DEL <= 1.1 x floor",
            of_floor("bridge", Verb::Del),
            1.1,
        ),
        at_most(
            "flannel chain DEL <= 1.1 x floor",
            of_floor("flannel", Verb::Del),
            1.1,
        ),
    ];
    for (goal, case, verb, limit) in [
        (
            "bridge + host-local CHECK <= start of a process + 2 ms",
            "bridge",
            Verb::Check,
            2.0,
        ),
        (
            "flannel chain CHECK <= start of a process + 2 ms",
            "flannel",
            Verb::Check,
            2.0,
        ),
        (
            "bridge + host-local DEL again <= start of a process + 2 ms",
            "bridge",
            Verb::DelAgain,
            2.0,
        ),
        (
            "flannel chain DEL again <= start of a process + 2 ms",
            "flannel",
            Verb::DelAgain,
            2.0,
        ),
        (
            "portmap without ports ADD <= start of a process + 1 ms",
            "portmap-no-ports",
            Verb::Add,
            1.0,
        ),
    ] {
        let above =
            above_start(case, verb).map(|above| (format!("+ {above:.2} ms"), above <= limit));
        goals.push(Verdict::new(goal, above));
    }
    let at_once = report
        .rows_of("at-once", Verb::Add, Role::Ours)
        .find(|row| row.setting == EIGHT_AT_ONCE);
    let reference = report
        .rows_of("at-once", Verb::Add, Role::Reference)
        .find(|row| row.setting == EIGHT_AT_ONCE);
    let throughput = at_once
        .zip(reference)
        .map(|(ours, theirs)| ours.per_second / theirs.per_second);
    goals.extend([
        at_least(
            "ipMasq (iptables) ADD >= 8 x reference",
            faster("ipmasq-iptables", Verb::Add),
            8.0,
        ),
        at_least(
            "ipMasq (iptables) DEL >= 3 x reference",
            faster("ipmasq-iptables", Verb::Del),
            3.0,
        ),
        at_least(
            "portmap with one port ADD >= 8 x reference",
            faster("portmap", Verb::Add),
            8.0,
        ),
        at_least(
            "portmap with one port DEL >= 4 x reference",
            faster("portmap", Verb::Del),
            4.0,
        ),
        Verdict::figure(
            "flannel + portmap with one port ADD, against the reference",
            faster("conflist", Verb::Add),
        ),
        Verdict::figure(
            "flannel + portmap with one port DEL, against the reference",
            faster("conflist", Verb::Del),
        ),
        at_least(
            "8 ADDs at once, throughput >= 5 x reference",
            throughput,
            5.0,
        ),
        at_most(
            "20,000 leases, ADD <= 1.2 x none",
            of_empty(MANY_LEASES, Verb::Add),
            1.2,
        ),
        at_most(
            "20,000 leases, DEL <= 1.2 x none",
            of_empty(MANY_LEASES, Verb::Del),
            1.2,
        ),
        at_most(
            "a /16 that is 99 % full, ADD <= 2 x empty",
            of_empty(NEARLY_FULL, Verb::Add),
            2.0,
        ),
        Verdict::new(
            "peak memory of a plugin < 6 MiB",
            peak(report).map(|mib| (format!("{mib:.2} MiB"), mib < 6.0)),
        ),
        Verdict::new(
            "the multi-call binary < 4 MiB",
            size(report).map(|mib| (format!("{mib:.2} MiB"), mib < 4.0)),
        ),
    ]);
    goals
}

fn at_most(goal: &'static str, ratio: Option<f64>, limit: f64) -> Verdict {
    Verdict::new(
        goal,
        ratio.map(|ratio| (format!("{ratio:.2} x"), ratio <= limit)),
    )
}

fn at_least(goal: &'static str, ratio: Option<f64>, limit: f64) -> Verdict {
    Verdict::new(
        goal,
        ratio.map(|ratio| (format!("{ratio:.1} x"), ratio >= limit)),
    )
}

fn milliseconds(report: &Report, case: &str, setting: &str, verb: Verb, role: Role) -> Option<f64> {
    median(
        &report
            .rows_of(case, verb, role)
            .find(|row| row.setting == setting)?
            .samples,
    )
}

/// Against a peer that says it is v1.9.1.
fn faster_than_newest(report: &Report) -> Option<f64> {
    let peer = report
        .contenders
        .iter()
        .find(|it| it.role == Role::Peer && it.about.contains("v1.9.1"))?;
    let theirs = report
        .rows_of("bridge", Verb::Add, Role::Peer)
        .find(|row| row.contender == peer.name)?;
    Some(median(&theirs.samples)? / milliseconds(report, "bridge", "", Verb::Add, Role::Ours)?)
}

/// The most that any plugin of ours used, in MiB.
fn peak(report: &Report) -> Option<f64> {
    let is_ours = |row: &&Row| matches!(row.role, Role::Ours | Role::Executed);
    let kib = report
        .rows
        .iter()
        .filter(is_ours)
        .filter_map(|row| row.traced.as_ref())
        .map(|it| it.kib)
        .max()?;
    Some(kib as f64 / 1024.0)
}

fn size(report: &Report) -> Option<f64> {
    let bytes = report
        .contenders
        .iter()
        .find(|it| it.role == Role::Ours)?
        .multi_call_size()?;
    Some(bytes as f64 / f64::from(1 << 20))
}
