use serde_json::{Value, json};

use crate::fixture::{DELEGATE, Node, RESULT, SUBNET_ENV, failed, succeeded};

/// What `delegate` in the configuration makes of [`DELEGATE`]: another MTU.
fn with_mtu(mtu: u32) -> String {
    DELEGATE.replace("1450", &mtu.to_string())
}

#[test]
fn subnet_env_and_the_configuration_of_today_are_not_asked() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.calls();
    node.remove("run/subnet.env");
    let conf = node.conf(json!({ "delegate": { "type": "nosuch" }, "runtimeConfig": {} }));
    assert_eq!(succeeded(node.call_with("DEL", "c1", "eth0", &conf)), "");
    assert_eq!(node.calls(), [format!("DEL c1 eth0 {DELEGATE}")]);
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn what_the_reference_attached_is_detached() {
    let node = Node::new();
    node.write("state/c1", &with_mtu(9000));
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(node.calls(), [format!("DEL c1 eth0 {}", with_mtu(9000))]);
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn what_we_attached_and_the_reference_detached_is_forgotten() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.remove("state/c1");
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn no_state_goes_unused() {
    // Ours, then the reference's: it detached the container and attached it again under the same id.
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.write("state/c1", &with_mtu(9000));
    node.calls();
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(
        node.calls(),
        [
            format!("DEL c1 eth0 {DELEGATE}"),
            format!("DEL c1 eth0 {}", with_mtu(9000))
        ]
    );
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn the_shared_file_of_another_network_stays() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    let others = DELEGATE.replace("cbr0", "other");
    node.write("state/c1", &others);
    node.calls();
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(node.calls(), [format!("DEL c1 eth0 {DELEGATE}")]);
    assert_eq!(node.state(), ["c1"]);
    assert_eq!(node.read("state/c1"), others);
}

#[test]
fn two_interfaces_of_one_container_go_in_any_order() {
    for order in [["eth0", "net1"], ["net1", "eth0"]] {
        let node = Node::new();
        node.succeed("ADD", "c1", "eth0");
        let second = node.conf(json!({ "name": "second" }));
        succeeded(node.call_with("ADD", "c1", "net1", &second));
        node.calls();
        let stored = |ifname: &str| match ifname {
            "eth0" => DELEGATE.to_owned(),
            _ => DELEGATE.replace("cbr0", "second"),
        };
        for (ifname, remaining) in order.iter().zip([Some(order[1]), None]) {
            let conf = if *ifname == "eth0" {
                node.conf(json!({}))
            } else {
                second.clone()
            };
            succeeded(node.call_with("DEL", "c1", ifname, &conf));
            assert_eq!(
                node.calls(),
                [format!("DEL c1 {ifname} {}", stored(ifname))]
            );
            match remaining {
                // The reference would find its way from here.
                Some(remaining) => assert_eq!(node.read("state/c1"), stored(remaining)),
                None => assert_eq!(node.state(), [""; 0]),
            }
        }
    }
}

#[test]
fn a_second_del_of_one_interface_leaves_the_other_alone() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.succeed("ADD", "c1", "net1");
    node.succeed("DEL", "c1", "net1");
    node.succeed("DEL", "c1", "net1");
    assert_eq!(node.state(), [".by-interface/eth0/c1", "c1"]);
}

#[test]
fn a_network_that_was_renamed_is_detached_under_both_names() {
    let node = Node::new();
    node.write("state/c1", &DELEGATE.replace("cbr0", "old"));
    node.succeed("DEL", "c1", "eth0");
    let calls = node.calls();
    assert_eq!(
        calls,
        [
            format!("DEL c1 eth0 {}", DELEGATE.replace("cbr0", "old")),
            format!("DEL c1 eth0 {DELEGATE}")
        ]
    );
    assert_eq!(node.state(), [""; 0]);
}

// K09
#[test]
fn k09_the_state_stays_until_the_delegate_has_succeeded() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.calls();
    node.write("bin/fail-DEL", r#"{"code":5,"msg":"busy","details":"d"}"#);
    for _ in 0..2 {
        assert_eq!(
            failed(node.call("DEL", "c1", "eth0")),
            (5, "busy".into(), "d".into())
        );
        assert_eq!(node.calls(), [format!("DEL c1 eth0 {DELEGATE}")]);
        assert_eq!(node.state(), [".by-interface/eth0/c1", "c1"]);
    }
    node.remove("bin/fail-DEL");
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(node.state(), [""; 0]);
}

/// Makes the delegate refuse every configuration with `text` in it.
fn refuse(node: &Node, text: &str) {
    let script = format!(
        "#!/bin/sh\nin=$(cat)\necho \"$CNI_COMMAND $in\" >>${{0%/*}}/calls\n\
         case $in in *'{text}'*) echo '{{\"code\":7,\"msg\":\"refused\"}}'; exit 1;; esac\n"
    );
    node.write("bin/bridge", &script);
}

