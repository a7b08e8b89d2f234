//! `loopback`: the one link every namespace has.

use serde_json::{Value, json};
use tests::ip::has_flag;
use tests::{Node, Pod, cni};

#[test]
fn o01_add_brings_lo_up_and_prints_what_is_on_it() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let add = node
            .call("loopback", "ADD")
            .pod(&pod)
            .args("none")
            .conf(&conf(version))
            .run();
        let result = add.result();
        assert!(is_up(&pod));
        assert_eq!(result["cniVersion"], *version);
        if cni::examines_reference() && !matches!(*version, "1.0.0" | "1.1.0") {
            continue; // it prints the layout of 1.0.0 for every version
        }
        let sandbox = pod.path();
        let interface = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox });
        let mut expected = match *version {
            "0.1.0" | "0.2.0" => json!({
                "cniVersion": version, "ip4": { "ip": "127.0.0.1/8" }, "ip6": { "ip": "::1/128" }, "dns": {},
            }),
            "1.0.0" | "1.1.0" => json!({
                "cniVersion": version,
                "interfaces": [interface],
                "ips": [
                    { "address": "127.0.0.1/8", "interface": 0 },
                    { "address": "::1/128", "interface": 0 },
                ],
            }),
            _ => json!({
                "cniVersion": version,
                "interfaces": [interface],
                "ips": [
                    { "version": "4", "interface": 0, "address": "127.0.0.1/8" },
                    { "version": "6", "interface": 0, "address": "::1/128" },
                ],
                "dns": {},
            }),
        };
        if cni::examines_reference() {
            expected["dns"] = json!({}); // 1.1.1 prints it always
        }
        assert_eq!(result, expected);
    }
}

/// As for a container of somebody who is not root, with the node's network beside it: there is no way back to that.
#[test]
fn o01_add_works_in_a_namespace_that_one_cannot_return_from() {
    let Some(node) = node() else { return };
    let script = format!(
        r#"
        unshare --net sleep 60 &
        pod=/proc/$!/ns/net
        while [ "$(readlink $pod)" = "$(readlink /proc/self/ns/net)" ]; do :; done
        export CNI_CONTAINERID=one CNI_NETNS=$pod CNI_IFNAME=lo CNI_PATH={path}
        conf='{{ "cniVersion": "1.0.0", "name": "net", "type": "loopback" }}'
        echo "$conf" | CNI_COMMAND=ADD {path}/loopback
        nsenter --net=$pod ip -br link show lo >&2
        echo "$conf" | CNI_COMMAND=DEL {path}/loopback
        kill $!
        "#,
        path = cni::path().display()
    );
    let told = node.run(
        "unshare",
        &["--user", "--map-root-user", "sh", "-ec", &script],
    );
    let result: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
}

#[test]
fn o02_del_takes_lo_down_and_says_nothing() {
    for version in cni::versions() {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let del = || {
            node.call("loopback", "DEL")
                .pod(&pod)
                .args("none")
                .conf(&conf(version))
                .run()
        };
        del().silent();
        assert!(!is_up(&pod));
        node.add("loopback", &pod, &conf(version)).result();
        del().silent();
        assert!(!is_up(&pod));
    }
}

#[test]
fn o02_del_of_a_namespace_that_is_gone_succeeds() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    for netns in [String::new(), node.gone()] {
        node.call("loopback", "DEL")
            .pod(&pod)
            .env("CNI_NETNS", netns)
            .conf(&conf("1.0.0"))
            .run()
            .silent();
    }
}

#[test]
fn add_where_there_is_no_namespace_says_so() {
    let Some(node) = node() else { return };
    let gone = node.gone();
    let add = node
        .call("loopback", "ADD")
        .pod(&node.pod())
        .env("CNI_NETNS", &gone)
        .conf(&conf("1.0.0"));
    add.run().fails(&format!(
        "failed to Statfs {gone:?}: no such file or directory"
    ));
}

#[test]
fn check_wants_lo_up() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    let check = || {
        node.call("loopback", "CHECK")
            .pod(&pod)
            .conf(&conf("1.0.0"))
            .run()
    };
    check().fails("loopback interface is down");
    node.add("loopback", &pod, &conf("1.0.0")).result();
    check().silent();
}

#[test]
fn another_address_on_lo_is_an_error() {
    let Some(node) = node() else { return };
    let pod = node.pod();
    pod.run("ip", &["addr", "add", "10.9.9.9/32", "dev", "lo"]);
    node.add("loopback", &pod, &conf("1.0.0"))
        .fails("loopback interface found with non-loopback address \"10.9.9.9\"");
}

#[test]
fn a_result_before_it_is_passed_on() {
    let Some(node) = node() else { return };
    let prev_result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "eth0", "sandbox": "/x" }],
        "ips": [{ "address": "10.1.2.3/24", "interface": 0 }],
    });
    let conf = cni::with(&conf("1.0.0"), "prevResult", prev_result.clone());
    let pod = node.pod();
    let result = node.add("loopback", &pod, &conf).result();
    assert!(is_up(&pod));
    if cni::differs("1.1.1 adds dns and takes any layout for any version") {
        return;
    }
    assert_eq!(result, prev_result);
    let mixed = cni::with(&conf, "cniVersion", "0.4.0".into());
    let failure = node.add("loopback", &node.pod(), &mixed).failure();
    assert!(
        failure
            .msg
            .contains("but unmarshalled CNIVersion is \"1.0.0\""),
        "{}",
        failure.msg
    ); // P26
}

fn node() -> Option<Node> {
    Node::with(&["loopback"])
}

fn conf(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "cni-loopback" })
}

fn is_up(pod: &Pod) -> bool {
    has_flag(&pod.link("lo").unwrap(), "UP")
}
