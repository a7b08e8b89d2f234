//! What each step is as a message to the kernel.

use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData,
    InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;

use crate::KernelError;
use crate::attributes::{NLA_F_NESTED, push_attribute};
use crate::connection::{Kind, Request};
use crate::net::Net;
use crate::step::{At, BridgePort, Step, Veth, WantedRoute};

impl Net {
    /// The index of a link that a step names.
    pub(crate) fn index(&self, at: At, link: &str) -> Result<u32, KernelError> {
        let key = (at, link.to_owned());
        if let Some(index) = self.indexes.borrow().get(&key) {
            return Ok(*index);
        }
        if let Some(link) = self.links.borrow().get(&key) {
            return Ok(link.index);
        }
        let found = self.link(at, link)?;
        found
            .map(|link| link.index)
            .ok_or_else(|| KernelError::from_errno(Errno::ENODEV))
    }

    /// The step's request. A link's index can be asked for while others are put off, since only steps that are done by
    /// themselves make or remove links.
    pub(crate) fn request(&self, step: &Step) -> Result<Request, KernelError> {
        let at = step.at();
        Ok(match step {
            Step::AddBridge {
                name,
                mtu,
                mac,
                vlan_filtering,
            } => {
                let message = bridge(name, *mtu, mac.as_deref(), *vlan_filtering);
                Request::command(Kind::NewLink, &message, NLM_F_CREATE | NLM_F_EXCL)
            }
            Step::AddVeth(wanted) => {
                let master = self.index(At::Host, &wanted.master)?;
                let netns = match wanted.peer_at {
                    At::Container => Some(self.netns()?.as_raw_fd()),
                    At::Host => None,
                };
                Request::command(
                    Kind::NewLink,
                    &veth(wanted, master, netns),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Step::SetUp { link, .. } => {
                let mut message = named(link);
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                Request::command(Kind::SetLink, &message, 0)
            }
            Step::SetDown { link, .. } => {
                let mut message = named(link);
                message.header.change_mask = LinkFlags::Up;
                Request::command(Kind::SetLink, &message, 0)
            }
            Step::SetPromiscuous { link } => {
                let mut message = named(link);
                message.header.flags = LinkFlags::Promisc;
                message.header.change_mask = LinkFlags::Promisc;
                Request::command(Kind::SetLink, &message, 0)
            }
            Step::SetMac { link, mac } => {
                let mut message = named(link);
                message.attributes.push(LinkAttribute::Address(mac.clone()));
                Request::command(Kind::SetLink, &message, 0)
            }
            Step::SetBridgePort { link, port } => {
                Request::command(Kind::NewLink, &bridge_port(link, *port), 0)
            }
            Step::AddVlan { link, vlan } => {
                let flags = if vlan.native {
                    BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged
                } else {
                    BridgeVlanInfoFlags::empty()
                };
                let message = port_vlan(self.index(at, link)?, vlan.vid, flags);
                Request::command(Kind::SetLink, &message, 0)
            }
            Step::DelVlan { link, vid } => {
                let message = port_vlan(self.index(at, link)?, *vid, BridgeVlanInfoFlags::empty());
                Request::command(Kind::DelLink, &message, 0)
            }
            Step::AddAddress {
                link,
                address: wanted,
                nodad,
                ..
            } => {
                let message = address(self.index(at, link)?, *wanted, *nodad);
                Request::command(Kind::NewAddress, &message, NLM_F_CREATE | NLM_F_EXCL)
            }
            Step::DelAddress {
                link,
                address: unwanted,
            } => Request::command(
                Kind::DelAddress,
                &address(self.index(at, link)?, *unwanted, false),
                0,
            ),
            Step::AddRoute {
                link,
                route: wanted,
            } => Request::command(
                Kind::NewRoute,
                &route(self.index(at, link)?, wanted),
                NLM_F_CREATE,
            ),
            Step::SetArpNotify { link } => Request::command(Kind::SetLink, &arp_notify(link), 0),
            Step::DelLink { link, .. } => Request::command(Kind::DelLink, &named(link), 0),
            Step::Sysctl { .. } | Step::AwaitUp { .. } | Step::AwaitAddresses { .. } => {
                return Err(KernelError::from_errno(Errno::EOPNOTSUPP));
            }
        })
    }
}

/// A link message about the link of this name.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn bridge(name: &str, mtu: Option<u32>, mac: Option<&[u8]>, vlan_filtering: bool) -> LinkMessage {
    let mut message = named(name);
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
    if vlan_filtering {
        info.push(LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::VlanFiltering(true),
        ])));
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// The host end is the message's link, so that it can be born up and in the bridge; the peer cannot be born up
/// (drivers/net/veth.c).
fn veth(veth: &Veth, master: u32, netns: Option<i32>) -> LinkMessage {
    let mut peer = named(&veth.peer);
    peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    peer.attributes
        .extend(veth.mac.clone().map(LinkAttribute::Address));
    peer.attributes.extend(netns.map(LinkAttribute::NetNsFd));
    let mut message = named(&veth.host);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::TxQueueLen(0));
    message.attributes.push(LinkAttribute::Controller(master));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

