//! Every verb through the dispatcher, on namespaces of the test's own.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use cni_plugin::{Environment, Outcome, dispatch};
use cni_spec::{json as cni_json, version};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

use super::*;

#[test]
fn o01_add_sets_lo_up_and_answers_in_the_layout_asked_for() {
    let interface =
        |netns: &str| json!([{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns }]);
    for version in version::SUPPORTED {
        let Some(pod) = Pod::new() else { return };
        let result = pod.result("ADD", &conf(version));
        assert!(pod.is_up(), "{version}");
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert_eq!(result["ip4"], json!({ "ip": "127.0.0.1/8" }));
            assert_eq!(result["ip6"], json!({ "ip": "::1/128" }));
            assert_eq!(result.get("interfaces"), None);
        } else {
            assert_eq!(result["interfaces"], interface(&pod.path()));
            assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
            assert_eq!(result["ips"][1]["address"], "::1/128");
            assert_eq!(result["ips"][1]["interface"], 0);
            assert_eq!(
                result["ips"][0].get("version").is_some(),
                version < "1.0.0",
                "{version}"
            );
        }
    }
}

#[test]
fn o02_del_sets_lo_down_and_says_nothing() {
    for version in version::SUPPORTED {
        let Some(pod) = Pod::new() else { return };
        pod.silent("DEL", &conf(version));
        assert!(!pod.is_up());
        pod.result("ADD", &conf(version));
        assert!(pod.is_up());
        pod.silent("DEL", &conf(version));
        assert!(!pod.is_up());
    }
}

#[test]
fn k36_del_where_no_namespace_is_any_more_succeeds() {
    let Some(pod) = Pod::new() else { return };
    let left_behind = tempfile::NamedTempFile::new().unwrap();
    let left_behind = left_behind.path().to_str().unwrap();
    let below_a_file = format!("{left_behind}/ns");
    for netns in [
        "",
        "/nonexistent/netns",
        left_behind,
        &below_a_file,
        "/proc/self/ns/uts",
        "/proc/self/stat",
    ] {
        let outcome = pod.call_at("DEL", netns, &conf("1.0.0"));
        assert_eq!(outcome, Outcome::default(), "{netns}");
    }
}

#[test]
fn k36_nothing_is_done_to_the_nodes_own_lo() {
    let Some(pod) = Pod::new() else { return };
    let error = failure(&pod.call_at("ADD", "/proc/self/ns/net", &conf("1.0.0")));
    assert_eq!(error["code"], 8);
    assert_eq!(
        error["msg"],
        "plugin's netns and netns from CNI_NETNS should not be the same"
    );
    // DEL must come to an end, but not by looking into this namespace.
    let outcome = pod.call_at("DEL", "/proc/self/ns/net", &conf("1.0.0"));
    assert!(!outcome.failed && outcome.stdout.is_empty());
    let note = String::from_utf8(outcome.stderr).unwrap();
    assert!(note.contains("no interface was looked for"), "{note}");
}

#[test]
fn add_and_check_need_a_namespace() {
    let Some(pod) = Pod::new() else { return };
    for verb in ["ADD", "CHECK"] {
        let gone = failure(&pod.call_at(verb, "/nonexistent/netns", &conf("1.0.0")));
        assert_eq!(
            gone["msg"],
            "failed to Statfs \"/nonexistent/netns\": no such file or directory"
        );
        assert_eq!(gone["code"], 8);
        let other = failure(&pod.call_at(verb, "/proc/self/ns/uts", &conf("1.0.0")));
        assert_eq!(
            other["msg"],
            "cannot work in the network namespace `/proc/self/ns/uts`"
        );
        assert_eq!(other["details"], "Invalid argument (os error 22)");
    }
}

#[test]
fn check_wants_lo_up_and_nothing_else() {
    let Some(pod) = Pod::new() else { return };
    let error = failure(&pod.call("CHECK", &conf("1.0.0")));
    assert_eq!(
        (&error["code"], &error["msg"]),
        (&json!(102), &json!("loopback interface is down"))
    );
    pod.run(&["link", "set", "lo", "up"]);
    pod.run(&["addr", "flush", "dev", "lo"]);
    pod.silent("CHECK", &conf("1.0.0"));
}

#[test]
fn addresses_that_were_removed_stay_away() {
    for version in version::SUPPORTED {
        let Some(pod) = Pod::new() else { return };
        pod.result("ADD", &conf(version));
        pod.run(&["addr", "flush", "dev", "lo"]);
        let result = pod.result("ADD", &conf(version));
        assert_eq!(result["cniVersion"], version);
        for key in ["ips", "ip4", "ip6"] {
            assert_eq!(result.get(key), None, "{version} {key}");
        }
    }
}

