//! A machine of a test's own: a folder with a lease store in it, and a boot id that changes when it is restarted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_plugin::{Call, Environment, Outcome, Plugin, dispatch};
use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Failure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::store::Node;

pub(crate) struct Machine {
    root: TempDir,
    /// How long a call waits for the lock.
    pub(crate) patience: Duration,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine::at(tempfile::tempdir().unwrap())
    }

    /// One without a disk where that can be had, for tests that need thousands.
    pub(crate) fn in_memory() -> Machine {
        Machine::at(
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap(),
        )
    }

    fn at(root: TempDir) -> Machine {
        let machine = Machine {
            root,
            patience: Duration::from_secs(60),
        };
        machine.boot(1);
        machine
    }

    /// Restarts it.
    pub(crate) fn boot(&self, number: u32) {
        fs::write(
            self.boot_id(),
            format!("{number:08x}-0000-4000-8000-000000000000\n"),
        )
        .unwrap();
    }

    fn node<'a>(&self, boot_id: &'a Path) -> Node<'a> {
        Node {
            boot_id,
            patience: self.patience,
        }
    }

    fn boot_id(&self) -> PathBuf {
        self.root.path().join("boot_id")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.path().join("networks")
    }

    /// A configuration of network `net`.
    pub(crate) fn conf(&self, version: &str, ranges: Value) -> Value {
        let ipam = json!({ "type": "host-local", "dataDir": self.data_dir(), "ranges": ranges });
        json!({ "cniVersion": version, "name": "net", "type": "bridge", "ipam": ipam })
    }

    pub(crate) fn call(
        &self,
        verb: &str,
        owner: (&str, &str),
        args: &str,
        conf: &Value,
    ) -> Outcome {
        let environment = Environment::from_iter([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", owner.0),
            ("CNI_IFNAME", owner.1),
            ("CNI_NETNS", "/some/where"),
            ("CNI_ARGS", args),
            ("CNI_PATH", "/some/path"),
        ]);
        dispatch(self, &[], &environment, &mut conf.to_string().as_bytes())
    }

    pub(crate) fn add(&self, id: &str, conf: &Value) -> Outcome {
        self.call("ADD", (id, "eth0"), "", conf)
    }

    pub(crate) fn del(&self, id: &str, conf: &Value) -> Outcome {
        self.call("DEL", (id, "eth0"), "", conf)
    }

    pub(crate) fn check(&self, id: &str, conf: &Value) -> Outcome {
        self.call("CHECK", (id, "eth0"), "", conf)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.data_dir().join("net")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.data_dir().join(".index/net")
    }

    /// Writes a file of the store, as somebody else.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.folder()).unwrap();
        fs::write(self.folder().join(name), content).unwrap();
    }

    /// All files of the network but the lock, by name, with their content.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(found) = fs::read_dir(self.folder()) else {
            return BTreeMap::new();
        };
        let found = found
            .map(|it| it.unwrap())
            .filter(|it| it.file_type().unwrap().is_file());
        let file = |name: String| (name.clone(), fs::read(self.folder().join(name)).unwrap());
        found
            .map(|it| it.file_name().into_string().unwrap())
            .filter(|it| it != "lock")
            .map(file)
            .collect()
    }

    /// The leases, by name.
    pub(crate) fn leases(&self) -> Vec<String> {
        self.files()
            .into_keys()
            .filter(|name| !name.starts_with("last_reserved_ip."))
            .collect()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).unwrap()
    }
}

impl Plugin for Machine {
    fn about(&self) -> String {
        "CNI host-local plugin of a test".to_owned()
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        crate::add(call, attachment, self.node(&self.boot_id()))
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        crate::del(call, attachment, self.node(&self.boot_id()))
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        crate::check(call, attachment, self.node(&self.boot_id()))
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        crate::gc(call, valid, self.node(&self.boot_id()))
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        crate::status(call, self.node(&self.boot_id()))
    }
}

/// The result of a call that must have succeeded, without a word for people.
#[track_caller]
pub(crate) fn result(outcome: &Outcome) -> Value {
    assert!(
        !outcome.failed,
        "{}",
        String::from_utf8_lossy(&outcome.stdout)
    );
    assert_eq!(String::from_utf8_lossy(&outcome.stderr), "");
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// A call that must have succeeded, and has no result.
#[track_caller]
pub(crate) fn silent(outcome: &Outcome) {
    assert_eq!(
        (
            String::from_utf8_lossy(&outcome.stdout).as_ref(),
            outcome.failed
        ),
        ("", false)
    );
    assert_eq!(String::from_utf8_lossy(&outcome.stderr), "");
}

/// The addresses of a result, in its order.
#[track_caller]
pub(crate) fn addresses(outcome: &Outcome) -> Vec<String> {
    let result = result(outcome);
    let text = |ip: &Value| ip.as_str().map(str::to_owned);
    match result["ips"].as_array() {
        Some(ips) => ips.iter().filter_map(|ip| text(&ip["address"])).collect(),
        None => [&result["ip4"]["ip"], &result["ip6"]["ip"]]
            .into_iter()
            .filter_map(text)
            .collect(),
    }
}

/// Code, sentence and details of a call that must have failed.
#[track_caller]
pub(crate) fn failure(outcome: &Outcome) -> (u64, String, String) {
    assert!(
        outcome.failed,
        "{}",
        String::from_utf8_lossy(&outcome.stdout)
    );
    let error: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (
        error["code"].as_u64().unwrap(),
        text("msg"),
        text("details"),
    )
}

/// The sentence of a call that must have failed.
#[track_caller]
pub(crate) fn msg(outcome: &Outcome) -> String {
    failure(outcome).1
}
