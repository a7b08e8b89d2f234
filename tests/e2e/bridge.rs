//! `bridge` on a kernel: links, addresses, routes, sysctls, and what is left when a pod goes.

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use tests::cni::{self, with};
use tests::ip::text;
use tests::{Node, Pod};

use crate::{check_no_ports, leases};

/// Range sets, and what they make of bridge and pod: a `subnet` a set.
struct Case {
    subnets: &'static [&'static str],
    gateways: &'static [&'static str],
    addresses: &'static [&'static str],
    /// Default routes in the pod.
    defaults: &'static [&'static str],
}

const CASES: [Case; 4] = [
    Case {
        subnets: &["10.1.2.0/24"],
        gateways: &["10.1.2.1/24"],
        addresses: &["10.1.2.2/24"],
        defaults: &["default via 10.1.2.1 dev eth0"],
    },
    Case {
        subnets: &["2001:db8::/64"],
        gateways: &["2001:db8::1/64"],
        addresses: &["2001:db8::2/64"],
        defaults: &["default via 2001:db8::1 dev eth0"],
    },
    Case {
        subnets: &["10.1.2.0/24", "2001:db8::/64"],
        gateways: &["10.1.2.1/24", "2001:db8::1/64"],
        addresses: &["10.1.2.2/24", "2001:db8::2/64"],
        defaults: &[
            "default via 10.1.2.1 dev eth0",
            "default via 2001:db8::1 dev eth0",
        ],
    },
    Case {
        subnets: &["192.168.0.0/24", "fd00::/64", "2001:db8::/64"],
        gateways: &["192.168.0.1/24", "fd00::1/64", "2001:db8::1/64"],
        addresses: &["192.168.0.2/24", "fd00::2/64", "2001:db8::2/64"],
        defaults: &[
            "default via 192.168.0.1 dev eth0",
            "default via fd00::1 dev eth0",
        ],
    },
];

#[test]
fn b03_b04_b26_a_bridge_is_made_once_and_keeps_its_address() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let conf = l3(&node, version, &["10.1.2.0/24", "2001:db8::/64"]);
        node.add("bridge", &node.pod(), &conf).result();
        let first = node.link("bridge0").unwrap();
        assert_eq!(first["linkinfo"]["info_kind"], "bridge");
        assert_eq!(first["promiscuity"], 0); // B03
        let second = node.pod();
        node.add("bridge", &second, &conf).result();
        let then = node.link("bridge0").unwrap();
        assert_eq!(then["ifindex"], first["ifindex"]); // B04
        assert_eq!(then["address"], first["address"]); // B26
        node.del("bridge", &second, &conf).silent();
        assert_eq!(node.link("bridge0").unwrap()["address"], first["address"]);
    }
}

#[test]
fn b26_a_bridge_made_by_somebody_else_keeps_its_address() {
    for subnet in ["10.1.2.0/24", "2001:db8::/64"] {
        let Some(node) = node() else { return };
        node.run("ip", &["link", "add", "bridge0", "type", "bridge"]);
        let before = node.link("bridge0").unwrap();
        let pod = node.pod();
        let conf = l3(&node, "1.0.0", &[subnet]);
        node.add("bridge", &pod, &conf).result();
        let during = node.link("bridge0").unwrap();
        assert_eq!(
            (&during["ifindex"], &during["address"]),
            (&before["ifindex"], &before["address"])
        );
        node.del("bridge", &pod, &conf).silent();
        assert_eq!(node.link("bridge0").unwrap()["address"], before["address"]);
    }
}

