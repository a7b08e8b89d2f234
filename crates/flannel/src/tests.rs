use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::fixture::{DELEGATE, Node, RESULT, SUBNET_ENV, failed, succeeded};

const ENV_V4: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n";
const ENV_V6: &str = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n";
const ENV_REST: &str = "FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

/// ADD, DEL and DEL again under one `subnet.env`, without a version in the configuration; the delegate's JSON.
fn round(subnet_env: &str, addresses: &[(&str, &str)]) -> Value {
    let node = Node::new();
    node.write("run/subnet.env", subnet_env);
    let families = addresses
        .iter()
        .map(|(key, ip)| ((*key).to_owned(), json!({ "ip": ip })));
    node.write("bin/result", &Value::Object(families.collect()).to_string());
    let conf = json!({
        "name": "cni-flannel", "type": "flannel",
        "subnetFile": node.path("run/subnet.env"), "dataDir": node.path("state"),
    })
    .to_string();
    let run = |command: &str| node.call_with(command, "some-container-id-ipv4", "eth0", &conf);

    let result: Value = serde_json::from_str(&succeeded(run("ADD"))).unwrap();
    let mut printed: Vec<&str> = addresses
        .iter()
        .filter_map(|(key, _)| result[key]["ip"].as_str())
        .collect();
    printed.sort_unstable();
    assert_eq!(printed.len(), addresses.len());
    assert_eq!(result["cniVersion"], "0.1.0");

    let stored = node.read("state/some-container-id-ipv4");
    assert_eq!(
        node.calls(),
        [format!("ADD some-container-id-ipv4 eth0 {stored}")]
    );
    assert_eq!(succeeded(run("DEL")), "");
    assert_eq!(
        node.calls(),
        [format!("DEL some-container-id-ipv4 eth0 {stored}")]
    );
    assert_eq!(node.state(), [""; 0]);
    assert_eq!(succeeded(run("DEL")), "");
    serde_json::from_str(&stored).unwrap()
}

fn expected(ranges: Value, routes: Value) -> Value {
    json!({
        "name": "cni-flannel", "type": "bridge", "ipMasq": false, "isGateway": true, "mtu": 1472,
        "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
    })
}

// F01, F02, F06
#[test]
fn f01_f02_ipv4() {
    let stored = round(&format!("\n{ENV_V4}{ENV_REST}"), &[("ip4", "10.1.17.2/24")]);
    assert_eq!(
        stored,
        expected(
            json!([[{ "subnet": "10.1.17.0/24" }]]),
            json!([{ "dst": "10.1.0.0/16" }])
        )
    );
}

// F03
#[test]
fn f03_two_networks() {
    let env = "FLANNEL_NETWORK=10.1.0.0/16,192.168.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n";
    let stored = round(&format!("{env}{ENV_REST}"), &[("ip4", "10.1.17.2/24")]);
    let routes = json!([{ "dst": "10.1.0.0/16" }, { "dst": "192.168.0.0/16" }]);
    assert_eq!(
        stored,
        expected(json!([[{ "subnet": "10.1.17.0/24" }]]), routes)
    );
}

// F04
#[test]
fn f04_ipv6() {
    let stored = round(&format!("{ENV_V6}{ENV_REST}"), &[("ip6", "fc00::2/64")]);
    assert_eq!(
        stored,
        expected(
            json!([[{ "subnet": "fc00::/64" }]]),
            json!([{ "dst": "fc00::/48" }])
        )
    );
}

// F05
#[test]
fn f05_dual_stack() {
    let addresses = [("ip4", "10.1.17.2/24"), ("ip6", "fc00::2/64")];
    let stored = round(&format!("{ENV_V4}{ENV_V6}{ENV_REST}"), &addresses);
    let ranges = json!([[{ "subnet": "10.1.17.0/24" }], [{ "subnet": "fc00::/64" }]]);
    assert_eq!(
        stored,
        expected(
            ranges,
            json!([{ "dst": "10.1.0.0/16" }, { "dst": "fc00::/48" }])
        )
    );
}

