//! A connection to the kernel's routing subsystem, rtnetlink(7): requests out, answers back.
//!
//! The kernel has done a request when the call that sends it returns, and does those of one call in their order. So
//! several requests are sent at once, and nothing ever waits: an answer is there, or it was lost.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Instant;

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Parseable};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::KernelError;
use crate::link::Link;

/// Large enough for any answer (net/netlink/af_netlink.c: at most 32 KiB a piece of a dump). Of this only so much is
/// touched as is received.
const BUFFER: usize = 32 * 1024;

/// So many requests go out at once: few enough for the socket's buffers, which hold some 200 KiB, were all of them long
/// and all of them refused with a sentence.
pub(crate) const AT_ONCE: usize = 64;

/// What others change while it is read is read so many times; then it is taken as it is, as the reference does.
const DUMPS: usize = 5;

// include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// The list changed while it was dumped.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The kinds of messages that requests and answers are (include/uapi/linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NewLink = 16,
    DelLink = 17,
    GetLink = 18,
    SetLink = 19,
    NewAddress = 20,
    DelAddress = 21,
    GetAddress = 22,
    NewRoute = 24,
    GetRoute = 26,
}

/// Something asked of the kernel.
pub(crate) struct Request {
    kind: Kind,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// For what is there; it comes as the answer.
    pub(crate) fn get(kind: Kind, message: &impl Emitable) -> Request {
        Request::command(kind, message, 0)
    }

    /// To do something; `flags` say how (`NLM_F_CREATE`, …).
    ///
    /// The messages are those of netlink-packet-route, without its enum of all of them, which would bring in the code
    /// for queues, neighbours and statistics too: a seventh of the program, and pages to be mapped at its start.
    pub(crate) fn command(kind: Kind, message: &impl Emitable, flags: u16) -> Request {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Request { kind, flags, body }
    }

    fn is_get(&self) -> bool {
        matches!(self.kind, Kind::GetLink | Kind::GetAddress | Kind::GetRoute)
    }
}

/// Something that was asked for.
#[derive(Debug)]
pub(crate) enum Found {
    /// A link, read without the many attributes that nobody here wants.
    Link(Link),
    /// An address.
    Address(AddressMessage),
    /// A route.
    Route(RouteMessage),
}

/// What came of a request: the things asked for, none for a command, or the kernel's refusal.
pub(crate) type Answer = Result<Vec<Found>, KernelError>;

/// A connection to the network namespace that it was opened in, wherever its user goes.
pub(crate) struct Connection {
    socket: Socket,
    /// The number of the last request.
    sequence: Cell<u32>,
    /// What was received last.
    buffer: RefCell<Vec<u8>>,
}

