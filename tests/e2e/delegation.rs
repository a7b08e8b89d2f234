//! How `bridge` finds, runs and believes its IPAM plugin, played by scripts.

use std::fs::File;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cni::{self, with};
use tests::{Node, Outcome, Pod};

use crate::bridge::{l2, networks};
use crate::check_no_ports;

const RESULT: &str =
    r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.2/24","gateway":"10.1.2.1"}]}"#;

// P01, P22, P24
#[test]
fn p22_a_delegate_gets_everything_but_another_verb() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let seen = node.dir().join("seen");
    let record = format!("env > {0}.env; cat > {0}.stdin\n", seen.display());
    node.script(
        "ipam",
        &format!("{record} [ $CNI_COMMAND = DEL ] || echo '{RESULT}'"),
    );
    let pod = node.pod();
    let conf = conf();
    for verb in ["ADD", "DEL"] {
        let call = node
            .call("bridge", verb)
            .pod(&pod)
            .scripts()
            .args("IgnoreUnknown=1;X=y");
        let call = call.env("SOMETHING_ELSE", "kept").conf(&conf).run();
        assert!(call.status.success(), "{}", call.story());
        let env = std::fs::read_to_string(seen.with_extension("env")).unwrap();
        for line in [
            format!("CNI_COMMAND={verb}"),
            format!("CNI_CONTAINERID={}", pod.id),
            format!("CNI_NETNS={}", pod.path()),
            "CNI_IFNAME=eth0".to_owned(),
            "CNI_ARGS=IgnoreUnknown=1;X=y".to_owned(),
            "SOMETHING_ELSE=kept".to_owned(),
        ] {
            assert!(env.lines().any(|it| it == line), "{line} is not in\n{env}");
        }
        let stdin = std::fs::read_to_string(seen.with_extension("stdin")).unwrap();
        assert_eq!(
            stdin,
            conf.to_string(),
            "not the bytes that bridge was given"
        );
    }
}

#[test]
fn p21_a_result_without_version_has_the_configuration_s() {
    for version in ["\"cniVersion\":\"\",", ""] {
        let result = RESULT.replace("\"cniVersion\":\"1.0.0\",", version);
        let Some((node, pod, added)) = add(&format!("echo '{result}'")) else {
            return;
        };
        assert_eq!(added.result()["ips"][0]["address"], "10.1.2.2/24");
        assert_eq!(pod.addresses("eth0"), networks(&["10.1.2.2/24"]));
        drop(node);
    }
}

#[test]
fn p21_a_result_of_another_version_is_understood() {
    let results = [
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.2/24","gateway":"10.1.2.1"}}"#,
        r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.2.2/24","gateway":"10.1.2.1"}]}"#,
    ];
    for result in results {
        let Some((_node, pod, added)) = add(&format!("echo '{result}'")) else {
            return;
        };
        let result = added.result();
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(
            result["ips"][0],
            json!({ "address": "10.1.2.2/24", "gateway": "10.1.2.1", "interface": 2 })
        );
        assert_eq!(pod.addresses("eth0"), networks(&["10.1.2.2/24"]));
    }
}

#[test]
fn p23_a_delegate_is_looked_for_in_order() {
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    node.script("ipam", &format!("echo '{RESULT}'"));
    let add = |ipam: &str, path: &str| {
        let conf = with(&l2("1.0.0"), "ipam", json!({ "type": ipam }));
        node.call("bridge", "ADD")
            .pod(&node.pod())
            .env("CNI_PATH", path)
            .conf(&conf)
            .run()
    };
    let scripts = node.scripts().display().to_string();
    add("ipam", &format!("/nowhere:{scripts}:/else")).result();
    add("nope", "/nowhere:/else").fails("failed to find plugin \"nope\" in path [/nowhere /else]");
    add("../bin/ipam", &scripts).fails("invalid plugin name: ../bin/ipam");
}

#[test]
fn p24_a_delegate_s_failure_is_told_by_what_it_printed() {
    let unreadable = "netplugin failed but error parsing its diagnostic message \"oops\\n\": ";
    let cases = [
        (
            "echo '{\"code\":117,\"msg\":\"no luck\",\"details\":\"at all\"}'; exit 1",
            117,
            "no luck",
            "at all",
        ),
        (
            "echo '{\"msg\":\"no code\"}'; echo noise >&2; exit 3",
            0,
            "no code",
            "",
        ),
        (
            "echo some words >&2; exit 3",
            0,
            "netplugin failed: \"some words\\n\"",
            "",
        ),
        (
            "exit 3",
            0,
            "netplugin failed with no error message: exit status 3",
            "",
        ),
        (
            "kill -9 $$",
            0,
            "netplugin failed with no error message: signal: killed",
            "",
        ),
        ("echo oops; exit 1", 0, unreadable, ""),
    ];
    for (script, code, msg, details) in cases {
        let Some((_node, _pod, added)) = add(script) else {
            return;
        };
        let failure = added.failure();
        if msg == unreadable {
            assert!(failure.msg.starts_with(msg), "{}", failure.msg);
        } else {
            assert_eq!(
                (failure.msg.as_str(), failure.details.as_str()),
                (msg, details)
            );
        }
        if code != 0 {
            assert_eq!(failure.code, code);
        }
    }
}

