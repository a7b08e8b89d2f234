//! Side by side with the reference: what one has added, the other checks and deletes. See also [`exam`](crate::exam) and
//! [`swap`](crate::swap).

use serde_json::{Value, json};
use tests::cni::{Plugins, with};
use tests::{Node, Release};

use crate::bridge::{checks, l2, l3, networks, node};
use crate::leases;

/// Versions that all know.
const SHARED: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

#[test]
fn pods_of_either_are_checked_and_stopped_by_the_other() {
    let older = SHARED.map(|it| (Release::V1_1_1, it));
    let newer = ["0.3.1", "1.0.0", "1.1.0"].map(|it| (Release::V1_9_1, it));
    for (release, version) in older.into_iter().chain(newer) {
        for configure in [plain, masqueraded, dual_stack, full_of_options] {
            for reference_first in [true, false] {
                let Some(node) = node() else { return };
                let Some(reference) = node.reference(release) else {
                    return;
                };
                let ours = node.plugins();
                let (first, second) = if reference_first {
                    (&reference, &ours)
                } else {
                    (&ours, &reference)
                };
                check_swap(&node, &configure(&node, version), version, first, second);
            }
        }
    }
}

/// A pod that `first` made and `second` stops, beside one for which it is the other way round.
#[track_caller]
fn check_swap(node: &Node, conf: &Value, version: &str, first: &Plugins, second: &Plugins) {
    let (one, two) = (node.pod(), node.pod());
    let result = first.add("bridge", &one, conf).result();
    let rules = node.nat();
    second.add("bridge", &two, conf).result();
    assert!(one.pings("10.1.2.3") && two.pings("10.1.2.2"));
    if checks(version) {
        second.check("bridge", &one, conf, &result).silent();
    }
    second.add("bridge", &one, conf).failure();
    first.del("bridge", &two, conf).silent();
    assert_eq!(node.nat(), rules, "the other's rules are not gone");
    assert_eq!(one.addresses("eth0")[..1], networks(&["10.1.2.2/24"]));
    second.del("bridge", &one, conf).silent();
    assert_eq!(node.nat(), [""; 0]);
    assert_eq!(node.links(), ["bridge0"]);
    assert!(leases(node, "net").is_empty());
}

#[test]
fn both_print_the_same() {
    for version in SHARED {
        for configure in [plain, masqueraded, dual_stack, full_of_options] {
            let Some((ours, theirs)) = printed(|node| configure(node, version)) else {
                return;
            };
            assert_eq!(ours, theirs, "{version}");
        }
        if crate::bridge::old(version) {
            continue;
        }
        let Some((ours, theirs)) = printed(|_| l2(version)) else {
            return;
        };
        assert_eq!(ours, theirs, "{version}");
    }
}

#[test]
fn both_write_the_same_files() {
    for version in SHARED {
        let Some(node) = node() else { return };
        let Some(reference) = node.reference(Release::V1_1_1) else {
            return;
        };
        let mut stores = Vec::new();
        for (plugins, dir) in [(node.plugins(), "ours"), (reference, "theirs")] {
            let dir = node.dir().join(dir);
            let mut conf = dual_stack(&node, version);
            conf["ipam"]["dataDir"] = dir.to_str().unwrap().into();
            for _ in 0..3 {
                let pod = node.pod();
                plugins.add("host-local", &pod, &conf).result();
                if dir.join("net/10.1.2.3").exists() {
                    plugins.del("host-local", &pod, &conf).silent();
                }
            }
            stores.push(files(&dir.join("net")));
        }
        // the two made their pods one after the other: only the numbers in the owners differ
        let [ours, theirs] = stores.as_slice() else {
            unreachable!()
        };
        let names =
            |files: &[(String, String)]| files.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(ours), names(theirs));
        for ((name, mine), (_, other)) in ours.iter().zip(theirs) {
            let digits = |text: &str| text.replace(|it: char| it.is_ascii_digit(), "#");
            assert_eq!(digits(mine), digits(other), "{name}");
        }
    }
}

/// What both print for the same, names and MACs blanked.
fn printed(conf: impl Fn(&Node) -> Value) -> Option<(String, String)> {
    let mut outputs = Vec::new();
    for reference in [false, true] {
        let node = node()?;
        let plugins = if reference {
            node.reference(Release::V1_1_1)?
        } else {
            node.plugins()
        };
        let pod = node.pod();
        let conf = conf(&node);
        let added = plugins.add("bridge", &pod, &conf);
        let result = added.result();
        let mut text = added.stdout.replace(&pod.path(), "SANDBOX");
        for interface in result["interfaces"].as_array().into_iter().flatten() {
            text = text.replace(interface["mac"].as_str().unwrap(), "MAC");
        }
        if let Some(host) = result["interfaces"][1]["name"].as_str() {
            text = text.replace(host, "HOST");
        }
        // 1.1.1 keeps the order of its fields, and dns, where later ones sort and leave it out
        let sorted = result["cniVersion"] == "1.0.0";
        outputs.push(if sorted { normal(&text) } else { text });
    }
    let theirs = outputs.pop()?;
    Some((outputs.pop()?, theirs))
}

/// The same object with its keys in order and no empty `dns`.
fn normal(text: &str) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    if value["dns"] == json!({}) {
        value.as_object_mut().unwrap().remove("dns");
    }
    value.sort_all_objects();
    format!("{value:#}")
}

/// Names and contents of what an administrator sees in `dir`.
fn files(dir: &std::path::Path) -> Vec<(String, String)> {
    let paths = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().path());
    let mut files: Vec<_> = paths
        .map(|it| {
            (
                it.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(&it).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

fn plain(node: &Node, version: &str) -> Value {
    l3(node, version, &["10.1.2.0/24"])
}

fn masqueraded(node: &Node, version: &str) -> Value {
    with(&dual_stack(node, version), "ipMasq", true.into())
}

fn dual_stack(node: &Node, version: &str) -> Value {
    l3(node, version, &["10.1.2.0/24", "2001:db8::/64"])
}

fn full_of_options(node: &Node, version: &str) -> Value {
    let mut conf = masqueraded(node, version);
    conf["mtu"] = 1400.into();
    conf["hairpinMode"] = true.into();
    conf["forceAddress"] = true.into();
    conf["dns"] = json!({ "nameservers": ["10.1.2.1"], "search": ["a.example", "b.example"], "domain": "example" });
    conf["ipam"]["routes"] = json!([{ "dst": "10.8.0.0/16", "gw": "10.1.2.254" }]);
    conf
}
