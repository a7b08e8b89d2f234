//! Ranges of addresses and sets of them: from the configuration's keys to checked windows, and their arithmetic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_spec::address;
use ipnetwork::IpNetwork;

/// A range as the configuration has it: only the subnet must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Wire: `subnet`.
    pub(crate) subnet: Option<IpNetwork>,
    /// Wire: `rangeStart`.
    pub(crate) start: Option<IpAddr>,
    /// Wire: `rangeEnd`.
    pub(crate) end: Option<IpAddr>,
    /// Wire: `gateway`.
    pub(crate) gateway: Option<IpAddr>,
}

/// A window of addresses in a subnet, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) subnet: IpNetwork,
    /// By default the address after the network's.
    pub(crate) start: IpAddr,
    /// By default the last address of an IPv6 subnet, the one before the broadcast address of an IPv4 subnet.
    pub(crate) end: IpAddr,
    /// Never leased; by default the address after the network's. It need not be in the window.
    pub(crate) gateway: IpAddr,
}

/// Disjoint ranges of one family, from which one address is leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

/// Ranges that make no sense. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeError {
    #[error("empty range set")]
    Empty,
    #[error("IP <nil> not v4 nor v6")]
    NoSubnet,
    #[error("Network {0} too small to allocate from")]
    TooSmall(String),
    #[error("IPNet IP and Mask version mismatch")]
    MappedSubnet,
    #[error(
        "Network has host bits set. For a subnet mask of length {prefix} the network address is {network}"
    )]
    HostBits { prefix: u8, network: IpAddr },
    #[error("RangeStart {0} not in network {1}")]
    Start(IpAddr, IpNetwork),
    #[error("RangeEnd {0} not in network {1}")]
    End(IpAddr, IpNetwork),
    #[error("mixed address families")]
    MixedFamilies,
    #[error("subnets {0} and {1} overlap")]
    Overlap(String, String),
}

impl Wanted {
    /// The range with its defaults filled in and its sense checked.
    pub(crate) fn check(&self) -> Result<Range, RangeError> {
        let subnet = self.subnet.ok_or(RangeError::NoSubnet)?;
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(RangeError::TooSmall(address::cidr_text(&subnet)));
        }
        if subnet.is_ipv6() && subnet.ip().to_canonical().is_ipv4() {
            return Err(RangeError::MappedSubnet);
        }
        if subnet.ip() != subnet.network() {
            return Err(RangeError::HostBits {
                prefix: subnet.prefix(),
                network: subnet.network(),
            });
        }
        let first = address::next(subnet.ip()).unwrap_or(subnet.ip());
        let in_subnet = |ip: IpAddr| ip.is_ipv4() == subnet.is_ipv4() && subnet.contains(ip);
        if let Some(start) = self.start
            && (!in_subnet(start) || self.end.is_some_and(|end| start > end))
        {
            return Err(RangeError::Start(start, subnet));
        }
        let start = self.start.unwrap_or(first);
        if let Some(end) = self.end
            && (!in_subnet(end) || end < start)
        {
            return Err(RangeError::End(end, subnet));
        }
        // A start at the broadcast address, given without an end, is a window of that one address.
        let end = self.end.unwrap_or(last(&subnet).max(start));
        Ok(Range {
            subnet,
            start,
            end,
            gateway: self.gateway.unwrap_or(first),
        })
    }
}

impl Range {
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.start.is_ipv4() && self.start <= ip && ip <= self.end
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4()
            && self.start <= other.end
            && other.start <= self.end
    }

    /// How many addresses, the gateway's included.
    fn len(&self) -> u128 {
        (number(self.end) - number(self.start)).saturating_add(1)
    }
}

impl RangeSet {
    /// The ranges of one element of `ranges`.
    pub(crate) fn check(wanted: &[Wanted]) -> Result<RangeSet, RangeError> {
        let mut ranges: Vec<Range> = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let range = wanted.check()?;
            if ranges
                .first()
                .is_some_and(|first| first.start.is_ipv4() != range.start.is_ipv4())
            {
                return Err(RangeError::MixedFamilies);
            }
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Err(RangeError::Empty);
        }
        for (at, one) in ranges.iter().enumerate() {
            if let Some(two) = ranges[at + 1..].iter().find(|two| one.overlaps(two)) {
                return Err(RangeError::Overlap(one.to_string(), two.to_string()));
            }
        }
        Ok(RangeSet(ranges))
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.start.is_ipv4())
    }

    /// The range whose window has the address.
    pub(crate) fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    pub(crate) fn overlaps(&self, other: &RangeSet) -> bool {
        self.0
            .iter()
            .any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }

    /// How many addresses, the gateways' included.
    pub(crate) fn len(&self) -> u128 {
        self.0
            .iter()
            .fold(0, |sum, range| range.len().saturating_add(sum))
    }

    /// The address at a position, from 0, counting through the ranges in their order; with its range.
    pub(crate) fn at(&self, position: u128) -> Option<(&Range, IpAddr)> {
        let mut left = position;
        for range in &self.0 {
            if left < range.len() {
                return Some((range, numbered(number(range.start) + left, range.start)));
            }
            left -= range.len();
        }
        None
    }

    /// The position of an address; `None` if no range has it.
    pub(crate) fn position(&self, ip: IpAddr) -> Option<u128> {
        let mut before = 0;
        for range in &self.0 {
            if range.contains(ip) {
                return Some(before + (number(ip) - number(range.start)));
            }
            before += range.len();
        }
        None
    }
}

/// `10.0.0.1-10.0.0.254`
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// The ranges, with commas between them.
impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The last address that is leased by default.
fn last(subnet: &IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(v4) => Ipv4Addr::from(u32::from(v4.broadcast()).saturating_sub(1)).into(),
        IpNetwork::V6(v6) => v6.broadcast().into(),
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address of that number, of the family of `like`.
fn numbered(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests;