// B05, B06, B07, B09, B11, B12, B19
#[test]
fn b05_default_gateways_of_every_family_in_every_version() {
    for version in cni::versions() {
        for case in &CASES {
            if case.subnets.len() > 2 && old(version) {
                continue; // B08
            }
            let Some(node) = node() else { return };
            let pod = node.pod();
            let conf = l3(&node, version, case.subnets);
            let added = node.add("bridge", &pod, &conf);
            let result = added.result();

            assert_eq!(
                sorted(node.addresses("bridge0")),
                sorted(networks(case.gateways))
            );
            assert_eq!(
                sorted(pod.addresses("eth0")),
                sorted(networks(case.addresses))
            );
            assert_eq!(pod.routes(), case.defaults);
            assert_eq!(pod.link("eth0").unwrap()["operstate"], "UP"); // B11
            let source = |it: &Value| !it["prefsrc"].is_null();
            assert!(!pod.ip("-4 route show default").iter().any(source));

            let links = node.links();
            let [bridge, host] = links.as_slice() else {
                panic!("{links:?}")
            };
            assert_eq!(bridge, "bridge0");
            let master = node.link(host).unwrap();
            assert_eq!(
                (text(&master, "master").as_str(), kind(&master)),
                ("bridge0", "veth")
            );
            let device = node.link("bridge0").unwrap();
            let filtering = &device["linkinfo"]["info_data"]["vlan_filtering"];
            assert!(filtering.is_null() || filtering == 0, "{filtering}"); // B19
            if !old(version) {
                assert!(added.stdout.contains("\"interfaces\":"));
                check_interfaces(&result, &node, &pod, host);
            }
            for ip in ips(&result) {
                assert!(
                    case.addresses.contains(&ip.as_str()),
                    "{ip} is not among {:?}",
                    case.addresses
                );
            }

            node.del("bridge", &pod, &conf).silent();
            assert_eq!(node.links(), ["bridge0"]); // B12
            assert!(pod.links().is_empty());
            assert!(leases(&node, "net").is_empty());
            node.del("bridge", &pod, &conf).silent();
        }
    }
}

/// B07, B09: bridge, host end and container end, as they are.
fn check_interfaces(result: &Value, node: &Node, pod: &Pod, host: &str) {
    let interfaces = result["interfaces"].as_array().unwrap();
    let names: Vec<&str> = interfaces
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bridge0", host, "eth0"]);
    assert!(host.starts_with("veth") && host.len() == 12, "{host}");
    let devices = [node.link("bridge0"), node.link(host), pod.link("eth0")];
    for (interface, device) in interfaces.iter().zip(devices) {
        let mac = interface["mac"].as_str().unwrap();
        assert_eq!(mac.len(), 17);
        assert_eq!(mac, device.unwrap()["address"]);
    }
    assert_ne!(interfaces[0]["mac"], interfaces[1]["mac"]);
    assert!(interfaces[0]["sandbox"].is_null() && interfaces[1]["sandbox"].is_null());
    assert_eq!(interfaces[2]["sandbox"], pod.path());
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 2);
    }
}

#[test]
fn b05_b10_nameservers_come_from_resolv_conf() {
    if cni::differs("1.1.1 takes dns from the configuration only") {
        return;
    }
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let file = node.dir().join("resolv.conf");
        std::fs::write(
            &file,
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch one two\n",
        )
        .unwrap();
        let mut conf = l3(&node, version, &["10.1.2.0/24"]);
        conf["ipam"]["resolvConf"] = file.to_str().unwrap().into();
        let pod = node.pod();
        let result = node.add("bridge", &pod, &conf).result();
        assert_eq!(
            result["dns"]["nameservers"],
            json!(["192.0.2.1", "192.0.2.2"])
        );
        assert_eq!(result["dns"]["search"], json!(["one", "two"]));
        node.del("bridge", &pod, &conf).silent();
        conf["dns"] = json!({ "nameservers": ["198.51.100.1"] });
        let result = node.add("bridge", &pod, &conf).result();
        assert_eq!(
            result["dns"],
            json!({ "nameservers": ["198.51.100.1"] }),
            "dns replaces it wholesale"
        );
    }
}

