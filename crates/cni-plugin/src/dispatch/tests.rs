use std::io;
use std::sync::Mutex;

use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Success};
use serde_json::json;

use super::*;

/// A plugin that notes what it was asked and answers what it was told to.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<String>>,
    failure: Option<Failure>,
    versions: Option<&'static [&'static str]>,
    panics: bool,
}

impl Recorder {
    fn record(
        &self,
        verb: &str,
        call: &Call<'_>,
        attachment: Option<&Attachment>,
    ) -> Result<(), Failure> {
        let attachment = attachment.map_or(String::new(), |it| {
            format!(
                " {} {} {} {}",
                it.container_id,
                it.netns_text(),
                it.ifname,
                it.args
            )
        });
        let path = call.environment().text("CNI_PATH");
        let stdin = String::from_utf8_lossy(call.stdin()).into_owned();
        self.calls
            .lock()
            .unwrap()
            .push(format!("{verb}{attachment} {path} {stdin}"));
        assert!(!self.panics, "on purpose");
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Plugin for Recorder {
    fn about(&self) -> String {
        "CNI recorder plugin v1".to_owned()
    }

    fn versions(&self) -> &'static [&'static str] {
        self.versions.unwrap_or(&version::SUPPORTED)
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        self.record("ADD", call, Some(attachment))?;
        Success::default()
            .encode(Version::V1_1_0)
            .map_err(|error| Failure::new(Code::INTERNAL, error.to_string()))
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        self.record("DEL", call, Some(attachment))
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        self.record("CHECK", call, Some(attachment))
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        self.record(&format!("GC {valid:?}"), call, None)
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        self.record("STATUS", call, None)
    }
}

fn environment(command: &str) -> Environment {
    Environment::from_iter([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "some-id"),
        ("CNI_NETNS", "/some/netns"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "some;extra"),
        ("CNI_PATH", "/some/path"),
    ])
}

const CONF: &str = r#"{ "name":"skel-test", "some": "config", "cniVersion": "1.1.0", "cni.dev/valid-attachments": null }"#;

fn call(plugin: &Recorder, command: &str, conf: &str) -> Outcome {
    dispatch(plugin, &[], &environment(command), &mut conf.as_bytes())
}

fn error(outcome: &Outcome) -> (u64, String, String) {
    assert!(outcome.failed);
    let error: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (
        error["code"].as_u64().unwrap(),
        text("msg"),
        text("details"),
    )
}

// P01
#[test]
fn p01_each_verb_runs_its_own_handler_with_everything() {
    for command in ["ADD", "DEL", "CHECK"] {
        let plugin = Recorder::default();
        assert!(!call(&plugin, command, CONF).failed);
        let expected = format!("{command} some-id /some/netns eth0 some;extra /some/path {CONF}");
        assert_eq!(*plugin.calls.lock().unwrap(), [expected]);
    }
    for (command, seen) in [("GC", "GC []"), ("STATUS", "STATUS")] {
        let plugin = Recorder::default();
        assert_eq!(call(&plugin, command, CONF), Outcome::default());
        assert_eq!(
            *plugin.calls.lock().unwrap(),
            [format!("{seen} /some/path {CONF}")]
        );
    }
}

