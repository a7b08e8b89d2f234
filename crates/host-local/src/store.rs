//! The lease store: a file an address in a folder a network, as the reference writes them, and an [index](index) of them.
//!
//! The lease files are the truth; the index may be lost, damaged or out of date at any time and is then made anew, or
//! done without where it cannot be written.

mod cursor;
mod effect;
mod entry;
mod index;
mod known;
mod lock;
mod locked;
mod scan;

use std::cell::OnceCell;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_spec::Code;
use cni_spec::error::os_text;
use cni_spec::name::NetworkName;

use entry::BootId;
use index::Index;
use lock::Attempt;

pub(crate) use cursor::Cursor;
#[cfg(test)]
pub(crate) use effect::{coarse, crash};
pub(crate) use entry::Entry;
pub(crate) use locked::Locked;

/// Where one network's leases are.
pub(crate) struct Store {
    /// `<dataDir>/<network>`: everything in it is the reference's.
    folder: PathBuf,
    /// `<dataDir>/.index/<network>`: beside it, since the reference takes every file in there for a lease.
    index: PathBuf,
    boot_id: PathBuf,
    patience: Duration,
    boot: OnceCell<BootId>,
}

/// What the store takes from the machine that it is on, and not from the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    /// The file that has the kernel's random id of this boot.
    pub(crate) boot_id: &'a Path,
    /// How long a call waits for others to leave the store.
    pub(crate) patience: Duration,
}

/// A file that could not be used. `Display` has the form of the reference's sentences.
#[derive(Debug)]
pub(crate) struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// The store of a network below `data_dir`.
    pub(crate) fn new(data_dir: &Path, network: &NetworkName, node: Node<'_>) -> Store {
        Store {
            folder: data_dir.join(network.as_str()),
            index: data_dir.join(".index").join(network.as_str()),
            boot_id: node.boot_id.to_owned(),
            patience: node.patience,
            boot: OnceCell::new(),
        }
    }

    /// The folder of the leases.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an address's lease.
    pub(crate) fn file(&self, ip: IpAddr) -> PathBuf {
        self.folder.join(ip.to_string())
    }

    /// Waits until nobody else uses the store. What is missing of it is made.
    ///
    /// # Errors
    /// Also that others have not left it in time.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let (path, file) = self.open_lock()?;
        let attempt = lock::wait(&file, self.patience).map_err(failed("lock", &path))?;
        let held = || {
            let text = format!("held by another process for {:?}", self.patience);
            failed("lock", &path)(io::Error::new(ErrorKind::TimedOut, text))
        };
        self.locked(file, attempt)?.ok_or_else(held)
    }

    /// As [`Store::lock`], but `None` instead of waiting.
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>> {
        let (_, file) = self.open_lock()?;
        let attempt = lock::attempt(&file);
        self.locked(file, attempt)
    }

    /// The lock's file, which is made if it is missing, and the folder with it.
    fn open_lock(&self) -> Result<(PathBuf, File)> {
        let path = self.folder.join("lock");
        let mut lock = effect::open_lock(&path);
        if lock
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            effect::create_folder(&self.folder, 0o755).map_err(failed("mkdir", &self.folder))?;
            lock = effect::open_lock(&path);
        }
        let lock = lock.map_err(failed("open", &path))?;
        Ok((path, lock))
    }

    fn locked(&self, lock: File, attempt: Attempt) -> Result<Option<Locked<'_>>> {
        // The reference goes on without a lock where the filesystem has none. So do we, but then nothing is certain
        // from one look to the next, so there is no index.
        let index = match attempt {
            Attempt::Locked => Some(Index::new(&self.index, &self.folder)),
            Attempt::Unsupported => None,
            Attempt::Held => return Ok(None),
        };
        let is_complete = index.as_ref().is_some_and(Index::is_complete);
        let mut locked = Locked {
            store: self,
            index,
            scanned: None,
            reserved: Vec::new(),
            unlinked: None,
            changed: false,
            _lock: lock,
        };
        if !is_complete {
            locked.scan()?;
        }
        Ok(Some(locked))
    }

    fn boot(&self) -> BootId {
        *self.boot.get_or_init(|| BootId::read(&self.boot_id))
    }
}

impl StoreError {
    pub(crate) fn code(&self) -> Code {
        if self.source.kind() == ErrorKind::TimedOut {
            Code::TRY_AGAIN_LATER
        } else {
            Code::IO
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        if self.action == "lock" && self.source.kind() == ErrorKind::TimedOut {
            return Some(format!(
                "`fuser -v {}` names the process: a call of host-local that hangs, on its disk most likely, or a person's \
                 `flock`",
                self.path.display()
            ));
        }
        let folder = self.path.parent().unwrap_or(&self.path).display();
        let kind = self.source.kind();
        if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&kind) {
            return Some(format!(
                "host-local writes below `{folder}`; `ipam.dataDir` chooses another folder"
            ));
        }
        let is_full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind);
        is_full.then(|| format!("free some space or inodes on the filesystem of `{folder}`"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.action,
            self.path.display(),
            os_text(&self.source)
        )
    }
}

impl std::error::Error for StoreError {}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError {
        action,
        path,
        source,
    }
}

#[cfg(test)]
pub(crate) mod tests;
