//! Ports of a node: opened by one, checked and closed by the other.

use std::net::UdpSocket;

use serde_json::{Value, json};
use tests::cni::{Plugins, differs, is_slow, with};
use tests::{Node, Pod, Release};

use crate::portmap::{answer, ask, mapping, outside};

const V4: &str = "10.1.2.@/24";
const V6: &str = "2001:db8:1::@/64";

/// A release, its backend, and addresses of pods.
const MATCHES: [(Release, &str, &[&str]); 9] = [
    (Release::V1_1_1, "iptables", &[V4]),
    (Release::V1_1_1, "iptables", &[V6]),
    (Release::V1_1_1, "iptables", &[V4, V6]),
    (Release::V1_9_1, "iptables", &[V4]),
    (Release::V1_9_1, "iptables", &[V6]),
    (Release::V1_9_1, "iptables", &[V4, V6]),
    (Release::V1_9_1, "nftables", &[V4]),
    (Release::V1_9_1, "nftables", &[V6]),
    (Release::V1_9_1, "nftables", &[V4, V6]),
];

#[test]
fn ports_of_either_are_checked_and_closed_by_the_other() {
    if differs("there is no other") {
        return;
    }
    for (release, backend, addresses) in MATCHES {
        if is_slow() && addresses.len() < 2 {
            continue; // both families in one
        }
        for ours_first in [true, false] {
            let Some(node) = node() else { return };
            let Some(theirs) = node.reference(release) else {
                return;
            };
            let ours = node.plugins();
            let [first, second] = if ours_first {
                [&ours, &theirs]
            } else {
                [&theirs, &ours]
            };
            let (one, two) = (node.pod(), node.pod());
            let conf_of_one = conf(backend, addresses, 2);
            let conf_of_two = conf(backend, addresses, 3);
            first.add("portmap", &one, &conf_of_one).result();
            let alone = rules(&node, &one);
            assert!(!alone.is_empty(), "{release:?} {backend}");
            second.add("portmap", &two, &conf_of_two).result();
            let others = rules(&node, &two);
            assert_eq!(rules(&node, &one), alone, "{release:?} {backend}");
            check(&ours, &one, &conf_of_one);
            check(&ours, &two, &conf_of_two);
            // 1.1.1's CHECK fails on its own, too: it looks for the rules of one family in the other's.
            if release != Release::V1_1_1 {
                check(&theirs, &one, &conf_of_one);
                check(&theirs, &two, &conf_of_two);
            }
            // The runtime says it again, to other plugins.
            second.add("portmap", &one, &conf_of_one).result();
            second.del("portmap", &one, &conf_of_one).silent();
            assert_eq!(rules(&node, &one), [""; 0], "{release:?} {backend}");
            assert_eq!(rules(&node, &two), others, "{release:?} {backend}");
            first.del("portmap", &two, &conf_of_two).silent();
            assert_eq!(rules(&node, &two), [""; 0], "{release:?} {backend}");
            // Only ours knows of its notes for GC.
            ours.gc(
                "portmap",
                &with(&conf_of_one, "cniVersion", "1.1.0".into()),
                &[],
            )
            .silent();
            assert!(!node.nft().contains("container-"), "{}", node.nft());
        }
    }
}

#[test]
fn a_udp_port_serves_the_next_pod_by_the_other_at_once() {
    if differs("there is no other") {
        return;
    }
    for (release, backend, addresses) in MATCHES {
        if addresses != [V4] {
            continue;
        }
        for ours_first in [true, false] {
            let Some(node) = node() else { return };
            let Some(theirs) = node.reference(release) else {
                return;
            };
            let ours = node.plugins();
            let [first, second] = if ours_first {
                [&ours, &theirs]
            } else {
                [&theirs, &ours]
            };
            let client = outside(&node);
            let socket = client.enter(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
            let (one, conf_of_one) = served(&node, backend, 2);
            first.add("portmap", &one, &conf_of_one).result();
            assert_eq!(ask(&socket, 5300).as_ref(), Some(&one.id));
            second.del("portmap", &one, &conf_of_one).silent();
            let (two, conf_of_two) = served(&node, backend, 3);
            second.add("portmap", &two, &conf_of_two).result();
            let answered = ask(&socket, 5300);
            assert_eq!(answered.as_ref(), Some(&two.id), "{release:?} {backend}");
        }
    }
}

fn node() -> Option<Node> {
    Node::with(&["bridge", "host-local", "portmap"])
}

/// A pod on a bridge that answers at port 53, and what leads the node's port 5300 to it.
fn served(node: &Node, backend: &str, end: u8) -> (Pod, Value) {
    let pod = node.pod();
    let ranges = json!([[{ "subnet": "10.1.2.0/24", "rangeStart": format!("10.1.2.{end}") }]]);
    let ipam = json!({ "type": "host-local", "ranges": ranges });
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": ipam,
    });
    let result = node.add("bridge", &pod, &bridge).result();
    answer(&pod, 53);
    let mut conf = conf(backend, &[], end);
    conf["prevResult"] = result;
    conf["runtimeConfig"]["portMappings"] = json!([mapping("udp", 5300, 53)]);
    (pod, conf)
}

/// Ports of its own for the pod whose addresses end like this. 1.1.1 passes over what it does not know.
fn conf(backend: &str, addresses: &[&str], end: u8) -> Value {
    let ips = addresses
        .iter()
        .map(|it| json!({ "address": it.replace('@', &end.to_string()) }));
    let port = 8080 + u16::from(end);
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "portmap", "backend": backend,
        "runtimeConfig": { "portMappings": [mapping("tcp", port, 80), mapping("udp", port, 53)] },
        "prevResult": { "cniVersion": "1.0.0", "ips": ips.collect::<Value>() },
    })
}

#[track_caller]
fn check(plugins: &Plugins, pod: &Pod, conf: &Value) {
    plugins
        .check("portmap", pod, conf, &conf["prevResult"])
        .silent();
}

/// What the packet filter has of a pod: rules that name it, and those that lead to its address.
fn rules(node: &Node, pod: &Pod) -> Vec<String> {
    let id = format!("\"{}\"", pod.id);
    let by_nft = node.nft();
    let by_nft = by_nft.lines().map(str::trim).filter(|it| it.contains(&id));
    let by_nft: Vec<String> = by_nft.map(str::to_owned).collect();
    let by_iptables = node.nat();
    let entries = by_iptables.iter().filter(|it| it.contains(&pod.id));
    let chains: Vec<&str> = entries
        .filter_map(|it| it.split(' ').find(|it| it.starts_with("CNI-DN-")))
        .collect();
    let of_chains = by_iptables
        .iter()
        .filter(|it| chains.iter().any(|chain| it.contains(chain)));
    by_nft.into_iter().chain(of_chains.cloned()).collect()
}
