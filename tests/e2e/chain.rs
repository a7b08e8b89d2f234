//! Whole lists on a node: the samples of `conf/` as they are, with traffic between the pods.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::cni::{self, workspace};
use tests::node::Namespace;
use tests::{List, Node, Outcome, Pod};

use crate::bridge::{l3, node};
use crate::{files_below, leased, leases};

#[test]
fn every_sample_connects_its_pods() {
    for sample in [
        "10-flannel.conflist",
        "10-bridge.conflist",
        "10-bridge-dual-stack.conflist",
    ] {
        let Some(node) = ready(sample) else { continue };
        let list = List::sample(&node, sample);
        let (red, green) = (node.pod(), node.pod());
        let (first, second) = (list.add(&red).result(), list.add(&green).result());
        let [from, to] = [addresses(&first), addresses(&second)];
        assert!(!to.is_empty());
        if cni::differs("its bridge's own IPv6 address is still tentative when ADD returns") {
            wait_until(|| {
                !node
                    .address_info("cni0")
                    .iter()
                    .any(|it| it["tentative"] == true)
            });
        }
        for (source, address) in from.iter().zip(&to) {
            assert!(red.pings(address), "{sample}: red cannot reach {address}");
            assert!(
                node.pings(address),
                "{sample}: the node cannot reach {address}"
            );
            assert_eq!(
                red.tcp(&green, address).unwrap().to_string(),
                *source,
                "{sample}"
            );
            assert_eq!(
                red.udp(&green, address).unwrap().to_string(),
                *source,
                "{sample}"
            );
        }
        for gateway in gateways(&second) {
            assert!(
                green.pings(&gateway),
                "{sample}: green cannot reach {gateway}"
            );
        }
        if crate::bridge::checks(list.version()) {
            list.check(&red, &first).silent();
        }
        list.del(&red, Some(&first)).silent();
        assert!(!node.pings(&from[0]));
        assert!(node.pings(&to[0]), "{sample}: green suffered");
        list.del(&green, Some(&second)).silent();
        list.del(&green, Some(&second)).silent();
        check_empty(&node, &list);
    }
}

#[test]
fn the_sample_of_subnet_env_is_a_good_one() {
    let Some(node) = ready("10-flannel.conflist") else {
        return;
    };
    fs::copy(
        workspace().join("conf/subnet.env"),
        node.file("/run/flannel/subnet.env"),
    )
    .unwrap();
    let list = List::sample(&node, "10-flannel.conflist");
    let pod = node.pod();
    let result = list.add(&pod).result();
    for address in addresses(&result) {
        assert!(node.pings(&address));
    }
    list.del(&pod, None).silent();
    check_empty(&node, &list);
}

#[test]
fn the_loopback_sample_works_in_a_pod() {
    let Some(node) = Node::with(&["loopback"]) else {
        return;
    };
    let list = List::sample(&node, "99-loopback.conflist");
    let mut pod = node.pod();
    pod.interface("lo");
    let result = list.add(&pod).result();
    assert!(pod.pings("127.0.0.1") && pod.pings("::1"));
    list.check(&pod, &result).silent();
    list.del(&pod, Some(&result)).silent();
}

#[test]
fn the_world_sees_a_masqueraded_pod_as_its_node() {
    let Some(node) = node() else { return };
    let world = uplink(&node);
    for masquerade in [true, false] {
        let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8:2::/64"]);
        conf["ipMasq"] = masquerade.into();
        conf["name"] = format!("net-{masquerade}").into();
        conf["bridge"] = format!("br-{masquerade}").into();
        let pod = node.pod();
        node.add("bridge", &pod, &conf).result();
        let seen =
            ["192.0.2.2", "2001:db8:1::2"].map(|it| pod.tcp(&world, it).map(|ip| ip.to_string()));
        let source = if masquerade {
            ["192.0.2.1", "2001:db8:1::1"]
        } else {
            ["10.1.2.2", "2001:db8:2::2"]
        };
        assert_eq!(seen, source.map(|it| Some(it.to_owned())));
        node.del("bridge", &pod, &conf).silent();
        node.run("ip", &["link", "del", &format!("br-{masquerade}")]);
    }
}

