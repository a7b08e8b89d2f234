//! VLANs on the host port. Needs a kernel with `CONFIG_BRIDGE_VLAN_FILTERING`.

use serde_json::{Value, json};
use tests::cni::{self, with};
use tests::ip::text;
use tests::node::{elsewhere, skip};
use tests::{Node, VERSIONS};

use crate::bridge::{l2, l3, networks};

// B14, B19
#[test]
fn b14_an_access_port_carries_its_vlan() {
    for version in layouts() {
        let Some(node) = node() else { return };
        let (port, _) = port_of(&node, &with(&l2(version), "vlan", 100.into()));
        assert_eq!(
            node.link("bridge0").unwrap()["linkinfo"]["info_data"]["vlan_filtering"],
            1
        );
        let vlan = vlans(&node, &port)
            .into_iter()
            .find(|it| it.id == 100)
            .unwrap();
        assert!(vlan.native);
    }
}

// B15, B01
#[test]
fn b15_a_trunk_carries_its_vlans_and_the_default_one() {
    for version in layouts() {
        let Some(node) = node() else { return };
        let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 210 }]);
        let (port, _) = port_of(&node, &with(&l2(version), "vlanTrunk", trunk));
        let expected: Vec<u64> = [1, 101].into_iter().chain(200..=210).collect();
        assert_eq!(ids(&node, &port), expected);
        assert_eq!(native(&node, &port), [1]);
    }
}

#[test]
fn b15_a_trunk_may_carry_all_vlans() {
    let Some(node) = node() else { return };
    let trunk = json!([{ "minID": 1, "maxID": 4094 }]);
    let conf = with(&l2("1.0.0"), "vlanTrunk", trunk);
    let (port, _) = port_of(&node, &conf);
    assert!(ids(&node, &port).into_iter().eq(1..=4094));
}

#[test]
fn b16_a_trunk_may_have_a_native_vlan_of_its_own() {
    for version in layouts() {
        let Some(node) = node() else { return };
        let trunk =
            json!([{ "id": 101 }, { "minID": 200, "maxID": 210, "id": 205 }, { "id": 300 }]);
        let conf = with(&with(&l2(version), "vlanTrunk", trunk), "vlan", 100.into());
        let (port, _) = port_of(&node, &conf);
        let ids = ids(&node, &port);
        for id in [100, 101, 200, 210, 300] {
            assert!(ids.contains(&id), "{id} is not among {ids:?}");
        }
        assert_eq!(native(&node, &port), [100]);
    }
}

#[test]
fn b17_without_the_default_vlan_there_is_one() {
    for version in layouts() {
        let Some(node) = node() else { return };
        let conf = with(
            &with(&l2(version), "vlan", 100.into()),
            "preserveDefaultVlan",
            false.into(),
        );
        let (port, _) = port_of(&node, &conf);
        assert_eq!(ids(&node, &port), [100]);
    }
}

#[test]
fn b18_the_gateway_of_a_vlan_has_a_device_of_its_own() {
    let cases: [(&[&str], &[&str]); 4] = [
        (&["10.3.0.0/24"], &["10.3.0.1/24"]),
        (&["2001:db8::/64"], &["2001:db8::1/64"]),
        (
            &["10.3.0.0/24", "2001:db8::/64"],
            &["10.3.0.1/24", "2001:db8::1/64"],
        ),
        (
            &["10.3.0.0/24", "fd00::/64", "2001:db8::/64"],
            &["10.3.0.1/24", "fd00::1/64", "2001:db8::1/64"],
        ),
    ];
    for version in layouts() {
        for (subnets, gateways) in cases {
            let Some(node) = node() else { return };
            let conf = with(&l3(&node, version, subnets), "vlan", 100.into());
            let conf = with(&conf, "preserveDefaultVlan", false.into());
            let (port, result) = port_of(&node, &conf);
            let mut addresses = node.addresses("bridge0.100");
            let mut expected = networks(gateways);
            addresses.sort();
            expected.sort();
            assert_eq!(addresses, expected);
            assert!(node.addresses("bridge0").is_empty());
            assert_eq!(
                node.link("bridge0.100").unwrap()["linkinfo"]["info_kind"],
                "veth"
            );
            let links = node.links();
            assert_eq!(links.len(), 4, "{links:?}"); // and lo
            let peer = links
                .iter()
                .find(|it| !["bridge0", "bridge0.100", &port].contains(&it.as_str()))
                .unwrap();
            assert_eq!(ids(&node, peer), [100]);
            assert_eq!(ids(&node, &port), [100]);
            assert_eq!(result["interfaces"].as_array().unwrap().len(), 4);
            assert_eq!(result["interfaces"][3]["name"], "bridge0.100");
        }
    }
}

