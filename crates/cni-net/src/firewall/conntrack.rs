//! The kernel's memory of connections: forgetting those whose packets would go on taking a way that is no more.
//!
//! A first packet decides, by the rules of that moment, where all later ones of its connection go. For UDP, which has
//! no end, that lasts as long as packets come.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::iptables::Family;
use super::nfnetlink::{Connection, Message, is_absence, number};
use super::port_rule::address;
use crate::attributes::{Attributes, NLA_F_NESTED, push_attribute};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const IPPROTO_UDP: u8 = 17;

/// A UDP connection that the kernel remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where its first packet came from.
    pub from: SocketAddr,
    /// Where that was addressed to.
    pub to: SocketAddr,
    /// Where answers come from, so where the packet was redirected to, if it was.
    pub answered_by: SocketAddr,
}

/// Has the kernel of this network namespace forget the UDP connections to one of `ports` that are `concerned`; how many
/// those were. One that ends meanwhile is no error, nor is a kernel without such a memory.
pub fn forget_udp(
    family: Family,
    ports: &[u16],
    mut concerned: impl FnMut(&Flow) -> bool,
) -> io::Result<usize> {
    if ports.is_empty() {
        return Ok(0);
    }
    let Some(connection) = Connection::open()? else {
        return Ok(0);
    };
    let mut forgotten = 0;
    for found in connection.dump(&question(family, ports))? {
        let Some(flow) = Flow::of(&found) else {
            continue;
        };
        if !ports.contains(&flow.to.port()) || !concerned(&flow) {
            continue;
        }
        match connection.command(&deletion(family, &found)) {
            Ok(()) => forgotten += 1,
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// Asks for UDP only, and if it is about one port for that only. Kernels before 5.8 pass over that and give all.
fn question(family: Family, ports: &[u16]) -> Message {
    const CTA_FILTER_ORIG_FLAGS: u16 = 1;
    const BY_PROTOCOL: u32 = 1 << 3;
    const BY_DESTINATION_PORT: u32 = 1 << 5;
    let mut protocol = Vec::new();
    push_attribute(&mut protocol, CTA_PROTO_NUM, &[IPPROTO_UDP]);
    let mut by = BY_PROTOCOL;
    if let [port] = ports {
        push_attribute(&mut protocol, CTA_PROTO_DST_PORT, &port.to_be_bytes());
        by |= BY_DESTINATION_PORT;
    }
    let mut tuple = Vec::new();
    push_attribute(&mut tuple, CTA_TUPLE_PROTO | NLA_F_NESTED, &protocol);
    let mut filter = Vec::new();
    push_attribute(&mut filter, CTA_FILTER_ORIG_FLAGS, &by.to_ne_bytes());
    Message::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, number_of(family))
        .with(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple)
        .with(CTA_FILTER | NLA_F_NESTED, &filter)
}

/// Names one entry exactly: an empty tuple would mean all there are.
fn deletion(family: Family, found: &[u8]) -> Message {
    let mut message = Message::new(
        NFNL_SUBSYS_CTNETLINK,
        IPCTNL_MSG_CT_DELETE,
        number_of(family),
    );
    for (kind, nested) in [(CTA_TUPLE_ORIG, NLA_F_NESTED), (CTA_ZONE, 0), (CTA_ID, 0)] {
        if let Some(value) = Attributes::find(found, kind) {
            message = message.with(kind | nested, value);
        }
    }
    message
}

/// As netlink numbers it.
fn number_of(family: Family) -> u8 {
    super::ruleset::Family::from(family) as u8
}

impl Flow {
    /// From a message; `None` if it is not about UDP.
    fn of(message: &[u8]) -> Option<Flow> {
        let original = Attributes::find(message, CTA_TUPLE_ORIG)?;
        let reply = Attributes::find(message, CTA_TUPLE_REPLY)?;
        let protocol = Attributes::find_in(original, &[CTA_TUPLE_PROTO, CTA_PROTO_NUM])?;
        if protocol != [IPPROTO_UDP] {
            return None;
        }
        Some(Flow {
            from: end(original, Side::Source)?,
            to: end(original, Side::Destination)?,
            answered_by: end(reply, Side::Source)?,
        })
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// One end of a tuple.
fn end(tuple: &[u8], side: Side) -> Option<SocketAddr> {
    /// The address's kinds for IPv4 and IPv6.
    const CTA_IP_SRC: [u16; 2] = [1, 3];
    const CTA_IP_DST: [u16; 2] = [2, 4];
    let (kinds, port) = match side {
        Side::Source => (CTA_IP_SRC, CTA_PROTO_SRC_PORT),
        Side::Destination => (CTA_IP_DST, CTA_PROTO_DST_PORT),
    };
    let ip: IpAddr = kinds
        .iter()
        .find_map(|&kind| Attributes::find_in(tuple, &[CTA_TUPLE_IP, kind]))
        .and_then(address)?;
    let port = Attributes::find_in(tuple, &[CTA_TUPLE_PROTO, port]).and_then(number)?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests;