// P06
#[test]
fn p06_an_unsupported_version_calls_no_handler() {
    let plugin = Recorder {
        versions: Some(&["0.3.0"]),
        ..Recorder::default()
    };
    let outcome = call(&plugin, "ADD", r#"{"name":"x"}"#);
    assert_eq!(
        error(&outcome),
        (
            1,
            "incompatible CNI versions".to_owned(),
            r#"config is "0.1.0", plugin supports ["0.3.0"]"#.to_owned()
        )
    );
    assert!(plugin.calls.lock().unwrap().is_empty());
}

// P07, P08
#[test]
fn p07_p08_verbs_have_their_first_version() {
    let plugin = Recorder::default();
    for (command, version) in [("CHECK", "0.3.0"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let conf = json!({ "name": "x", "cniVersion": version }).to_string();
        let msg = format!("config version does not allow {command}");
        assert_eq!(
            error(&call(&plugin, command, &conf)),
            (1, msg, String::new())
        );
    }
    assert!(plugin.calls.lock().unwrap().is_empty());
}

// P09
#[test]
fn p09_the_name_is_checked_before_the_verb() {
    let plugin = Recorder::default();
    assert_eq!(error(&call(&plugin, "NOPE", r#"{"name":"te%%st"}"#)).0, 7);
    assert_eq!(error(&call(&plugin, "ADD", "{}")).1, "missing network name");
    assert_eq!(
        error(&call(&plugin, "ADD", "null")).1,
        "missing network name"
    );
    assert_eq!(
        error(&call(&plugin, "ADD", "")).1,
        "error unmarshall network config: unexpected end of JSON input"
    );
}

// P10
#[test]
fn p10_version_needs_nothing_else() {
    struct Untouchable;
    impl Read for Untouchable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("VERSION must not read")
        }
    }
    let environment = Environment::from_iter([("CNI_COMMAND", "VERSION")]);
    let outcome = dispatch(&Recorder::default(), &[], &environment, &mut Untouchable);
    assert_eq!(
        String::from_utf8(outcome.stdout).unwrap(),
        "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
    );
}

// P11
#[test]
fn p11_an_unknown_verb() {
    let (code, msg, _) = error(&call(&Recorder::default(), "NOPE", CONF));
    assert_eq!((code, msg.as_str()), (4, "unknown CNI_COMMAND: NOPE"));
}

// P12
#[test]
fn p12_by_hand_it_says_what_it_is() {
    for environment in [
        Environment::default(),
        Environment::from_iter([("CNI_COMMAND", "")]),
    ] {
        let outcome = dispatch(&Recorder::default(), &[], &environment, &mut io::empty());
        assert!(!outcome.failed && outcome.stdout.is_empty());
        assert_eq!(
            String::from_utf8(outcome.stderr).unwrap(),
            "CNI recorder plugin v1\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
        );
    }
}

// P13
#[test]
fn p13_unreadable_input() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("banana"))
        }
    }
    let outcome = dispatch(&Recorder::default(), &[], &environment("ADD"), &mut Broken);
    assert_eq!(
        error(&outcome),
        (
            5,
            "error reading from stdin: banana".to_owned(),
            String::new()
        )
    );
}

// P14
#[test]
fn p14_a_handlers_error_is_printed_as_it_is() {
    let failure = Failure::new(Code(1234), "insufficient arms").with_details("two needed");
    let plugin = Recorder {
        failure: Some(failure),
        ..Recorder::default()
    };
    assert_eq!(
        error(&call(&plugin, "DEL", CONF)),
        (
            1234,
            "insufficient arms".to_owned(),
            "two needed".to_owned()
        )
    );
}

#[test]
fn a_panic_becomes_an_error_object() {
    let plugin = Recorder {
        panics: true,
        ..Recorder::default()
    };
    assert_eq!(error(&call(&plugin, "ADD", CONF)).0, 999);
}

#[test]
fn the_nodes_own_namespace_is_refused_before_any_work() {
    let own = |extra: Option<(&'static str, &'static str)>| {
        let mut variables: Vec<(&str, &str)> = vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "some-id"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/some/path"),
        ];
        variables.extend(extra);
        let plugin = Recorder::default();
        let outcome = dispatch(
            &plugin,
            &[],
            &variables.into_iter().collect(),
            &mut CONF.as_bytes(),
        );
        (outcome, plugin.calls.lock().unwrap().len())
    };
    let (outcome, calls) = own(None);
    assert_eq!((error(&outcome).0, calls), (8, 0));
    let del = Environment::from_iter([
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "some-id"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/some/path"),
    ]);
    let plugin = Recorder::default();
    assert!(!dispatch(&plugin, &[], &del, &mut CONF.as_bytes()).failed);
    let seen = plugin.calls.lock().unwrap()[0].clone();
    assert!(
        seen.starts_with("DEL some-id  eth0"),
        "without the namespace: {seen}"
    );
    for text in ["1", "true", "TRUE"] {
        assert_eq!(own(Some(("CNI_NETNS_OVERRIDE", text))).1, 1);
    }
}

#[test]
fn gc_without_a_list_changes_nothing() {
    let plugin = Recorder::default();
    let outcome = call(&plugin, "GC", r#"{"name":"x","cniVersion":"1.1.0"}"#);
    assert!(!outcome.failed && outcome.stdout.is_empty());
    assert!(
        String::from_utf8(outcome.stderr)
            .unwrap()
            .contains("nothing was removed")
    );
    assert!(plugin.calls.lock().unwrap().is_empty());
    let conf = r#"{"name":"x","cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]}"#;
    assert!(!call(&plugin, "GC", conf).failed);
    assert!(plugin.calls.lock().unwrap()[0].contains(r#"container_id: "a", ifname: "b""#));
}
