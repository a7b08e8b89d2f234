//! The cable and the pod's end of it: links, flags, addresses, routes, sysctls.

use serde_json::json;
use tests::VERSIONS;
use tests::cni::{self, with};
use tests::ip::{has_flag, text};

use crate::bridge::{l2, l3, networks, node};
use crate::leases;

#[test]
fn b25_promiscuous_mode() {
    let Some(node) = node() else { return };
    let conf = with(
        &l3(&node, "1.0.0", &["10.1.2.0/24"]),
        "promiscMode",
        true.into(),
    );
    let both = with(&conf, "hairpinMode", true.into());
    let msg = "cannot set hairpin mode and promiscuous mode at the same time";
    let refused = node.add("bridge", &node.pod(), &both);
    if !cni::differs("1.1.1 has a full stop after it") {
        refused.fails(msg);
    }
    assert!(node.links().is_empty());
    node.add("bridge", &node.pod(), &conf).result();
    assert_eq!(node.link("bridge0").unwrap()["promiscuity"], 1);
}

#[test]
fn b33_a_disabled_container_interface_stays_down() {
    if cni::differs("1.1.1 has no disableContainerInterface") {
        return;
    }
    for version in &VERSIONS[2..] {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let conf = with(&l2(version), "disableContainerInterface", true.into());
        node.add("bridge", &pod, &conf).result();
        let link = pod.link("eth0").unwrap();
        assert!(!has_flag(&link, "UP"), "{link}");
        assert!(pod.address_info("eth0").is_empty());
        node.del("bridge", &pod, &conf).silent();
        assert_eq!(node.links(), ["bridge0"]);
    }
}

#[test]
fn b34_isolated_and_hairpin_ports_are_as_asked() {
    if cni::differs("1.1.1 has no portIsolation") {
        return;
    }
    for version in &VERSIONS[2..] {
        for (key, flag) in [("portIsolation", "isolated"), ("hairpinMode", "hairpin")] {
            for asked in [true, false] {
                let Some(node) = node() else { return };
                let conf = with(&l2(version), key, asked.into());
                let result = node.add("bridge", &node.pod(), &conf).result();
                let port = text(&result["interfaces"][1], "name");
                let ports = node.bridge("-d link show");
                let port = ports
                    .iter()
                    .find(|it| it["ifname"] == port.as_str())
                    .unwrap();
                assert_eq!(port[flag], asked, "{port}");
            }
        }
    }
}

#[test]
fn l05_each_end_knows_the_other() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    let conf = with(&l2("1.0.0"), "mtu", 1400.into());
    let conf = with(
        &conf,
        "runtimeConfig",
        json!({ "mac": "c2:11:22:33:44:77" }),
    );
    let result = node.add("bridge", &pod, &conf).result();
    let host = node
        .link(result["interfaces"][1]["name"].as_str().unwrap())
        .unwrap();
    let inner = pod.link("eth0").unwrap();
    assert_eq!(host["link_index"], inner["ifindex"]);
    assert_eq!(inner["link_index"], host["ifindex"]);
    assert_eq!((&host["mtu"], &inner["mtu"]), (&json!(1400), &json!(1400)));
    assert_eq!(inner["address"], "c2:11:22:33:44:77");
    assert_ne!(host["address"], inner["address"]);
    assert_eq!(host["txqlen"].as_u64().unwrap_or(0), 0);
    assert_eq!(
        node.sysctl(&format!(
            "net/ipv6/conf/{}/accept_ra",
            text(&host, "ifname")
        ))
        .unwrap(),
        "0"
    );
}

#[test]
fn l06_an_interface_of_that_name_is_left_alone() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    pod.run("ip", &["link", "add", "eth0", "type", "bridge"]);
    let before = pod.link("eth0");
    let failure = node
        .add("bridge", &pod, &l3(&node, "1.0.0", &["10.1.2.0/24"]))
        .failure();
    assert_eq!(pod.link("eth0"), before);
    assert!(leases(&node, "net").is_empty());
    if cni::differs("1.1.1 has another text") {
        return;
    }
    let (head, tail) = (
        "container veth name (\"eth0\") peer provided (\"veth",
        "\") already exists",
    );
    assert!(
        failure.msg.starts_with(head) && failure.msg.ends_with(tail),
        "{}",
        failure.msg
    );
    assert_eq!(failure.code, 101);
}

// L07, B12
#[test]
fn l07_del_finds_a_link_without_addresses_and_one_that_is_gone() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    node.add("bridge", &pod, &conf).result();
    pod.run("ip", &["addr", "flush", "dev", "eth0"]);
    node.del("bridge", &pod, &conf).silent();
    assert!(pod.links().is_empty());
    node.add("bridge", &pod, &conf).result();
    pod.run("ip", &["link", "del", "eth0"]);
    node.del("bridge", &pod, &conf).silent();
    assert!(leases(&node, "net").is_empty());
}

