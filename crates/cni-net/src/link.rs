//! Links, addresses and routes as plain values, read from netlink's messages.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are open; what nobody asks for is passed over"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use crate::attributes::{Attributes, text};
use crate::mac::mac_text;

// include/uapi/linux/if.h, if_link.h, ipv6.h; the last is a position in a list of numbers, as bytes.
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
const AF_INET6: u16 = 10;
const IFLA_INET6_CONF: u16 = 2;
const DEVCONF_ACCEPT_RA: std::ops::Range<usize> = 12..16;

/// A link's operational state (RFC 2863), in the reference's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperState(pub &'static str);

impl OperState {
    /// Ready to pass packets.
    pub const UP: OperState = OperState("up");
}

/// What a bridge says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// Does it look at VLAN tags?
    pub vlan_filtering: bool,
    /// The VLAN that a new port gets; 0 for none.
    pub default_pvid: u16,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index in its namespace.
    pub index: u32,
    /// Its hardware address; empty if it has none.
    pub mac: Vec<u8>,
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    /// Is it set up (`IFF_UP`)?
    pub up: bool,
    /// Does it work?
    pub operstate: OperState,
    /// `bridge`, `veth`, …; empty for hardware and loopback.
    pub kind: String,
    /// How many times promiscuous mode was asked for.
    pub promiscuity: u32,
    /// The index of the link it is a port of.
    pub master: Option<u32>,
    /// For a veth, its peer's index in the peer's namespace (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// For a bridge, its own parameters.
    pub bridge: Option<Bridge>,
    /// Its parameter `accept_ra`: 0 takes no router's advice; `None` if it has no IPv6.
    pub accept_ra: Option<u32>,
}

impl Link {
    /// Reads `struct ifinfomsg` and the attributes behind it; `None` if it is too short to be one.
    ///
    /// A link has some fifty attributes, so those that nobody here wants are not even looked into.
    pub(crate) fn parse(body: &[u8]) -> Option<Link> {
        let (header, attributes) = body.split_first_chunk::<16>()?;
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = *header;
        let mut link = Link {
            name: String::new(),
            index: u32::from_ne_bytes([a, b, c, d]),
            mac: Vec::new(),
            mtu: 0,
            up: u32::from_ne_bytes([e, f, g, h]) & IFF_UP != 0,
            operstate: OperState("unknown"),
            kind: String::new(),
            promiscuity: 0,
            master: None,
            peer: None,
            bridge: None,
            accept_ra: None,
        };
        for (attribute, value) in Attributes(attributes) {
            match attribute {
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => link.mac = value.to_vec(),
                IFLA_MTU => link.mtu = number(value)?,
                IFLA_OPERSTATE => link.operstate = operstate(*value.first()?),
                IFLA_PROMISCUITY => link.promiscuity = number(value)?,
                IFLA_MASTER => link.master = Some(number(value)?),
                IFLA_LINK => link.peer = number(value).filter(|&index| index > 0),
                IFLA_LINKINFO => link.read_info(value),
                IFLA_AF_SPEC => {
                    link.accept_ra = Attributes::find_in(value, &[AF_INET6, IFLA_INET6_CONF])
                        .and_then(|parameters| number(parameters.get(DEVCONF_ACCEPT_RA)?));
                }
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        self.kind = Attributes::find(info, IFLA_INFO_KIND)
            .map(text)
            .unwrap_or_default();
        if self.kind != "bridge" {
            return;
        }
        let mut bridge = Bridge::default();
        let data = Attributes::find(info, IFLA_INFO_DATA).unwrap_or_default();
        for (parameter, value) in Attributes(data) {
            match (parameter, value) {
                (IFLA_BR_VLAN_FILTERING, [on]) => bridge.vlan_filtering = *on != 0,
                (IFLA_BR_VLAN_DEFAULT_PVID, &[a, b]) => {
                    bridge.default_pvid = u16::from_ne_bytes([a, b]);
                }
                _ => {}
            }
        }
        self.bridge = Some(bridge);
    }

    /// The hardware address in lower-case hex with colons; empty if there is none.
    pub fn mac_text(&self) -> String {
        mac_text(&self.mac)
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// include/uapi/linux/if.h
fn operstate(state: u8) -> OperState {
    OperState(match state {
        1 => "not-present",
        2 => "down",
        3 => "lower-layer-down",
        4 => "testing",
        5 => "dormant",
        6 => "up",
        _ => "unknown",
    })
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// With its prefix length, host bits kept.
    pub address: IpNetwork,
    /// IPv6 duplicate address detection is not finished.
    pub tentative: bool,
    /// IPv6 duplicate address detection found a duplicate.
    pub dad_failed: bool,
}

impl Address {
    pub(crate) fn of(message: &AddressMessage) -> Option<Address> {
        let (mut local, mut other, mut flags) = (None, None, AddressFlags::empty());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => other = Some(*ip),
                AddressAttribute::Flags(it) => flags = *it,
                _ => {}
            }
        }
        Some(Address {
            address: IpNetwork::new(local.or(other)?, message.header.prefix_len).ok()?,
            tentative: flags.contains(AddressFlags::Tentative),
            dad_failed: flags.contains(AddressFlags::Dadfailed),
        })
    }
}

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledRoute {
    /// Length 0 for the default route.
    pub dst: IpNetwork,
    /// The next hops; empty for a route to the link itself.
    pub gateways: Vec<IpAddr>,
    /// The link's index; `None` if there are several next hops.
    pub oif: Option<u32>,
}

impl InstalledRoute {
    pub(crate) fn of(message: RouteMessage) -> Option<InstalledRoute> {
        if message.header.table != RouteHeader::RT_TABLE_MAIN
            || message.header.kind != RouteType::Unicast
        {
            return None;
        }
        let any = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut dst, mut gateways, mut oif) = (any, Vec::new(), None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => dst = ip_of(&address)?,
                RouteAttribute::Gateway(address) => gateways.extend(ip_of(&address)),
                RouteAttribute::Oif(index) => oif = Some(index),
                RouteAttribute::MultiPath(hops) => {
                    for attribute in hops.into_iter().flat_map(|hop| hop.attributes) {
                        if let RouteAttribute::Gateway(address) = attribute {
                            gateways.extend(ip_of(&address));
                        }
                    }
                }
                _ => {}
            }
        }
        Some(InstalledRoute {
            dst: IpNetwork::new(dst, message.header.destination_prefix_length).ok()?,
            gateways,
            oif,
        })
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
