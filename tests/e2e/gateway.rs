//! The bridge itself: which addresses it takes on, and what it was before.

use serde_json::json;
use tests::Node;
use tests::cni::{self, with};

use crate::bridge::{l2, l3, networks, node, sorted};
use crate::leases;

// B21, B22
#[test]
fn b21_another_address_on_the_bridge_is_an_error_or_replaced() {
    let cases = [
        ("10.0.0.1/8", "10.1.0.0/16", "10.1.2.3", "10.1.2.3/16"),
        (
            "2001:db8:1::1/48",
            "2001:db8:1:2::/64",
            "2001:db8:1:2::1",
            "2001:db8:1:2::1/64",
        ),
    ];
    for (there, subnet, gateway, wanted) in cases {
        let Some(node) = node() else { return };
        bridge_with(&node, &[there]);
        let mut conf = l3(&node, "1.0.0", &[subnet]);
        conf["ipam"]["ranges"][0][0]["gateway"] = gateway.into();
        let pod = node.pod();
        let msg = format!(
            "failed to set bridge addr: \"bridge0\" already has an IP address different from {wanted}"
        );
        node.add("bridge", &pod, &conf).fails(&msg); // B24: not by default
        assert_eq!(node.addresses("bridge0"), networks(&[there]));
        assert!(leases(&node, "net").is_empty());

        let Some(node) = self::node() else { return };
        bridge_with(&node, &[there]);
        conf["ipam"]["dataDir"] = node.dir().join("ipam").to_str().unwrap().into();
        node.add(
            "bridge",
            &node.pod(),
            &with(&conf, "forceAddress", true.into()),
        )
        .result();
        assert_eq!(node.addresses("bridge0"), networks(&[wanted]));
    }
}

#[test]
fn a_bridge_whose_last_port_left_can_be_used_again() {
    if cni::differs("it writes back the all-zero MAC that such a bridge has") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    node.add("bridge", &pod, &l2("1.0.0")).result();
    node.del("bridge", &pod, &l2("1.0.0")).silent();
    let result = node
        .add("bridge", &pod, &l3(&node, "1.0.0", &["10.1.2.0/24"]))
        .result();
    assert_eq!(
        result["interfaces"][0]["mac"],
        node.link("bridge0").unwrap()["address"]
    );
    assert!(pod.pings("10.1.2.1"));
}

#[test]
fn b23_disjoint_ipv6_addresses_live_together() {
    for force in [false, true] {
        let Some(node) = node() else { return };
        bridge_with(&node, &["2001:db8:1::1/64"]);
        let conf = with(
            &l3(&node, "1.0.0", &["fd00::/64"]),
            "forceAddress",
            force.into(),
        );
        node.add("bridge", &node.pod(), &conf).result();
        let both = networks(&["2001:db8:1::1/64", "fd00::1/64"]);
        assert_eq!(sorted(node.addresses("bridge0")), both);
    }
}

#[test]
fn b24_force_address_is_off_unless_asked_for() {
    let Some(node) = node() else { return };
    bridge_with(&node, &["192.0.2.1/24"]);
    node.add("bridge", &node.pod(), &l3(&node, "1.0.0", &["10.1.2.0/24"]))
        .failure();
    assert_eq!(node.addresses("bridge0"), networks(&["192.0.2.1/24"]));
}

#[test]
fn l08_forwarding_is_switched_on_for_gateways_only() {
    let Some(node) = node() else { return };
    let forwarding = || {
        let read = |path: &str| node.sysctl(path).unwrap();
        (
            read("net/ipv4/ip_forward"),
            read("net/ipv6/conf/all/forwarding"),
        )
    };
    let off = |path: &str| node.set_sysctl(path, "0");
    off("net/ipv4/ip_forward");
    off("net/ipv6/conf/all/forwarding");
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    conf["isDefaultGateway"] = false.into();
    node.add("bridge", &node.pod(), &conf).result();
    assert_eq!(forwarding(), ("0".into(), "0".into()));
    conf["isGateway"] = true.into();
    node.add("bridge", &node.pod(), &conf).result();
    assert_eq!(forwarding(), ("1".into(), "0".into()));
    conf["name"] = "six".into();
    conf["ipam"]["ranges"] = json!([[{ "subnet": "2001:db8::/64" }]]);
    node.add("bridge", &node.pod(), &conf).result();
    assert_eq!(forwarding(), ("1".into(), "1".into()));
}

#[test]
fn a_name_that_is_no_bridge_is_refused() {
    let Some(node) = node() else { return };
    node.run(
        "ip",
        &[
            "link", "add", "bridge0", "type", "veth", "peer", "name", "other",
        ],
    );
    let add = node.add("bridge", &node.pod(), &l2("1.0.0"));
    add.fails(
        "failed to create bridge \"bridge0\": \"bridge0\" already exists but is not a bridge",
    );
}

#[test]
fn the_bridge_takes_the_mtu_when_it_is_made() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    node.add(
        "bridge",
        &pod,
        &with(&l3(&node, "1.0.0", &["10.1.2.0/24"]), "mtu", 1450.into()),
    )
    .result();
    assert_eq!(node.link("bridge0").unwrap()["mtu"], 1450);
    assert_eq!(pod.link("eth0").unwrap()["mtu"], 1450);
}

fn bridge_with(node: &Node, addresses: &[&str]) {
    node.run("ip", &["link", "add", "bridge0", "up", "type", "bridge"]);
    for address in addresses {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let mut args = vec![family, "addr", "add", address, "dev", "bridge0"];
        if family == "-6" {
            args.push("nodad");
        }
        node.run("ip", &args);
    }
}
