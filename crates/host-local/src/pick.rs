//! Which address comes next: pure arithmetic on positions, however large the ranges are.

use std::net::IpAddr;

use crate::range::RangeSet;

/// The order in which the addresses of a range set are tried: from the one after the last reserved, through all ranges,
/// once around, the last reserved itself at the end. Gateways are left out.
///
/// A *step* is a place in that order, from 0.
pub(crate) struct Round<'a> {
    set: &'a RangeSet,
    /// The position in the set of step 0.
    first: u128,
    /// How many steps; gateways count.
    len: u128,
}

impl<'a> Round<'a> {
    /// `last` is the address that was reserved last; without one, or with one of elsewhere, the round starts at the
    /// first range's start.
    pub(crate) fn after(last: Option<IpAddr>, set: &'a RangeSet) -> Round<'a> {
        let len = set.len();
        let first = last
            .and_then(|ip| set.position(ip))
            .map_or(0, |position| (position + 1) % len);
        Round { set, first, len }
    }

    pub(crate) fn len(&self) -> u128 {
        self.len
    }

    /// The address at a step; `None` for a gateway, and past the end.
    pub(crate) fn at(&self, step: u128) -> Option<IpAddr> {
        if step >= self.len {
            return None;
        }
        let behind = self.len - self.first;
        let position = if step < behind {
            self.first + step
        } else {
            step - behind
        };
        let (range, ip) = self.set.at(position)?;
        (ip != range.gateway).then_some(ip)
    }

    /// The step of an address; `None` if the set does not have it.
    fn step(&self, ip: IpAddr) -> Option<u128> {
        let position = self.set.position(ip)?;
        Some(if position >= self.first {
            position - self.first
        } else {
            self.len - self.first + position
        })
    }
}

/// Which addresses are taken, for a stretch of a round: a bit an address, so at most 128 KiB.
pub(crate) struct Stretch<'a> {
    round: &'a Round<'a>,
    first: u128,
    taken: Vec<u64>,
}

impl<'a> Stretch<'a> {
    /// How many steps a stretch has: more than a node has leases, so that one is enough.
    pub(crate) const STEPS: u128 = 1 << 20;

    /// The stretch that begins at a step, nothing taken yet.
    pub(crate) fn of(round: &'a Round<'a>, first: u128) -> Stretch<'a> {
        Stretch {
            round,
            first,
            taken: Vec::new(),
        }
    }

    /// Notes a taken address; those of other stretches and other sets are passed over.
    pub(crate) fn take(&mut self, ip: IpAddr) {
        let Some(step) = self
            .round
            .step(ip)
            .and_then(|step| step.checked_sub(self.first))
        else {
            return;
        };
        if step >= Stretch::STEPS {
            return;
        }
        let (word, bit) = ((step / 64) as usize, step % 64);
        if word >= self.taken.len() {
            self.taken.resize(word + 1, 0);
        }
        self.taken[word] |= 1 << bit;
    }

    /// The first free address of the stretch.
    pub(crate) fn first_free(&self) -> Option<IpAddr> {
        let end = (self.first.saturating_add(Stretch::STEPS)).min(self.round.len());
        let mut step = self.first;
        while step < end {
            let (word, bit) = (
                ((step - self.first) / 64) as usize,
                (step - self.first) % 64,
            );
            let taken = self.taken.get(word).copied().unwrap_or_default();
            if taken == u64::MAX {
                step += 64 - bit;
                continue;
            }
            if taken >> bit & 1 == 0
                && let Some(ip) = self.round.at(step)
            {
                return Some(ip);
            }
            step += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests;
