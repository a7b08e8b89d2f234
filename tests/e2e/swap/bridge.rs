//! Rules and VLANs of `bridge`: made by one, checked and removed by the other.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cni::{Plugins, differs, here, with};
use tests::{Node, Pod, Release};

use crate::bridge::{l2, l3, node};
use crate::{check_no_ports, leases, vlan};

type Configure = fn(&Node) -> Value;

/// How an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it should.
    Stopped,
    /// Its namespace is gone before DEL.
    Gone,
}

#[test]
fn rules_of_either_go_with_the_pod_by_the_other_and_no_others() {
    if differs("there is no other") {
        return;
    }
    const CONFS: [(Configure, &[Release]); 5] = [
        (masqueraded, &[Release::V1_9_1]),
        (masqueraded_dual_stack, &[Release::V1_9_1]),
        (checked, &Release::ALL),
        (checked_dual_stack, &Release::ALL),
        (all, &[Release::V1_9_1]),
    ];
    for (configure, releases) in CONFS {
        for release in releases {
            for (ours_first, end) in [
                (true, End::Stopped),
                (false, End::Stopped),
                (false, End::Gone), // the reference leaves rules behind then, also its own
            ] {
                let Some(node) = node() else { return };
                let Some(theirs) = node.reference(*release) else {
                    return;
                };
                let ours = node.plugins();
                let both = if ours_first {
                    [&ours, &theirs]
                } else {
                    [&theirs, &ours]
                };
                let conf = configure(&node);
                swap(&node, &conf, both, end);
                assert!(!node.nft().contains("container-"), "{}", node.nft());
                assert!(leases(&node, "net").is_empty());
                check_no_ports(&node);
            }
        }
    }
}

// 1.1.1 knows neither trunks nor that a port may leave the default VLAN.
#[test]
fn a_port_in_vlans_of_either_is_taken_away_by_the_other() {
    if differs("there is no other") {
        return;
    }
    let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 203 }]);
    for ours_first in [true, false] {
        for end in [End::Stopped, End::Gone] {
            let Some(node) = vlan::node() else { return };
            let Some(theirs) = node.reference(Release::V1_9_1) else {
                return;
            };
            // No address pins the MAC of a bridge with VLANs, and CHECK misses the one it had.
            let own = "link add bridge0 address 02:00:00:00:00:99 type bridge";
            node.run("ip", &own.split(' ').collect::<Vec<_>>());
            let ours = node.plugins();
            let both = if ours_first {
                [&ours, &theirs]
            } else {
                [&theirs, &ours]
            };
            let conf = with(&masqueraded(&node), "vlan", 100.into());
            let conf = with(&conf, "vlanTrunk", trunk.clone());
            let conf = with(&conf, "ipMasq", (end == End::Stopped).into());
            swap(&node, &conf, both, end);
            assert!(!node.nft().contains("container-"), "{}", node.nft());
            assert!(leases(&node, "net").is_empty());
            // What is shared stays: the bridge, and the two ends of its gateway's device.
            assert_eq!(node.links().len(), 3, "{:?}", node.links());
        }
    }
}

/// A pod that the first made and the second stops, beside one for which it is the other way round.
#[track_caller]
fn swap(node: &Node, conf: &Value, [first, second]: [&Plugins; 2], end: End) {
    let (one, two) = (node.pod(), node.pod());
    let result = first.add("bridge", &one, conf).result();
    let alone = rules(node, &one);
    let asked = conf["ipMasq"] == true || conf["macspoofchk"] == true;
    assert_eq!(asked, !alone.is_empty(), "{alone:?}");
    let other = second.add("bridge", &two, conf).result();
    let others = rules(node, &two);
    if !conf["ipam"].is_null() {
        assert!(one.pings("10.1.2.1") && two.pings("10.1.2.1"));
        second.check("bridge", &one, conf, &result).silent();
        first.check("bridge", &two, conf, &other).silent();
    }
    assert_eq!(
        rules(node, &one),
        alone,
        "the second ADD changed the first's"
    );
    del(node, second, one, conf, end);
    assert_eq!(
        rules(node, &two),
        others,
        "the other's are not what they were"
    );
    first.del("bridge", &two, conf).silent();
}

fn del(node: &Node, plugins: &Plugins, pod: Pod, conf: &Value, end: End) {
    if end == End::Stopped {
        return plugins.del("bridge", &pod, conf).silent();
    }
    const PATIENCE: Duration = Duration::from_secs(10);
    let (ports, start) = (node.links().len(), Instant::now());
    let pod = node.destroy(pod);
    while node.links().len() == ports {
        // The kernel takes a namespace down when it finds the time.
        assert!(
            start.elapsed() < here(PATIENCE),
            "the namespace does not go"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let del = plugins.call("bridge", "DEL").pod(&pod).conf(conf);
    del.env("CNI_NETNS", node.gone()).run().silent();
}

/// What the packet filter has of a pod.
fn rules(node: &Node, pod: &Pod) -> Vec<String> {
    let ruleset = node.nft();
    let of_it = ruleset.lines().filter(|it| it.contains(&pod.id));
    of_it.map(|it| it.trim().to_owned()).collect()
}

fn masqueraded(node: &Node) -> Value {
    let conf = with(&l3(node, "1.0.0", &["10.1.2.0/24"]), "ipMasq", true.into());
    with(&conf, "ipMasqBackend", "nftables".into())
}

fn masqueraded_dual_stack(node: &Node) -> Value {
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "2001:db8::/64" }]]);
    let mut conf = masqueraded(node);
    conf["ipam"]["ranges"] = ranges;
    conf
}

fn checked(_: &Node) -> Value {
    with(&l2("1.0.0"), "macspoofchk", true.into())
}

fn checked_dual_stack(node: &Node) -> Value {
    let conf = l3(node, "0.4.0", &["10.1.2.0/24", "2001:db8::/64"]);
    with(&conf, "macspoofchk", true.into())
}

fn all(node: &Node) -> Value {
    with(&masqueraded_dual_stack(node), "macspoofchk", true.into())
}
