//! Input that nobody means well.

use std::time::Duration;

use serde_json::json;
use tests::{Node, cni};

use crate::protocol::{PLUGINS, conf, present};

#[test]
fn p09_a_name_too_long_for_a_folder_is_an_error_like_any_other() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let mut pod = node.pod();
    let store = json!({ "type": "host-local", "subnet": "10.0.0.0/24", "dataDir": node.dir() });
    let conf = json!({ "cniVersion": "1.0.0", "name": "n".repeat(300), "ipam": store });
    node.add("host-local", &pod, &conf).failure();
    pod.id = "i".repeat(300);
    if let Some(node) = Node::with(&["flannel"]) {
        std::fs::create_dir_all(node.dir().join("run/flannel")).unwrap();
        std::fs::write(node.dir().join("run/flannel/subnet.env"), crate::SUBNET_ENV).unwrap();
        let conf = json!({ "cniVersion": "1.0.0", "name": "cbr0", "type": "flannel" });
        node.add("flannel", &pod, &conf).failure();
        assert!(node.links().is_empty());
    }
}

/// More than fit into a socket's buffers at once, be it as requests or as refusals.
#[test]
fn routes_may_be_thousands() {
    const MANY: usize = 5000;
    let Some(node) = Node::with(&["bridge", "host-local"]) else {
        return;
    };
    let pod = node.pod();
    let conf = |gateway: &str| {
        let route = |at: usize| {
            let (high, low) = (at / 250, at % 250);
            json!({ "dst": format!("10.{}.{low}.0/24", 100 + high), "gw": gateway })
        };
        let routes: Vec<_> = (0..MANY).map(route).collect();
        let ranges = json!([[{ "subnet": "10.1.2.0/24" }]]);
        let ipam = json!({ "type": "host-local", "dataDir": node.dir(), "ranges": ranges, "routes": routes });
        json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br1", "isGateway": true, "ipam": ipam })
    };
    if !cni::examines_reference() {
        let failure = node.add("bridge", &pod, &conf("172.16.0.1")).failure();
        let refused = "failed to add route '{10.100.0.0 ffffff00} via 172.16.0.1 dev eth0";
        assert!(failure.msg.starts_with(refused), "{failure:?}");
        assert_eq!(node.links(), ["br1"], "nothing else is left");
        assert!(pod.links().is_empty());
    }
    node.add("bridge", &pod, &conf("10.1.2.1")).result();
    let routes = pod.run("ip", &["-4", "route", "show", "table", "main"]);
    assert_eq!(routes.lines().count(), MANY + 1);
    node.del("bridge", &pod, &conf("10.1.2.1")).silent();
}