#[test]
fn a_configuration_that_was_mended_since_serves_as_well() {
    let node = Node::new();
    node.write("state/c1", &with_mtu(5));
    refuse(&node, "\"mtu\":5,");
    assert_eq!(succeeded(node.call("DEL", "c1", "eth0")), "");
    assert_eq!(
        node.calls(),
        [format!("DEL {}", with_mtu(5)), format!("DEL {DELEGATE}")]
    );
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn a_configuration_with_its_addresses_elsewhere_does_not() {
    let node = Node::new();
    node.write("state/c1", &with_mtu(5));
    refuse(&node, "\"mtu\":5,");
    let conf = node.conf(json!({ "ipam": { "dataDir": "/elsewhere" } }));
    assert_eq!(
        failed(node.call_with("DEL", "c1", "eth0", &conf)).1,
        "refused"
    );
    assert_eq!(node.state(), ["c1"]);
}

// F02: a container that was never there, or is gone.
#[test]
fn without_state_addresses_are_given_back_all_the_same() {
    let node = Node::new();
    for _ in 0..3 {
        assert_eq!(node.succeed("DEL", "c1", "eth0"), "");
        assert_eq!(node.calls(), [format!("DEL c1 eth0 {DELEGATE}")]);
    }
    assert_eq!(node.state(), [""; 0]);
    assert!(!node.exists("state"));
}

#[test]
fn without_state_a_delegate_that_could_not_have_attached_is_no_obstacle() {
    let node = Node::new();
    for more in [
        json!({ "delegate": { "type": "nosuch" } }),
        json!({ "delegate": { "name": "x" } }),
    ] {
        assert_eq!(
            succeeded(node.call_with("DEL", "c1", "eth0", &node.conf(more))),
            ""
        );
    }
    for code in [2, 6, 7] {
        node.write(
            "bin/fail-DEL",
            &json!({ "code": code, "msg": "refused" }).to_string(),
        );
        node.succeed("DEL", "c1", "eth0");
    }
    node.write("bin/fail-DEL", r#"{"code":5,"msg":"read-only"}"#);
    assert_eq!(
        failed(node.call("DEL", "c1", "eth0")),
        (5, "read-only".into(), String::new())
    );
}

// K07
#[test]
fn k07_with_a_torn_state_too() {
    for torn in ["", "{\"type\":\"bri", "null"] {
        let node = Node::new();
        node.write("state/c1", torn);
        node.write("state/.by-interface/eth0/c1", torn);
        node.write("bin/fail-DEL", r#"{"code":7,"msg":"refused"}"#);
        assert_eq!(failed(node.call("DEL", "c1", "eth0")).1, "refused");
        assert_eq!(node.state().len(), 2);
        node.remove("bin/fail-DEL");
        node.calls();
        assert_eq!(node.succeed("DEL", "c1", "eth0"), "");
        assert_eq!(node.calls(), [format!("DEL c1 eth0 {DELEGATE}")]);
        assert_eq!(node.state(), [""; 0]);
    }
}

#[test]
fn one_whole_file_is_enough() {
    for (whole, torn) in [
        ("state/c1", "state/.by-interface/eth0/c1"),
        ("state/.by-interface/eth0/c1", "state/c1"),
    ] {
        let node = Node::new();
        node.write(whole, &with_mtu(9000));
        node.write(torn, "");
        node.succeed("DEL", "c1", "eth0");
        assert_eq!(node.calls(), [format!("DEL c1 eth0 {}", with_mtu(9000))]);
        assert_eq!(node.state(), [""; 0]);
    }
}

#[test]
fn without_subnet_env_the_results_addresses_tell_the_subnets() {
    let node = Node::new();
    node.write("state/c1", "");
    node.remove("run/subnet.env");
    let mut prev: Value = serde_json::from_str(RESULT).unwrap();
    prev["ips"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "address": "fc00::5/64" }));
    let conf = node.conf(json!({ "prevResult": prev }));
    assert_eq!(succeeded(node.call_with("DEL", "c1", "eth0", &conf)), "");
    let calls = node.calls();
    let stdin: Value =
        serde_json::from_str(calls[0].strip_prefix("DEL c1 eth0 ").unwrap()).unwrap();
    assert_eq!(
        stdin["ipam"]["ranges"],
        json!([[{ "subnet": "10.244.3.0/24" }], [{ "subnet": "fc00::/64" }]])
    );
    assert_eq!(
        (&stdin["name"], &stdin["type"], &stdin["ipMasq"]),
        (&json!("cbr0"), &json!("bridge"), &json!(false))
    );
    assert_eq!(node.state(), [""; 0]);
}

#[test]
fn with_nothing_to_go_by_del_succeeds_and_a_torn_file_waits() {
    let node = Node::new();
    node.remove("run/subnet.env");
    assert_eq!(node.succeed("DEL", "c1", "eth0"), "");
    node.write("state/c1", "");
    assert_eq!(node.succeed("DEL", "c1", "eth0"), "");
    assert_eq!(
        (node.calls(), node.state()),
        (vec![], vec!["c1".to_owned()])
    );
    // flanneld is up, and the runtime comes again.
    node.write("run/subnet.env", SUBNET_ENV);
    node.succeed("DEL", "c1", "eth0");
    assert_eq!((node.calls().len(), node.state().len()), (1, 0));
}

#[test]
fn state_that_cannot_be_read_is_named() {
    let node = Node::new();
    std::fs::create_dir_all(node.path("state/c1")).unwrap();
    let (code, msg, _) = failed(node.call("DEL", "c1", "eth0"));
    assert_eq!(
        (code, msg),
        (
            5,
            format!("read {}: is a directory", node.path("state/c1").display())
        )
    );
}

#[test]
fn several_failures_are_told_as_one() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.write("state/c1", &with_mtu(9000));
    node.write("bin/fail-DEL", r#"{"code":5,"msg":"busy","details":"d"}"#);
    assert_eq!(
        failed(node.call("DEL", "c1", "eth0")),
        (5, "busy; busy".into(), "d; d".into())
    );
}
