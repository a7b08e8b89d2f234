//! What is done to leases while nobody else can.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::mem;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use cni_spec::address;
use cni_spec::error::os_text;

use super::entry::{Lease, Leases};
use super::index::Index;
use super::{Cursor, Entry, Result, Store, StoreError, effect, failed, scan};
use crate::owner::{Content, Owner};
use crate::range::RangeSet;

/// The store while nobody else can change it. Dropping it lets others in, and gives back what was not kept.
#[must_use = "dropping it gives back what was reserved and not kept"]
pub(crate) struct Locked<'a> {
    pub(super) store: &'a Store,
    /// In step with the folder; `None` if there can be none.
    pub(super) index: Option<Index>,
    /// What all owners hold, if it had to be found out by reading all leases.
    pub(super) scanned: Option<Leases>,
    /// What was reserved and is not kept yet.
    pub(super) reserved: Vec<Lease>,
    /// A lease file that has no address yet, and when it was written.
    pub(super) unlinked: Option<(PathBuf, u64)>,
    /// The folder's or the index's time of change tells of a change of ours.
    pub(super) changed: bool,
    pub(super) _lock: File,
}

impl Locked<'_> {
    pub(crate) fn store(&self) -> &Store {
        self.store
    }

    /// Was this taken before the machine was last started? Then its network namespace is gone.
    pub(crate) fn is_from_another_boot(&self, entry: &Entry) -> bool {
        entry.boot.is_before(self.store.boot())
    }

    /// Makes the lease of an address; false if it is taken. It goes back unless [`Locked::keep`] follows.
    pub(crate) fn reserve(&mut self, ip: IpAddr, owner: &Owner) -> Result<bool> {
        let path = self.store.file(ip);
        let written = match self.create(&path, owner) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match scan::content(&path) {
                Ok(Content::Damaged) => {
                    self.unlink(&path)?;
                    self.create(&path, owner)
                }
                Ok(Content::Owner(_) | Content::Note) | Err(_) => return Ok(false),
            },
            created => created,
        };
        self.changed = true;
        self.reserved.push(Lease {
            name: ip.to_string(),
            written: written.map_err(failed("open", &path))?,
        });
        Ok(true)
    }

    /// Is there a lease of the address? Cheaper than finding out by [`Locked::reserve`].
    pub(crate) fn is_taken(&self, ip: IpAddr) -> bool {
        match fs::symlink_metadata(self.store.file(ip)) {
            Ok(found) => !found.is_file() || found.len() > 0,
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Calls `each` with every address that has a file.
    pub(crate) fn each_taken(&self, mut each: impl FnMut(IpAddr)) -> Result<()> {
        let folder = self.store.folder();
        for found in fs::read_dir(folder).map_err(failed("open", folder))? {
            let found = found.map_err(failed("readdirent", folder))?;
            if let Some(Ok(ip)) = found.file_name().to_str().map(address::parse_ip) {
                each(ip);
            }
        }
        Ok(())
    }

    /// The last reserved address of the range set at position `set`.
    pub(crate) fn cursor(&self, set: usize) -> Cursor {
        Cursor::open(self.store.folder(), set)
    }

    /// Makes an address the last reserved one.
    pub(crate) fn move_cursor(&mut self, cursor: &Cursor, ip: IpAddr) -> Result<()> {
        let temporary = self.index.as_ref().map(|index| index.temporary(".cursor"));
        self.changed |= cursor
            .write(ip, temporary)
            .map_err(failed("open", &cursor.path))?;
        Ok(())
    }

    /// Who has the lease of an address, for a person.
    pub(crate) fn holder(&self, ip: IpAddr) -> String {
        match scan::content(&self.store.file(ip)) {
            Ok(Content::Owner(Owner {
                id,
                ifname: Some(ifname),
            })) => format!("container {id}, interface {ifname}"),
            Ok(Content::Owner(Owner { id, ifname: None })) => format!("container {id}"),
            Ok(Content::Damaged | Content::Note) => "somebody who is no container".to_owned(),
            Err(error) => format!("somebody unknown ({})", os_text(&error)),
        }
    }

    /// The leases stay with their owner, beside what it held before.
    pub(crate) fn keep(mut self, owner: &Owner) -> Result<()> {
        let mut entry = self.held(owner)?.unwrap_or_default();
        entry.boot = self.store.boot();
        entry.leases.append(&mut self.reserved);
        entry.leases.sort();
        self.record(owner, entry);
        Ok(())
    }

    /// Removes all leases of an owner; false if there are none.
    pub(crate) fn release(&mut self, owner: &Owner) -> Result<bool> {
        let Some(entry) = self.held(owner)? else {
            return Ok(false);
        };
        let files = entry
            .leases
            .iter()
            .map(|lease| self.store.folder.join(&lease.name));
        let errors: Vec<StoreError> = files.filter_map(|file| self.unlink(&file).err()).collect();
        self.forget(owner);
        errors.into_iter().next().map_or(Ok(true), Err)
    }

    /// Removes what no namespace can own any more: leases of another boot, of owners with one in `set`, and files in
    /// `set` that say nothing. Was there any?
    pub(crate) fn release_lost(&mut self, set: &RangeSet) -> Result<bool> {
        let mut released = false;
        let mut owned = BTreeSet::new();
        for (owner, entry) in self.all()? {
            let is_lost = |entry: &Entry| entry.boot.is_before(self.store.boot());
            // Asked again, since the files themselves may tell better.
            if is_lost(&entry)
                && entry.addresses().any(|ip| set.range_of(ip).is_some())
                && self.held(&owner)?.as_ref().is_some_and(is_lost)
            {
                released |= self.release(&owner)?;
            } else {
                owned.extend(entry.addresses());
            }
        }
        let mut others = Vec::new();
        self.each_taken(|ip| {
            others.extend((set.range_of(ip).is_some() && !owned.contains(&ip)).then_some(ip))
        })?;
        for file in others.into_iter().map(|ip| self.store.file(ip)) {
            if matches!(scan::content(&file), Ok(Content::Damaged)) {
                self.unlink(&file)?;
                released = true;
            }
        }
        Ok(released)
    }

    /// Removes the leases of all owners but those that `is_valid`; everything that can be, then what could not.
    pub(crate) fn collect(
        &mut self,
        is_valid: impl Fn(&Owner) -> bool,
    ) -> std::result::Result<(), Vec<StoreError>> {
        let all = self.all().map_err(|error| vec![error])?;
        let gone = all.keys().filter(|owner| !is_valid(owner));
        let errors: Vec<StoreError> = gone.filter_map(|owner| self.release(owner).err()).collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// Could a lease be written? Tells by the one change that leaves no trace.
    pub(crate) fn prove_writable(&mut self) -> Result<()> {
        let folder = self.store.folder();
        let now = File::open(folder).and_then(|it| effect::set_time(&it, SystemTime::now()));
        self.changed = true;
        now.map_err(failed("chtimes", folder))
    }

    /// Makes a lease file that nobody ever sees unfinished: under another name first, then by a link. Where that
    /// cannot be done, as the reference does.
    fn create(&mut self, path: &Path, owner: &Owner) -> io::Result<u64> {
        let content = owner.text();
        if self.unlinked.is_none()
            && let Some(index) = &self.index
        {
            let temporary = index.temporary(".lease");
            self.changed = true;
            match effect::create(&temporary, content.as_bytes()) {
                Ok(written) => self.unlinked = Some((temporary, written)),
                Err(_) => self.index = None,
            }
        }
        let Some((temporary, written)) = &self.unlinked else {
            return effect::create(path, content.as_bytes());
        };
        match effect::link(temporary, path) {
            Ok(()) => {
                let written = *written;
                self.remove_unlinked();
                Ok(written)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
            Err(_) => effect::create(path, content.as_bytes()),
        }
    }

    /// Otherwise a lease would have a second name, by which the next one would be written over it.
    pub(super) fn remove_unlinked(&mut self) {
        if let Some((temporary, _)) = self.unlinked.take()
            && effect::unlink(&temporary).is_err()
        {
            self.index = None;
        }
    }

    /// An error leaves the index behind the folder, so it is not declared complete.
    fn unlink(&mut self, path: &Path) -> Result<()> {
        self.changed = true;
        let removed = effect::unlink(path);
        if removed.is_err() {
            self.index = None;
        }
        removed.map_err(failed("remove", path))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for lease in mem::take(&mut self.reserved) {
            // An error leaves the lease for the runtime's DEL.
            let _ = self.unlink(&self.store.folder.join(&lease.name));
        }
        self.remove_unlinked();
        // A panic may have come between a lease and its entry.
        if self.changed
            && !thread::panicking()
            && let Some(index) = &self.index
        {
            // Otherwise the next call makes the index anew.
            let _ = index.declare_complete();
        }
    }
}
