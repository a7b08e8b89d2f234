//! `last_reserved_ip.N`: the address that a range set gave last.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_spec::address;

use super::effect;
use crate::file;

/// The file, open from the reading to the writing.
pub(crate) struct Cursor {
    pub(super) path: PathBuf,
    file: Option<File>,
    text: Vec<u8>,
    /// Why a file that is there could not be read.
    pub(crate) problem: Option<io::Error>,
}

impl Cursor {
    /// The cursor of the range set at position `set`.
    pub(super) fn open(folder: &Path, set: usize) -> Cursor {
        let path = folder.join(format!("last_reserved_ip.{set}"));
        let (file, text, problem) = match read(&path) {
            Ok((file, text)) => (Some(file), text, None),
            Err(error) if error.kind() == ErrorKind::NotFound => (None, Vec::new(), None),
            Err(error) => (None, Vec::new(), Some(error)),
        };
        Cursor {
            path,
            file,
            text,
            problem,
        }
    }

    /// The address; `None` on first use, and if the file has anything else in it.
    pub(crate) fn last(&self) -> Option<IpAddr> {
        address::parse_ip(std::str::from_utf8(&self.text).ok()?).ok()
    }

    /// Writes an address, so that a crash leaves the old one or the new one. `temporary` is on the same filesystem;
    /// without it the file is written as the reference does. Was the folder changed?
    pub(super) fn write(&self, ip: IpAddr, temporary: Option<PathBuf>) -> io::Result<bool> {
        let text = ip.to_string();
        if let Some(file) = &self.file
            && self.text.len() == text.len()
        {
            effect::overwrite(file, text.as_bytes())?;
            return Ok(false);
        }
        let renamed = temporary.map(|temporary| {
            effect::create(&temporary, text.as_bytes())?;
            effect::rename(&temporary, &self.path).inspect_err(|_| drop(effect::unlink(&temporary)))
        });
        match renamed {
            Some(Ok(())) => Ok(true),
            Some(Err(_)) | None => effect::replace(&self.path, text.as_bytes()).map(|()| true),
        }
    }
}

/// No address is longer than the buffer, so a file that fills it is none.
fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    // Opening a pipe to read and to write waits for nobody; reading it would.
    if !file.metadata()?.is_file() {
        return Err(file::not_regular());
    }
    let mut text = [0; 64];
    let len = file.read(&mut text)?;
    Ok((file, text[..len].to_vec()))
}