#[test]
fn p24_a_successful_delegate_s_words_are_passed_on() {
    let Some((_node, _pod, added)) = add(&format!("echo a warning >&2; echo '{RESULT}'")) else {
        return;
    };
    added.result();
    assert!(added.stderr.contains("a warning"), "{:?}", added.stderr);
}

#[test]
fn p24_an_unusable_result_is_an_error_and_goes_back() {
    let cases = [
        ("echo '{'", "failed to unmarshal raw result: "),
        ("echo '[]'", "failed to unmarshal raw result: "),
        (
            "true",
            "failed to unmarshal raw result: unexpected end of JSON input",
        ),
        (
            "echo '{\"cniVersion\":\"9.9.9\"}'",
            "unsupported CNI result version \"9.9.9\"",
        ),
        (
            "echo '{\"cniVersion\":\"1.0.0\"}'",
            "IPAM plugin returned missing IP config",
        ),
    ];
    for (script, msg) in cases {
        let Some(node) = Node::with(&["bridge"]) else {
            return;
        };
        let log = node.dir().join("verbs");
        node.script(
            "ipam",
            &format!(
                "echo $CNI_COMMAND >> {}\n[ $CNI_COMMAND = DEL ] || {script}",
                log.display()
            ),
        );
        let pod = node.pod();
        let failure = node
            .call("bridge", "ADD")
            .pod(&pod)
            .scripts()
            .conf(&conf())
            .run()
            .failure();
        assert!(failure.msg.starts_with(msg), "{script}: {}", failure.msg);
        if cni::examines_reference() {
            continue; // it asks for no DEL where it could not read the result
        }
        let verbs = std::fs::read_to_string(&log).unwrap();
        assert_eq!(verbs, "ADD\nDEL\n", "{script}: an address is leaked");
        check_no_ports(&node);
    }
}

#[test]
fn p24_a_delegate_that_is_being_written_is_tried_again() {
    if cni::differs("1.1.1 gives up at once, with an empty error") {
        return;
    }
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    node.script("ipam", &format!("echo '{RESULT}'"));
    let busy = File::options()
        .append(true)
        .open(node.scripts().join("ipam"))
        .unwrap();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(busy);
    });
    node.call("bridge", "ADD")
        .pod(&node.pod())
        .scripts()
        .conf(&conf())
        .run()
        .result();
    writer.join().unwrap();
}

#[test]
fn status_and_gc_reach_the_ipam_plugin() {
    if cni::differs("1.1.1 knows neither") {
        return;
    }
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    let log = node.dir().join("verbs");
    node.script("ipam", &format!("echo $CNI_COMMAND >> {}", log.display()));
    let conf = with(&conf(), "cniVersion", "1.1.0".into());
    node.call("bridge", "STATUS")
        .scripts()
        .conf(&conf)
        .run()
        .silent();
    let gc = with(&conf, "cni.dev/valid-attachments", json!([]));
    node.call("bridge", "GC").scripts().conf(&gc).run().silent();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "STATUS\nGC\n");
    node.script("ipam", "echo '{\"code\":50,\"msg\":\"not yet\"}'; exit 1");
    let status = node.call("bridge", "STATUS").scripts().conf(&conf).run();
    assert_eq!(status.fails("not yet").code, 50);
    assert_eq!(
        node.status("bridge", &conf).failure().code,
        50,
        "the IPAM plugin is missing"
    );
}

/// ADD with an IPAM plugin that is this script.
fn add(script: &str) -> Option<(Node, Pod, Outcome)> {
    let node = Node::with(&["bridge"])?;
    node.script("ipam", script);
    let pod = node.pod();
    let added = node
        .call("bridge", "ADD")
        .pod(&pod)
        .scripts()
        .conf(&conf())
        .run();
    Some((node, pod, added))
}

fn conf() -> Value {
    with(&l2("1.0.0"), "ipam", json!({ "type": "ipam" }))
}
