//! The exam for all: the same verbs in the same order for ours and for each release of the reference, each on a node of
//! its own, and after each verb everything compared: what was printed, what the kernel holds, every byte on disk.
//!
//! What differs is a mistake, or has its reason in `tests::differences`. `EXAM=words` runs only the cases whose name
//! holds them.

mod bridge;
mod case;
mod host_local;
mod loopback;
mod portmap;
mod refused;
mod rules;
mod run;
mod vlan;

use std::collections::BTreeSet;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tests::cni::{differs, is_slow};
use tests::differences::DIFFERENCES;
use tests::node::note;
use tests::{Node, Release};

use case::Case;
use run::{Report, examine};

/// More than there are processors: the reference mostly sleeps.
const AT_ONCE: usize = 5;

/// What an emulated machine does too, for its kernel's sake.
const ANYWHERE: [&str; 6] = [
    "bridge: nftables, dual stack (0.4.0)",
    "bridge: nftables, combination 7 (1.0.0)",
    "bridge: IPAM without ranges (1.0.0)",
    "host-local: two families and routes (1.0.0)",
    "loopback: up and down (1.0.0)",
    "portmap: nobody, nftables (1.0.0)",
];

#[test]
fn ours_and_the_reference_pass_the_same_exam() {
    if Node::with(&["bridge", "host-local", "loopback", "portmap"]).is_none() || !has_references() {
        return;
    }
    let only = env::var("EXAM").unwrap_or_default();
    let mut cases = [
        bridge::cases(),
        host_local::cases(),
        loopback::cases(),
        portmap::cases(),
        refused::cases(),
        rules::cases(),
        vlan::cases(),
    ]
    .concat();
    if crate::vlan::node().is_none() {
        cases.retain(|it| !it.vlans);
    }
    if is_slow() {
        note("all the others take an emulated machine half an hour: its host does them");
        cases.retain(|it| it.vlans || ANYWHERE.contains(&it.name.as_str()));
        assert_eq!(cases.iter().filter(|it| !it.vlans).count(), ANYWHERE.len());
    }
    cases.retain(|it| it.name.contains(&only));
    assert!(!cases.is_empty(), "no case is called {only}");
    for release in Release::ALL {
        let with = cases.iter().filter(|it| it.releases.contains(&release));
        note(&format!("{} cases with {release:?}", with.count()));
    }
    let reports = examine_all(&cases);
    let told: Vec<&str> = reports.iter().map(|it| it.text.as_str()).collect();
    let told = told.concat();
    assert!(told.is_empty(), "without a reason:\n{told}");
    let used: BTreeSet<_> = reports.iter().flat_map(|it| it.reasons.clone()).collect();
    let all = DIFFERENCES
        .iter()
        .flat_map(|it| it.from.iter().map(|from| (it.id, *from)));
    let stale: Vec<_> = all.filter(|it| !used.contains(it)).collect();
    assert!(
        !only.is_empty() || is_slow() || stale.is_empty(),
        "no case needs these any more: {stale:?}"
    );
}

fn has_references() -> bool {
    !differs("there is nothing to compare it with")
        && Release::ALL.into_iter().all(Release::is_here)
}

fn examine_all(cases: &[Case]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = examine(case);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap()
}