// K31
#[test]
fn del_cleans_up_whatever_became_of_the_namespace() {
    for sample in ["10-flannel.conflist", "10-bridge-dual-stack.conflist"] {
        let Some(node) = ready(sample) else { continue };
        let list = List::sample(&node, sample);
        type Fate = fn(&Node, Pod) -> (Pod, String);
        let fates: [(&str, Fate); 5] = [
            ("there", |_, pod| at_its_path(pod)),
            ("emptied", |_, pod| {
                pod.run("ip", &["link", "del", "eth0"]);
                at_its_path(pod)
            }),
            ("gone", |node, pod| (node.destroy(pod), node.gone())),
            ("never told", |node, pod| (node.destroy(pod), String::new())),
            ("replaced by a file", |node, pod| {
                let file = node.dir().join("no-namespace");
                fs::write(&file, "").unwrap();
                (node.destroy(pod), file.display().to_string())
            }),
        ];
        for (state, fate) in fates {
            if state != "there"
                && cni::differs("it leaks rules when the interface or the namespace is gone")
            {
                break;
            }
            let pod = node.pod();
            let result = list.add(&pod).result();
            let (pod, netns) = fate(&node, pod);
            for _ in 0..2 {
                let del = list.del_at(&pod, &netns, Some(&result));
                assert!(
                    del.status.success(),
                    "{sample}, namespace {state}: {}",
                    del.story()
                );
            }
            check_empty(&node, &list);
        }
    }
}

#[test]
fn gc_and_status_run_through_the_chain() {
    if cni::differs("1.1.1 knows neither") {
        return;
    }
    for sample in ["10-flannel.conflist", "10-bridge-dual-stack.conflist"] {
        let Some(node) = ready(sample) else { continue };
        let mut list = List::sample(&node, sample);
        list.conf["cniVersion"] = "1.1.0".into();
        list.status().silent();
        let (kept, lost) = (node.pod(), node.pod());
        let result = list.add(&kept).result();
        list.add(&lost).result();
        let address = addresses(&result)[0].clone();
        node.destroy(lost);
        list.gc(&[&kept]).silent();
        assert_eq!(leased(&store(&node, &list)), sorted(addresses(&result)));
        assert!(node.pings(&address));
        list.check(&kept, &result).silent();
        let rules = node.nat();
        assert!(
            !rules.iter().any(|it| it.contains("container-2")),
            "{rules:?}"
        );
        assert!(sample.contains("flannel") || rules.iter().any(|it| it.contains("container-1")));
        list.gc(&[]).silent();
        assert!(leased(&store(&node, &list)).is_empty());
        assert_eq!(node.nat(), [""; 0]);
    }
}

#[test]
fn gc_leaves_other_networks_alone() {
    if cni::differs("1.1.1 has no GC") {
        return;
    }
    let Some(node) = node() else { return };
    let mut first = l3(&node, "1.1.0", &["10.1.2.0/24"]);
    first["ipMasq"] = true.into();
    let mut second = l3(&node, "1.1.0", &["10.1.3.0/24"]);
    second["ipMasq"] = true.into();
    second["name"] = "second".into();
    second["bridge"] = "bridge1".into();
    let (one, mut two) = (node.pod(), node.pod());
    two.interface("eth1");
    node.add("bridge", &one, &first).result();
    node.add("bridge", &two, &second).result();
    node.gc("bridge", &first, &[]).silent();
    assert!(leases(&node, "net").is_empty());
    assert_eq!(leases(&node, "second"), ["10.1.3.2"]);
    let rules = node.nat();
    assert!(rules.iter().any(|it| it.contains("second")), "{rules:?}");
    assert!(
        !rules.iter().any(|it| it.contains("\\\"net\\\"")),
        "{rules:?}"
    );
}

