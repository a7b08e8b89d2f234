//! A node for the tests of verbs: folders of its own, and a script that plays the delegate.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cni_plugin::{Environment, Outcome, dispatch};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Flannel;

/// Notes each call as a line `COMMAND container interface stdin`, and fails if a file `fail-COMMAND` says how.
const SCRIPT: &str = r#"#!/bin/sh
here="${0%/*}"
printf '%s %s %s %s\n' "$CNI_COMMAND" "${CNI_CONTAINERID:--}" "${CNI_IFNAME:--}" "$(cat)" >>"$here/calls"
[ -e "$here/fail-$CNI_COMMAND" ] && { cat "$here/fail-$CNI_COMMAND"; exit 1; }
[ "$CNI_COMMAND" = ADD ] && cat "$here/result"
exit 0
"#;

pub(crate) const SUBNET_ENV: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/// What the delegate `bridge` gets on this node without anything in the configuration.
pub(crate) const DELEGATE: &str = r#"{"cniVersion":"1.1.0","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#;

pub(crate) const RESULT: &str =
    r#"{"cniVersion":"1.1.0","ips":[{"address":"10.244.3.5/24","gateway":"10.244.3.1"}]}"#;

pub(crate) struct Node(TempDir);

impl Node {
    /// A node on which flanneld has run, with the plugins `bridge` and `host-local`.
    pub(crate) fn new() -> Node {
        let node = Node(tempfile::tempdir().unwrap());
        fs::create_dir(node.path("bin")).unwrap();
        fs::create_dir(node.path("run")).unwrap();
        for plugin in ["bridge", "host-local"] {
            node.write(&format!("bin/{plugin}"), SCRIPT);
            fs::set_permissions(
                node.path(&format!("bin/{plugin}")),
                Permissions::from_mode(0o755),
            )
            .unwrap();
        }
        node.write("bin/result", RESULT);
        node.write("run/subnet.env", SUBNET_ENV);
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The configuration of the network `cbr0`, with more keys or other ones.
    pub(crate) fn conf(&self, more: Value) -> String {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "cbr0", "type": "flannel",
            "subnetFile": self.path("run/subnet.env"), "dataDir": self.path("state"),
        });
        conf.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        conf.to_string()
    }

    pub(crate) fn call_with(
        &self,
        command: &str,
        container_id: &str,
        ifname: &str,
        conf: &str,
    ) -> Outcome {
        let path = self.path("bin").into_os_string();
        let environment = Environment::from_iter([
            ("CNI_COMMAND", command.into()),
            ("CNI_CONTAINERID", container_id.into()),
            ("CNI_IFNAME", ifname.into()),
            ("CNI_NETNS", "/nowhere/netns".into()),
            ("CNI_PATH", path),
            ("PATH", "/usr/bin:/bin".into()),
        ]);
        dispatch(&Flannel, &[], &environment, &mut conf.as_bytes())
    }

    pub(crate) fn call(&self, command: &str, container_id: &str, ifname: &str) -> Outcome {
        self.call_with(command, container_id, ifname, &self.conf(json!({})))
    }

    /// Runs a verb that must succeed without a word on standard error; its standard output.
    pub(crate) fn succeed(&self, command: &str, container_id: &str, ifname: &str) -> String {
        succeeded(self.call(command, container_id, ifname))
    }

    /// GC with these attachments as the valid ones.
    pub(crate) fn gc(&self, valid: &[(&str, &str)]) -> Outcome {
        let valid = valid
            .iter()
            .map(|(id, ifname)| json!({ "containerID": id, "ifname": ifname }));
        let valid: Value = valid.collect();
        let conf =
            self.conf(json!({ "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid }));
        self.call_with("GC", "", "", &conf)
    }

    /// The delegate's calls since this was asked last: `COMMAND container interface stdin`.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("bin/calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("bin/calls"));
        calls.lines().map(str::to_owned).collect()
    }

    /// All files below the state folder, sorted.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.path("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(
                        path.strip_prefix(self.path("state"))
                            .unwrap()
                            .display()
                            .to_string(),
                    );
                }
            }
        }
        files.sort();
        files
    }
}

pub(crate) fn succeeded(outcome: Outcome) -> String {
    let stdout = String::from_utf8(outcome.stdout).unwrap();
    assert!(!outcome.failed, "{stdout}");
    assert_eq!(String::from_utf8_lossy(&outcome.stderr), "");
    stdout
}

/// Code, message and details of a verb that must fail.
pub(crate) fn failed(outcome: Outcome) -> (u64, String, String) {
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
