//! Links, addresses and routes as plain values, read from netlink's messages.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are open; what nobody asks for is passed over"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use crate::mac::mac_text;

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
}

impl Link {
    pub(crate) fn of(message: LinkMessage) -> Link {
        let mut link = Link {
            name: String::new(),
            index: message.header.index,
            mac: Vec::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            operstate: OperState("unknown"),
            kind: String::new(),
            promiscuity: 0,
            master: None,
            peer: None,
            bridge: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.operstate = operstate(state),
                LinkAttribute::Promiscuity(count) => link.promiscuity = count,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.peer = (index > 0).then_some(index),
                LinkAttribute::LinkInfo(infos) => link.read_infos(infos),
                _ => {}
            }
        }
        link
    }

    fn read_infos(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind_text(&kind),
                LinkInfo::Data(InfoData::Bridge(parameters)) => {
                    let mut bridge = Bridge::default();
                    for parameter in parameters {
                        match parameter {
                            InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = on,
                            InfoBridge::VlanDefaultPvid(vid) => bridge.default_pvid = vid,
                            _ => {}
                        }
                    }
                    self.bridge = Some(bridge);
                }
                _ => {}
            }
        }
    }

    /// The hardware address in lower-case hex with colons; empty if there is none.
    pub fn mac_text(&self) -> String {
        mac_text(&self.mac)
    }
}

fn kind_text(kind: &InfoKind) -> String {
    kind.to_string()
}

fn operstate(state: State) -> OperState {
    OperState(match state {
        State::NotPresent => "not-present",
        State::Down => "down",
        State::LowerLayerDown => "lower-layer-down",
        State::Testing => "testing",
        State::Dormant => "dormant",
        State::Up => "up",
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
