//! Nodes and pods: namespaces that live as long as their descriptor, so that nothing needs cleaning up.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chroot, fchdir};
use tempfile::TempDir;

/// A fresh network namespace, and for a node a mount namespace too.
///
/// Dropping it lets the kernel take down all that is inside.
pub struct Namespace {
    net: File,
    files: Option<Files>,
}

impl Namespace {
    /// Runs `f` on a thread of its own inside, and hands back its value or its panic.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            if let Some(files) = &self.files {
                files.enter();
            }
            setns(&self.net, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        })
    }

    /// The path to hand over as `CNI_NETNS`: this process's own descriptor.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Runs `program` inside and returns what it printed; it must succeed.
    #[track_caller]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let out = self.enter(|| Command::new(program).args(args).output());
        let out = out.unwrap_or_else(|err| panic!("cannot run {program}: {err}"));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{program} {} failed: {stderr}",
            args.join(" ")
        );
        String::from_utf8(out.stdout).unwrap()
    }

    /// Runs `program` inside with `input` and returns what it printed; it must succeed.
    #[track_caller]
    pub fn feed(&self, program: &str, args: &[&str], input: &str) -> String {
        let out = self.enter(|| {
            let mut command = Command::new(program);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.stderr(Stdio::piped()).args(args).spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        });
        let out = out.unwrap_or_else(|err| panic!("cannot run {program}: {err}"));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {input:?} failed: {stderr}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Whether `program` succeeds inside; what it prints is not shown.
    pub fn tries(&self, program: &str, args: &[&str]) -> bool {
        let out = self.enter(|| Command::new(program).args(args).output());
        out.is_ok_and(|it| it.status.success())
    }

    fn pod() -> Namespace {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Namespace {
                net: File::open("/proc/thread-self/ns/net").unwrap(),
                files: None,
            }
        })
    }

    /// Besides the network, gives the host a `/run` and a `/var/lib` of its own below `dir`, so that the plugins'
    /// default directories can be used and the machine's stay as they are.
    fn host(dir: &Path) -> Namespace {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            for own in ["run", "var/lib"] {
                let source = dir.join(own);
                fs::create_dir_all(&source).unwrap();
                let target = Path::new("/").join(own);
                mount(
                    Some(&source),
                    &target,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .unwrap();
            }
            Namespace {
                net: File::open("/proc/thread-self/ns/net").unwrap(),
                files: Some(Files {
                    mnt: File::open("/proc/thread-self/ns/mnt").unwrap(),
                    root: File::open("/").unwrap(),
                }),
            }
        })
    }
}

/// A mount namespace and the root in it: where this process is confined to a folder, they are two things.
struct Files {
    mnt: File,
    root: File,
}

impl Files {
    fn enter(&self) {
        unshare(CloneFlags::CLONE_FS).unwrap();
        setns(&self.mnt, CloneFlags::CLONE_NEWNS).unwrap();
        fchdir(&self.root).unwrap();
        chroot(".").unwrap();
    }
}

/// A host: its namespaces and its directories.
pub struct Node {
    host: Namespace,
    dir: TempDir,
    /// Kept so that a pod's namespace lives as long as the node, whatever becomes of the value that names it.
    pods: Mutex<Vec<Arc<Namespace>>>,
}

impl Node {
    /// A node that can run `plugins` from `CNI_PATH`; where this machine cannot, says why and returns none.
    ///
    /// # Panics
    /// With `CI=true`, instead of returning none.
    pub fn with(plugins: &[&str]) -> Option<Node> {
        crate::cni::can_run(plugins).then(Node::new)
    }

    fn new() -> Node {
        let dir = tempfile::Builder::new()
            .prefix("cni-node-")
            .tempdir()
            .unwrap();
        let node = Node {
            host: Namespace::host(dir.path()),
            dir,
            pods: Mutex::default(),
        };
        node.run("ip", &["link", "set", "lo", "up"]);
        node
    }

    /// A directory that goes with the node.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the node's `path`, absolute as a plugin sees it, lies on this machine: `/run` and `/var/lib` are its own.
    pub fn file(&self, path: &str) -> PathBuf {
        if path.starts_with("/run/") || path.starts_with("/var/lib/") {
            self.dir().join(&path[1..])
        } else {
            PathBuf::from(path)
        }
    }

    /// Makes a plugin of the node's own: a shell script, found by calls with [`scripts`](crate::cni::Call::scripts).
    pub fn script(&self, name: &str, body: &str) {
        fs::create_dir_all(self.scripts()).unwrap();
        let path = self.scripts().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Where its scripts are.
    pub fn scripts(&self) -> PathBuf {
        self.dir().join("bin")
    }

    /// A container that has no network yet. Its namespace lives as long as the node, or until [`Node::destroy`].
    pub fn pod(&self) -> Pod {
        let container = Arc::new(Namespace::pod());
        let mut pods = self.pods.lock().unwrap();
        pods.push(container.clone());
        Pod {
            container,
            id: format!("container-{}", pods.len()),
            ifname: "eth0".into(),
        }
    }

    /// The namespace of `pod` goes, and all that is in it; what is left is its name, with an empty namespace.
    pub fn destroy(&self, pod: Pod) -> Pod {
        let mut pods = self.pods.lock().unwrap();
        let fresh = Arc::new(Namespace::pod());
        for container in pods.iter_mut().filter(|it| Arc::ptr_eq(it, &pod.container)) {
            *container = fresh.clone();
        }
        Pod {
            container: fresh,
            id: pod.id,
            ifname: pod.ifname,
        }
    }

    /// A path for `CNI_NETNS` where there is nothing any more.
    pub fn gone(&self) -> String {
        self.dir().join("gone").display().to_string()
    }
}

impl Deref for Node {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.host
    }
}

/// A container's namespace and what the runtime calls it.
pub struct Pod {
    container: Arc<Namespace>,
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Pod {
    /// The same container under another interface name, for a second attachment.
    pub fn interface(&mut self, ifname: &str) -> &mut Pod {
        self.ifname = ifname.into();
        self
    }
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.container
    }
}

/// Says on standard error, past the test runner's capture, why the running test is skipped.
///
/// # Panics
/// With `CI=true`: there nothing may be missing.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI=true and {why}"
    );
    note(&format!("skipped: {why}"));
}

/// Whether `E2E_ELSEWHERE`, a comma-separated list, says that another run of the suite (under a kernel that has it)
/// covers `feature`, so that this one may do without also with `CI=true`.
pub fn elsewhere(feature: &str) -> bool {
    let list = std::env::var("E2E_ELSEWHERE").unwrap_or_default();
    list.split(',').any(|it| it == feature)
}

/// Says on standard error that the running test does not apply to the binaries under exam.
pub fn note(text: &str) {
    let test = thread::current();
    let _ = writeln!(io::stderr(), "{}: {text}", test.name().unwrap_or("test"));
}

/// A thread that ends with `f` has no namespace to restore.
fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(f)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
