//! `macspoofchk`: a pod cannot send with another's MAC.

use tests::Node;
use tests::cni::{self, with};

use crate::bridge::{l2, l3};

#[test]
fn b31_spoof_rules_come_and_go() {
    for version in cni::versions() {
        for layer in [2, 3] {
            let Some(node) = Node::with(&["bridge", "host-local"]) else {
                return;
            };
            if layer == 2 && crate::bridge::old(version) {
                continue;
            }
            let conf = if layer == 2 {
                l2(version)
            } else {
                l3(&node, version, &["10.1.2.0/24"])
            };
            let conf = with(&conf, "macspoofchk", true.into());
            let mut pod = node.pod();
            pod.id = "dummy-0".into();
            node.add("bridge", &pod, &conf).result();
            let mac = pod.link("eth0").unwrap()["address"]
                .as_str()
                .unwrap()
                .to_owned();
            let host = node
                .links()
                .into_iter()
                .find(|it| it.starts_with("veth"))
                .unwrap();
            let chain = "cni-br-iface-dummy-0-eth0";
            let comment = "comment \"macspoofchk-dummy-0-eth0\"";
            let prerouting = format!("iifname \"{host}\" jump {chain} {comment}");
            assert_eq!(rules(&node, "PREROUTING"), [prerouting]);
            assert_eq!(rules(&node, chain), [format!("jump {chain}-mac {comment}")]);
            let mac_rules = [
                format!("ether saddr {mac} return {comment}"),
                format!("drop {comment}"),
            ];
            assert_eq!(rules(&node, &format!("{chain}-mac")), mac_rules);

            if layer == 3 {
                assert!(pod.pings("10.1.2.1"));
                pod.run(
                    "ip",
                    &["link", "set", "eth0", "address", "02:00:00:00:00:99"],
                );
                assert!(!pod.pings_within("10.1.2.1", 1), "a spoofed MAC passes");
            }
            node.del("bridge", &pod, &conf).silent();
            assert!(!node.nft().contains("macspoofchk"), "{}", node.nft());
            assert!(!node.nft().contains("cni-br-iface"), "{}", node.nft());
        }
    }
}

/// The rules of a chain of table `bridge nat`, as nft prints them.
fn rules(node: &Node, chain: &str) -> Vec<String> {
    let text = node.run("nft", &["-n", "list", "chain", "bridge", "nat", chain]);
    let lines = text.lines().map(str::trim);
    lines
        .filter(|it| it.contains("comment"))
        .map(str::to_owned)
        .collect()
}