impl Connection {
    /// A connection to the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Connection> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // So that what is asked of one link is answered of one link (linux 4.20), and refusals come with a sentence.
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Connection {
            socket,
            sequence: Cell::new(0),
            buffer: RefCell::new(Vec::with_capacity(BUFFER)),
        })
    }

    /// Has all of this done or answered, in order; an answer for each. One that is refused does not keep the others.
    /// There should be no more than [`AT_ONCE`].
    ///
    /// # Errors
    /// If the kernel cannot be talked to, or an answer was lost; what was done is not known then.
    pub(crate) fn exchange(&self, requests: &[Request]) -> Result<Vec<Answer>, KernelError> {
        let mut answers: Vec<Answer> = requests.iter().map(|_| Ok(Vec::new())).collect();
        let count = requests.len();
        if count == 0 {
            return Ok(answers);
        }
        let mut bytes = Vec::new();
        for (position, request) in requests.iter().enumerate() {
            let is_last = position + 1 == count;
            // Refusals are told of in any case; one answer at the end shows that all was looked at.
            let ack = if is_last && !request.is_get() {
                NLM_F_ACK
            } else {
                0
            };
            self.write(request, ack, &mut bytes);
        }
        let first = self.sequence.get().wrapping_sub(count as u32 - 1);
        self.socket.send(&bytes, 0)?;
        let mut is_open = true;
        while is_open {
            self.receive(|message| {
                let position = message.sequence.wrapping_sub(first) as usize;
                let Some(answer) = answers.get_mut(position) else {
                    return Ok(()); // of a request that nobody waited for to the end
                };
                is_open &= position + 1 < count;
                match (message.content(), answer) {
                    (Ok(found), Ok(answer)) => answer.extend(found),
                    (Err(error), answer) => *answer = Err(error),
                    (Ok(_), Err(_)) => {}
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    /// Has one thing done or answered.
    pub(crate) fn ask(&self, request: Request) -> Answer {
        match self.exchange(&[request])?.pop() {
            Some(answer) => answer,
            None => Ok(Vec::new()),
        }
    }

    /// All that there is of what is asked for.
    pub(crate) fn dump(&self, request: &Request) -> Answer {
        let mut found = Vec::new();
        for _ in 0..DUMPS {
            found.clear();
            let mut bytes = Vec::new();
            self.write(request, NLM_F_DUMP, &mut bytes);
            self.socket.send(&bytes, 0)?;
            let (mut is_open, mut is_whole) = (true, true);
            while is_open {
                self.receive(|message| {
                    if message.sequence != self.sequence.get() {
                        return Ok(());
                    }
                    is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
                    is_open &= message.kind != NLMSG_DONE;
                    found.extend(message.content()?);
                    Ok(())
                })?;
            }
            if is_whole {
                break;
            }
        }
        Ok(found)
    }

    /// Lays a request out behind others, with a header (netlink(7)) and the next number.
    fn write(&self, request: &Request, flags: u16, bytes: &mut Vec<u8>) {
        let number = self.sequence.get().wrapping_add(1);
        self.sequence.set(number);
        let length = (HEADER + request.body.len()) as u32;
        bytes.extend(length.to_ne_bytes());
        bytes.extend((request.kind as u16).to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | request.flags | flags).to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes()); // from whom: the kernel knows
        bytes.extend(&request.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    /// Hands on all messages of the next piece of the answers.
    fn receive(
        &self,
        mut found: impl FnMut(Received<'_>) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let mut buffer = self.buffer.borrow_mut();
        receive(&self.socket, &mut buffer).map_err(|error| self.lost(&mut buffer, error))?;
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let message = Received::first_of(rest).ok_or_else(malformed)?;
            let length = (HEADER + message.body.len()).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            found(message)?;
        }
        Ok(())
    }

    /// Why there is no answer. The kernel loses answers until all that it has is taken, so nothing is left for the next
    /// request to trip over.
    fn lost(&self, buffer: &mut Vec<u8>, error: io::Error) -> io::Error {
        let is_full = |error: &io::Error| error.raw_os_error() == Some(Errno::ENOBUFS as i32);
        if !is_full(&error) && error.kind() != ErrorKind::WouldBlock {
            return error;
        }
        while receive(&self.socket, buffer).map_or_else(|error| is_full(&error), |()| true) {}
        Errno::ENOBUFS.into()
    }
}

/// The size of netlink's header, in bytes.
const HEADER: usize = 16;

/// A message from the kernel.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Received<'a> {
    /// The first of several messages.
    fn first_of(bytes: &'a [u8]) -> Option<Received<'a>> {
        let (&[a, b, c, d, e, f, g, h, i, j, k, l, ..], _) = bytes.split_first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        Some(Received {
            kind: u16::from_ne_bytes([e, f]),
            flags: u16::from_ne_bytes([g, h]),
            sequence: u32::from_ne_bytes([i, j, k, l]),
            body: bytes.get(HEADER..length)?,
        })
    }

    /// What it holds: `None` for an acknowledgement or an end.
    fn content(&self) -> Result<Option<Found>, KernelError> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => match self.body {
                [a, b, c, d, rest @ ..] => match i32::from_ne_bytes([*a, *b, *c, *d]) {
                    0 => Ok(None),
                    errno => {
                        // The header of the request that was refused comes first; acknowledgements are capped behind it.
                        let request = if self.kind == NLMSG_ERROR { HEADER } else { 0 };
                        Err(KernelError::refused(errno, rest.get(request..)))
                    }
                },
                _ => Ok(None),
            },
            NLMSG_OVERRUN => Err(KernelError::from_errno(Errno::ENOBUFS)),
            _ => Found::read(self.kind, self.body).map_err(|error| error.into()),
        }
    }
}

impl Found {
    /// What a message holds; `None` if it is of a kind that nobody asks for.
    fn read(kind: u16, body: &[u8]) -> io::Result<Option<Found>> {
        const LINK: u16 = Kind::NewLink as u16;
        const ADDRESS: u16 = Kind::NewAddress as u16;
        const ROUTE: u16 = Kind::NewRoute as u16;
        Ok(Some(match kind {
            LINK => Found::Link(Link::parse(body).ok_or_else(malformed)?),
            ADDRESS => Found::Address(AddressMessage::parse(body).map_err(|_| malformed())?),
            ROUTE => Found::Route(RouteMessage::parse(body).map_err(|_| malformed())?),
            _ => return Ok(None),
        }))
    }
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "malformed answer from the kernel")
}

/// What the kernel tells of without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Changes of links.
    Links = nix::libc::RTNLGRP_LINK as isize,
    /// Changes of IPv6 addresses.
    Ipv6Addresses = nix::libc::RTNLGRP_IPV6_IFADDR as isize,
}

/// News of one kind, from the time on when this was opened.
pub(crate) struct Events(Socket);

impl Events {
    /// News of the namespace of the calling thread.
    pub(crate) fn open(group: Group) -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(group as u32)?;
        Ok(Events(socket))
    }

    /// Waits until there are news, which are taken note of by this; false if there were none in time.
    pub(crate) fn wait(&self, end: Instant) -> io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is not a busy one.
        let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut sources = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sources, PollTimeout::from(milliseconds)) {
            Ok(0) => return Ok(false),
            Err(Errno::EINTR) => return Ok(!left.is_zero()),
            outcome => drop(outcome?),
        }
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            match receive(&self.0, &mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                // More than the socket holds: that there are news is all we want to know.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                outcome => outcome?,
            }
        }
    }
}