// B02
#[test]
fn b02_a_trunk_that_makes_no_sense_is_named() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let together = "minID and maxID should be configured simultaneously";
    let (min, max) = (
        "incorrect trunk minID parameter",
        "incorrect trunk maxID parameter",
    );
    let cases = [
        (
            json!({ "minID": 10 }),
            format!("{together}, maxID is missing"),
        ),
        (
            json!({ "maxID": 10 }),
            format!("{together}, minID is missing"),
        ),
        (json!({ "minID": -1, "maxID": 10 }), min.into()),
        (json!({ "minID": 4095, "maxID": 4096 }), min.into()),
        (json!({ "minID": 1, "maxID": 4095 }), max.into()),
        (
            json!({ "minID": 9, "maxID": 8 }),
            "minID is greater than maxID in trunk parameter".into(),
        ),
        (json!({ "id": 4095 }), "incorrect trunk id parameter".into()),
        (json!({ "id": -1 }), "incorrect trunk id parameter".into()),
    ];
    if cni::differs("1.1.1 knows no vlanTrunk") {
        return;
    }
    for (element, msg) in cases {
        let conf = with(&l2("1.0.0"), "vlanTrunk", json!([element]));
        node.add("bridge", &node.pod(), &conf).fails(&msg);
    }
    assert!(node.links().is_empty());
}

/// One VLAN of a port.
struct Vlan {
    id: u64,
    /// Untagged frames belong to it, both ways.
    native: bool,
}

fn vlans(node: &Node, port: &str) -> Vec<Vlan> {
    let all = node.bridge("vlan show");
    let of_port = all
        .iter()
        .find(|it| it["ifname"] == port)
        .unwrap_or_else(|| panic!("{all:?}"));
    let mut vlans = Vec::new();
    for vlan in of_port["vlans"].as_array().unwrap() {
        let first = vlan["vlan"].as_u64().unwrap();
        let last = vlan["vlanEnd"].as_u64().unwrap_or(first);
        let flags = vlan["flags"].to_string();
        let native = flags.contains("PVID") && flags.contains("Egress Untagged");
        vlans.extend((first..=last).map(|id| Vlan { id, native }));
    }
    vlans
}

fn ids(node: &Node, port: &str) -> Vec<u64> {
    vlans(node, port).iter().map(|it| it.id).collect()
}

fn native(node: &Node, port: &str) -> Vec<u64> {
    vlans(node, port)
        .iter()
        .filter(|it| it.native)
        .map(|it| it.id)
        .collect()
}

/// ADD of `conf`: the host port and the result.
fn port_of(node: &Node, conf: &Value) -> (String, Value) {
    let result = node.add("bridge", &node.pod(), conf).result();
    (text(&result["interfaces"][1], "name"), result)
}

/// Versions whose results name interfaces.
fn layouts() -> impl Iterator<Item = &'static str> {
    VERSIONS[2..]
        .iter()
        .filter(|it| cni::versions().contains(it))
        .copied()
}

/// A node whose kernel filters VLANs.
pub(crate) fn node() -> Option<Node> {
    let node = Node::with(&["bridge", "host-local"])?;
    if node.tries(
        "ip",
        &[
            "link",
            "add",
            "probe",
            "type",
            "bridge",
            "vlan_filtering",
            "1",
        ],
    ) {
        node.run("ip", &["link", "del", "probe"]);
        return Some(node);
    }
    let why = "this kernel has no CONFIG_BRIDGE_VLAN_FILTERING";
    if elsewhere("vlan") {
        tests::node::note(why)
    } else {
        skip(why)
    }
    None
}
