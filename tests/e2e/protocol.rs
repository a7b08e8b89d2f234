//! The protocol of every plugin, seen from outside: variables, versions, error objects, hostile input.

use serde_json::{Value, json};
use tests::{Node, Outcome, VERSIONS, cni};

/// Plugins whose verbs all read their input the same way.
pub(crate) const PLUGINS: [&str; 5] = ["bridge", "host-local", "flannel", "loopback", "portmap"];

const SUPPORTED: &str = concat!(
    r#"{"cniVersion":"1.1.0","supportedVersions":["#,
    r#""0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#,
    "\n"
);

#[test]
fn p02_each_variable_a_verb_needs_is_asked_for() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let needs: [(&str, &[&str]); 5] = [
        (
            "ADD",
            &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        ),
        (
            "CHECK",
            &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        ),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
    ];
    let pod = node.pod();
    for plugin in present(&PLUGINS) {
        for (verb, variables) in needs {
            if cni::examines_reference() && matches!(verb, "GC" | "STATUS") {
                continue; // Debian's 1.1.1 does not know them
            }
            for variable in variables {
                let unset = node
                    .call(plugin, verb)
                    .pod(&pod)
                    .unset(variable)
                    .conf(&conf("1.1.0"))
                    .run();
                let msg = format!("required env variables [{variable}] missing");
                assert_eq!(unset.fails(&msg).code, 4, "{verb} without {variable}");
                let empty = node
                    .call(plugin, verb)
                    .pod(&pod)
                    .env(variable, "")
                    .conf(&conf("1.1.0"))
                    .run();
                empty.fails(&msg);
            }
        }
    }
}

#[test]
fn p03_missing_variables_are_named_together_in_order() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let add = node
        .call("host-local", "ADD")
        .unset("CNI_PATH")
        .conf(&conf("1.0.0"))
        .run();
    let msg = "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing";
    assert_eq!(add.fails(msg).code, 4);
}

#[test]
fn p03_a_malformed_variable_hides_missing_ones() {
    if cni::differs("1.1.1 looks for missing variables first") {
        return;
    }
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let add = node
        .call("host-local", "ADD")
        .env("CNI_CONTAINERID", "%")
        .conf(&conf("1.0.0"))
        .run();
    add.fails("invalid characters in containerID");
}

#[test]
fn p04_a_container_id_is_letters_digits_and_a_few_marks() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let pod = node.pod();
    for id in [
        "some-%%container-id",
        "-leading",
        "../../etc",
        "a/b",
        "a b",
        "line\n",
        "ä",
    ] {
        let add = node
            .call("host-local", "ADD")
            .pod(&pod)
            .env("CNI_CONTAINERID", id);
        let failure = add
            .conf(&conf("1.0.0"))
            .run()
            .fails("invalid characters in containerID");
        assert_eq!((failure.code, failure.details.as_str()), (4, id));
    }
}

#[test]
fn p05_an_interface_name_is_what_the_kernel_takes() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let pod = node.pod();
    let odd = "interface name contains / or : or whitespace characters";
    let long = "interface name is too long";
    let cases = [
        ("sixteen-bytes-16", long),
        ("ääääääää", long), // 16 bytes in 8 letters
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", odd),
        ("a:b", odd),
        ("a b", odd),
        ("a\tb", odd),
        ("a\u{2003}b", odd),
    ];
    for (name, msg) in cases {
        let add = node
            .call("host-local", "ADD")
            .pod(&pod)
            .env("CNI_IFNAME", name);
        let failure = add.conf(&conf("1.0.0")).run().fails(msg);
        assert_eq!(failure.code, 4, "{name}");
        if msg == long {
            assert_eq!(
                failure.details,
                "interface name should be less than 16 characters"
            );
        }
    }
}

#[test]
fn p06_an_unknown_version_is_refused_with_both_sides_named() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let pod = node.pod();
    for plugin in present(&PLUGINS) {
        for verb in ["ADD", "DEL"] {
            for version in ["1.2.0", "1.1", "0.5.0", "v1.0.0"] {
                let call = node.call(plugin, verb).pod(&pod).conf(&conf(version)).run();
                let failure = call.fails("incompatible CNI versions");
                assert_eq!(failure.code, 1);
                let head = format!("config is {version:?}, plugin supports [\"0.1.0\" \"0.2.0\" ");
                assert!(failure.details.starts_with(&head), "{}", failure.details);
            }
        }
    }
    assert!(node.links().is_empty(), "a refused ADD touched the node");
}

