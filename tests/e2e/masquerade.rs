//! `ipMasq`: the rules that hide pods behind their node.

use serde_json::Value;
use tests::Node;
use tests::cni::{self, with};

use crate::bridge::{l3, node};

#[test]
fn b29_masquerade_rules_come_and_go() {
    for version in cni::versions() {
        for backend in [Value::Null, "iptables".into()] {
            let Some(node) = node() else { return };
            let mut conf = l3(&node, version, &["10.1.2.0/24", "2001:db8::/64"]);
            conf["ipMasq"] = true.into();
            conf["ipMasqBackend"] = backend;
            let pod = node.pod();
            node.add("bridge", &pod, &conf).result();
            let chain = masquerade_chain(&node, 4, "10.1.2.2/32");
            let comment = r#"-m comment --comment "name: \"net\" id: \"container-1\"""#;
            assert_eq!(
                node.nat_chain(4, &chain).unwrap(),
                [
                    format!("-N {chain}"),
                    format!("-A {chain} -d 10.1.2.0/24 {comment} -j ACCEPT"),
                    format!("-A {chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE"),
                ]
            );
            assert_eq!(masquerade_chain(&node, 6, "2001:db8::2/128"), chain);
            assert_eq!(
                node.nat_chain(6, &chain).unwrap(),
                [
                    format!("-N {chain}"),
                    format!("-A {chain} -d 2001:db8::/64 {comment} -j ACCEPT"),
                    format!("-A {chain} ! -d ff00::/8 {comment} -j MASQUERADE"),
                ]
            );
            node.del("bridge", &pod, &conf).silent();
            assert_eq!(node.nat(), [""; 0]);
        }
    }
}

#[test]
fn b29_m08_the_chain_name_is_the_reference_s() {
    let Some(node) = node() else { return };
    let mut pod = node.pod();
    pod.id = "1234".into();
    for (name, chain) in [
        ("test", "CNI-2bbe0c48b91a7d1b8a6753a8"),
        (
            "testalongnamethatdoesnotmakesense",
            "CNI-374f33fe84ab0ed84dcdebe3",
        ),
    ] {
        let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
        conf["name"] = name.into();
        conf["ipMasq"] = true.into();
        node.add("bridge", &pod, &conf).result();
        assert!(node.nat_chain(4, chain).is_some(), "{:?}", node.nat());
        node.del("bridge", &pod, &conf).silent();
        assert!(node.nat_chain(4, chain).is_none());
    }
}

#[test]
fn b29_the_nftables_backend_writes_commented_rules() {
    if cni::differs("1.1.1 has no nftables backend") {
        return;
    }
    let Some(node) = node() else { return };
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    conf["ipMasq"] = true.into();
    conf["ipMasqBackend"] = "nftables".into();
    let pod = node.pod();
    node.add("bridge", &pod, &conf).result();
    let ruleset = node.nft();
    for rule in [
        "ip saddr 10.1.2.2 ip daddr != 10.1.2.0/24 masquerade comment",
        "ip6 saddr 2001:db8::2 ip6 daddr != 2001:db8::/64 masquerade comment",
        "net: net, if: eth0, id: container-1",
    ] {
        assert!(ruleset.contains(rule), "{rule} is not in\n{ruleset}");
    }
    assert_eq!(node.nat(), [""; 0], "only one backend writes");
    node.del("bridge", &pod, &conf).silent();
    assert!(!node.nft().contains("container-1"));
    let odd = with(&conf, "ipMasqBackend", "ebtables".into());
    node.add("bridge", &pod, &odd)
        .fails("unknown ipmasq backend \"ebtables\"");
}

/// The chain that POSTROUTING jumps to for traffic from `source`.
fn masquerade_chain(node: &Node, version: u8, source: &str) -> String {
    let rules = node.nat_chain(version, "POSTROUTING").unwrap();
    let rule = rules
        .iter()
        .find(|it| it.contains(&format!("-s {source} ")));
    let rule = rule.unwrap_or_else(|| panic!("no rule for {source} among {rules:?}"));
    rule.rsplit(' ').next().unwrap().to_owned()
}
