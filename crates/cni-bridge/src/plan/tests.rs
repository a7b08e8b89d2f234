use std::fmt::Write;

use cni_net::{Bridge, Link, OperState};
use cni_spec::Success;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn config(keys: Value) -> Config {
    Config::new(cni_spec::json::read(&keys).unwrap(), "").unwrap()
}

fn names() -> Names {
    Names {
        host: "vethhost".to_owned(),
        container: "eth0".to_owned(),
        gateway_port: "vethgw".to_owned(),
    }
}

fn link(name: &str, kind: &str) -> Link {
    Link {
        name: name.to_owned(),
        index: 7,
        mac: vec![2, 0, 0, 0, 0, 7],
        mtu: 1400,
        up: true,
        operstate: OperState::UP,
        kind: kind.to_owned(),
        promiscuity: 0,
        master: None,
        peer: None,
        bridge: (kind == "bridge").then_some(Bridge {
            vlan_filtering: false,
            default_pvid: 1,
        }),
        accept_ra: Some(0),
    }
}

/// IPAM's answer: one IPv4 address, or that and one IPv6 address.
fn ips(dual: bool) -> Value {
    let v6 = json!({ "address": "fd00::5/64", "gateway": "fd00::1" });
    let v4 = json!({ "address": "10.1.2.5/24", "gateway": "10.1.2.1" });
    json!({ "cniVersion": "1.0.0", "ips": if dual { vec![v4, v6] } else { vec![v4] }, "routes": [{ "dst": "10.0.0.0/8" }] })
}

fn attach_text(keys: Value, seen: &Seen, ipam: Option<Value>) -> String {
    let config = config(keys);
    let addressing =
        ipam.map(|ipam| Addressing::new(&config, &Success::decode(&ipam, "").unwrap().0));
    match attach(
        &config,
        seen,
        &names(),
        addressing.as_ref(),
        &[2, 0, 0, 0, 0, 1],
    ) {
        Ok(plan) => plan.iter().fold(String::new(), |mut text, step| {
            writeln!(text, "{step}").unwrap();
            text
        }),
        Err(error) => error.to_string(),
    }
}

fn check(keys: Value, seen: &Seen, ipam: Option<Value>, expected: Expect) {
    expected.assert_eq(&attach_text(keys, seen, ipam));
}