#[test]
fn p06_no_version_is_the_oldest() {
    let Some(node) = Node::with(&["loopback"]) else {
        return;
    };
    let result = node
        .add("loopback", &node.pod(), &json!({ "name": "n" }))
        .result();
    assert_eq!(result["cniVersion"], "0.1.0");
    assert_eq!(result["ip4"]["ip"], "127.0.0.1/8");
}

#[test]
fn p07_check_asks_for_a_new_enough_configuration() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let pod = node.pod();
    for plugin in present(&PLUGINS) {
        let check = |version: &str| {
            node.call(plugin, "CHECK")
                .pod(&pod)
                .conf(&conf(version))
                .run()
        };
        for old in ["", "0.1.0", "0.3.0", "0.3.1"] {
            assert_eq!(
                check(old).fails("config version does not allow CHECK").code,
                1
            );
        }
        assert_eq!(
            check("9.0.0")
                .fails("plugin version does not allow CHECK")
                .code,
            1
        );
        assert_eq!(check("adsfsadf").failure().code, 6);
        assert_eq!(
            check("1.2.3.4")
                .fails("invalid version \"1.2.3.4\": too many parts")
                .code,
            6
        );
    }
}

#[test]
fn p08_gc_and_status_ask_for_1_1_and_for_no_container() {
    let Some(node) = newest(&["bridge"]) else {
        return;
    };
    for plugin in present(&PLUGINS) {
        for verb in ["GC", "STATUS"] {
            let call = |version: &str| node.call(plugin, verb).conf(&conf(version)).run();
            for old in ["", "0.4.0", "1.0.0"] {
                let msg = format!("config version does not allow {verb}");
                assert_eq!(call(old).fails(&msg).code, 1);
            }
            let msg = format!("plugin version does not allow {verb}");
            assert_eq!(call("9.0.0").fails(&msg).code, 1);
            assert_eq!(call("adsfsadf").failure().code, 6);
        }
    }
    node.call("loopback", "GC")
        .conf(&conf("1.1.0"))
        .run()
        .silent();
}

#[test]
fn p09_a_network_name_cannot_leave_its_folder() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let pod = node.pod();
    for plugin in present(&PLUGINS) {
        for verb in ["ADD", "DEL"] {
            for name in ["../../etc", "a/b", "nul\0", "line\n", "-x", "some%name"] {
                let conf = json!({ "cniVersion": "1.0.0", "name": name, "type": plugin });
                let call = node.call(plugin, verb).pod(&pod).conf(&conf).run();
                let failure = call.fails("invalid characters found in network name");
                assert_eq!((failure.code, failure.details.as_str()), (7, name));
            }
            for conf in [
                json!({ "cniVersion": "1.0.0" }),
                json!({ "name": "" }),
                Value::Null,
            ] {
                let call = node.call(plugin, verb).pod(&pod).conf(&conf).run();
                assert_eq!(call.fails("missing network name").code, 7);
            }
        }
    }
}

#[test]
fn p10_version_needs_nothing_and_reads_nothing() {
    let Some(node) = newest(&["bridge"]) else {
        return;
    };
    for plugin in present(&PLUGINS) {
        let plain = node.call(plugin, "VERSION").unset("CNI_PATH").run();
        assert_eq!(plain.stdout, SUPPORTED);
        let garbage = node.call(plugin, "VERSION").stdin("garbage").run();
        assert_eq!(
            (garbage.stdout.as_str(), garbage.stderr.as_str()),
            (SUPPORTED, "")
        );
    }
}

#[test]
fn p11_an_unknown_verb_is_named() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    for plugin in present(&PLUGINS) {
        for verb in ["NOPE", "add", "Add "] {
            let call = node
                .call(plugin, verb)
                .pod(&node.pod())
                .conf(&conf("1.0.0"))
                .run();
            assert_eq!(call.fails(&format!("unknown CNI_COMMAND: {verb}")).code, 4);
        }
        let call = node.call(plugin, "NOPE").stdin("{").run();
        assert_eq!(
            call.failure().code,
            6,
            "the configuration is read before the verb is known"
        );
    }
}

