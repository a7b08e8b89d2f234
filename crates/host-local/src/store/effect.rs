//! Every change that is made on disk, one function each: what a crash can fall between.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, symlink as make_symlink,
};
use std::path::Path;
use std::time::SystemTime;

use crate::file;

/// Makes a folder and those above it that are missing.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    step()?;
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Opens the lock file, which is made if it is missing.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    step()?;
    // Not through `create`, which wants write access: an administrator may have made the file read-only.
    match file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o750)
                .open(path);
            match created {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => File::open(path),
                created => created,
            }
        }
        opened => opened,
    }
}

/// Makes a file that must not be there yet, for its owner alone; when it was written, in nanoseconds since 1970.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<u64> {
    step()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = step()
        .and_then(|()| file.write_all(content))
        .and_then(|()| written(&file));
    if written.is_err() {
        // A lease without an owner could not be freed by anybody.
        let _ = unlink(path);
    }
    written
}

/// Makes a file, or takes the place of its content.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    step()?;
    // Opening a pipe to write would wait for a reader.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(file::not_regular());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    step()?;
    file.write_all(content)
}

/// Writes over the content of a file that has the same length.
pub(super) fn overwrite(file: &File, content: &[u8]) -> io::Result<()> {
    step()?;
    file.write_all_at(content, 0)
}

pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::hard_link(from, to)
}

pub(super) fn symlink(target: &str, at: &Path) -> io::Result<()> {
    step()?;
    make_symlink(target, at)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    fs::rename(from, to)
}

/// Removes a file; one that is gone already is no error.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    step()?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Sets a folder's time of change.
pub(super) fn set_time(folder: &File, time: SystemTime) -> io::Result<()> {
    step()?;
    folder.set_modified(kept(time))
}

/// When an open file was written, in nanoseconds since 1970.
pub(super) fn written(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    let nanoseconds =
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Ok(u64::try_from(nanoseconds).unwrap_or_default())
}

#[cfg(not(test))]
fn step() -> io::Result<()> {
    Ok(())
}

/// The time that the filesystem keeps of one that it is given.
#[cfg(not(test))]
fn kept(time: SystemTime) -> SystemTime {
    time
}

#[cfg(test)]
use {coarse::kept, crash::step};

/// A filesystem that keeps times in whole seconds.
#[cfg(test)]
pub(crate) mod coarse {
    use std::cell::Cell;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    thread_local! {
        static COARSE: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `act` on such a filesystem.
    pub(crate) fn during<T>(act: impl FnOnce() -> T) -> T {
        COARSE.set(true);
        let done = act();
        COARSE.set(false);
        done
    }

    pub(super) fn kept(time: SystemTime) -> SystemTime {
        if !COARSE.get() {
            return time;
        }
        UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }
}

/// A process that dies between two changes: from then on none takes place, the cleaning up included.
#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Runs `act`, which dies after that many changes; did it?
    pub(crate) fn after<T>(changes: u32, act: impl FnOnce() -> T) -> (T, bool) {
        LEFT.set(Some(changes));
        let done = act();
        let died = LEFT.take() == Some(0);
        (done, died)
    }

    /// Counts the changes that `act` makes.
    pub(super) fn step() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("crashed on purpose")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
