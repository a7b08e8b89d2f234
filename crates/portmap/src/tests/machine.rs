//! A machine for a test: a network namespace, the tools it may find, and the calls of a runtime.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cni_net::firewall::tool::{Limits, Tools};
use cni_plugin::{Call, Environment, Outcome, Plugin, dispatch};
use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Failure};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The two kinds of `iptables`.
pub(crate) const KINDS: [&str; 2] = ["nft", "legacy"];

/// The namespace of the thread it was made in, and tools of its own.
#[derive(Clone)]
pub(crate) struct Machine {
    folder: Arc<TempDir>,
    limits: Limits,
    /// Of `iptables`.
    pub(crate) kind: &'static str,
}

/// The plugin with other tools than the machine's.
struct With(Tools);

impl Plugin for With {
    fn about(&self) -> String {
        crate::Portmap.about()
    }
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        crate::add(call, attachment, &self.0)
    }
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        crate::del(call, attachment, &self.0)
    }
    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        crate::check(call, attachment, &self.0)
    }
    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        crate::gc(call, valid, &self.0)
    }
    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        crate::status(call, &self.0)
    }
}

/// Runs `test` on a machine with this kind of `iptables` and with `nft`, on a thread that ends with it.
pub(crate) fn on_machine(kind: &'static str, test: impl FnOnce(&Machine) + Send) {
    thread::scope(|scope| {
        let test = scope.spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "cannot make a network namespace: {error}"
                );
                eprintln!("skipped: cannot make a network namespace (not root?): {error}");
                return;
            }
            test(&Machine::new(kind));
        });
        if let Err(panic) = test.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `test` with each kind of `iptables`.
pub(crate) fn with_each_kind(test: impl Fn(&Machine) + Send + Sync) {
    for kind in KINDS {
        on_machine(kind, &test);
    }
}

