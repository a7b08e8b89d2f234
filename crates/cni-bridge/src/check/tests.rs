use serde_json::{Value, json};

use super::*;

const NETNS: &str = "/run/netns/pod";

fn link(name: &str, index: u32, kind: &str) -> Link {
    Link {
        name: name.to_owned(),
        index,
        mac: vec![2, 0, 0, 0, 0, u8::try_from(index).unwrap()],
        mtu: 1500,
        up: true,
        operstate: OperState::UP,
        kind: kind.to_owned(),
        promiscuity: 0,
        master: None,
        peer: None,
        bridge: None,
        accept_ra: None,
    }
}

fn result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "cni0", "mac": "02:00:00:00:00:05" },
            { "name": "vethhost", "mac": "02:00:00:00:00:06" },
            { "name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": NETNS },
        ],
        "ips": [
            { "address": "10.1.2.5/24", "gateway": "10.1.2.1", "interface": 2 },
            { "address": "fd00::5/64", "gateway": "fd00::1", "interface": 2 },
        ],
        "routes": [{ "dst": "10.8.0.0/16" }, { "dst": "0.0.0.0/0", "gw": "10.1.2.1" }],
    })
}

fn healthy() -> Observed {
    let route = |dst: &str, gw: &[&str]| InstalledRoute {
        dst: dst.parse().unwrap(),
        gateways: gw.iter().map(|gw| gw.parse().unwrap()).collect(),
        oif: Some(2),
    };
    let address = |text: &str| Address {
        address: text.parse().unwrap(),
        tentative: false,
        dad_failed: false,
    };
    Observed {
        host: vec![
            link("cni0", 5, "bridge"),
            Link {
                master: Some(5),
                peer: Some(2),
                ..link("vethhost", 6, "veth")
            },
        ],
        container: Some(Link {
            peer: Some(6),
            ..link("eth0", 2, "veth")
        }),
        addresses: vec![address("10.1.2.5/24"), address("fd00::5/64")],
        routes: vec![
            route("10.1.2.0/24", &[]),
            route("fd00::/64", &[]),
            route("10.8.0.0/16", &["10.1.2.1"]),
            route("0.0.0.0/0", &["10.1.2.1"]),
        ],
    }
}

fn check(keys: Value, result: &Value, seen: &Observed) -> String {
    let config = Config::new(cni_spec::json::read(&keys).unwrap(), "").unwrap();
    let (prev, _) = Success::decode(result, "").unwrap();
    compare(&prev, &config, "eth0", NETNS, seen)
        .err()
        .map(|mismatch| mismatch.to_string())
        .unwrap_or_default()
}

/// What CHECK says of a healthy attachment after a change to it.
fn after(change: impl FnOnce(&mut Observed)) -> String {
    let mut seen = healthy();
    change(&mut seen);
    check(json!({}), &result(), &seen)
}

/// What CHECK says of a healthy attachment after a change to the result it is compared with.
fn reported(change: impl FnOnce(&mut Value)) -> String {
    let mut result = result();
    change(&mut result);
    check(json!({}), &result, &healthy())
}

// B30
#[test]
fn b30_a_healthy_attachment() {
    assert_eq!(check(json!({}), &result(), &healthy()), "");
}

#[test]
fn the_bridge() {
    assert_eq!(
        after(|seen| drop(seen.host.remove(0))),
        "Interface name cni0 not found"
    );
    assert_eq!(
        after(|seen| seen.host[0].kind = "veth".into()),
        "Interface cni0 does not have link type of bridge"
    );
    let mut other_mac = healthy();
    other_mac.host[0].mac[0] = 6;
    assert_eq!(
        check(json!({ "isGateway": true }), &result(), &other_mac),
        "Bridge interface cni0 Mac doesn't match: 02:00:00:00:00:05"
    );
    // Without an address of its own it follows its ports.
    assert_eq!(check(json!({}), &result(), &other_mac), "");
    assert_eq!(
        after(|seen| seen.host[0].promiscuity = 1),
        "Bridge interface cni0 configured Promisc Mode false doesn't match current state: true "
    );
    assert_eq!(
        reported(|result| result["interfaces"] = json!([])),
        "Interface name missing "
    );
    assert_eq!(
        reported(|result| result["interfaces"][0]["sandbox"] = "/x".into()),
        "Interface cni0 should not be in sandbox"
    );
}

