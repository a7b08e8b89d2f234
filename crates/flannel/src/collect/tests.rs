use serde_json::{Value, json};

use crate::fixture::{DELEGATE, Node, SUBNET_ENV, failed, succeeded};

/// The delegate's calls, GC's own apart: `DEL container interface`.
fn dels(calls: &[String]) -> Vec<&str> {
    let dels = calls.iter().filter(|call| call.starts_with("DEL"));
    dels.map(|call| call.split(" {").next().unwrap()).collect()
}

#[test]
fn what_no_valid_attachment_owns_is_detached() {
    let node = Node::new();
    for (id, ifname) in [("c1", "eth0"), ("c1", "net1"), ("c2", "eth0")] {
        node.succeed("ADD", id, ifname);
    }
    node.write("state/reference-stale", DELEGATE);
    node.write("state/reference-valid", DELEGATE);
    node.write("state/.cni-flannel-1-0", "{");
    node.calls();
    assert_eq!(
        succeeded(node.gc(&[("c1", "net1"), ("reference-valid", "tap0")])),
        ""
    );
    let calls = node.calls();
    assert_eq!(
        dels(&calls),
        ["DEL c1 eth0", "DEL c2 eth0", "DEL reference-stale eth0"]
    );
    assert_eq!(
        node.state(),
        [".by-interface/net1/c1", "c1", "reference-valid"]
    );
}

#[test]
fn the_delegate_collects_with_the_same_list() {
    let node = Node::new();
    succeeded(node.gc(&[("c1", "net1")]));
    let calls = node.calls();
    assert_eq!(calls.len(), 1);
    let stdin: Value = serde_json::from_str(calls[0].strip_prefix("GC - - ").unwrap()).unwrap();
    let mut expected: Value = serde_json::from_str(DELEGATE).unwrap();
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        expected[key] = json!([{ "containerID": "c1", "ifname": "net1" }]);
    }
    assert_eq!(stdin, expected);
}

#[test]
fn other_networks_and_other_files_stay() {
    let node = Node::new();
    let others = node.conf(json!({ "name": "other" }));
    succeeded(node.call_with("ADD", "c1", "eth0", &others));
    node.write("state/c2", &DELEGATE.replace("cbr0", "other"));
    node.write("state/10.244.3.5", "c1\r\neth0");
    node.write("state/notes.txt", "");
    node.write("state/.hidden", DELEGATE);
    node.write("state/networks/c9", DELEGATE);
    let before = node.state();
    node.calls();
    succeeded(node.gc(&[]));
    assert_eq!(node.state(), before);
    assert_eq!(dels(&node.calls()), [""; 0]);
}

#[test]
fn the_other_network_of_one_container_keeps_its_state() {
    let node = Node::new();
    let others = node.conf(json!({ "name": "other" }));
    node.succeed("ADD", "c1", "eth0");
    succeeded(node.call_with("ADD", "c1", "net1", &others));
    succeeded(node.gc(&[]));
    assert_eq!(node.state(), [".by-interface/net1/c1", "c1"]);
    assert_eq!(node.read("state/c1"), DELEGATE.replace("cbr0", "other"));
}

// K07, K08
#[test]
fn k08_torn_files_of_ours_go() {
    let node = Node::new();
    node.write("state/.by-interface/eth0/c1", "");
    node.write("state/c1", "");
    succeeded(node.gc(&[("c1", "net1")]));
    assert_eq!(node.state(), [""; 0]);
    assert_eq!(dels(&node.calls()), ["DEL c1 eth0"]);
}

#[test]
fn all_is_tried_then_all_that_failed_is_told() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.succeed("ADD", "c2", "eth0");
    node.calls();
    node.write("bin/fail-DEL", r#"{"code":5,"msg":"busy","details":"d"}"#);
    node.write("bin/fail-GC", r#"{"code":6,"msg":"bad"}"#);
    let msg = "container c1, interface eth0: busy; container c2, interface eth0: busy; bad";
    assert_eq!(failed(node.gc(&[])), (5, msg.into(), "d; d".into()));
    assert_eq!(node.calls().len(), 3);
    assert_eq!(node.state().len(), 4);
}

#[test]
fn while_flanneld_is_down_a_stored_configuration_serves() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.calls();
    node.remove("run/subnet.env");
    succeeded(node.gc(&[("c1", "eth0")]));
    assert!(node.calls()[0].starts_with("GC - - {"));
    succeeded(node.gc(&[]));
    assert_eq!((node.calls().len(), node.state().len()), (2, 0));
    // Nothing is left to go by: what the delegate has cannot be collected yet.
    let (code, msg, _) = failed(node.gc(&[]));
    assert_eq!(code, 11);
    assert!(
        msg.contains("subnet.env: no such file or directory"),
        "{msg}"
    );
    node.write("run/subnet.env", SUBNET_ENV);
    succeeded(node.gc(&[]));
}

#[test]
fn without_a_list_nothing_is_collected() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.calls();
    assert!(!node.call_with("GC", "", "", &node.conf(json!({}))).failed);
    assert_eq!((node.calls().len(), node.state().len()), (0, 2));
}