#[test]
fn b08_the_oldest_versions_hold_one_address_a_family() {
    for version in ["0.1.0", "0.2.0"] {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let two = l3(&node, version, CASES[2].subnets);
        let added = node.add("bridge", &pod, &two);
        assert!(added.stdout.contains("\"ip\":"));
        let result = added.result();
        assert_eq!(result["ip4"]["ip"], "10.1.2.2/24");
        assert_eq!(result["ip6"]["ip"], "2001:db8::2/64");
        assert_eq!(
            result["ip4"]["routes"],
            json!([{ "dst": "0.0.0.0/0", "gw": "10.1.2.1" }])
        );
        node.del("bridge", &pod, &two).silent();

        let three = l3(&node, version, CASES[3].subnets);
        let msg = format!("CNI version {version} does not support more than 1 address per family");
        node.add("bridge", &pod, &three).fails(&msg);
        node.del("bridge", &pod, &three).fails(&msg);
    }
}

#[test]
fn b13_layer_two_is_a_cable_without_addresses() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let conf = l2(version);
        let added = node.add("bridge", &pod, &conf);
        if old(version) {
            added.fails("cannot convert: no valid IP addresses");
        } else {
            let result = added.result();
            let host = result["interfaces"][1]["name"].as_str().unwrap();
            assert_eq!(node.link(host).unwrap()["master"], "bridge0");
            assert_eq!(pod.link("eth0").unwrap()["operstate"], "UP");
            assert!(pod.addresses("eth0").is_empty());
            assert!(result.get("ips").is_none());
        }
        node.del("bridge", &pod, &conf).silent();
        check_no_ports(&node);
    }
}

#[test]
fn b20_del_of_what_was_never_added_succeeds() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        for conf in [l2(version), l3(&node, version, &["10.1.2.0/24"])] {
            node.del("bridge", &node.pod(), &conf).silent();
        }
        assert!(node.links().is_empty());
    }
}

#[test]
fn b27_the_container_gets_the_mac_it_was_given() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let mut conf = l3(&node, version, &["10.1.2.0/24"]);
        let given = |conf: &Value| {
            let pod = node.pod();
            let add = node.call("bridge", "ADD").pod(&pod);
            add.args("MAC=c2:11:22:33:44:55;IgnoreUnknown=1")
                .conf(conf)
                .run()
                .result();
            text(&pod.link("eth0").unwrap(), "address")
        };
        assert_eq!(given(&conf), "c2:11:22:33:44:55");
        conf["args"] = json!({ "cni": { "mac": "c2:11:22:33:44:66" } });
        assert_eq!(given(&conf), "c2:11:22:33:44:66");
        conf["RuntimeConfig"] = json!({ "mac": "c2:11:22:33:44:77" });
        assert_eq!(given(&conf), "c2:11:22:33:44:77");
    }
}

#[test]
fn b27_a_mac_that_is_none_is_refused() {
    let Some(node) = node() else { return };
    let bad = |mac: &str| {
        let conf = with(&l2("1.0.0"), "runtimeConfig", json!({ "mac": mac }));
        node.add("bridge", &node.pod(), &conf)
    };
    bad("zz").fails("failed to make veth pair: address zz: invalid MAC address");
    bad("01:00:5e:00:00:01").fails("failed to make veth pair: cannot assign requested address");
}

#[test]
fn b30_check_accepts_what_add_printed() {
    for version in cni::versions().iter().filter(|it| checks(it)) {
        for case in &CASES[..3] {
            let Some(node) = node() else { return };
            let pod = node.pod();
            let conf = l3(&node, version, case.subnets);
            let result = node.add("bridge", &pod, &conf).result();
            node.check("bridge", &pod, &conf, &result).silent();
            node.del("bridge", &pod, &conf).silent();
        }
    }
}

