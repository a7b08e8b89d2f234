//! Who holds what: by the index where it is complete, else by reading all leases.

use super::entry::Leases;
use super::index::Index;
use super::{Entry, Locked, Result, failed, scan};
use crate::owner::{Content, Owner};

impl Locked<'_> {
    /// What an owner holds, as its lease files say.
    pub(crate) fn held(&mut self, owner: &Owner) -> Result<Option<Entry>> {
        if self.scanned.is_none() {
            match self.index.as_ref().map(|index| index.read(owner)) {
                Some(Ok(None)) => return Ok(None),
                Some(Ok(Some(entry))) if self.is_true(owner, &entry) => return Ok(Some(entry)),
                Some(Ok(Some(_)) | Err(_)) | None => self.scan()?,
            }
        }
        Ok(self
            .scanned
            .as_ref()
            .and_then(|leases| leases.get(owner))
            .cloned())
    }

    /// What every owner holds, but for what is only reserved.
    pub(super) fn all(&mut self) -> Result<Leases> {
        self.remove_unlinked();
        if self.scanned.is_none() {
            match self.index.as_ref().map(Index::list) {
                Some(Ok((leases, others))) if others.is_empty() => return Ok(leases),
                Some(Ok(_) | Err(_)) | None => self.scan()?,
            }
        }
        Ok(self.scanned.clone().unwrap_or_default())
    }

    /// Do the lease files say what the entry says?
    fn is_true(&self, owner: &Owner, entry: &Entry) -> bool {
        entry.leases.iter().all(|lease| {
            let content = scan::content(&self.store.folder.join(&lease.name));
            matches!(content, Ok(Content::Owner(found)) if found == *owner)
        })
    }

    /// Reads all leases, and makes the index anew; what is only reserved is left out.
    pub(super) fn scan(&mut self) -> Result<()> {
        let folder = self.store.folder();
        let found = scan::scan(folder).map_err(failed("open", folder))?;
        let mut leases = found.leases;
        if !self.reserved.is_empty() {
            leases
                .values_mut()
                .for_each(|entry| entry.leases.retain(|lease| !self.reserved.contains(lease)));
            leases.retain(|_, entry| !entry.leases.is_empty());
        }
        if let Some(index) = self.index.take().filter(|_| found.is_plain) {
            let (renewed, done) = index.renew(leases, self.store.boot());
            leases = renewed;
            self.index = done.is_ok().then_some(index);
        }
        self.scanned = Some(leases);
        self.unlinked = None;
        self.changed = true;
        Ok(())
    }

    /// Writes what an owner holds into the index.
    pub(super) fn record(&mut self, owner: &Owner, entry: Entry) {
        if self
            .index
            .as_ref()
            .is_some_and(|index| index.write(owner, &entry).is_err())
        {
            self.index = None;
        }
        if let Some(scanned) = &mut self.scanned {
            scanned.insert(owner.clone(), entry);
        }
    }

    /// Removes an owner that holds nothing from the index.
    pub(super) fn forget(&mut self, owner: &Owner) {
        if self
            .index
            .as_ref()
            .is_some_and(|index| index.remove(owner).is_err())
        {
            self.index = None;
        }
        if let Some(scanned) = &mut self.scanned {
            scanned.remove(owner);
        }
    }
}
