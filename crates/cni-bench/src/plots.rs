//! The plots of a report.

use crate::contender::{Contender, Role};
use crate::plot::{Axis, Line, Panel, Plot, Stroke};
use crate::report::{Outcome, Report, Row, Verb};
use crate::statistics::{median, quantile};

/// All plots that there are figures for, by file name.
pub(crate) fn all(report: &Report) -> Vec<(&'static str, String)> {
    [
        ("medians.svg", medians(report), 430.0),
        ("leases.svg", leases(report), 300.0),
        ("latency.svg", latency(report), 300.0),
        ("throughput.svg", throughput(report), 300.0),
    ]
    .into_iter()
    .filter(|(_, plot, _)| plot.panels.iter().any(|panel| !panel.lines.is_empty()))
    .map(|(name, plot, height)| (name, plot.draw(height)))
    .collect()
}

/// Every case that is run one at a time, a dot a contender.
fn medians(report: &Report) -> Plot {
    // From the bottom up.
    let cases = [
        ("portmap-no-ports", "no ports"),
        ("portmap", "portmap"),
        ("conflist", "conflist"),
        ("loopback", "loopback"),
        ("ipmasq-nftables", "nftables"),
        ("ipmasq-iptables", "iptables"),
        ("dual-stack", "dual stack"),
        ("flannel", "flannel"),
        ("bridge", "bridge"),
    ];
    let panel = |title, verb| {
        let place = |row: &Row| cases.iter().position(|(case, _)| *case == row.case);
        let lines = lines(report, Stroke::None, |contender| {
            let rows = of(report, contender, verb);
            rows.filter_map(|row| {
                Some((
                    median(&row.samples)?,
                    place(row)? as f64 + lane(contender.role),
                ))
            })
            .collect()
        });
        let names: Vec<&str> = cases.iter().map(|(_, name)| *name).collect();
        Panel {
            title,
            x: Axis::logarithmic("milliseconds", xs(&lines)),
            y: Axis::names("", &names),
            lines,
        }
    };
    Plot {
        title: "One call at a time",
        subtitle: "Median time of whole processes; further left is better".to_owned(),
        panels: vec![panel("ADD", Verb::Add), panel("DEL", Verb::Del)],
    }
}

/// Where in its row a dot lies, so that none hides another.
fn lane(role: Role) -> f64 {
    match role {
        Role::Ours => 0.2,
        Role::Executed => 0.1,
        Role::Reference => 0.0,
        Role::Peer => -0.1,
        Role::Floor => -0.2,
    }
}

/// What leases in the store cost.
fn leases(report: &Report) -> Plot {
    let mut settings: Vec<&str> = Vec::new();
    for row in report.rows.iter().filter(|row| row.case == "leases") {
        if !settings.contains(&row.setting) {
            settings.push(row.setting);
        }
    }
    let panel = |title, verb| {
        let place = |row: &Row| settings.iter().position(|it| *it == row.setting);
        let lines = lines(report, Stroke::Dotted, |contender| {
            let rows = of(report, contender, verb).filter(|row| row.case == "leases");
            rows.filter_map(|row| Some((place(row)? as f64, median(&row.samples)?)))
                .collect()
        });
        Panel {
            title,
            x: Axis::names("leases in the store", &settings),
            y: Axis::logarithmic("milliseconds", ys(&lines)),
            lines,
        }
    };
    Plot {
        title: "What a full node costs",
        subtitle: "bridge + host-local, median by leases that are there already; flat is better"
            .to_owned(),
        panels: vec![panel("ADD", Verb::Add), panel("DEL", Verb::Del)],
    }
}

/// How the times of one case spread.
fn latency(report: &Report) -> Plot {
    let panel = |title, case: &'static str, verb| {
        let lines = lines(report, Stroke::Solid, |contender| {
            let samples = of(report, contender, verb)
                .find(|row| row.case == case)
                .map(|row| &row.samples[..]);
            let parts = (0..=100).map(|percent| f64::from(percent) / 100.0);
            parts
                .filter_map(|part| Some((quantile(samples?, part)?, part * 100.0)))
                .collect()
        });
        // One slow call in a hundred must not push all others to the edge.
        let shown = lines
            .iter()
            .flat_map(|line| &line.points)
            .filter(|(_, percent)| *percent <= 99.0)
            .map(|(x, _)| *x);
        Panel {
            title,
            x: Axis::logarithmic("milliseconds", shown),
            y: Axis::linear("% of calls", [100.0].into_iter()),
            lines,
        }
    };
    Plot {
        title: "How long calls take",
        subtitle: "Share of calls that are done after a time; further left and steeper is better"
            .to_owned(),
        panels: vec![
            panel("bridge + host-local ADD", "bridge", Verb::Add),
            panel("flannel chain ADD", "flannel", Verb::Add),
            panel("bridge + host-local DEL", "bridge", Verb::Del),
        ],
    }
}

/// Calls a second by how many run at once.
fn throughput(report: &Report) -> Plot {
    let mut settings: Vec<&str> = Vec::new();
    for row in report.rows.iter().filter(|row| row.case == "at-once") {
        if !settings.contains(&row.setting) {
            settings.push(row.setting);
        }
    }
    let panel = |title, verb| {
        let place = |row: &Row| settings.iter().position(|it| *it == row.setting);
        let lines = lines(report, Stroke::Dotted, |contender| {
            let rows = of(report, contender, verb).filter(|row| row.case == "at-once");
            rows.filter_map(|row| Some((place(row)? as f64, row.per_second)))
                .collect()
        });
        Panel {
            title,
            x: Axis::names("", &settings),
            y: Axis::linear("calls per second", ys(&lines)),
            lines,
        }
    };
    Plot {
        title: "Many pods at once",
        subtitle: "bridge + host-local, calls per second; higher is better".to_owned(),
        panels: vec![panel("ADD", Verb::Add), panel("DEL", Verb::Del)],
    }
}

/// The rows of one contender that were measured.
fn of<'a>(
    report: &'a Report,
    contender: &'a Contender,
    verb: Verb,
) -> impl Iterator<Item = &'a Row> {
    let of_it = move |row: &&Row| {
        row.contender == contender.name && row.verb == verb && row.outcome == Outcome::Measured
    };
    report.rows.iter().filter(of_it)
}

/// A line for each contender that has points.
fn lines(
    report: &Report,
    stroke: Stroke,
    points: impl Fn(&Contender) -> Vec<(f64, f64)>,
) -> Vec<Line> {
    let mut peers = ["#cc79a7", "#e69f00", "#56423d"].into_iter().cycle();
    let line = |contender: &Contender| {
        let (color, stroke) = match contender.role {
            Role::Ours => ("#0072b2", stroke),
            Role::Executed => ("#56b4e9", stroke),
            Role::Reference => ("#d55e00", stroke),
            Role::Floor if stroke == Stroke::Solid => ("#6e7781", Stroke::Dashed),
            Role::Floor => ("#6e7781", stroke),
            Role::Peer => (peers.next().unwrap_or("#cc79a7"), stroke),
        };
        Line {
            name: contender.name.clone(),
            color,
            stroke,
            points: points(contender),
        }
    };
    report
        .contenders
        .iter()
        .map(line)
        .filter(|line| !line.points.is_empty())
        .collect()
}

fn xs(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(x, _)| *x))
}

fn ys(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(_, y)| *y))
}