#[test]
fn the_containers_end() {
    assert_eq!(
        after(|seen| seen.container = None),
        "Interface name eth0 not found"
    );
    let kind = |seen: &mut Observed| seen.container.as_mut().unwrap().kind = "dummy".into();
    assert_eq!(
        after(kind),
        "Error: Container interface eth0 not of type veth"
    );
    let peer = |seen: &mut Observed| seen.container.as_mut().unwrap().peer = None;
    assert_eq!(
        after(peer),
        "Unable to obtain veth peer index for veth eth0"
    );
    let mac = |seen: &mut Observed| seen.container.as_mut().unwrap().mac[5] = 9;
    assert_eq!(
        after(mac),
        "Interface eth0 Mac 02:00:00:00:00:02 doesn't match container Mac: 02:00:00:00:00:09"
    );
    assert_eq!(
        reported(|result| result["interfaces"][2]["sandbox"] = "/other".into()),
        "Sandbox in prevResult /other doesn't match configured netns: /run/netns/pod"
    );
}

#[test]
fn the_nodes_end() {
    let missing = "CNI veth created for bridge cni0 was not found";
    assert_eq!(after(|seen| drop(seen.host.remove(1))), missing);
    assert_eq!(after(|seen| seen.host[1].master = None), missing);
    assert_eq!(after(|seen| seen.host[1].peer = Some(9)), missing);
    assert_eq!(
        after(|seen| seen.host[1].mac[5] = 9),
        "Interface vethhost Mac doesn't match: 02:00:00:00:00:06 not found"
    );
    assert_eq!(
        after(|seen| seen.host[1].operstate = OperState("lower-layer-down")),
        "bridge port in error state: lower-layer-down"
    );
}

#[test]
fn addresses() {
    assert_eq!(
        after(|seen| {
            seen.addresses.remove(1);
        }),
        "Failed to match addr fd00::5/64 on interface eth0"
    );
    assert_eq!(
        after(|seen| drop(seen.routes.remove(0))),
        "Failed to find Gateway 10.1.2.1 for interface eth0"
    );
    let host_only =
        |result: &mut Value| result["ips"][0] = json!({ "address": "10.1.2.5/32", "interface": 2 });
    assert_eq!(
        reported(host_only),
        "Failed to match addr 10.1.2.5/32 on interface eth0"
    );
}

#[test]
fn an_ipv4_host_address_needs_no_connected_route() {
    let mut seen = healthy();
    seen.addresses[0].address = "10.1.2.5/32".parse().unwrap();
    seen.routes.remove(0);
    let mut result = result();
    result["ips"][0]["address"] = "10.1.2.5/32".into();
    assert_eq!(check(json!({}), &result, &seen), "");
}

#[test]
fn routes() {
    assert_eq!(
        after(|seen| drop(seen.routes.remove(2))),
        "Expected Route {Dst:{IP:10.8.0.0 Mask:ffff0000} GW:<nil> MTU:0 AdvMSS:0 Priority:0 Table:<nil> Scope:<nil>} not found in routing table"
    );
    assert_eq!(
        after(|seen| seen.routes[3].gateways = vec!["10.1.2.99".parse().unwrap()]),
        ""
    );
    let with_gateway = |result: &mut Value| result["routes"][0]["gw"] = "10.1.2.77".into();
    assert!(reported(with_gateway).starts_with("Expected Route "));
    let other_table =
        |result: &mut Value| result["routes"][0] = json!({ "dst": "10.77.0.0/16", "table": 100 });
    assert_eq!(reported(other_table), "");
}

#[test]
fn other_plugins_interfaces_are_not_ours_to_judge() {
    let foreign = |result: &mut Value| {
        let interfaces = result["interfaces"].as_array_mut().unwrap();
        interfaces.push(json!({ "name": "tap0", "sandbox": "/vm" }));
        interfaces.push(json!({ "name": "gone0" }));
        result["ips"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "address": "10.99.0.5/24", "interface": 3 }));
    };
    assert_eq!(reported(foreign), "");
}