#[test]
fn many_pods_at_once() {
    let Some(node) = node() else { return };
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    conf["ipMasq"] = true.into();
    let pods: Vec<Pod> = (0..12).map(|_| node.pod()).collect();
    let each = |act: &(dyn Fn(&Pod) -> Outcome + Sync)| -> Vec<Outcome> {
        thread::scope(|scope| {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(move || act(pod)))
                .collect();
            calls.into_iter().map(|it| it.join().unwrap()).collect()
        })
    };
    let results: Vec<Value> = each(&|pod| node.add("bridge", pod, &conf))
        .iter()
        .map(Outcome::result)
        .collect();
    let given = sorted(results.iter().flat_map(addresses).collect());
    assert_eq!(given.len(), 24);
    assert_eq!(leases(&node, "net"), given);
    assert!(pods.iter().all(|it| it.pings("10.1.2.1")));
    each(&|pod| node.del("bridge", pod, &conf))
        .iter()
        .for_each(Outcome::silent);
    assert_eq!(node.links(), ["bridge0"]);
    assert_eq!(node.nat(), [""; 0]);
    assert!(leases(&node, "net").is_empty());
}

/// A node that can run `sample`, with flanneld's file.
fn ready(sample: &str) -> Option<Node> {
    let plugins: &[&str] = if sample.contains("flannel") {
        &["flannel", "bridge", "host-local"]
    } else {
        &["bridge", "host-local"]
    };
    let node = Node::with(plugins)?;
    fs::create_dir_all(node.file("/run/flannel")).unwrap();
    fs::write(node.file("/run/flannel/subnet.env"), crate::SUBNET_ENV).unwrap();
    Some(node)
}

/// Nothing of any pod is left on `node`: the bridge may stay.
#[track_caller]
fn check_empty(node: &Node, list: &List) {
    wait_until(|| node.links() == ["cni0"]); // the kernel takes a dead namespace down when it gets round to it
    assert_eq!(node.links(), ["cni0"]);
    assert_eq!(node.nat(), [""; 0]);
    assert_eq!(leased(&store(node, list)), [""; 0]);
    let states = files_below(&node.file("/var/lib/cni/flannel"));
    assert!(states.is_empty(), "{states:?}");
}

/// Waits for what happens by itself, and not for ever.
fn wait_until(happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(10));
    }
}

/// A namespace beyond the node: 192.0.2.1 and 2001:db8:1::1 are the node's, the ones after it the world's. It knows
/// the way back to the pods of `l3`.
fn uplink(node: &Node) -> Pod {
    let world = node.pod();
    node.run(
        "ip",
        &[
            "link",
            "add",
            "uplink",
            "type",
            "veth",
            "peer",
            "name",
            "world",
            "netns",
            &world.path(),
        ],
    );
    let ends: [(&Namespace, &str, u8); 2] = [(node, "uplink", 1), (&world, "world", 2)];
    for (end, link, host) in ends {
        end.run(
            "ip",
            &["addr", "add", &format!("192.0.2.{host}/24"), "dev", link],
        );
        end.run(
            "ip",
            &[
                "addr",
                "add",
                &format!("2001:db8:1::{host}/64"),
                "dev",
                link,
                "nodad",
            ],
        );
        end.run("ip", &["link", "set", link, "up"]);
    }
    world.run("ip", &["route", "add", "10.1.2.0/24", "via", "192.0.2.1"]);
    world.run(
        "ip",
        &["route", "add", "2001:db8:2::/64", "via", "2001:db8:1::1"],
    );
    world
}

fn at_its_path(pod: Pod) -> (Pod, String) {
    let path = pod.path();
    (pod, path)
}

fn store(node: &Node, list: &List) -> PathBuf {
    node.file("/var/lib/cni/networks")
        .join(list.conf["name"].as_str().unwrap())
}

/// Addresses of a result without their prefix.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter()
        .map(|it| {
            it["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

fn gateways(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter()
        .map(|it| it["gateway"].as_str().unwrap().to_owned())
        .collect()
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