#[test]
fn the_delegate_gets_the_bytes_that_are_stored() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    assert_eq!(node.calls(), [format!("ADD c1 eth0 {DELEGATE}")]);
    assert_eq!(node.state(), [".by-interface/eth0/c1", "c1"]);
    assert_eq!(node.read("state/c1"), DELEGATE);
    let mode = |name: &str| fs::metadata(node.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("state/c1"), 0o600);
    assert_eq!(mode("state/.by-interface/eth0/c1"), 0o600);
    for folder in ["state", "state/.by-interface", "state/.by-interface/eth0"] {
        assert_eq!(mode(folder), 0o700);
    }
}

#[test]
fn the_result_keeps_the_delegates_version() {
    let node = Node::new();
    let check = |printed: &str, expected: Value| {
        node.write("bin/result", printed);
        assert_eq!(
            serde_json::from_str::<Value>(&node.succeed("ADD", "c1", "eth0")).unwrap(),
            expected
        );
    };
    check(
        r#"{"cniVersion":"0.4.0","unknown":1,"ips":[{"version":"4","address":"10.244.3.5/24"}]}"#,
        json!({ "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.244.3.5/24" }], "dns": {} }),
    );
    check(r#"{"ips":[]}"#, json!({ "cniVersion": "1.1.0" }));
    check("null", json!({ "cniVersion": "1.1.0" }));
    check(
        r#"{"cniVersion":"0.2.0","dns":{"domain":"d"}}"#,
        json!({ "cniVersion": "0.2.0", "dns": { "domain": "d" } }),
    );
}