#[test]
fn p12_run_by_hand_a_plugin_says_what_it_is() {
    let Some(node) = newest(&["bridge"]) else {
        return;
    };
    for plugin in present(&PLUGINS) {
        for call in [
            node.call(plugin, ""),
            node.call(plugin, "").unset("CNI_COMMAND"),
        ] {
            let about = call.run();
            about.silent();
            let (first, second) = about.stderr.split_once('\n').unwrap();
            let named = match plugin {
                "flannel" => "CNI Plugin flannel version ".to_owned(),
                other => format!("CNI {other} plugin "),
            };
            assert!(first.starts_with(&named), "{first}");
            let versions = VERSIONS.join(", ");
            assert_eq!(
                second,
                format!("CNI protocol versions supported: {versions}\n")
            );
        }
    }
}

#[test]
fn p13_unreadable_input_is_an_input_error() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    for plugin in present(&PLUGINS) {
        let call = node
            .call(plugin, "ADD")
            .pod(&node.pod())
            .stdin_from(node.dir())
            .run();
        let failure = call.failure();
        assert_eq!(failure.code, 5);
        assert!(
            failure.msg.starts_with("error reading from stdin: "),
            "{}",
            failure.msg
        );
    }
}

#[test]
fn p14_an_error_is_one_indented_object_without_newline() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let add = node
        .call("host-local", "ADD")
        .pod(&node.pod())
        .stdin("")
        .run();
    let failure = add.failure();
    assert_eq!(failure.code, 6);
    assert!(
        failure.msg.starts_with("error unmarshall network config: "),
        "{}",
        failure.msg
    );
    assert!(
        add.stdout
            .starts_with("{\n    \"code\": 6,\n    \"msg\": \""),
        "{}",
        add.stdout
    );
    assert!(add.stdout.ends_with("\n}"), "{}", add.stdout);
}

#[test]
fn keys_match_without_regard_to_case_and_null_is_absent() {
    let Some(node) = Node::with(&["bridge", "host-local"]) else {
        return;
    };
    let conf = json!({
        "CNIVERSION": "1.0.0", "Name": "n", "type": "bridge", "bridge": null, "MTU": 1400,
        "ISGATEWAY": true,
        "IPAM": { "Type": "host-local", "SUBNET": "10.9.0.0/24", "DataDir": node.dir().join("ipam") },
    });
    let result = add(&node, &conf).result();
    assert_eq!(result["interfaces"][0]["name"], "cni0");
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    assert_eq!(node.link("cni0").unwrap()["mtu"], 1400);
}

#[test]
fn p25_args_are_pairs_that_a_plugin_knows() {
    let Some(node) = Node::with(&["host-local"]) else {
        return;
    };
    let pod = node.pod();
    let conf = json!({
        "cniVersion": "1.0.0", "name": "n",
        "ipam": { "type": "host-local", "subnet": "10.9.0.0/24", "dataDir": node.dir().join("ipam") },
    });
    let add = |args: &str| {
        node.call("host-local", "ADD")
            .pod(&pod)
            .args(args)
            .conf(&conf)
            .run()
    };
    add("K8S_POD_NAME=a;X=b").fails(r#"ARGS: unknown args ["K8S_POD_NAME=a" "X=b"]"#);
    add("foo").fails(r#"ARGS: invalid pair "foo""#);
    add("a=b;").fails(r#"ARGS: invalid pair """#);
    add("a=b=c").fails(r#"ARGS: invalid pair "a=b=c""#);
    add("IgnoreUnknown=maybe")
        .fails(r#"ARGS: error parsing value of pair "IgnoreUnknown=maybe": boolean unmarshal error: invalid input maybe"#);
    for yes in ["1", "true", "TRUE"] {
        let call = node.call("host-local", "ADD").pod(&node.pod());
        call.args(&format!("X=b;IgnoreUnknown={yes}"))
            .conf(&conf)
            .run()
            .result();
    }
}

fn add(node: &Node, conf: &Value) -> Outcome {
    node.add("bridge", &node.pod(), conf)
}

pub(crate) fn conf(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "n" })
}

/// Of `plugins`, those that there are: the project's own crates, or what the reference has.
pub(crate) fn present<'a>(plugins: &[&'a str]) -> Vec<&'a str> {
    let crates = cni::workspace().join("crates");
    let planned =
        |it: &&&str| !crates.join(it).exists() && !crates.join(format!("cni-{it}")).exists();
    let there = plugins
        .iter()
        .filter(|it| cni::examines_reference() || !planned(it));
    there.filter(|it| cni::can_run(&[**it])).copied().collect()
}

/// A node for what came with version 1.1.0 of the specification, which Debian's reference does not know.
fn newest(plugins: &[&str]) -> Option<Node> {
    if cni::differs("1.1.1 is older than version 1.1.0 of the specification") {
        return None;
    }
    Node::with(plugins)
}
