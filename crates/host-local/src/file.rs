//! Opening files that others may have put there.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file to read it, unless it is a pipe or a device: reading those may wait for ever, or never end. A folder is
/// opened; reading it fails by itself.
///
/// `/dev/null` is what an administrator names who wants an empty file, and is opened.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if found.is_file() || found.is_dir() || path == Path::new("/dev/null") {
        File::open(path)
    } else {
        Err(not_regular())
    }
}

/// What [`open`] says of pipes and devices.
pub(crate) fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}