impl Machine {
    fn new(kind: &'static str) -> Machine {
        let limits = Limits {
            lock_seconds: 20,
            total: Duration::from_secs(60),
        };
        let machine = Machine {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            limits,
            kind,
        };
        for family in ["iptables", "ip6tables"] {
            for part in ["", "-restore", "-save"] {
                let real = format!("/usr/sbin/{family}-{kind}{part}");
                let tool = format!("{family}{part}");
                if kind == "nft" {
                    symlink(real, machine.folder.path().join(tool)).unwrap();
                } else {
                    let lock = machine.folder.path().join("lock");
                    let text = format!("XTABLES_LOCKFILE={} exec {real} \"$@\"", lock.display());
                    machine.script(&tool, &text);
                }
            }
        }
        symlink("/usr/sbin/nft", machine.folder.path().join("nft")).unwrap();
        for arguments in [
            "link set lo up",
            "link add cni0 type bridge",
            "link set cni0 up",
            "addr add 10.0.0.1/24 dev cni0",
            "addr add 2001:db8::1/64 dev cni0 nodad",
        ] {
            machine.run("ip", arguments);
        }
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The lock of the `iptables` tables.
    pub(crate) fn lock(&self) -> std::path::PathBuf {
        self.path().join("lock")
    }

    /// The same machine with less patience.
    pub(crate) fn limited(&mut self, lock_seconds: u64, total: Duration) {
        self.limits = Limits {
            lock_seconds,
            total,
        };
    }

    pub(crate) fn tools(&self) -> Tools {
        Tools::new([self.path().to_owned()], self.lock(), self.limits)
    }

    /// A tool is not there any more.
    pub(crate) fn uninstall(&self, tool: &str) {
        std::fs::remove_file(self.path().join(tool)).unwrap();
    }

    /// A tool is this shell script. It is written by another process: a file that this one has open for writing, be it
    /// in a child that another test is starting, cannot be run.
    pub(crate) fn script(&self, tool: &str, text: &str) {
        let path = self.path().join(tool);
        let _ = std::fs::remove_file(&path);
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{text}\n");
        writer
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(writer.wait().unwrap().success());
    }

    /// From now on every start of a tool is noted, for [`Machine::starts`].
    pub(crate) fn count_starts(&self) {
        for tool in ["iptables", "ip6tables", "nft"] {
            for part in ["", "-restore", "-save"] {
                let tool = format!("{tool}{part}");
                let path = self.path().join(&tool);
                if !path.exists() {
                    continue;
                }
                // The tool knows by its name what it is, so it is moved, not linked.
                let real = self.path().join("real");
                std::fs::create_dir_all(&real).unwrap();
                std::fs::rename(&path, real.join(&tool)).unwrap();
                let note = format!("echo {tool} >>{}/starts", self.path().display());
                self.script(
                    &tool,
                    &format!("{note}\nexec {} \"$@\"", real.join(&tool).display()),
                );
            }
        }
    }

    /// The tools that were started since this was asked last.
    pub(crate) fn starts(&self) -> Vec<String> {
        let file = self.path().join("starts");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        text.lines().map(str::to_owned).collect()
    }

    /// Runs a program with these arguments; what it prints.
    pub(crate) fn run(&self, program: &str, arguments: &str) -> String {
        let output = Command::new(program)
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a tool of this machine's.
    pub(crate) fn tool(&self, tool: &str, arguments: &str) -> String {
        self.run(self.path().join(tool).to_str().unwrap(), arguments)
    }

    /// The rules of the table `nat` of both families, in order, without those of the kernel's chains' policies.
    pub(crate) fn nat(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for tool in ["iptables-save", "ip6tables-save"] {
            let text = self.tool(tool, "-t nat");
            lines.extend(
                text.lines()
                    .filter(|it| it.starts_with("-A"))
                    .map(str::to_owned),
            );
        }
        lines
    }

    /// The chains of containers in both families.
    pub(crate) fn container_chains(&self) -> Vec<String> {
        let mut chains = Vec::new();
        for tool in ["iptables-save", "ip6tables-save"] {
            let text = self.tool(tool, "-t nat");
            let found = text.lines().filter_map(|it| it.strip_prefix(":CNI-DN-"));
            chains.extend(found.map(|it| it.split(' ').next().unwrap().to_owned()));
        }
        chains
    }

    /// What a runtime says in `CNI_COMMAND` and on standard input.
    pub(crate) fn call(&self, command: &str, container_id: &str, conf: &Value) -> Outcome {
        self.call_at(command, container_id, "/nonexistent", conf)
    }

    pub(crate) fn call_at(
        &self,
        command: &str,
        container_id: &str,
        netns: &str,
        conf: &Value,
    ) -> Outcome {
        let environment = Environment::from_iter([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container_id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/nonexistent"),
        ]);
        dispatch(
            &With(self.tools()),
            &[],
            &environment,
            &mut conf.to_string().as_bytes(),
        )
    }

    /// A verb that must succeed, without a word for people.
    pub(crate) fn succeed(&self, command: &str, container_id: &str, conf: &Value) {
        succeeded(&self.call(command, container_id, conf));
    }

    /// GC with these containers as the valid ones.
    pub(crate) fn gc(&self, conf: &Value, valid: &[&str]) -> Outcome {
        let valid: Value = valid
            .iter()
            .map(|id| json!({ "containerID": id, "ifname": "eth0" }))
            .collect();
        let mut conf = conf.clone();
        conf["cniVersion"] = "1.1.0".into();
        conf["cni.dev/valid-attachments"] = valid;
        self.call("GC", "", &conf)
    }
}

#[track_caller]
pub(crate) fn succeeded(outcome: &Outcome) {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&outcome.stdout),
        String::from_utf8_lossy(&outcome.stderr),
    );
    assert!(!outcome.failed, "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
}

/// Code, message and details of a verb that must fail.
#[track_caller]
pub(crate) fn failed(outcome: &Outcome) -> (u64, String, String) {
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.failed, "{stdout}");
    let error: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (
        error["code"].as_u64().unwrap(),
        text("msg"),
        text("details"),
    )
}

/// A configuration of network `cbr0` with port 8080 to a container at these addresses.
pub(crate) fn conf(backend: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses
        .iter()
        .map(|it| json!({ "address": it, "interface": 0 }))
        .collect();
    json!({
        "cniVersion": "1.0.0", "name": "cbr0", "type": "portmap", "backend": backend,
        "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] },
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "sandbox": "/nonexistent" }],
            "ips": ips,
        },
    })
}

/// The same with other mappings, given as `PROTOCOL HOST:CONTAINER`.
pub(crate) fn mapped(mut conf: Value, mappings: &[&str]) -> Value {
    let mapping = |text: &&str| {
        let (protocol, ports) = text.split_once(' ').unwrap();
        let (host, container) = ports.split_once(':').unwrap();
        let port = |text: &str| text.parse::<u16>().unwrap();
        json!({ "protocol": protocol, "hostPort": port(host), "containerPort": port(container) })
    };
    conf["runtimeConfig"]["portMappings"] = mappings.iter().map(mapping).collect();
    conf
}

/// Sends a datagram, so that the kernel remembers a connection; the socket's port.
pub(crate) fn send_udp(to: &str) -> u16 {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    let _ = socket.send_to(b"x", to);
    socket.local_addr().unwrap().port()
}
