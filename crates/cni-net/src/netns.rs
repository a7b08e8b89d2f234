//! Network namespaces: opening one, and working inside it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use cni_spec::error::os_text;
use cni_spec::quote;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, statfs};
use nix::unistd::{Pid, gettid};

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

/// A path that leads to no network namespace. `Display` is the reference's sentence.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing there.
    #[error("failed to Statfs {}: {}", quote::quoted(&.path.to_string_lossy()), os_text(.error))]
    NotThere {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something else than a namespace.
    #[error("unknown FS magic on {}: {magic:x}", quote::quoted(&.path.to_string_lossy()))]
    NotANamespace {
        /// The path.
        path: PathBuf,
        /// The kind of the file system that the path is on (statfs(2)).
        magic: i64,
    },
    /// It cannot be opened or entered.
    #[error("{} {}: {}", .doing, .path.display(), os_text(.error))]
    Unusable {
        /// The system call.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl NetnsError {
    /// Is the path not there? Then DEL has nothing to look for.
    pub fn is_gone(&self) -> bool {
        matches!(self, NetnsError::NotThere { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// Is something else there?
    pub fn is_no_namespace(&self) -> bool {
        matches!(self, NetnsError::NotANamespace { .. })
    }
}

impl Netns {
    /// Opens the namespace at `path`: a bind mount of one, or a file below `/proc`.
    pub fn open(path: &Path) -> Result<Netns, NetnsError> {
        // include/uapi/linux/magic.h
        const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
        let kind = statfs(path)
            .map_err(|error| NetnsError::NotThere {
                path: path.to_owned(),
                error: error.into(),
            })?
            .filesystem_type();
        if kind != NSFS_MAGIC && kind != PROC_SUPER_MAGIC {
            #[allow(
                clippy::unnecessary_cast,
                reason = "the type differs between architectures"
            )]
            return Err(NetnsError::NotANamespace {
                path: path.to_owned(),
                magic: kind.0 as i64,
            });
        }
        let unusable = |error| NetnsError::Unusable {
            doing: "open",
            path: path.to_owned(),
            error,
        };
        Ok(Netns {
            file: File::open(path).map_err(unusable)?,
        })
    }

    /// Runs `f` in this namespace; the calling thread is where it was afterwards, also if `f` fails or panics.
    ///
    /// # Errors
    /// Those of setns(2), and those of `f`.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.run_from(&Home::here()?, f)
    }

    /// The same for a thread whose home is known already.
    pub(crate) fn run_from<T: Send>(
        &self,
        home: &Home,
        f: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let enter = || setns(&self.file, CloneFlags::CLONE_NEWNET);
        if !home.takes_back {
            // A thread that lives for this only has nowhere to go back to.
            let visit = || {
                enter()?;
                f()
            };
            return thread::scope(|scope| {
                let visitor = scope.spawn(visit);
                visitor.join().unwrap_or_else(|panic| resume_unwind(panic))
            });
        }
        enter()?;
        let away = Away(home);
        let outcome = f();
        away.back()?;
        outcome
    }
}

/// The namespace that a thread comes from.
pub(crate) struct Home {
    file: File,
    /// May the thread come back? Not if it is in a user namespace that this one does not belong to. Where it may, a visit
    /// costs a tenth of what a thread does.
    takes_back: bool,
}

impl Home {
    /// That of the calling thread.
    pub(crate) fn here() -> io::Result<Home> {
        // The first thread's is the process's, whose folder is known to the kernel's cache of names.
        let is_first = gettid() == Pid::this();
        let file = File::open(match is_first {
            true => "/proc/self/ns/net",
            false => "/proc/thread-self/ns/net",
        })?;
        // To enter where one is changes nothing, and takes the same permission as to come back.
        let takes_back = setns(&file, CloneFlags::CLONE_NEWNET).is_ok();
        Ok(Home { file, takes_back })
    }
}

/// The calling thread is in a namespace that is not its own, until this is dropped.
struct Away<'a>(&'a Home);

impl Away<'_> {
    fn back(self) -> io::Result<()> {
        let Away(home) = self;
        std::mem::forget(self);
        Ok(setns(&home.file, CloneFlags::CLONE_NEWNET)?)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        // A panic is on its way; it undoes what was begun, and that belongs to where it was begun.
        let _ = setns(&self.0.file, CloneFlags::CLONE_NEWNET);
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// For tests: runs `test` in a new network namespace, on a thread that ends with it.
#[cfg(test)]
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(|| {
        if let Err(error) = nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
            assert!(
                std::env::var_os("CI").is_none(),
                "cannot make a network namespace: {error}"
            );
            eprintln!("skipped: cannot make a network namespace (not root?): {error}");
            return;
        }
        test();
    });
    if let Err(panic) = outcome.join() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // L15
    #[test]
    fn l15_not_there_and_not_a_namespace_differ() {
        let gone = Netns::open(Path::new("/nonexistent/netns")).unwrap_err();
        assert!(gone.is_gone());
        assert_eq!(
            gone.to_string(),
            "failed to Statfs \"/nonexistent/netns\": no such file or directory"
        );
        let folder = tempfile::tempdir().unwrap();
        let other = Netns::open(folder.path()).unwrap_err();
        assert!(!other.is_gone());
        assert!(
            other.to_string().starts_with("unknown FS magic on \"/"),
            "{other}"
        );
    }

    #[test]
    fn an_own_namespace_can_be_opened() {
        assert!(Netns::open(Path::new("/proc/self/ns/net")).is_ok());
    }
}
