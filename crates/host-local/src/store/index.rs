//! The index: who holds what, without reading every lease file.
//!
//! It is a folder beside the network's, with one symbolic link an owner that points nowhere: its name is the owner, its
//! target what the owner holds (see [`Entry`]). A symbolic link is made whole by one call, is read by one call, and
//! cannot be changed without the folder's time of change telling.
//!
//! *Is it complete?* Whoever adds a lease file to the network's folder or removes one changes that folder's time. After
//! each change of ours, still under the lock, that time is set to one of our choosing with random nanoseconds, and the
//! index's folder gets the same one, a constant apart. As long as the two agree nobody else has touched either folder,
//! and an owner without an entry holds nothing. When they don't, the index is made anew. No clock is compared with
//! another, and a crash between any two changes leaves times that disagree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::effect;
use super::entry::{BootId, Entry, Leases};
use crate::owner::{Content, Owner};

/// How much later the network's folder was changed than the index's if the index is complete. Times that the kernel
/// sets by itself are never this far apart.
const APART: Duration = Duration::from_secs(1 << 30);

pub(super) struct Index {
    folder: PathBuf,
    /// The network's folder.
    of: PathBuf,
}

impl Index {
    pub(super) fn new(folder: &Path, of: &Path) -> Index {
        Index {
            folder: folder.to_owned(),
            of: of.to_owned(),
        }
    }

    /// Does the index know every lease?
    pub(super) fn is_complete(&self) -> bool {
        let changed = |folder: &Path| fs::metadata(folder).and_then(|found| found.modified());
        match (changed(&self.of), changed(&self.folder)) {
            (Ok(of), Ok(folder)) => of.checked_sub(APART) == Some(folder),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    }

    /// Declares the index complete. On a filesystem that keeps no nanoseconds it stays undeclared.
    pub(super) fn declare_complete(&self) -> io::Result<()> {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        // The standard library's only source of random numbers.
        let nanoseconds = RandomState::new().hash_one(seconds) % 1_000_000_000;
        let time = UNIX_EPOCH + Duration::new(seconds.max(APART.as_secs()), nanoseconds as u32);
        let of = File::open(&self.of)?;
        effect::set_time(&of, time)?;
        if of.metadata()?.modified()? == time {
            effect::set_time(&File::open(&self.folder)?, time - APART)?;
        }
        Ok(())
    }

    /// What an owner holds; `InvalidData` if its entry makes no sense.
    pub(super) fn read(&self, owner: &Owner) -> io::Result<Option<Entry>> {
        match fs::read_link(self.path(owner)?) {
            Ok(target) => match target.to_str().and_then(Entry::parse) {
                Some(entry) => Ok(Some(entry)),
                None => Err(ErrorKind::InvalidData.into()),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, owner: &Owner, entry: &Entry) -> io::Result<()> {
        let (path, target) = (self.path(owner)?, entry.to_string());
        match effect::symlink(&target, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                effect::unlink(&path)?;
                effect::symlink(&target, &path)
            }
            done => done,
        }
    }

    pub(super) fn remove(&self, owner: &Owner) -> io::Result<()> {
        effect::unlink(&self.path(owner)?)
    }

    /// All entries, and the paths of what is no entry.
    pub(super) fn list(&self) -> io::Result<(Leases, Vec<PathBuf>)> {
        let (mut entries, mut others) = (BTreeMap::new(), Vec::new());
        for found in fs::read_dir(&self.folder)? {
            let path = found?.path();
            match read_entry(&path) {
                Some((owner, entry)) => drop(entries.insert(owner, entry)),
                None => others.push(path),
            }
        }
        Ok((entries, others))
    }

    /// Makes the index say what the files say; `found` with the boots, and whether all could be written.
    ///
    /// A lease keeps the boot that the index has of it if it is the same file; any other one counts as of boot `now`.
    pub(super) fn renew(&self, mut found: Leases, now: BootId) -> (Leases, io::Result<()>) {
        let mut renewed = Leases::new();
        let mut done = self.renew_entries(&mut found, &mut renewed, now);
        for (owner, entry) in &mut found {
            entry.boot = now;
            done = done.and_then(|()| self.write(owner, entry));
        }
        renewed.append(&mut found);
        (renewed, done)
    }

    /// Corrects the entries that there are; their owners move from `found` to `renewed`.
    fn renew_entries(
        &self,
        found: &mut Leases,
        renewed: &mut Leases,
        now: BootId,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return effect::create_folder(&self.folder, 0o700);
            }
            entries => entries?,
        };
        for path in entries {
            let path = path?.path();
            let Some((owner, known)) = read_entry(&path) else {
                effect::unlink(&path)?;
                continue;
            };
            // What is written while the folder is being read may turn up in it.
            if renewed.contains_key(&owner) {
                continue;
            }
            let Some((owner, mut entry)) = found.remove_entry(&owner) else {
                effect::unlink(&path)?;
                continue;
            };
            let is_known = known.boot.is_known() && entry.is_within(&known);
            entry.boot = if is_known { known.boot } else { now };
            let written = if entry == known {
                Ok(())
            } else {
                self.write(&owner, &entry)
            };
            renewed.insert(owner, entry);
            written?;
        }
        Ok(())
    }

    /// A file of this name is swept away when the index is made anew.
    pub(super) fn temporary(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `id:ifname`, or `id` where a lease names only the container: neither has a colon in it.
    fn path(&self, owner: &Owner) -> io::Result<PathBuf> {
        let name = match &owner.ifname {
            Some(ifname) => format!("{}:{ifname}", owner.id),
            None => owner.id.clone(),
        };
        if name.len() > 255 {
            return Err(ErrorKind::InvalidFilename.into());
        }
        Ok(self.folder.join(name))
    }
}

/// The entry at a path; `None` if that is none.
fn read_entry(path: &Path) -> Option<(Owner, Entry)> {
    let owner = owner(path.file_name()?.to_str()?)?;
    let entry = Entry::parse(fs::read_link(path).ok()?.to_str()?)?;
    Some((owner, entry))
}

/// The owner whose entry has this name.
fn owner(name: &str) -> Option<Owner> {
    let text = match name.split_once(':') {
        Some((id, ifname)) => Owner {
            id: id.to_owned(),
            ifname: Some(ifname.to_owned()),
        }
        .text(),
        None => name.to_owned(),
    };
    match Content::read(text.as_bytes()) {
        Content::Owner(owner) => (owner.text() == text).then_some(owner),
        Content::Damaged | Content::Note => None,
    }
}