#[test]
fn b30_check_names_what_has_changed() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let result = node.add("bridge", &pod, &conf).result();
    let bare = node.call("bridge", "CHECK").pod(&pod).conf(&conf).run();
    bare.fails("Required prevResult missing");

    let mut other = result.clone();
    other["interfaces"][2]["mac"] = "02:00:00:00:00:01".into();
    let failure = node.check("bridge", &pod, &conf, &other).failure();
    let (head, tail) = ("Interface eth0 Mac ", " doesn't match container Mac: ");
    assert!(
        failure.msg.starts_with(head) && failure.msg.contains(tail),
        "{}",
        failure.msg
    );

    pod.run("ip", &["addr", "del", "10.1.2.2/24", "dev", "eth0"]);
    let failure = node.check("bridge", &pod, &conf, &result).failure();
    assert!(failure.msg.contains("10.1.2.2"), "{}", failure.msg);
    node.del("bridge", &pod, &conf).silent();
    let failure = node.check("bridge", &pod, &conf, &result).failure();
    assert!(
        failure
            .msg
            .contains("Failed to find address added by container"),
        "{}",
        failure.msg
    );
}

#[test]
fn b32_a_pod_with_addresses_needs_its_interface() {
    if cni::differs("1.1.1 has no disableContainerInterface") {
        return;
    }
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let conf = l3(&node, version, &["10.1.2.0/24"]);
        let conf = with(&conf, "disableContainerInterface", true.into());
        let msg = "cannot use IPAM when DisableContainerInterface flag is set";
        node.add("bridge", &node.pod(), &conf).fails(msg);
        assert!(leases(&node, "net").is_empty());
    }
}

#[test]
fn b35_a_vlan_outside_the_standard_is_refused() {
    for version in ["0.4.0", "1.0.0"] {
        let Some(node) = node() else { return };
        let conf = l3(&node, version, &["10.1.2.0/24"]);
        node.add("bridge", &node.pod(), &with(&conf, "vlan", 0.into()))
            .result();
        for vlan in [-100, 5000] {
            let conf = with(&conf, "vlan", vlan.into());
            let msg = format!("invalid VLAN ID {vlan} (must be between 0 and 4094)");
            let pod = node.pod();
            node.add("bridge", &pod, &conf).fails(&msg);
            node.del("bridge", &pod, &conf).fails(&msg);
            assert!(pod.links().is_empty());
        }
    }
}

/// A node for `bridge` with `host-local`.
pub(crate) fn node() -> Option<Node> {
    Node::with(&["bridge", "host-local"])
}

/// Layer 3 with default gateways: a range set for each subnet, the store in the node's directory.
pub(crate) fn l3(node: &Node, version: &str, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|it| json!([{ "subnet": it }])).collect();
    json!({
        "cniVersion": version,
        "name": "net",
        "type": "bridge",
        "bridge": "bridge0",
        "isDefaultGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.dir().join("ipam"), "ranges": ranges },
    })
}

/// Layer 2: no addresses.
pub(crate) fn l2(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "net", "type": "bridge", "bridge": "bridge0" })
}

/// Whether `version` prints `ip4` and `ip6`.
pub(crate) fn old(version: &str) -> bool {
    matches!(version, "0.1.0" | "0.2.0")
}

/// Whether `version` has CHECK.
pub(crate) fn checks(version: &str) -> bool {
    matches!(version, "0.4.0" | "1.0.0" | "1.1.0")
}

pub(crate) fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|it| it.parse().unwrap()).collect()
}

pub(crate) fn sorted(mut networks: Vec<IpNetwork>) -> Vec<IpNetwork> {
    networks.sort();
    networks
}

fn ips(result: &Value) -> Vec<String> {
    let new = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| text(it, "address"));
    let old = ["ip4", "ip6"]
        .into_iter()
        .filter_map(|it| result[it]["ip"].as_str().map(str::to_owned));
    new.chain(old).collect()
}

fn kind(link: &Value) -> &str {
    link["linkinfo"]["info_kind"].as_str().unwrap_or_default()
}
