//! ADD's part in the store: an address of each range set, all or none.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_spec::Ip;
use cni_spec::error::os_text;
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::error::{Error, Refusal};
use crate::owner::Owner;
use crate::pick::{Round, Stretch};
use crate::range::RangeSet;
use crate::store::{Entry, Locked, StoreError};

/// How many addresses are tried one by one before the whole folder is read: about where the two cost the same.
const LOOKS: u128 = 1024;

/// Reserves an address of each range set, in their order. `note` takes lines for people.
///
/// What the owner held in an earlier boot is no obstacle: it gets those addresses back.
pub(crate) fn allocate(
    store: &mut Locked<'_>,
    config: &Config,
    owner: &Owner,
    note: &dyn Fn(&str),
) -> Result<Vec<Ip>, Error> {
    let (mut held, mut former) = (Vec::new(), Vec::new());
    for owner in [owner.clone(), owner.container()] {
        let Some(entry) = store.held(&owner)? else {
            continue;
        };
        if store.is_from_another_boot(&entry) {
            store.release(&owner)?;
            former.extend(files(&entry));
        } else {
            held.extend(files(&entry));
        }
    }
    // In the order of the files' names, in which the reference comes upon them.
    for files in [&mut held, &mut former] {
        files.sort();
    }
    let mut requested = config.requested.clone();
    let mut ips = Vec::with_capacity(config.sets.len());
    for (at, set) in config.sets.iter().enumerate() {
        let mut allocation = Allocation {
            store,
            owner,
            set,
            at,
            note,
        };
        let request = requested.iter().position(|ip| set.range_of(*ip).is_some());
        let ip = match request {
            Some(request) => allocation.requested(requested.remove(request)),
            None => allocation.next(&held, &former),
        };
        let ip = ip.map_err(|refusal| Error::Allocate { set: at, refusal })?;
        ips.extend(set.range_of(ip).map(|range| Ip {
            address: IpNetwork::new(ip, range.subnet.prefix()).unwrap_or(ip.into()),
            gateway: Some(range.gateway),
            interface: None,
        }));
    }
    if requested.is_empty() {
        Ok(ips)
    } else {
        Err(Error::RequestsLeftOver { ips: requested })
    }
}

/// Lease files, by their names in the network's folder, and the addresses they are of.
type Files = Vec<(PathBuf, IpAddr)>;

fn files(entry: &Entry) -> Files {
    let files = entry.files();
    files.map(|(file, ip)| (file.to_owned(), ip)).collect()
}

/// One range set's turn.
struct Allocation<'a, 'l> {
    store: &'a mut Locked<'l>,
    owner: &'a Owner,
    set: &'a RangeSet,
    /// The set's position among all.
    at: usize,
    note: &'a dyn Fn(&str),
}

impl Allocation<'_, '_> {
    /// The address that was asked for, and no other.
    fn requested(&mut self, ip: IpAddr) -> Result<IpAddr, Refusal> {
        if self
            .set
            .range_of(ip)
            .is_some_and(|range| range.gateway == ip)
        {
            return Err(Refusal::Gateway(ip));
        }
        if !self.store.reserve(ip, self.owner)? {
            let (file, holder) = (self.store.store().file(ip), self.store.holder(ip));
            return Err(Refusal::Taken {
                ip,
                ranges: self.set.to_string(),
                file,
                holder,
            });
        }
        let cursor = self.store.cursor(self.at);
        self.store.move_cursor(&cursor, ip)?;
        Ok(ip)
    }

    /// The next free address; one of the `former` ones if there is any.
    fn next(
        &mut self,
        held: &[(PathBuf, IpAddr)],
        former: &[(PathBuf, IpAddr)],
    ) -> Result<IpAddr, Refusal> {
        let in_set = |(_, ip): &&(PathBuf, IpAddr)| self.set.range_of(*ip).is_some();
        if let Some((file, ip)) = held.iter().find(in_set) {
            return Err(Refusal::Duplicate {
                ip: *ip,
                id: self.owner.id.clone(),
                file: self.store.store().folder().join(file),
            });
        }
        let former = former.iter().find(in_set).map(|(_, ip)| *ip);
        let cursor = self.store.cursor(self.at);
        if let Some(problem) = &cursor.problem {
            (self.note)(&format!(
                "Error retrieving last reserved ip: {}",
                os_text(problem)
            ));
        }
        let round = Round::after(cursor.last(), self.set);
        let ip = match former {
            Some(ip) if self.store.reserve(ip, self.owner)? => ip,
            Some(_) | None => match self.first_free(&round)? {
                Some(ip) => ip,
                None => self.after_release_of_lost(&round)?,
            },
        };
        self.store.move_cursor(&cursor, ip)?;
        Ok(ip)
    }

    fn first_free(&mut self, round: &Round<'_>) -> Result<Option<IpAddr>, StoreError> {
        let mut is_first = true;
        for ip in (0..round.len().min(LOOKS)).filter_map(|step| round.at(step)) {
            // Mostly the first one is free, and not worth a look of its own.
            if (is_first || !self.store.is_taken(ip)) && self.store.reserve(ip, self.owner)? {
                return Ok(Some(ip));
            }
            is_first = false;
        }
        let mut step = LOOKS;
        while step < round.len() {
            let mut stretch = Stretch::of(round, step);
            self.store.each_taken(|ip| stretch.take(ip))?;
            while let Some(ip) = stretch.first_free() {
                if self.store.reserve(ip, self.owner)? {
                    return Ok(Some(ip));
                }
                stretch.take(ip);
            }
            step = step.saturating_add(Stretch::STEPS);
        }
        Ok(None)
    }

    /// Nothing is free: then, and only then, leases that nobody can still use are freed.
    fn after_release_of_lost(&mut self, round: &Round<'_>) -> Result<IpAddr, Refusal> {
        if self.store.release_lost(self.set)?
            && let Some(ip) = self.first_free(round)?
        {
            return Ok(ip);
        }
        let mut leases = 0;
        self.store
            .each_taken(|ip| leases += usize::from(self.set.range_of(ip).is_some()))?;
        let dir = self.store.store().folder().to_owned();
        Err(Refusal::Exhausted {
            ranges: self.set.to_string(),
            dir,
            leases,
        })
    }
}
