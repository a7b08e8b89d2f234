//! Plays the container runtime: environment and configuration in, exit status and JSON out.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::VERSIONS;
use crate::node::{Node, Pod, note, skip};

/// How long a plugin may take before the harness kills it; far more than any test needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binaries under exam: `CNI_PATH`, or `target/cni` of this workspace.
pub fn path() -> PathBuf {
    let built = || workspace().join("target/cni");
    let path = env::var_os("CNI_PATH")
        .filter(|it| !it.is_empty())
        .map_or_else(built, PathBuf::from);
    std::path::absolute(path).unwrap()
}

/// A release of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Debian's, of March 2022.
    V1_1_1,
    /// The one that `tests/setup/reference` builds.
    V1_9_1,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Release; 2] = [Release::V1_1_1, Release::V1_9_1];

    /// Its binaries: for 1.1.1 `REFERENCE_CNI_PATH`, or where Debian's `containernetworking-plugins` puts them.
    pub fn path(self) -> PathBuf {
        let debian = || PathBuf::from("/usr/lib/cni");
        match self {
            Release::V1_1_1 => env::var_os("REFERENCE_CNI_PATH")
                .filter(|it| !it.is_empty())
                .map_or_else(debian, PathBuf::from),
            Release::V1_9_1 => workspace().join("target/tools/reference"),
        }
    }

    /// Whether it is here; where it is not, the reason is told.
    ///
    /// # Panics
    /// With `CI=true`, instead of returning false.
    pub fn is_here(self) -> bool {
        let here = self.path().join("bridge").is_file();
        if !here {
            let path = self.path();
            skip(&format!(
                "the reference {self:?} is not in {}: `make test` brings it",
                path.display()
            ));
        }
        here
    }
}

/// The reference itself sits the exam, in Debian's release.
pub fn examines_reference() -> bool {
    path() == Release::V1_1_1.path()
}

/// `time` as it is on this machine: `E2E_SLOW` tells how many times slower than others an emulated one is.
pub fn here(time: Duration) -> Duration {
    time * slowness()
}

/// This machine is emulated: what is done many times elsewhere is done a few times here.
pub fn is_slow() -> bool {
    slowness() > 1
}

fn slowness() -> u32 {
    let times = env::var("E2E_SLOW").ok().and_then(|it| it.parse().ok());
    times.unwrap_or(1)
}

/// Says why a test does not apply, and returns true, while the reference sits the exam.
pub fn differs(why: &str) -> bool {
    let differs = examines_reference();
    if differs {
        note(&format!("the reference differs: {why}"));
    }
    differs
}

/// The versions that the binaries under exam know: Debian's reference is older than 1.1.0.
pub fn versions() -> &'static [&'static str] {
    if examines_reference() {
        &VERSIONS[..6]
    } else {
        &VERSIONS
    }
}

/// The folder above this package.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Whether tests of `plugins` can run here; where they cannot, the reason is told.
///
/// # Panics
/// With `CI=true`, where anything is missing but what the reference never had.
pub fn can_run(plugins: &[&str]) -> bool {
    let missing = plugins.iter().find(|it| !path().join(it).is_file());
    match missing {
        Some(missing) if examines_reference() => note(&format!("the reference has no {missing}")),
        Some(missing) => skip(&format!(
            "there is no {missing} in {}: run `make build`",
            path().display()
        )),
        None => match obstacle(plugins) {
            Some(why) => skip(&why),
            None => return true,
        },
    }
    false
}

fn obstacle(plugins: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("namespaces need root".into());
    }
    let stale = plugins.iter().find_map(|it| newer_source(&path().join(it)));
    stale.map(|it| {
        format!(
            "the plugins are older than {}: run `make build`",
            it.display()
        )
    })
}

/// A source of `plugin` that was changed after it was built, as cargo's own list beside the binary tells; none for
/// binaries that cargo did not link here.
fn newer_source(plugin: &Path) -> Option<PathBuf> {
    let built = fs::metadata(plugin).ok()?;
    let target = workspace().join("target");
    let profiles = [target.join("release")]
        .into_iter()
        .chain(entries(&target).map(|it| it.join("release")));
    let beside: Vec<PathBuf> = profiles
        .flat_map(|it| entries(&it).collect::<Vec<_>>())
        .collect();
    let same = |it: &PathBuf| {
        fs::metadata(it).is_ok_and(|it| (it.dev(), it.ino()) == (built.dev(), built.ino()))
    };
    let list = fs::read_to_string(beside.into_iter().find(same)?.with_extension("d")).ok()?;
    let built = built.modified().ok()?;
    let newer = |it: &&str| {
        fs::metadata(it)
            .and_then(|it| it.modified())
            .is_ok_and(|it| it > built)
    };
    list.split_whitespace()
        .skip(1)
        .find(newer)
        .map(PathBuf::from)
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|it| Some(it.ok()?.path()))
}

