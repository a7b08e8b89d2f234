//! The node that everything is measured on: namespaces of this run's own, gone with the process.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::{Builder, TempDir};

use crate::Failure;

/// The bridge that the floor puts its pods into.
pub(crate) const FLOOR_BRIDGE: &str = "floor0";

/// The networks' second bytes begin beyond the floor's.
const FIRST_NUMBER: u8 = 100;

/// The network namespace that this process is in now, with a folder for all data.
pub(crate) struct Node {
    /// Where all files of the plugins go.
    pub(crate) data: PathBuf,
    /// Removes them, where the kernel does not.
    _on_disk: Option<TempDir>,
    next_number: Cell<u8>,
}

/// A pod's network namespace. Dropping it lets the kernel take down all that is inside.
pub(crate) struct Pod(File);

impl Node {
    /// Moves the process into a fresh node; it must have one thread yet. `/run` is its own, in memory: for the lock of
    /// iptables, and for all data unless they are to go below the folder `on_disk`.
    pub(crate) fn enter(on_disk: Option<&Path>) -> Result<Node, Failure> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(|error| format!("namespaces cannot be made, are you root? {error}"))?;
        let nothing = None::<&str>;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )?;
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )?;
        let folder = on_disk
            .map(|folder| Builder::new().prefix("cni-bench-").tempdir_in(folder))
            .transpose()?;
        let data = folder
            .as_ref()
            .map_or(PathBuf::from("/run/cni-bench"), |folder| {
                folder.path().to_owned()
            });
        fs::create_dir_all(&data)?;
        output("ip", &["link", "set", "lo", "up"])?;
        let node = Node {
            data,
            _on_disk: folder,
            next_number: Cell::new(FIRST_NUMBER),
        };
        node.add_bridge(FLOOR_BRIDGE, "10.77.0.1")?;
        Ok(node)
    }

    /// A bridge with this address, and the network around it.
    pub(crate) fn add_bridge(&self, name: &str, address: &str) -> Result<(), Failure> {
        output("ip", &["link", "add", name, "up", "type", "bridge"])?;
        output(
            "ip",
            &["addr", "add", &format!("{address}/16"), "dev", name],
        )?;
        Ok(())
    }

    /// A number that no other network of this run has.
    pub(crate) fn next_number(&self) -> Result<u8, Failure> {
        let number = self.next_number.get();
        self.next_number.set(
            number
                .checked_add(1)
                .ok_or("too many networks for one run")?,
        );
        Ok(number)
    }

    /// A fresh pod.
    pub(crate) fn pod(&self) -> Result<Pod, Failure> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Pod(File::open("/proc/thread-self/ns/net")?))
        })
    }
}

impl Pod {
    /// The path to hand over as `CNI_NETNS`: this process's own descriptor.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs `f` inside.
    pub(crate) fn enter<T: Send>(
        &self,
        f: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            f()
        })
    }
}

/// Runs a command in the calling thread's namespace; what it printed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), stderr.trim()).into())
}

/// A thread that lives for `f` only has no namespace to go back to.
fn on_a_thread<T: Send>(f: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        scope
            .spawn(f)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