#[test]
fn a_result_that_cannot_be_read_is_undone() {
    let node = Node::new();
    let check = |printed: &str, sentence: &str| {
        node.write("bin/result", printed);
        let (code, msg, _) = failed(node.call("ADD", "c1", "eth0"));
        assert_eq!(
            (code, msg),
            (999, format!("failed to delegate add: {sentence}"))
        );
        let calls: Vec<String> = node
            .calls()
            .iter()
            .map(|call| call[..3].to_owned())
            .collect();
        assert_eq!(calls, ["ADD", "DEL"]);
    };
    check(
        "",
        "failed to unmarshal raw result: unexpected end of JSON input",
    );
    check(
        "nope",
        "failed to unmarshal raw result: invalid character 'o' in literal",
    );
    check(
        r#"{"cniVersion":"9.9.9"}"#,
        "unsupported CNI result version \"9.9.9\"",
    );
    check(r#"{"ips":[{"address":"x"}]}"#, "invalid CIDR address: x");
}

// K08
#[test]
fn k08_the_delegates_error_passes_unchanged_and_the_state_stays_for_del() {
    let node = Node::new();
    node.write(
        "bin/fail-ADD",
        r#"{"code":100,"msg":"no address","details":"free one"}"#,
    );
    assert_eq!(
        failed(node.call("ADD", "c1", "eth0")),
        (100, "no address".into(), "free one".into())
    );
    assert_eq!(node.read("state/c1"), DELEGATE);
    node.succeed("DEL", "c1", "eth0");
    assert_eq!(node.state(), [""; 0]);
    assert_eq!(node.calls()[1], format!("DEL c1 eth0 {DELEGATE}"));
}

#[test]
fn a_repeated_add_that_fails_leaves_the_first_ones_state() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.write("bin/fail-ADD", r#"{"code":101,"msg":"exists"}"#);
    node.write(
        "run/subnet.env",
        &SUBNET_ENV.replace("10.244.3.1", "10.244.9.1"),
    );
    assert_eq!(failed(node.call("ADD", "c1", "eth0")).0, 101);
    assert!(node.calls()[1].contains("10.244.9.0/24"));
    assert_eq!(node.read("state/c1"), DELEGATE);
    assert_eq!(node.read("state/.by-interface/eth0/c1"), DELEGATE);
    assert_eq!(node.state().len(), 2);
}

#[test]
fn nothing_is_left_of_an_add_that_never_reached_the_delegate() {
    let node = Node::new();
    let bin = node.path("bin").display().to_string();
    let refused = |more: Value, code: u64, sentence: &str| {
        let (found, msg, _) = failed(node.call_with("ADD", "c1", "eth0", &node.conf(more)));
        assert_eq!((found, msg.as_str()), (code, sentence));
        assert_eq!((node.state(), node.calls()), (vec![], vec![]));
    };
    let sentence =
        format!("failed to delegate add: failed to find plugin \"nosuch\" in path [{bin}]");
    refused(json!({ "delegate": { "type": "nosuch" } }), 999, &sentence);
    refused(
        json!({ "delegate": { "type": "" } }),
        7,
        "failed to delegate add: no plugin name provided",
    );
    refused(
        json!({ "delegate": { "type": "../x" } }),
        7,
        "failed to delegate add: invalid plugin name: ../x",
    );
    let sentence = "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel";
    refused(json!({ "delegate": { "ipam": {} } }), 7, sentence);
    let sentence = "failed to load flannel netconf file: failed to load netconf: \
                    json: cannot unmarshal number into Go struct field NetConf.dataDir of type string";
    refused(json!({ "dataDir": 5 }), 6, sentence);
    refused(
        json!({ "dataDir": "" }),
        5,
        "mkdir : no such file or directory",
    );
    let file = node.path("bin/bridge").display().to_string();
    refused(
        json!({ "dataDir": file }),
        5,
        &format!("mkdir {file}: not a directory"),
    );
    let huge = "x".repeat(2 << 20);
    refused(
        json!({ "delegate": { "x": huge } }),
        7,
        "the delegate's configuration is larger than 1 MiB",
    );
}

#[test]
fn a_container_id_as_long_as_a_file_name_may_be_works_and_a_longer_one_is_refused() {
    let node = Node::new();
    let (longest, longer) = ("c".repeat(255), "c".repeat(256));
    node.succeed("ADD", &longest, "eth0");
    node.succeed("DEL", &longest, "eth0");
    let (code, msg, _) = failed(node.call("ADD", &longer, "eth0"));
    assert_eq!(
        (code, msg),
        (
            5,
            format!(
                "open {}: file name too long",
                node.path("state").join(longer).display()
            )
        )
    );
    assert_eq!(node.state(), [""; 0]);
}

// K04
#[test]
fn k04_a_missing_subnet_env_says_who_writes_it() {
    let node = Node::new();
    let path = node.path("run/subnet.env").display().to_string();
    let sentence = |inner: String| {
        format!(
            "failed to load flannel 'subnet.env' file: {inner}. Check the flannel pod log for this node."
        )
    };
    let absent = sentence(format!("open {path}: no such file or directory"));
    let check = |code: u64, msg: &str, details: &str| {
        assert_eq!(
            failed(node.call("ADD", "c1", "eth0")),
            (code, msg.to_owned(), details.to_owned())
        );
        assert_eq!(
            failed(node.call("STATUS", "", "")),
            (50, msg.to_owned(), details.to_owned())
        );
        assert_eq!((node.state(), node.calls()), (vec![], vec![]));
    };
    node.write("run/subnet.env", "FLANNEL_MTU=1\n");
    let keys = "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_IPMASQ";
    let details = format!("flanneld writes `{path}` at the end of its start, and may not be done");
    check(11, &sentence(format!("{path} is missing {keys}")), &details);

    node.write("run/subnet.env", "\nFLANNEL_MTU");
    let details =
        format!("line 2 of `{path}`; flanneld writes that file anew when it is restarted");
    check(
        7,
        &sentence("malformed line \"FLANNEL_MTU\": no `=` after the key".into()),
        &details,
    );

    node.remove("run/subnet.env");
    check(
        11,
        &absent,
        &format!("flanneld writes `{path}` at the end of its start, and has not come that far"),
    );

    let run = node.path("run").display().to_string();
    fs::remove_dir(&run).unwrap();
    let details =
        format!("`{run}` does not exist, so flanneld has never run since this node booted; ");
    check(
        11,
        &absent,
        &format!("{details}it writes `{path}` at the end of its start"),
    );
}

#[test]
fn check_is_the_delegates_with_the_stored_configuration_and_the_result() {
    let node = Node::new();
    node.succeed("ADD", "c1", "eth0");
    node.calls();
    node.remove("run/subnet.env");
    let prev: Value = serde_json::from_str(RESULT).unwrap();
    let conf = node.conf(json!({ "prevResult": prev, "delegate": { "mtu": 5 } }));
    assert_eq!(succeeded(node.call_with("CHECK", "c1", "eth0", &conf)), "");
    let mut expected: Value = serde_json::from_str(DELEGATE).unwrap();
    expected["prevResult"] = prev;
    let calls = node.calls();
    let stdin = calls[0].strip_prefix("CHECK c1 eth0 ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(stdin).unwrap(), expected);

    node.write("bin/fail-CHECK", r#"{"code":102,"msg":"gone"}"#);
    assert_eq!(
        failed(node.call("CHECK", "c1", "eth0")),
        (102, "gone".into(), String::new())
    );
}

#[test]
fn check_of_a_reference_attachment_finds_its_state() {
    let node = Node::new();
    node.write("state/c1", &DELEGATE.replace("1.1.0", "0.3.1"));
    node.succeed("CHECK", "c1", "eth0");
    assert_eq!(node.calls(), [format!("CHECK c1 eth0 {DELEGATE}")]);
}

#[test]
fn check_without_state_says_so() {
    let node = Node::new();
    let folder = node.path("state").display().to_string();
    let check = |sentence: &str| {
        let (code, msg, _) = failed(node.call("CHECK", "c1", "eth0"));
        assert_eq!((code, msg), (102, sentence.to_owned()));
        assert_eq!(node.calls(), [""; 0]);
    };
    check(&format!("no state of this attachment in `{folder}`"));
    node.write("state/c1", &DELEGATE.replace("cbr0", "other"));
    check(&format!("no state of this attachment in `{folder}`"));
    node.write("state/c1", "");
    check(&format!(
        "the state file of this attachment in `{folder}` holds no configuration"
    ));
}

#[test]
fn status_asks_the_delegate_what_add_would() {
    let node = Node::new();
    node.succeed("STATUS", "", "");
    assert_eq!(node.calls(), [format!("STATUS - - {DELEGATE}")]);
    node.write(
        "bin/fail-STATUS",
        r#"{"code":50,"msg":"not now","details":"d"}"#,
    );
    assert_eq!(
        failed(node.call("STATUS", "", "")),
        (50, "not now".into(), "d".into())
    );
}

// K35
#[test]
fn k35_status_names_the_program_that_is_missing() {
    for plugin in ["host-local", "bridge"] {
        let node = Node::new();
        node.remove(&format!("bin/{plugin}"));
        let (code, msg, details) = failed(node.call("STATUS", "", ""));
        let sentence = format!(
            "failed to find plugin \"{plugin}\" in path [{}]",
            node.path("bin").display()
        );
        assert_eq!((code, msg), (50, sentence));
        assert!(
            details.contains(&format!("install `{plugin}`")),
            "{details}"
        );
    }
    let node = Node::new();
    node.remove("bin/host-local");
    succeeded(node.call_with(
        "STATUS",
        "",
        "",
        &node.conf(json!({ "ipam": { "type": "" } })),
    ));
}

#[test]
fn a_configuration_that_status_cannot_use_is_an_error() {
    let node = Node::new();
    let conf = node.conf(json!({ "delegate": { "name": "x" } }));
    assert_eq!(failed(node.call_with("STATUS", "", "", &conf)).0, 7);
}

#[test]
fn the_line_for_people() {
    assert!(Flannel.about().starts_with("CNI Plugin flannel version v"));
}