// L09, L10, L12
#[test]
fn l09_routes_are_installed_as_ipam_says() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    conf["isDefaultGateway"] = false.into();
    conf["isGateway"] = true.into();
    conf["ipam"]["routes"] = json!([
        { "dst": "10.7.0.0/16" },
        { "dst": "2001:db8:7::/48" },
        { "dst": "10.8.0.0/16", "gw": "10.1.2.254" },
        { "dst": "10.9.0.0/16", "gw": "10.1.2.3" },
        { "dst": "10.9.0.0/16", "gw": "10.1.2.4" },
    ]);
    node.add("bridge", &pod, &conf).result();
    let routes = pod.routes();
    for route in [
        "10.7.0.0/16 via 10.1.2.1 dev eth0",        // L12
        "2001:db8:7::/48 via 2001:db8::1 dev eth0", // L12
        "10.8.0.0/16 via 10.1.2.254 dev eth0",
    ] {
        assert!(
            routes.iter().any(|it| it == route),
            "{route} is not among {routes:?}"
        );
    }
    let both = pod.run("ip", &["route", "show", "10.9.0.0/16"]);
    assert!(
        both.contains("10.1.2.3") && both.contains("10.1.2.4"),
        "{both}"
    ); // L10
}

#[test]
fn l09_a_route_keeps_every_field() {
    if cni::differs("1.1.1 knows dst and gw only") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    let mut conf = l3(&node, "1.1.0", &["10.1.2.0/24"]);
    conf["ipam"]["routes"] = json!([
        { "dst": "10.7.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 100, "scope": 0 },
        { "dst": "10.8.0.0/16", "priority": 5 },
    ]);
    let result = node.add("bridge", &pod, &conf).result();
    let table = pod.ip("route show table 100");
    let route = &table[0];
    assert_eq!(
        (text(route, "dst"), text(route, "gateway")),
        ("10.7.0.0/16".into(), "10.1.2.1".into())
    );
    assert_eq!(route["metric"], 77);
    let metrics = pod.run("ip", &["route", "show", "table", "100"]);
    assert!(
        metrics.contains("mtu 1300") && metrics.contains("advmss 1200"),
        "{metrics}"
    );
    assert_eq!(pod.ip("route show 10.8.0.0/16")[0]["metric"], 5);
    assert_eq!(
        result["routes"][0],
        json!({ "advmss": 1200, "dst": "10.7.0.0/16", "mtu": 1300, "priority": 77, "scope": 0, "table": 100 })
    );
    node.check("bridge", &pod, &conf, &result).silent();
}

#[test]
fn l11_ipv6_addresses_survive_the_link_going_down() {
    if cni::differs("1.1.1 sets no keep_addr_on_down") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    node.add("bridge", &pod, &l3(&node, "1.0.0", &["2001:db8::/64"]))
        .result();
    pod.run("ip", &["link", "set", "eth0", "down"]);
    assert_eq!(pod.addresses("eth0"), networks(&["2001:db8::2/64"]));
    assert_eq!(
        pod.sysctl("net/ipv6/conf/eth0/keep_addr_on_down").unwrap(),
        "1"
    );
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/disable_ipv6").unwrap(), "0");
    assert_eq!(pod.sysctl("net/ipv6/conf/lo/disable_ipv6").unwrap(), "0");
}

// K26
#[test]
fn l11_no_ipv6_address_is_tentative_when_add_returns() {
    if cni::differs("it leaves the bridge's own address to duplicate address detection") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    node.add("bridge", &pod, &l3(&node, "1.0.0", &["2001:db8::/64"]))
        .result();
    let infos = [node.address_info("bridge0"), pod.address_info("eth0")].concat();
    for info in infos.iter().filter(|it| it["scope"] == "global") {
        assert!(info["tentative"].is_null(), "{info}");
    }
    assert!(pod.pings("2001:db8::1"), "the first packet is lost");
}

// L15
#[test]
fn l15_a_path_that_is_no_namespace_is_told_from_one_that_is_gone() {
    let Some(node) = node() else { return };
    let file = node.dir().join("file").display().to_string();
    std::fs::write(&file, "").unwrap();
    let gone = node.gone();
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let call = |verb: &str, path: &str| {
        node.call("bridge", verb)
            .pod(&node.pod())
            .env("CNI_NETNS", path)
            .conf(&conf)
            .run()
    };
    let absent = format!("failed to Statfs {gone:?}: no such file or directory");
    call("ADD", &gone).fails(&format!("failed to open netns {gone:?}: {absent}"));
    let failure = call("ADD", &file).failure();
    let head = format!("failed to open netns {file:?}: unknown FS magic on {file:?}: ");
    assert!(failure.msg.starts_with(&head), "{}", failure.msg);
    assert!(leases(&node, "net").is_empty());
}

#[test]
fn l16_an_interface_name_may_hold_dots() {
    if cni::differs("1.1.1 misses the sysctls of such an interface") {
        return;
    }
    let Some(node) = node() else { return };
    let mut pod = node.pod();
    pod.interface("eth.0.1");
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    node.add("bridge", &pod, &conf).result();
    assert_eq!(pod.sysctl("net/ipv4/conf/eth.0.1/arp_notify").unwrap(), "1");
    assert_eq!(pod.sysctl("net/ipv6/conf/eth.0.1/accept_dad").unwrap(), "0");
    assert_eq!(
        pod.sysctl("net/ipv6/conf/eth.0.1/keep_addr_on_down")
            .unwrap(),
        "1"
    );
}
