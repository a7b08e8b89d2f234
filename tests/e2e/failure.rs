//! A failing ADD leaves nothing but the shared bridge; a repeated one leaves the first attachment alone.

use serde_json::{Value, json};
use tests::cni::{self, with};
use tests::{Node, Pod};

use crate::bridge::{l2, l3, networks, node};
use crate::leases;

// B28
#[test]
fn b28_an_add_that_fails_after_ipam_gives_the_address_back() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let first = node.pod();
        let conf = l3(&node, version, &["10.1.2.0/24"]);
        node.add("bridge", &first, &conf).result();
        let mut failing = conf.clone();
        failing["ipam"]["routes"] = json!([{ "dst": "10.7.0.0/16", "gw": "172.16.0.1" }]);
        let pod = node.pod();
        let failure = node.add("bridge", &pod, &failing).failure();
        assert!(
            failure.msg.starts_with("failed to add route '"),
            "{}",
            failure.msg
        );
        assert_eq!(leases(&node, "net"), ["10.1.2.2"]);
        check_left(&node, &pod, 1);
        node.del("bridge", &pod, &failing).silent();
        assert!(first.pings("10.1.2.1"), "the first attachment suffered");
    }
}

// K30
#[test]
fn nothing_is_left_when_ipam_fails() {
    let Some(node) = node() else { return };
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/30"]);
    conf["ipMasq"] = true.into();
    let first = node.pod();
    node.add("bridge", &first, &conf).result();
    let rules = node.nat();
    let pod = node.pod();
    let msg =
        "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.2";
    node.add("bridge", &pod, &conf).fails(msg);
    check_left(&node, &pod, 1);
    assert_eq!(node.nat(), rules);
    assert_eq!(leases(&node, "net"), ["10.1.2.2"]);
}

#[test]
fn a_repeated_add_leaves_the_first_as_it_is() {
    let Some(node) = node() else { return };
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    conf["ipMasq"] = true.into();
    let pod = node.pod();
    let result = node.add("bridge", &pod, &conf).result();
    let before = (node.links(), pod.routes(), node.nat(), leases(&node, "net"));
    let again = node.add("bridge", &pod, &conf).failure();
    assert!(again.msg.contains("already exists"), "{}", again.msg);
    assert_eq!(
        (node.links(), pod.routes(), node.nat(), leases(&node, "net")),
        before
    );
    assert_eq!(
        pod.addresses("eth0"),
        networks(&["10.1.2.2/24", "2001:db8::2/64"])
    );
    assert!(pod.pings("10.1.2.1"));
    node.check("bridge", &pod, &conf, &result).silent();
}

#[test]
fn an_address_that_cannot_be_added_is_given_back() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let log = node.dir().join("verbs");
    let twice =
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.2/24"},{"address":"10.1.2.2/24"}]}"#;
    node.script(
        "ipam",
        &format!(
            "echo $CNI_COMMAND >> {}\n[ $CNI_COMMAND = DEL ] || echo '{twice}'",
            log.display()
        ),
    );
    let conf = with(&l2("1.0.0"), "ipam", json!({ "type": "ipam" }));
    let pod = node.pod();
    let failure = node
        .call("bridge", "ADD")
        .pod(&pod)
        .scripts()
        .conf(&conf)
        .run()
        .failure();
    assert!(
        failure.msg.starts_with("failed to add IP addr "),
        "{}",
        failure.msg
    );
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "ADD\nDEL\n");
    check_left(&node, &pod, 0);
}

#[test]
fn a_step_the_kernel_refuses_is_undone() {
    let refused: [(&str, Value); 3] = [
        ("mtu", json!(100_000)),
        ("mac", json!("01:00:5e:00:00:01")),
        ("bridge", json!("a-name-too-long-for-it")),
    ];
    for (key, value) in refused {
        let Some(node) = node() else { return };
        let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
        match key {
            "mac" => conf["runtimeConfig"] = json!({ "mac": value }),
            other => conf[other] = value,
        }
        let pod = node.pod();
        node.add("bridge", &pod, &conf).failure();
        assert!(pod.links().is_empty(), "{key}");
        assert!(leases(&node, "net").is_empty(), "{key}");
        let ours = node
            .links()
            .into_iter()
            .filter(|it| it != "bridge0")
            .count();
        assert_eq!(ours, 0, "{key}: {:?}", node.links());
    }
}

#[test]
fn nothing_is_touched_when_the_configuration_is_wrong() {
    let Some(node) = node() else { return };
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let wrong: [(&str, Value); 7] = [
        ("vlan", json!(5000)),
        ("vlan", json!("10")),
        ("mtu", json!("1500")),
        ("isGateway", json!("yes")),
        ("bridge", json!(7)),
        ("dns", json!([])),
        ("ipam", json!([])),
    ];
    for (key, value) in wrong {
        let pod = node.pod();
        node.add("bridge", &pod, &with(&conf, key, value)).failure();
        assert!(pod.links().is_empty() && node.links().is_empty(), "{key}");
        assert!(!node.dir().join("ipam").exists(), "{key}");
    }
}

#[test]
fn stderr_names_the_step_that_failed_and_is_silent_otherwise() {
    if cni::differs("it keeps no plan") {
        return;
    }
    let Some(node) = node() else { return };
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let pod = node.pod();
    let added = node.add("bridge", &pod, &conf);
    added.result();
    assert_eq!(added.stderr, "");
    let deleted = node.del("bridge", &pod, &conf);
    deleted.silent();
    assert_eq!(deleted.stderr, "");
    let mut failing = conf;
    failing["ipam"]["routes"] = json!([{ "dst": "10.7.0.0/16", "gw": "172.16.0.1" }]);
    let failed = node.add("bridge", &node.pod(), &failing);
    assert!(
        failed.stderr.contains("10.7.0.0/16 via 172.16.0.1"),
        "{:?}",
        failed.stderr
    );
}

/// The bridge with its `ports` is all that is left of an ADD that failed.
#[track_caller]
fn check_left(node: &Node, pod: &Pod, ports: usize) {
    if cni::examines_reference() {
        return; // it leaves links and rules to the runtime's DEL
    }
    assert!(pod.links().is_empty(), "{:?}", pod.links());
    assert_eq!(node.links().len(), 1 + ports, "{:?}", node.links());
}
