//! `floor`: the least that any program can do to bring about what a bridge ADD, or a DEL, must bring about.
//!
//! Raw rtnetlink, one message a fact, each awaited, nothing read back; no configuration, no lease. What this costs is
//! the kernel's own part and the start of a process, so no plugin can be faster. (The same in C starts 0.1 ms sooner.)
//!
//! ```text
//! floor add NETNS BRIDGE HOSTVETH   veth into the bridge, its peer eth0 into NETNS, up, an address, two routes
//! floor del NETNS                   deletes eth0 in NETNS, and its peer with it
//! floor start                       nothing: the start and the end of a process
//! ```

use std::env;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

// include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, veth.h
const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 0x001 | 0x004;
const CREATE_EXCLUSIVELY: u16 = 0x400 | 0x200;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_NET_NS_FD: u16 = 28;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

const MTU: u32 = 1450;
const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 9), 16);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const TEN: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["add", netns, bridge, host] => add(netns, bridge, host),
        ["del", netns] => del(netns),
        ["start"] => Ok(()),
        _ => Err(io::Error::other(
            "usage: floor add NETNS BRIDGE HOSTVETH | floor del NETNS | floor start",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn add(netns: &str, bridge: &str, host: &str) -> io::Result<()> {
    let netns = File::open(netns)?;
    let master = if_nametoindex(bridge)?;
    let mut route = RouteSocket::open()?;
    // The host end may be born up, the peer may not.
    let mut message = Message::new(RTM_NEWLINK, CREATE_EXCLUSIVELY, &link(0, IFF_UP));
    message.text(IFLA_IFNAME, host);
    message.attribute(IFLA_MASTER, &master.to_ne_bytes());
    message.attribute(IFLA_MTU, &MTU.to_ne_bytes());
    message.nest(IFLA_LINKINFO, &[], |message| {
        message.attribute(IFLA_INFO_KIND, b"veth");
        message.nest(IFLA_INFO_DATA, &[], |message| {
            message.nest(VETH_INFO_PEER, &link(0, 0), |message| {
                message.text(IFLA_IFNAME, "eth0");
                message.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                message.attribute(IFLA_MTU, &MTU.to_ne_bytes());
            });
        });
    });
    route.transact(message)?;

    setns(&netns, CloneFlags::CLONE_NEWNET)?;
    let mut route = RouteSocket::open()?;
    let eth0 = if_nametoindex("eth0")?;
    route.transact(Message::new(RTM_NEWLINK, 0, &link(eth0, IFF_UP)))?;

    let (ip, length) = ADDRESS;
    let [a, b, c, d] = eth0.to_ne_bytes();
    let mut message = Message::new(
        RTM_NEWADDR,
        CREATE_EXCLUSIVELY,
        &[AF_INET, length, 0, 0, a, b, c, d],
    );
    message.attribute(IFA_LOCAL, &ip.octets());
    message.attribute(IFA_ADDRESS, &ip.octets());
    route.transact(message)?;

    for destination in [None, Some(TEN)] {
        let length = destination.map_or(0, |(_, length)| length);
        let body = [
            AF_INET,
            length,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut message = Message::new(RTM_NEWROUTE, CREATE_EXCLUSIVELY, &body);
        if let Some((network, _)) = destination {
            message.attribute(RTA_DST, &network.octets());
        }
        message.attribute(RTA_GATEWAY, &GATEWAY.octets());
        route.transact(message)?;
    }
    Ok(())
}

fn del(netns: &str) -> io::Result<()> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let mut route = RouteSocket::open()?;
    let eth0 = if_nametoindex("eth0")?;
    route.transact(Message::new(RTM_DELLINK, 0, &link(eth0, 0)))
}

/// `struct ifinfomsg` that sets `flags`.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// A request under construction; its lengths are filled in as they become known.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST_AND_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Message(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, value, |_| ());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Text with the zero byte that ends it.
    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// An attribute that holds `value` and then the attributes that `fill` adds.
    fn nest(&mut self, kind: u16, value: &[u8], fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A socket of the namespace that the process was in when it was opened.
struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteSocket {
    fn open() -> io::Result<RouteSocket> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        Ok(RouteSocket {
            socket,
            sequence: 0,
        })
    }

    /// Sends the request and awaits its acknowledgement.
    fn transact(&mut self, Message(mut bytes): Message) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut reply = [0; 1024];
        let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        match reply[..length] {
            [
                _,
                _,
                _,
                _,
                a,
                b,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                _,
                c,
                d,
                e,
                f,
                ..,
            ] if u16::from_ne_bytes([a, b]) == NLMSG_ERROR => {
                match i32::from_ne_bytes([c, d, e, f]) {
                    0 => Ok(()),
                    error => Err(Errno::from_raw(-error).into()),
                }
            }
            _ => Err(io::Error::other(
                "the kernel answers with something else than an acknowledgement",
            )),
        }
    }
}
