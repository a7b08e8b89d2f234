//! `cnitool`, the harness that people exercise plugins with, drives the samples.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::cni::{self, workspace};
use tests::node::skip;
use tests::{List, Node};

use crate::leased;

#[test]
fn cnitool_adds_checks_and_deletes() {
    for (sample, masquerade) in [
        ("10-bridge.conflist", true),
        ("10-bridge-dual-stack.conflist", true),
    ] {
        let Some(tool) = Tool::with(sample, None) else {
            return;
        };
        let pod = tool.node.pod();
        let added = tool.run("add", &pod.path());
        let result: Value =
            serde_json::from_slice(&added.stdout).unwrap_or_else(|err| panic!("{err}: {added:?}"));
        let address = result["ips"][0]["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        assert!(tool.node.pings(address));
        assert_eq!(!tool.node.nat().is_empty(), masquerade);
        tool.ok("check", &pod.path());
        tool.ok("del", &pod.path());
        tool.check_empty();
    }
}

#[test]
fn cnitool_drives_flannel() {
    let Some(tool) = Tool::with("10-flannel.conflist", Some("1.0.0")) else {
        return;
    };
    let pod = tool.node.pod();
    tool.ok("add", &pod.path());
    tool.ok("check", &pod.path());
    tool.ok("del", &pod.path());
    tool.check_empty();
}

#[test]
fn cnitool_collects_garbage_and_asks_for_the_status() {
    if cni::differs("1.1.1 knows neither GC nor STATUS") {
        return;
    }
    for sample in ["10-flannel.conflist", "10-bridge-dual-stack.conflist"] {
        let Some(tool) = Tool::with(sample, Some("1.1.0")) else {
            return;
        };
        let (kept, lost) = (tool.node.pod(), tool.node.pod());
        tool.ok("status", &kept.path());
        tool.ok("add", &kept.path());
        tool.ok("add", &lost.path());
        let before = tool.leases();
        // without a list of valid attachments, cnitool keeps none
        tool.ok("gc", &kept.path());
        assert!(!before.is_empty());
        assert_eq!(tool.leases(), [""; 0]);
        assert_eq!(tool.node.nat(), [""; 0]);
        if sample.contains("flannel") {
            fs::remove_file(tool.node.file("/run/flannel/subnet.env")).unwrap();
            let status = tool.run("status", &kept.path());
            assert!(!status.status.success());
        }
    }
}

/// cnitool sends no list of its own, but hands on one that stands in the configuration.
#[test]
fn cnitool_gc_frees_what_no_attachment_in_the_list_owns() {
    if cni::differs("1.1.1 does not know GC") {
        return;
    }
    for sample in ["10-flannel.conflist", "10-bridge-dual-stack.conflist"] {
        let Some(tool) = Tool::with(sample, Some("1.1.0")) else {
            return;
        };
        let pod = tool.node.pod();
        tool.ok("add", &pod.path());
        // Nobody remembers the attachment: there will be no DEL.
        fs::remove_dir_all(tool.node.file("/var/lib/cni/results")).unwrap();
        tool.ok("gc", &pod.path());
        assert!(!tool.leases().is_empty(), "no list, so nothing goes");
        tool.add_to_conf("cni.dev/valid-attachments", json!([]));
        tool.ok("gc", &pod.path());
        assert_eq!(tool.leases(), [""; 0]);
        assert_eq!(tool.node.nat(), [""; 0]);
        let state = tool.node.file("/var/lib/cni/flannel");
        let files = fs::read_dir(state).into_iter().flatten().flatten();
        assert_eq!(files.filter(|it| it.path().is_file()).count(), 0);
    }
}

/// cnitool on a node with one network.
struct Tool {
    node: Node,
    program: PathBuf,
    network: String,
}

impl Tool {
    /// `version` replaces the sample's.
    fn with(sample: &str, version: Option<&str>) -> Option<Tool> {
        let program = env::var_os("CNITOOL")
            .map_or_else(|| workspace().join("target/tools/cnitool"), PathBuf::from);
        if !program.is_file() {
            skip(&format!(
                "there is no {}: run `make target/tools/cnitool`",
                program.display()
            ));
            return None;
        }
        let plugins: &[&str] = if sample.contains("flannel") {
            &["flannel", "bridge", "host-local"]
        } else {
            &["bridge", "host-local"]
        };
        let node = Node::with(plugins)?;
        fs::create_dir_all(node.file("/run/flannel")).unwrap();
        fs::write(node.file("/run/flannel/subnet.env"), crate::SUBNET_ENV).unwrap();
        let mut conf = List::sample(&node, sample).conf;
        if let Some(version) = version {
            conf["cniVersion"] = version.into();
        }
        let dir = node.dir().join("net.d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(sample), conf.to_string()).unwrap();
        let network = conf["name"].as_str().unwrap().to_owned();
        Some(Tool {
            node,
            program,
            network,
        })
    }

    /// Gives every plugin of the list one more key.
    fn add_to_conf(&self, key: &str, value: Value) {
        let net_d = fs::read_dir(self.node.dir().join("net.d")).unwrap();
        for file in net_d.map(|it| it.unwrap().path()) {
            let mut conf: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            for plugin in conf["plugins"].as_array_mut().unwrap() {
                plugin[key] = value.clone();
            }
            fs::write(file, conf.to_string()).unwrap();
        }
    }

    fn run(&self, verb: &str, netns: &str) -> Output {
        let net_d = self.node.dir().join("net.d");
        self.node.enter(|| {
            let mut tool = Command::new(&self.program);
            tool.args([verb, &self.network, netns])
                .env("NETCONFPATH", net_d)
                .env("CNI_PATH", cni::path());
            tool.output().unwrap()
        })
    }

    #[track_caller]
    fn ok(&self, verb: &str, netns: &str) {
        let output = self.run(verb, netns);
        assert!(output.status.success(), "cnitool {verb}: {output:?}");
    }

    fn leases(&self) -> Vec<String> {
        leased(&self.node.file("/var/lib/cni/networks").join(&self.network))
    }

    #[track_caller]
    fn check_empty(&self) {
        assert_eq!(self.node.links(), ["cni0"]);
        assert_eq!(self.node.nat(), [""; 0]);
        assert_eq!(self.leases(), [""; 0]);
    }
}