#[test]
fn an_address_of_elsewhere_is_an_error_and_lo_stays_up() {
    for address in ["10.9.9.9", "2001:db8::9"] {
        let Some(pod) = Pod::new() else { return };
        pod.run(&["addr", "add", address, "dev", "lo"]);
        let error = failure(&pod.call("ADD", &conf("1.0.0")));
        let msg = format!("loopback interface found with non-loopback address \"{address}\"");
        assert_eq!(error["msg"], msg);
        assert!(error["details"].as_str().unwrap().contains("`ip addr del`"));
        assert!(pod.is_up());
    }
}

#[test]
fn a_result_before_it_is_passed_on() {
    let Some(pod) = Pod::new() else { return };
    let prev_result = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "eth0", "sandbox": "/x" }],
        "ips": [{ "address": "10.1.2.3/24", "interface": 0 }],
    });
    let with = |version: &str| {
        let mut conf = conf(version);
        conf["prevResult"] = prev_result.clone();
        conf
    };
    assert_eq!(pod.result("ADD", &with("1.0.0")), prev_result);
    assert!(pod.is_up());
    let error = failure(&pod.call("ADD", &with("0.4.0")));
    assert_eq!(
        error["msg"],
        "failed to parse prevResult: could not parse prevResult: \
         result type supports [0.3.0 0.3.1 0.4.0] but unmarshalled CNIVersion is \"1.0.0\""
    );
    assert_eq!(error["code"], 7);
}

#[test]
fn a_configuration_of_wrong_types_changes_nothing() {
    let Some(pod) = Pod::new() else { return };
    let mut wrong = conf("1.0.0");
    wrong["type"] = json!(5);
    let error = failure(&pod.call("ADD", &wrong));
    let msg = "failed to parse network config: json: cannot unmarshal number into Go struct field NetConf.type of type string";
    assert_eq!((&error["code"], &error["msg"]), (&json!(6), &json!(msg)));
    assert!(!pod.is_up());
}

#[test]
fn gc_and_status_have_nothing_to_do() {
    let mut conf = conf("1.1.0");
    conf["cni.dev/valid-attachments"] = json!([]);
    let environment =
        |verb| Environment::from_iter([("CNI_COMMAND", verb), ("CNI_PATH", "/nonexistent")]);
    for verb in ["GC", "STATUS"] {
        let stdin = conf.to_string();
        let outcome = dispatch(&Loopback, &[], &environment(verb), &mut stdin.as_bytes());
        assert_eq!(outcome, Outcome::default());
    }
}

#[test]
fn a_person_is_told_the_version() {
    let outcome = dispatch(&Loopback, &[], &Environment::default(), &mut &b""[..]);
    let about = String::from_utf8(outcome.stderr).unwrap();
    assert!(
        about.starts_with(concat!(
            "CNI loopback plugin v",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )),
        "{about}"
    );
}

/// A fresh network namespace; the kernel takes it down when its descriptor is closed.
struct Pod(File);

impl Pod {
    /// `None`, with the reason on standard error, where namespaces cannot be made; with `CI=true` that is a failure.
    fn new() -> Option<Pod> {
        if !geteuid().is_root() {
            assert_ne!(
                std::env::var("CI").as_deref(),
                Ok("true"),
                "network namespaces need root"
            );
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Some(Pod(thread::spawn(inside).join().unwrap()))
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    fn call(&self, verb: &str, conf: &Value) -> Outcome {
        self.call_at(verb, &self.path(), conf)
    }

    fn call_at(&self, verb: &str, netns: &str, conf: &Value) -> Outcome {
        let environment = Environment::from_iter([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "some-container"),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "any0"),
            ("CNI_ARGS", "none"),
            ("CNI_PATH", "/nonexistent"),
        ]);
        let stdin = conf.to_string();
        dispatch(&Loopback, &[], &environment, &mut stdin.as_bytes())
    }

    fn result(&self, verb: &str, conf: &Value) -> Value {
        let outcome = self.call(verb, conf);
        assert!(!outcome.failed && outcome.stderr.is_empty(), "{outcome:?}");
        cni_json::parse(&outcome.stdout).unwrap()
    }

    fn silent(&self, verb: &str, conf: &Value) {
        assert_eq!(self.call(verb, conf), Outcome::default());
    }

    /// Read by other means than the code under test.
    fn is_up(&self) -> bool {
        self.run(&["-o", "link", "show", "lo"]).contains(",UP")
    }

    fn run(&self, args: &[&str]) -> String {
        let run = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            Command::new("ip").args(args).output().unwrap()
        };
        let output = thread::scope(|scope| scope.spawn(run).join().unwrap());
        assert!(output.status.success(), "ip {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn conf(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "cni-loopback" })
}

fn failure(outcome: &Outcome) -> Value {
    assert!(outcome.failed, "{outcome:?}");
    cni_json::parse(&outcome.stdout).unwrap()
}
