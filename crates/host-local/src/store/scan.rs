//! Reading every lease file, as the reference does on each call.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::effect;
use super::entry::{Lease, Leases};
use crate::file;
use crate::owner::Content;

/// What a network's folder has in it.
pub(super) struct Scan {
    /// Whose boots are not known from here.
    pub(super) leases: Leases,
    /// Nothing but plain files of speakable names: then whatever changes who holds what also changes the folder's time.
    pub(super) is_plain: bool,
}

/// Reads the folder, and those below it as the reference does. What cannot be read is nobody's.
pub(super) fn scan(folder: &Path) -> io::Result<Scan> {
    let mut scan = Scan {
        leases: Leases::new(),
        is_plain: true,
    };
    scan.walk(folder, "")?;
    for entry in scan.leases.values_mut() {
        entry.leases.sort();
    }
    Ok(scan)
}

impl Scan {
    fn walk(&mut self, folder: &Path, below: &str) -> io::Result<()> {
        for found in fs::read_dir(folder)? {
            let found = found?;
            let kind = found.file_type()?;
            let name = match found.file_name().into_string() {
                Ok(name) => format!("{below}{name}"),
                Err(_) => {
                    self.is_plain = false;
                    continue;
                }
            };
            self.is_plain &= kind.is_file();
            if kind.is_dir() {
                // A folder that cannot be read has no leases that anybody could find.
                let _ = self.walk(&found.path(), &format!("{name}/"));
                continue;
            }
            if is_ours(&name) {
                continue;
            }
            if let Ok((Content::Owner(owner), written)) = content_and_time(&found.path()) {
                let entry = self.leases.entry(owner).or_default();
                entry.leases.reserve_exact(1); // mostly there is no other one
                entry.leases.push(Lease { name, written });
            }
        }
        Ok(())
    }
}

/// What a lease file says.
pub(super) fn content(path: &Path) -> io::Result<Content> {
    read(&mut file::open(path)?)
}

/// What a lease file says, and when it was written.
pub(super) fn content_and_time(path: &Path) -> io::Result<(Content, u64)> {
    let mut file = file::open(path)?;
    let written = effect::written(&file)?;
    Ok((read(&mut file)?, written))
}

/// The lock and the cursors are no leases.
pub(super) fn is_ours(name: &str) -> bool {
    name == "lock" || name.starts_with("last_reserved_ip.")
}

/// A lease file is short: one call reads it all.
fn read(file: &mut File) -> io::Result<Content> {
    let mut bytes = [0; 512];
    let len = file.read(&mut bytes)?;
    if len < bytes.len() {
        return Ok(Content::read(&bytes[..len]));
    }
    let mut all = bytes.to_vec();
    file.take(1 << 20).read_to_end(&mut all)?;
    Ok(Content::read(&all))
}
