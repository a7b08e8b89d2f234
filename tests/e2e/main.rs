//! The end-to-end suite: what the plugins on `CNI_PATH` do to a real kernel, in namespaces made for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod attachment;
mod bridge;
mod chain;
mod cnitool;
mod delegation;
mod exam;
mod failure;
mod flannel;
mod flannel_state;
mod gateway;
mod host_local;
mod hostile;
mod layout;
mod loopback;
mod masquerade;
mod portmap;
mod protocol;
mod quirks;
mod ranges;
mod reference;
mod spoof;
mod swap;
mod tidy;
mod vlan;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tests::Node;

/// What flanneld writes for the node 10.244.1.0/24 of the cluster 10.244.0.0/16.
const SUBNET_ENV: &str = "\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
";

/// The addresses leased by `network` on `node` in the directory that tests use.
fn leases(node: &Node, network: &str) -> Vec<String> {
    leased(&node.dir().join("ipam").join(network))
}

/// The lease files in `dir`, by name: all but the lock, the cursors and what is hidden.
fn leased(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|it| it.unwrap().file_name());
    let names = names.map(|it| it.into_string().unwrap());
    let mut leases: Vec<String> = names.filter(|it| it.parse::<IpAddr>().is_ok()).collect();
    leases.sort();
    leases
}

/// The files below `dir`, folders left out.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|it| it.unwrap().path());
    let files = entries.flat_map(|it| {
        if it.is_dir() {
            files_below(&it)
        } else {
            vec![it]
        }
    });
    files.collect()
}

/// Nothing of any pod is left on `node`: a bridge may stay, where one was made.
#[track_caller]
fn check_no_ports(node: &Node) {
    let links = node.links();
    let of_a_bridge = |it: &String| {
        node.link(it)
            .is_some_and(|it| it["linkinfo"]["info_kind"] == "bridge")
    };
    assert!(
        links.len() <= 1 && links.iter().all(of_a_bridge),
        "{links:?}"
    );
}