// K28
#[test]
fn the_first_container_of_a_flannel_node() {
    check(
        json!({ "mtu": 1450, "hairpinMode": true, "isDefaultGateway": true }),
        &Seen::default(),
        Some(ips(false)),
        expect![[r#"
            host: ip link add cni0 mtu 1450 address 02:00:00:00:00:01 type bridge
            host: sysctl -w net/ipv6/conf/cni0/accept_ra=0
            host: ip link set cni0 up
            host: ip link add vethhost up master cni0 mtu 1450 txqueuelen 0 type veth peer eth0 netns container mtu 1450
            host: sysctl -w net/ipv6/conf/vethhost/accept_ra=0
            host: bridge link set dev vethhost hairpin on isolated off
            container: sysctl -w net/ipv6/conf/eth0/accept_dad=0
            container: sysctl -w net/ipv4/conf/eth0/arp_notify=1
            container: ip addr add 10.1.2.5/24 dev eth0
            container: ip link set eth0 up
            container: ip route append 10.0.0.0/8 via 10.1.2.1 dev eth0
            container: ip route append 0.0.0.0/0 via 10.1.2.1 dev eth0
            host: ip addr add 10.1.2.1/24 dev cni0
            host: sysctl -w net/ipv4/ip_forward=1
            host: wait for vethhost to be up
        "#]],
    );
}

#[test]
fn a_bridge_that_takes_routers_advice_stops_to() {
    for (accept_ra, stops) in [
        (Some(0), false),
        (Some(1), true),
        (Some(2), true),
        (None, false),
    ] {
        let bridge = Link {
            accept_ra,
            ..link("cni0", "bridge")
        };
        let seen = Seen {
            bridge: Some(bridge),
            ..Seen::default()
        };
        let text = attach_text(json!({}), &seen, None);
        assert_eq!(
            text.contains("conf/cni0/accept_ra=0"),
            stops,
            "{accept_ra:?}"
        );
    }
}

// B04
#[test]
fn b04_the_next_one_changes_nothing_of_the_bridge() {
    let seen = Seen {
        bridge: Some(link("cni0", "bridge")),
        gateway_addresses: vec![
            "10.1.2.1/24".parse().unwrap(),
            "fd00::1/64".parse().unwrap(),
        ],
        ..Seen::default()
    };
    check(
        json!({ "isGateway": true }),
        &seen,
        Some(ips(true)),
        expect![[r#"
            host: ip link add vethhost up master cni0 txqueuelen 0 type veth peer eth0 netns container
            host: sysctl -w net/ipv6/conf/vethhost/accept_ra=0
            container: sysctl -w net/ipv6/conf/eth0/accept_dad=0
            container: sysctl -w net/ipv6/conf/lo/disable_ipv6=0
            container: sysctl -w net/ipv6/conf/eth0/disable_ipv6=0
            container: sysctl -w net/ipv6/conf/eth0/keep_addr_on_down=1
            container: sysctl -w net/ipv4/conf/eth0/arp_notify=1
            container: ip addr add 10.1.2.5/24 dev eth0
            container: ip addr add fd00::5/64 dev eth0 nodad
            container: ip link set eth0 up
            container: ip route append 10.0.0.0/8 via 10.1.2.1 dev eth0
            host: sysctl -w net/ipv4/ip_forward=1
            host: sysctl -w net/ipv6/conf/all/forwarding=1
            host: wait for vethhost to be up
        "#]],
    );
}

// B21
#[test]
fn b21_a_forced_address_pins_the_bridges_mac() {
    let seen = Seen {
        bridge: Some(link("cni0", "bridge")),
        gateway_addresses: vec!["10.9.9.1/24".parse().unwrap()],
        ..Seen::default()
    };
    let keys = json!({ "isGateway": true, "forceAddress": true });
    let text = attach_text(keys, &seen, Some(ips(false)));
    let changes: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("dev cni0") || line.contains("set cni0"))
        .collect();
    assert_eq!(
        changes,
        [
            "host: ip addr del 10.9.9.1/24 dev cni0",
            "host: ip addr add 10.1.2.1/24 dev cni0",
            "host: ip link set cni0 address 02:00:00:00:00:07",
        ]
    );
    assert_eq!(
        attach_text(json!({ "isGateway": true }), &seen, Some(ips(false))),
        "failed to set bridge addr: \"cni0\" already has an IP address different from 10.1.2.1/24"
    );
}

// B33, B34, B25
#[test]
fn layer_2_only() {
    check(
        json!({ "promiscMode": true, "portIsolation": true }),
        &Seen::default(),
        None,
        expect![[r#"
            host: ip link add cni0 type bridge
            host: ip link set cni0 promisc on
            host: sysctl -w net/ipv6/conf/cni0/accept_ra=0
            host: ip link set cni0 up
            host: ip link add vethhost up master cni0 txqueuelen 0 type veth peer eth0 netns container
            host: sysctl -w net/ipv6/conf/vethhost/accept_ra=0
            host: bridge link set dev vethhost hairpin off isolated on
            container: ip link set eth0 up
            host: wait for vethhost to be up
        "#]],
    );
    let text = attach_text(
        json!({ "disableContainerInterface": true }),
        &Seen::default(),
        None,
    );
    assert!(text.ends_with("vethhost/accept_ra=0\n"), "{text}");
}

// B14, B17
#[test]
fn b17_a_vlan_takes_the_place_of_the_default_one() {
    let vlan_lines = |keys: Value, seen: &Seen| {
        attach_text(keys, seen, None)
            .lines()
            .filter(|line| line.contains("vlan"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        vlan_lines(json!({ "vlan": 100 }), &Seen::default()),
        [
            "host: ip link add cni0 type bridge vlan_filtering 1",
            "host: bridge vlan del dev vethhost vid 1 master",
            "host: bridge vlan add dev vethhost vid 100 pvid untagged master",
        ]
    );
    assert_eq!(
        vlan_lines(
            json!({ "vlan": 100, "preserveDefaultVlan": true }),
            &Seen::default()
        )[1..],
        ["host: bridge vlan add dev vethhost vid 100 pvid untagged master"]
    );
    let mut other = link("cni0", "bridge");
    other.bridge = Some(Bridge {
        vlan_filtering: true,
        default_pvid: 7,
    });
    assert_eq!(
        vlan_lines(
            json!({ "vlan": 100 }),
            &Seen {
                bridge: Some(other),
                ..Seen::default()
            }
        )[0],
        "host: bridge vlan del dev vethhost vid 7 master"
    );
    assert!(vlan_lines(json!({}), &Seen::default()).is_empty());
}

// B15, B16
#[test]
fn b15_a_trunk_has_a_native_vlan() {
    let vids = |keys: Value| {
        let text = attach_text(keys, &Seen::default(), None);
        let add = "host: bridge vlan add dev vethhost vid ";
        text.lines()
            .filter_map(|line| line.strip_prefix(add).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 201 }]);
    assert_eq!(
        vids(json!({ "vlanTrunk": trunk })),
        [
            "101 master",
            "200 master",
            "201 master",
            "1 pvid untagged master"
        ]
    );
    assert_eq!(
        vids(json!({ "vlanTrunk": trunk, "vlan": 100 })),
        [
            "100 pvid untagged master",
            "101 master",
            "200 master",
            "201 master"
        ]
    );
    assert!(vids(json!({ "vlanTrunk": [] })).is_empty());
}

// B18
#[test]
fn b18_the_vlans_gateway_has_a_device_of_its_own() {
    let keys = json!({ "vlan": 100, "isGateway": true });
    let gateway_lines = |seen: &Seen| {
        let text = attach_text(keys.clone(), seen, Some(ips(false)));
        let ours = |line: &&str| line.contains("vethgw") || line.contains("cni0.100");
        text.lines()
            .filter(ours)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        gateway_lines(&Seen {
            bridge: Some(link("cni0", "bridge")),
            ..Seen::default()
        }),
        [
            "host: ip link add vethgw up master cni0 mtu 1400 txqueuelen 0 type veth peer cni0.100 mtu 1400",
            "host: sysctl -w net/ipv6/conf/vethgw/accept_ra=0",
            "host: bridge vlan del dev vethgw vid 1 master",
            "host: bridge vlan add dev vethgw vid 100 pvid untagged master",
            "host: ip link set cni0.100 up",
            "host: ip addr add 10.1.2.1/24 dev cni0.100",
        ]
    );
    let there = Seen {
        bridge: Some(link("cni0", "bridge")),
        vlan_device: Some(link("cni0.100", "veth")),
        gateway_addresses: vec!["10.1.2.1/24".parse().unwrap()],
        ..Seen::default()
    };
    assert!(gateway_lines(&there).is_empty());
}

#[test]
fn duplicate_address_detection_is_waited_for() {
    let text = attach_text(
        json!({ "enabledad": true }),
        &Seen::default(),
        Some(ips(true)),
    );
    let container: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("container: "))
        .collect();
    assert_eq!(
        container,
        [
            "sysctl -w net/ipv6/conf/eth0/enhanced_dad=1",
            "sysctl -w net/ipv6/conf/eth0/accept_dad=1",
            "sysctl -w net/ipv6/conf/lo/disable_ipv6=0",
            "sysctl -w net/ipv6/conf/eth0/disable_ipv6=0",
            "sysctl -w net/ipv6/conf/eth0/keep_addr_on_down=1",
            "sysctl -w net/ipv4/conf/eth0/arp_notify=1",
            "ip addr add 10.1.2.5/24 dev eth0",
            "ip addr add fd00::5/64 dev eth0",
            "ip link set eth0 up",
            "wait for the addresses of eth0 to settle",
            "ip route append 10.0.0.0/8 via 10.1.2.1 dev eth0",
        ]
    );
}

// L09
#[test]
fn l09_routes_have_all_their_fields() {
    let ipam = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.2.5/24" }], "routes": [
        { "dst": "10.8.0.0/16", "gw": "10.1.2.9", "mtu": 1300, "advmss": 1200, "priority": 50, "table": 300, "scope": 0 },
        { "dst": "10.9.0.0/16", "scope": 253 },
    ] });
    let text = attach_text(json!({}), &Seen::default(), Some(ipam));
    let routes: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("container: ip route append "))
        .collect();
    assert_eq!(
        routes,
        [
            "10.8.0.0/16 via 10.1.2.9 dev eth0 metric 50 table 300 mtu 1300 advmss 1200",
            "10.9.0.0/16 dev eth0 scope 253"
        ]
    );
}

#[test]
fn a_route_field_that_no_kernel_takes_is_refused() {
    for (key, value) in [
        ("scope", json!(300)),
        ("table", json!(-1)),
        ("mtu", json!(-5)),
        ("priority", json!(1_u64 << 40)),
    ] {
        let mut route = json!({ "dst": "10.8.0.0/16" });
        route[key] = value.clone();
        let ipam = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.2.5/24" }], "routes": [route] });
        let text = attach_text(json!({}), &Seen::default(), Some(ipam));
        assert_eq!(
            text,
            format!("invalid `{key}` {value} of the route to 10.8.0.0/16")
        );
    }
}

// L06
#[test]
fn l06_what_is_there_already_is_refused() {
    let refused = |seen: Seen| {
        admit(&config(json!({})), &seen, &names())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(Seen {
            container_link: true,
            ..Seen::default()
        }),
        "container veth name (\"eth0\") peer provided (\"vethhost\") already exists"
    );
    assert_eq!(
        refused(Seen {
            bridge: Some(link("cni0", "dummy")),
            ..Seen::default()
        }),
        "failed to create bridge \"cni0\": \"cni0\" already exists but is not a bridge"
    );
}