/// Plugins of one folder, called as a runtime on `node` calls them.
pub struct Plugins<'n> {
    node: &'n Node,
    path: PathBuf,
}

impl Node {
    /// The plugins under exam.
    pub fn plugins(&self) -> Plugins<'_> {
        Plugins {
            node: self,
            path: path(),
        }
    }

    /// The reference's plugins of a release; none, with a reason given, where they are not installed.
    pub fn reference(&self, release: Release) -> Option<Plugins<'_>> {
        release.is_here().then(|| Plugins {
            node: self,
            path: release.path(),
        })
    }

    /// See [`Plugins::add`].
    #[track_caller]
    pub fn add(&self, plugin: &str, pod: &Pod, conf: &Value) -> Outcome {
        self.plugins().add(plugin, pod, conf)
    }

    /// See [`Plugins::check`].
    #[track_caller]
    pub fn check(&self, plugin: &str, pod: &Pod, conf: &Value, prev_result: &Value) -> Outcome {
        self.plugins().check(plugin, pod, conf, prev_result)
    }

    /// See [`Plugins::del`].
    #[track_caller]
    pub fn del(&self, plugin: &str, pod: &Pod, conf: &Value) -> Outcome {
        self.plugins().del(plugin, pod, conf)
    }

    /// See [`Plugins::gc`].
    #[track_caller]
    pub fn gc(&self, plugin: &str, conf: &Value, valid: &[&Pod]) -> Outcome {
        self.plugins().gc(plugin, conf, valid)
    }

    /// See [`Plugins::status`].
    #[track_caller]
    pub fn status(&self, plugin: &str, conf: &Value) -> Outcome {
        self.plugins().status(plugin, conf)
    }

    /// A call of `plugin` with `command` and nothing else set but `CNI_PATH`.
    pub fn call(&self, plugin: &str, command: &str) -> Call<'_> {
        self.plugins().call(plugin, command)
    }
}

impl<'n> Plugins<'n> {
    /// ADD of `conf` to `pod`.
    #[track_caller]
    pub fn add(&self, plugin: &str, pod: &Pod, conf: &Value) -> Outcome {
        self.call(plugin, "ADD").pod(pod).conf(conf).run()
    }

    /// CHECK of `conf` on `pod`, with what ADD printed.
    #[track_caller]
    pub fn check(&self, plugin: &str, pod: &Pod, conf: &Value, prev_result: &Value) -> Outcome {
        let conf = with(conf, "prevResult", prev_result.clone());
        self.call(plugin, "CHECK").pod(pod).conf(&conf).run()
    }

    /// DEL of `conf` from `pod`.
    #[track_caller]
    pub fn del(&self, plugin: &str, pod: &Pod, conf: &Value) -> Outcome {
        self.call(plugin, "DEL").pod(pod).conf(conf).run()
    }

    /// GC of `conf`, keeping the attachments of `valid`.
    #[track_caller]
    pub fn gc(&self, plugin: &str, conf: &Value, valid: &[&Pod]) -> Outcome {
        self.call(plugin, "GC")
            .conf(&with_attachments(conf, valid))
            .run()
    }

    /// STATUS of `conf`.
    #[track_caller]
    pub fn status(&self, plugin: &str, conf: &Value) -> Outcome {
        self.call(plugin, "STATUS").conf(conf).run()
    }

    /// A call of `plugin` with `command` and nothing else set but `CNI_PATH`.
    pub fn call(&self, plugin: &str, command: &str) -> Call<'n> {
        let call = Call {
            node: self.node,
            program: self.path.join(plugin),
            env: BTreeMap::new(),
            stdin: Vec::new(),
            stdin_from: None,
        };
        call.env("CNI_COMMAND", command).env("CNI_PATH", &self.path)
    }
}

/// One invocation, before it runs.
pub struct Call<'n> {
    node: &'n Node,
    program: PathBuf,
    env: BTreeMap<String, OsString>,
    stdin: Vec<u8>,
    stdin_from: Option<PathBuf>,
}