/// One datagram into the buffer, as much of it as there is room for.
///
/// # Errors
/// `WouldBlock` if there is none.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    loop {
        match socket.recv(buffer, MsgFlags::MSG_DONTWAIT.bits()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::address::AddressAttribute;
    use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

    use super::*;
    use crate::netns::in_namespace;

    fn connected(test: impl FnOnce(&Connection) + Send + 'static) {
        in_namespace(|| test(&Connection::open().unwrap()));
    }

    fn link(name: &str) -> LinkMessage {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message
    }

    fn get(name: &str) -> Request {
        Request::get(Kind::GetLink, &link(name))
    }

    fn set_up(name: &str) -> Request {
        let mut message = link(name);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        Request::command(Kind::SetLink, &message, 0)
    }

    fn add_address(last: u8) -> Request {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = 1;
        let address = [127, 0, 0, last].into();
        message.attributes.push(AddressAttribute::Local(address));
        Request::command(Kind::NewAddress, &message, NLM_F_CREATE | NLM_F_EXCL)
    }

    #[test]
    fn each_request_of_a_batch_has_its_own_answer() {
        connected(|connection| {
            let batch = [
                set_up("lo"),
                add_address(9),
                get("none"),
                add_address(9),
                get("lo"),
                set_up("none"),
            ];
            let answers = connection.exchange(&batch).unwrap();
            let told: Vec<_> = answers
                .iter()
                .map(|it| match it {
                    Ok(found) => Ok(found.len()),
                    Err(error) => Err(error.errno.raw_os_error().map(Errno::from_raw)),
                })
                .collect();
            let refused = |errno| Err(Some(errno));
            assert_eq!(
                told,
                [
                    Ok(0),
                    Ok(0),
                    refused(Errno::ENODEV),
                    refused(Errno::EEXIST),
                    Ok(1),
                    refused(Errno::ENODEV)
                ]
            );
            assert!(matches!(&answers[4].as_ref().unwrap()[0], Found::Link(lo) if lo.up));
            // Nothing is left over that the next one could take for its own.
            assert!(connection.ask(get("lo")).is_ok());
            assert!(connection.exchange(&[]).unwrap().is_empty());
        });
    }

    #[test]
    fn answers_that_were_lost_are_an_error_and_nothing_waits_for_them() {
        connected(|connection| {
            let many: Vec<Request> = (0..2000).map(|_| set_up("none")).collect();
            let error = connection.exchange(&many).unwrap_err();
            assert!(error.is(Errno::ENOBUFS), "{error}");
            // The next one's answer is not lost too.
            connection.ask(set_up("lo")).unwrap();
            let refused = connection.ask(set_up("none")).map(|_| ()).unwrap_err();
            assert!(refused.is(Errno::ENODEV), "{refused}");
            let answers = connection.exchange(&many[..AT_ONCE]).unwrap();
            assert!(answers.iter().all(Result::is_err));
        });
    }

    #[test]
    fn a_long_list_comes_whole() {
        connected(|connection| {
            connection.ask(set_up("lo")).unwrap();
            for batch in (2..=250).collect::<Vec<u8>>().chunks(50) {
                let batch: Vec<Request> = batch.iter().map(|&last| add_address(last)).collect();
                assert!(
                    connection
                        .exchange(&batch)
                        .unwrap()
                        .iter()
                        .all(Result::is_ok)
                );
            }
            let mut all = AddressMessage::default();
            all.header.family = AddressFamily::Inet;
            let found = connection.dump(&Request::get(Kind::GetAddress, &all));
            assert_eq!(found.unwrap().len(), 1 + 249);
        });
    }

    #[test]
    fn news_are_waited_for_until_the_end_and_no_longer() {
        connected(|connection| {
            let events = Events::open(Group::Links).unwrap();
            let soon = || Instant::now() + Duration::from_millis(20);
            assert!(!events.wait(soon()).unwrap());
            connection.ask(set_up("lo")).unwrap();
            assert!(events.wait(soon()).unwrap());
            assert!(!events.wait(soon()).unwrap());
        });
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let mut bytes = vec![20, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        let whole = Received::first_of(&bytes).unwrap();
        assert_eq!((whole.kind, whole.sequence, whole.body.len()), (3, 7, 4));
        assert!(Received::first_of(&bytes[..19]).is_none());
        assert!(Received::first_of(&bytes[..15]).is_none());
        bytes[0] = 15; // shorter than its own header
        assert!(Received::first_of(&bytes).is_none());
    }
}