#[test]
fn hostile_configurations_are_refused_in_a_moment() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let mebibytes = 10 << 20;
    let nested = |head: &str, bracket: &str| {
        let mut text = head.to_owned();
        text.push_str(&bracket.repeat((mebibytes - head.len()) / bracket.len()));
        text
    };
    let inputs = [
        nested("", "["),
        nested("", "{\"a\":"),
        nested(r#"{"cniVersion":"1.0.0","name":"n","ipam":"#, "["),
        nested(r#"{"cniVersion":"1.0.0","name":"n","ipam":"#, "{\"a\":"),
        nested(r#"{"cniVersion":"1.0.0","name":"n","runtimeConfig":"#, "["),
        nested(r#"{"cniVersion":"1.0.0","name":"n","x":""#, "\\u0000"),
    ];
    for plugin in present(&PLUGINS) {
        for input in &inputs {
            for verb in ["ADD", "DEL"] {
                let call = node
                    .call(plugin, verb)
                    .pod(&node.pod())
                    .stdin(input.as_bytes())
                    .run();
                let head = &input[..60];
                assert!(call.is_orderly(), "{plugin} {verb} {head}: {}", call.status);
                call.failure();
                // A moment is some 50 ms; what is not linear in the input's size takes minutes.
                assert!(
                    call.took < cni::here(Duration::from_secs(10)),
                    "{plugin} {verb} {head}: {:?}",
                    call.took
                );
            }
        }
    }
}

#[test]
fn what_is_not_a_configuration_is_refused() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"\"text\"",
        b"{} x",
        b"\xef\xbb\xbf{\"name\":\"n\"}",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":1}",
        b"{\"name\":\"n\",}",
    ];
    for plugin in present(&PLUGINS) {
        for body in bodies {
            let call = node.call(plugin, "ADD").pod(&node.pod()).stdin(body).run();
            let code = call.failure().code;
            assert!(matches!(code, 6 | 7), "{plugin}: {}", call.story());
        }
    }
    assert!(node.links().is_empty());
}

#[test]
fn a_plugin_leaves_its_own_namespace_alone() {
    let Some(node) = Node::with(&["bridge", "host-local", "loopback"]) else {
        return;
    };
    let pod = node.pod();
    let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
    for plugin in present(&["bridge", "loopback"]) {
        let call = |verb: &str| {
            node.call(plugin, verb)
                .pod(&pod)
                .env("CNI_NETNS", "/proc/self/ns/net")
        };
        if cni::differs("it notices too late, and prints two documents") {
            return;
        }
        assert_eq!(call("ADD").conf(&conf("1.0.0")).run().fails(msg).code, 8);
        assert!(node.links().is_empty(), "{plugin} acted before it refused");
        // What has become the node's own namespace is the container's no more, so DEL looks into none.
        let gone = call("DEL").conf(&conf("1.0.0")).run();
        assert!(gone.status.success(), "{}", gone.status);
        let overridden = call("ADD")
            .env("CNI_NETNS_OVERRIDE", "1")
            .conf(&conf("1.0.0"))
            .run();
        overridden.result();
        call("DEL")
            .env("CNI_NETNS_OVERRIDE", "TRUE")
            .conf(&conf("1.0.0"))
            .run()
            .silent();
        node.run("ip", &["link", "set", "lo", "up"]);
        for link in node.links() {
            node.run("ip", &["link", "del", &link]);
        }
    }
}

#[test]
fn garbage_in_the_store_is_survived() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let dir = node.dir().join("ipam/net");
    std::fs::create_dir_all(dir.join("10.1.2.9")).unwrap();
    let files: [(&str, &[u8]); 6] = [
        ("10.1.2.2", b"\xff\xfe\0\0"),
        ("10.1.2.3", b"other\r\neth0\r\nmore"),
        ("last_reserved_ip.0", b"\xff\n10.1.2.77"),
        ("not-an-address", b"one\r\neth0"),
        ("10.1.2.300", b""),
        (".index", b"nonsense"),
    ];
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
    }
    std::fs::write(node.dir().join("ipam/.index"), "no folder").unwrap();
    let store = json!({ "type": "host-local", "subnet": "10.1.2.0/29", "dataDir": node.dir().join("ipam") });
    let conf = json!({ "cniVersion": "1.0.0", "name": "net", "ipam": store });
    let pod = node.pod();
    let result = node.add("host-local", &pod, &conf).result();
    // 10.1.2.2 is nobody's; the reference takes whatever is there for a lease
    let free = if cni::examines_reference() {
        "10.1.2.4"
    } else {
        "10.1.2.2"
    };
    assert_eq!(result["ips"][0]["address"], format!("{free}/29"));
    node.del("host-local", &pod, &conf).silent();
    assert!(!dir.join(free).exists());
    assert!(dir.join("10.1.2.3").exists(), "another's lease was freed");
}

#[test]
fn a_store_that_is_no_folder_is_an_error() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    std::fs::write(node.dir().join("ipam"), "").unwrap();
    let store = json!({ "type": "host-local", "subnet": "10.1.2.0/29", "dataDir": node.dir().join("ipam") });
    let conf = json!({ "cniVersion": "1.0.0", "name": "net", "ipam": store });
    let failure = node.add("host-local", &node.pod(), &conf).failure();
    assert!(failure.msg.contains("ipam"), "which file? {failure:?}");
}

#[test]
fn p26_a_previous_result_that_is_none_is_refused() {
    let Some(node) = Node::with(&["bridge", "host-local"]) else {
        return;
    };
    let pod = node.pod();
    let conf = crate::bridge::l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let result = node.add("bridge", &pod, &conf).result();
    let check = |prev: serde_json::Value| node.check("bridge", &pod, &conf, &prev).failure().msg;
    let mixed = check(cni::with(&result, "cniVersion", "0.4.0".into()));
    let known = if cni::examines_reference() {
        "[1.0.0]"
    } else {
        "[1.0.0 1.1.0]"
    };
    assert_eq!(
        mixed,
        format!(
            "could not parse prevResult: result type supports {known} but unmarshalled CNIVersion is \"0.4.0\""
        )
    );
    for version in ["9.9.9", "1.0"] {
        let msg = check(cni::with(&result, "cniVersion", version.into()));
        assert!(msg.starts_with("could not parse prevResult: "), "{msg}");
    }
    let wrong = [
        ("ips", json!({})),
        ("ips", json!([{ "address": 1 }])),
        ("interfaces", json!("eth0")),
    ];
    for (key, value) in wrong {
        let msg = check(cni::with(&result, key, value));
        assert!(msg.contains("prevResult"), "{msg}");
    }
    assert!(!check(json!([])).is_empty());
    assert!(!check(json!("text")).is_empty());
    let mut unversioned = result.clone();
    unversioned.as_object_mut().unwrap().remove("cniVersion");
    node.check("bridge", &pod, &conf, &unversioned).silent();
}