impl Call<'_> {
    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Leaves a variable out.
    pub fn unset(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Sets container id, namespace and interface name.
    pub fn pod(self, pod: &Pod) -> Self {
        self.env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", &pod.ifname)
    }

    /// Puts the node's scripts before the plugins in `CNI_PATH`.
    pub fn scripts(self) -> Self {
        let plugins = self.env["CNI_PATH"].to_str().unwrap();
        let path = format!("{}:{plugins}", self.node.scripts().display());
        self.env("CNI_PATH", path)
    }

    /// Sets `CNI_ARGS`.
    pub fn args(self, args: &str) -> Self {
        self.env("CNI_ARGS", args)
    }

    /// The configuration, as compact JSON.
    pub fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string())
    }

    /// Any bytes as the configuration.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Opens `path` as standard input; a directory makes reading fail.
    pub fn stdin_from(mut self, path: &Path) -> Self {
        self.stdin_from = Some(path.into());
        self
    }

    /// Runs the plugin in the node's namespaces.
    ///
    /// # Panics
    /// If it cannot be started or does not end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        let Call {
            node,
            program,
            env,
            stdin,
            stdin_from,
        } = self;
        let what = format!("{} {:?}", program.display(), env);
        let search = std::env::var_os("PATH").unwrap_or_default();
        let start = Instant::now();
        let child = node.enter(|| {
            let mut command = Command::new(&program);
            command
                .env_clear()
                .env("PATH", search)
                .envs(&env)
                .current_dir(node.dir());
            let input =
                stdin_from.map_or_else(|| Ok(Stdio::piped()), |it| File::open(it).map(Stdio::from));
            command
                .stdin(input?)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn()
        });
        let mut child = child.unwrap_or_else(|err| panic!("cannot run {what}: {err}"));
        if let Some(mut input) = child.stdin.take() {
            let feed = stdin.clone();
            thread::spawn(move || input.write_all(&feed)); // a plugin need not read what it is given
        }
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let Ok(stdout) = stdout.recv_timeout(here(PATIENCE)) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what} did not end within {PATIENCE:?}");
        };
        let status = child.wait().unwrap();
        let took = start.elapsed();
        Outcome {
            what,
            stdin,
            status,
            stdout,
            stderr: stderr.recv().unwrap_or_default(),
            took,
        }
    }
}

/// What a plugin did.
#[derive(Debug)]
pub struct Outcome {
    what: String,
    stdin: Vec<u8>,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed for the runtime.
    pub stdout: String,
    /// What it printed for people.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// The result it printed.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn result(&self) -> Value {
        assert!(self.status.success(), "{}", self.story());
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {}", self.story()))
    }

    /// It succeeded and printed nothing for the runtime.
    #[track_caller]
    pub fn silent(&self) {
        assert!(
            self.status.success() && self.stdout.is_empty(),
            "{}",
            self.story()
        );
    }

    /// The one error object it printed, with exit status 1.
    #[track_caller]
    pub fn failure(&self) -> Failure {
        assert_eq!(self.status.code(), Some(1), "{}", self.story());
        let object: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|err| panic!("{err}: {}", self.story()));
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let Some((code, msg)) = object["code"].as_u64().zip(text("msg")) else {
            panic!("an error has a code and a msg: {}", self.story());
        };
        Failure {
            code,
            msg,
            details: text("details").unwrap_or_default(),
        }
    }

    /// It failed with this `msg`, byte for byte.
    #[track_caller]
    pub fn fails(&self, msg: &str) -> Failure {
        let failure = self.failure();
        assert_eq!(failure.msg, msg, "{}", self.story());
        failure
    }

    /// It ended by itself: no signal, no panic.
    pub fn is_orderly(&self) -> bool {
        self.status.signal().is_none() && matches!(self.status.code(), Some(0 | 1))
    }

    /// All of it, for a person.
    pub fn story(&self) -> String {
        let stdin = String::from_utf8_lossy(&self.stdin[..self.stdin.len().min(4096)]);
        format!(
            "{}\nstdin: {stdin}\n{}\nstdout: {}\nstderr: {}",
            self.what, self.status, self.stdout, self.stderr
        )
    }
}

/// The specification's error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `code`.
    pub code: u64,
    /// `msg`.
    pub msg: String,
    /// `details`, empty if there are none.
    pub details: String,
}

/// `conf` with one more key.
pub fn with(conf: &Value, key: &str, value: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = value;
    conf
}

/// `conf` with the attachments that GC keeps, under both keys that libcni writes.
pub(crate) fn with_attachments(conf: &Value, valid: &[&Pod]) -> Value {
    let valid: Vec<Value> = valid
        .iter()
        .map(|it| json!({ "containerID": it.id, "ifname": it.ifname }))
        .collect();
    let conf = with(conf, "cni.dev/valid-attachments", valid.clone().into());
    with(&conf, "cni.dev/attachments", valid.into())
}

/// Reads a pipe to its end on a thread of its own.
fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
