//! Files being written: each has a name of its own until it is whole, so that nobody ever reads half a file.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use crate::error::Error;
use crate::state::{failed, list, remove};

/// How the name of a draft starts. No container id does, and no file of anybody else, though a person may have pointed
/// `dataDir` at any folder.
pub(super) const PREFIX: &str = ".cni-flannel-";

/// A file that is being written. It goes away unless it is published.
///
/// While it is there, this process holds a lock on it: that tells it from one that a crash left.
pub(super) struct Draft<'a> {
    file: File,
    path: PathBuf,
    /// The name that it is to have; errors name this one.
    target: &'a Path,
    published: bool,
}

impl<'a> Draft<'a> {
    /// A file with this content, mode 0600, in `folder`, which must be on the filesystem of `target`.
    pub(super) fn write(folder: &Path, target: &'a Path, bytes: &[u8]) -> Result<Draft<'a>, Error> {
        let mut draft = Draft::create(folder, target)?;
        draft
            .file
            .write_all(bytes)
            .map_err(failed("write", target))?;
        Ok(draft)
    }

    fn create(folder: &Path, target: &'a Path) -> Result<Draft<'a>, Error> {
        let mut number = 0_u32;
        loop {
            let path = folder.join(format!("{PREFIX}{}-{number}", process::id()));
            number += 1;
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(failed("open", target))?,
            };
            // Before it was locked, a sweep may have taken it for a crash's.
            let swept = matches!(file.try_lock(), Err(TryLockError::WouldBlock))
                || file.metadata().is_ok_and(|it| it.nlink() == 0);
            if !swept {
                return Ok(Draft {
                    file,
                    path,
                    target,
                    published: false,
                });
            }
        }
    }

    /// Waits until the disk has the content.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(failed("sync", self.target))
    }

    /// Gives the file its name, in place of what has that name now.
    pub(super) fn publish(mut self) -> Result<(), Error> {
        fs::rename(&self.path, self.target).map_err(failed("open", self.target))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path); // if not now, the next sweep does it
        }
    }
}

/// Removes the drafts in `folder` that crashes left.
pub(super) fn sweep(folder: &Path) -> Result<(), Error> {
    for (name, path) in list(folder)? {
        if !name.starts_with(PREFIX) {
            continue;
        }
        if let Some(_locked) = abandoned(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The file, locked, if no process holds it and the name is still its own. One that is just being made may be taken for
/// such; its maker finds it locked or gone, and makes another.
fn abandoned(path: &Path) -> Option<File> {
    let named = || {
        let found = fs::symlink_metadata(path).ok();
        found.filter(Metadata::is_file) // a draft is nothing else
    };
    named()?; // a pipe would be waited on
    let file = File::open(path).ok()?;
    file.try_lock().ok()?;
    let identity = |found: Metadata| (found.dev(), found.ino());
    let named = named().map(identity)?;
    (file.metadata().ok().map(identity)? == named).then_some(file)
}
