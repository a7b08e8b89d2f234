//! Addresses and prefixes with Go's text forms.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// Text that is no address or prefix. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `address/length`.
    #[error("invalid CIDR address: {0}")]
    Cidr(String),
    /// Not an address, where a range's key holds it.
    #[error("invalid IP address: {0}")]
    Ip(String),
    /// Not an address, where one is asked for (`ips`, `IP=`).
    #[error("invalid IP address {0}")]
    RequestedIp(String),
}

/// An address; IPv4 in IPv6 notation (`::ffff:10.0.0.1`) is IPv4.
pub fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => Err(AddressError::Ip(text.to_owned())),
    }
}

/// `address/length`, host bits kept.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, AddressError> {
    let invalid = || AddressError::Cidr(text.to_owned());
    let (ip, prefix) = text.split_once('/').ok_or_else(invalid)?;
    if prefix.is_empty() || !prefix.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid());
    }
    let (ip, prefix) = (
        ip.parse().map_err(|_| invalid())?,
        prefix.parse().map_err(|_| invalid())?,
    );
    IpNetwork::new(ip, prefix).map_err(|_| invalid())
}

/// `address` or `address/length`; only the address is given back, since the length of a range counts.
pub fn parse_ip_or_cidr(text: &str) -> Result<IpAddr, AddressError> {
    let parsed = if text.contains('/') {
        parse_cidr(text).map(|cidr| cidr.ip())
    } else {
        parse_ip(text)
    };
    match parsed {
        Ok(ip) => Ok(ip.to_canonical()),
        Err(AddressError::Cidr(text)) => Err(AddressError::Cidr(text)),
        Err(AddressError::Ip(text) | AddressError::RequestedIp(text)) => {
            Err(AddressError::RequestedIp(text))
        }
    }
}

/// `address/length` as Go prints it: an IPv4-mapped prefix of 96 bits or more in dotted form.
pub fn cidr_text(cidr: &IpNetwork) -> String {
    canonical(*cidr).to_string()
}

/// The same prefix with IPv4 in IPv6 notation turned into IPv4.
pub fn canonical(cidr: IpNetwork) -> IpNetwork {
    let IpNetwork::V6(v6) = cidr else { return cidr };
    match (v6.ip().to_ipv4_mapped(), v6.prefix().checked_sub(96)) {
        (Some(ip), Some(prefix)) => Ipv4Network::new(ip, prefix).map_or(cidr, IpNetwork::V4),
        (Some(_) | None, Some(_) | None) => cidr,
    }
}

/// The prefix with its host bits cleared.
pub fn masked(cidr: IpNetwork) -> IpNetwork {
    match cidr {
        IpNetwork::V4(v4) => {
            Ipv4Network::new(v4.network(), v4.prefix()).map_or(cidr, IpNetwork::V4)
        }
        IpNetwork::V6(v6) => {
            Ipv6Network::new(v6.network(), v6.prefix()).map_or(cidr, IpNetwork::V6)
        }
    }
}

/// The next address of the same family; `None` after the last one.
pub fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => u32::from(v4)
            .checked_add(1)
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(v6) => u128::from(v6)
            .checked_add(1)
            .map(|bits| std::net::Ipv6Addr::from(bits).into()),
    }
}

/// The default destination of a family: `0.0.0.0/0` or `::/0`.
pub fn default_route(of: IpAddr) -> IpNetwork {
    match of {
        IpAddr::V4(_) => IpNetwork::V4(Ipv4Network::from(Ipv4Addr::UNSPECIFIED).with_prefix_zero()),
        IpAddr::V6(_) => {
            IpNetwork::V6(Ipv6Network::from(std::net::Ipv6Addr::UNSPECIFIED).with_prefix_zero())
        }
    }
}

/// A prefix of length zero always exists; this says so once.
trait WithPrefixZero {
    fn with_prefix_zero(self) -> Self;
}

impl WithPrefixZero for Ipv4Network {
    fn with_prefix_zero(self) -> Self {
        Ipv4Network::new(self.ip(), 0).unwrap_or(self)
    }
}

impl WithPrefixZero for Ipv6Network {
    fn with_prefix_zero(self) -> Self {
        Ipv6Network::new(self.ip(), 0).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // L01
    #[test]
    fn l01_the_next_address_carries() {
        let next_of = |text: &str| next(text.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(next_of("192.168.0.255").as_deref(), Some("192.168.1.0"));
        assert_eq!(
            next_of("ab12:1:1:1::ffff:ffff").as_deref(),
            Some("ab12:1:1:1:0:1::")
        );
        assert_eq!(next_of("::1").as_deref(), Some("::2"));
        assert_eq!(next_of("255.255.255.255"), None);
        assert_eq!(next_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), None);
    }

    // L03
    #[test]
    fn l03_masking_keeps_the_family() {
        assert_eq!(
            masked(parse_cidr("10.1.2.3/16").unwrap()).to_string(),
            "10.1.0.0/16"
        );
        assert_eq!(
            masked(parse_cidr("fd00:1::5/48").unwrap()).to_string(),
            "fd00:1::/48"
        );
    }

    // L04
    #[test]
    fn l04_addresses_with_an_optional_length() {
        assert_eq!(
            parse_ip_or_cidr("10.1.2.3/24").unwrap().to_string(),
            "10.1.2.3"
        );
        assert_eq!(
            parse_ip_or_cidr("::ffff:10.1.2.3").unwrap().to_string(),
            "10.1.2.3"
        );
        assert_eq!(
            parse_ip_or_cidr("foo").unwrap_err().to_string(),
            "invalid IP address foo"
        );
        assert_eq!(
            parse_ip_or_cidr("10.1.2.3/33").unwrap_err().to_string(),
            "invalid CIDR address: 10.1.2.3/33"
        );
        assert_eq!(
            parse_ip("010.1.2.3").unwrap_err().to_string(),
            "invalid IP address: 010.1.2.3"
        );
        assert!(parse_ip("fe80::1%eth0").is_err());
    }

    #[test]
    fn a_prefix_needs_its_length() {
        for bad in [
            "10.1.2.0",
            "10.1.2.0/",
            "10.1.2.0/+8",
            "10.1.2.0/33",
            "",
            "/8",
            "10.1.2.0/8/8",
            "::/129",
            "1.2.3.4/255.0.0.0",
        ] {
            assert_eq!(
                parse_cidr(bad).unwrap_err().to_string(),
                format!("invalid CIDR address: {bad}")
            );
        }
    }

    #[test]
    fn text_forms_are_those_of_go() {
        assert_eq!(
            cidr_text(&parse_cidr("::ffff:10.0.0.0/120").unwrap()),
            "10.0.0.0/24"
        );
        assert_eq!(
            cidr_text(&parse_cidr("::1.2.3.4/128").unwrap()),
            "::102:304/128"
        );
        assert_eq!(
            cidr_text(&parse_cidr("2001:DB8:0:0:1:0:0:1/64").unwrap()),
            "2001:db8::1:0:0:1/64"
        );
    }
}