fn bridge_port(link: &str, port: BridgePort) -> LinkMessage {
    let mut message = named(link);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::HairpinMode(port.hairpin),
            InfoBridgePort::Isolated(port.isolated),
        ])),
    ]));
    message
}

/// The parameter `arp_notify` among the link's own: the kernel takes a number for each that is to be set
/// (net/ipv4/devinet.c, `inet_set_link_af`), and a message costs less than a file.
fn arp_notify(link: &str) -> LinkMessage {
    // include/uapi/linux/if_link.h and ip.h
    const IFLA_AF_SPEC: u16 = 26;
    const AF_INET: u16 = 2;
    const IFLA_INET_CONF: u16 = 1;
    const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
    let nested = |kind: u16, value: &[u8]| {
        let mut attribute = Vec::new();
        push_attribute(&mut attribute, kind | NLA_F_NESTED, value);
        attribute
    };
    let mut parameters = Vec::new();
    push_attribute(
        &mut parameters,
        IPV4_DEVCONF_ARP_NOTIFY,
        &1_u32.to_ne_bytes(),
    );
    let family = nested(AF_INET, &nested(IFLA_INET_CONF, &parameters));
    let mut message = named(link);
    message
        .attributes
        .push(LinkAttribute::Other(DefaultNla::new(
            IFLA_AF_SPEC | NLA_F_NESTED,
            family,
        )));
    message
}

fn port_vlan(index: u32, vid: u16, flags: BridgeVlanInfoFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(
            BridgeVlanInfo { flags, vid },
        )]));
    message
}

fn address(index: u32, address: IpNetwork, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message
        .attributes
        .push(AddressAttribute::Local(address.ip()));
    message
        .attributes
        .push(AddressAttribute::Address(address.ip()));
    match address {
        IpNetwork::V4(v4) if v4.prefix() < 31 => message
            .attributes
            .push(AddressAttribute::Broadcast(v4.broadcast())),
        IpNetwork::V4(_) => {}
        IpNetwork::V6(_) if nodad => message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad)),
        IpNetwork::V6(_) => {}
    }
    message
}

fn route(index: u32, wanted: &WantedRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if wanted.dst.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.destination_prefix_length = wanted.dst.prefix();
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::from(wanted.scope);
    message.header.kind = RouteType::Unicast;
    message.header.table = match u8::try_from(wanted.table) {
        Ok(0) => RouteHeader::RT_TABLE_MAIN,
        Ok(table) => table,
        Err(_) => RouteHeader::RT_TABLE_UNSPEC,
    };
    if message.header.table == RouteHeader::RT_TABLE_UNSPEC {
        message.attributes.push(RouteAttribute::Table(wanted.table));
    }
    message
        .attributes
        .push(RouteAttribute::Destination(wanted.dst.network().into()));
    message
        .attributes
        .extend(wanted.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .extend((wanted.metric != 0).then_some(RouteAttribute::Priority(wanted.metric)));
    let mut metrics = Vec::new();
    metrics.extend((wanted.mtu != 0).then_some(RouteMetric::Mtu(wanted.mtu)));
    metrics.extend((wanted.advmss != 0).then_some(RouteMetric::Advmss(wanted.advmss)));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}
