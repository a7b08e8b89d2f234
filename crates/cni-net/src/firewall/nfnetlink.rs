//! Messages to and from the kernel's packet filter (include/uapi/linux/netfilter/nfnetlink.h).

use std::io::{self, ErrorKind};

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::attributes::push_attribute;

const NETLINK_NETFILTER: isize = 12;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// struct nlmsghdr and struct nfgenmsg, in bytes.
const HEADERS: usize = 16 + 4;

/// Large enough for any message of a dump (net/netlink/af_netlink.c: at most 32 KiB).
const BUFFER: usize = 64 * 1024;

/// What somebody else disturbs is tried so many times.
pub(super) const ATTEMPTS: usize = 10;

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// For all there is.
    Dump,
    /// To do something.
    Command,
}

/// A connection to the packet filter of the network namespace that it was opened in.
pub(super) struct Connection(Socket);

impl Connection {
    /// A connection; `None` if the kernel has no packet filter.
    pub(super) fn open() -> io::Result<Option<Connection>> {
        let socket = match Socket::new(NETLINK_NETFILTER) {
            Err(error) if is_absence(&error) => return Ok(None),
            socket => socket?,
        };
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Some(Connection(socket)))
    }

    /// All that a dump finds, each without its headers; nothing where there is no such subsystem, table or family.
    ///
    /// # Errors
    /// If it goes on changing while it is read.
    pub(super) fn dump(&self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        let found = undisturbed(|| {
            let mut found = Vec::new();
            let unchanged = self.ask(message, Question::Dump, |payload| {
                found.push(payload.to_vec());
            })?;
            Ok(unchanged.then_some(found))
        });
        match found {
            Err(error) if is_absence(&error) => Ok(Vec::new()),
            found => found,
        }
    }

    /// Has something done.
    pub(super) fn command(&self, message: &Message) -> io::Result<()> {
        self.ask(message, Question::Command, |_| {}).map(drop)
    }

    /// Is there what the message asks for?
    pub(super) fn exists(&self, message: &Message) -> io::Result<bool> {
        match self.command(message) {
            Ok(()) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel the message's subsystem, and its family, be there what it asks for or not?
    pub(super) fn understands(&self, message: &Message) -> io::Result<bool> {
        match self.command(message) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has all of this done by a subsystem as one change: as a whole or not at all.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn batch(&self, subsystem: u16, messages: &[Message]) -> io::Result<()> {
        let Some((last, others)) = messages.split_last() else {
            return Ok(());
        };
        let edge = |kind| Message {
            resource: subsystem,
            ..Message::new(0, kind, 0)
        };
        let mut batch = edge(NFNL_MSG_BATCH_BEGIN).bytes(NLM_F_REQUEST);
        for message in others {
            batch.extend(message.bytes(NLM_F_REQUEST));
        }
        // Refusals are told of in any case; one answer more shows that all was looked at.
        batch.extend(last.bytes(NLM_F_REQUEST | NLM_F_ACK));
        batch.extend(edge(NFNL_MSG_BATCH_END).bytes(NLM_F_REQUEST));
        self.0.send(&batch, 0)?;
        // The kernel has done its work when the call returns, so all its answers are there.
        let mut outcome = Ok(());
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return outcome,
                answer => outcome = outcome.and(read(&answer?, |_| {}).map(drop)),
            }
        }
    }

    /// Sends a message and hands each answer on. Was all left alone meanwhile?
    fn ask(
        &self,
        message: &Message,
        question: Question,
        mut found: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.0.send(&message.bytes(question.flags()), 0)?;
        let mut unchanged = true;
        loop {
            let piece = read(&self.receive(MsgFlags::empty())?, &mut found)?;
            unchanged &= piece.unchanged;
            if piece.is_last {
                return Ok(unchanged);
            }
        }
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        self.0.recv(&mut buffer, flags.bits())?;
        Ok(buffer)
    }
}

/// What `read` reads whole, which it tells by something and not nothing.
///
/// # Errors
/// EINTR if it is disturbed each time.
fn undisturbed<T>(mut read: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        match read() {
            Ok(Some(whole)) => return Ok(whole),
            Ok(None) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EINTR.into())
}

/// What one piece tells of the whole answer.
struct Piece {
    is_last: bool,
    /// Was all left alone while it was made?
    unchanged: bool,
}

/// Hands each message on, without its headers.
fn read(mut messages: &[u8], mut found: impl FnMut(&[u8])) -> io::Result<Piece> {
    let mut unchanged = true;
    while let [a, b, c, d, e, f, g, h, ..] = *messages {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let (kind, flags) = (u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]));
        let message = messages
            .get(..length)
            .filter(|it| it.len() >= HEADERS)
            .ok_or(ErrorKind::InvalidData)?;
        messages = messages
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        unchanged &= flags & NLM_F_DUMP_INTR == 0;
        match (kind, &message[16..]) {
            (NLMSG_ERROR | NLMSG_DONE, &[a, b, c, d, ..]) => {
                return match i32::from_ne_bytes([a, b, c, d]) {
                    0 => Ok(Piece {
                        is_last: true,
                        unchanged,
                    }),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
            _ => found(&message[HEADERS..]),
        }
    }
    Ok(Piece {
        is_last: false,
        unchanged,
    })
}

impl Question {
    fn flags(self) -> u16 {
        match self {
            Question::Dump => NLM_F_REQUEST | NLM_F_DUMP,
            Question::Command => NLM_F_REQUEST | NLM_F_ACK,
        }
    }
}

/// Does the error say that there is no such thing, be it because the kernel has no such subsystem or family at all?
pub(super) fn is_absence(error: &io::Error) -> bool {
    let absences = [
        Errno::ENOENT,
        Errno::EPROTONOSUPPORT,
        Errno::EAFNOSUPPORT,
        Errno::EOPNOTSUPP,
        Errno::EINVAL, // the subsystem's module is not there (net/netfilter/nfnetlink.c)
    ];
    error
        .raw_os_error()
        .is_some_and(|number| absences.contains(&Errno::from_raw(number)))
}

/// A message about to be sent.
pub(super) struct Message {
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    attributes: Vec<u8>,
}

impl Message {
    /// `kind` of message to `subsystem`, about a family of addresses.
    pub(super) fn new(subsystem: u16, kind: u16, family: u8) -> Message {
        Message {
            kind: subsystem << 8 | kind,
            flags: 0,
            family,
            resource: 0,
            attributes: Vec::new(),
        }
    }

    /// The same with one more attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Message {
        push_attribute(&mut self.attributes, kind, value);
        self
    }

    /// The same with one more attribute, a text.
    pub(super) fn with_text(self, kind: u16, text: &str) -> Message {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// The same, to make something that must not be there yet.
    pub(super) fn creating_exclusively(self) -> Message {
        const NLM_F_EXCL: u16 = 0x200;
        Message {
            flags: NLM_F_CREATE | NLM_F_EXCL,
            ..self
        }
    }

    /// The same, to make something behind all others of its list.
    pub(super) fn appending(self) -> Message {
        const NLM_F_APPEND: u16 = 0x800;
        Message {
            flags: NLM_F_CREATE | NLM_F_APPEND,
            ..self
        }
    }

    fn bytes(&self, flags: u16) -> Vec<u8> {
        let length = HEADERS + self.attributes.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((self.flags | flags).to_ne_bytes());
        bytes.extend([0; 8]); // sequence number and port: one question at a time
        bytes.extend([self.family, 0]); // struct nfgenmsg: the version is 0
        bytes.extend(self.resource.to_be_bytes());
        bytes.extend(&self.attributes);
        bytes
    }
}

/// A number as the wire has it, most significant byte first.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    match *bytes {
        [a] => Some(u32::from(a)),
        [a, b] => Some(u32::from(u16::from_be_bytes([a, b]))),
        [a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_disturbed_each_time_is_an_error_and_not_half_the_truth() {
        let mut attempts = 0;
        let disturbed = undisturbed::<()>(|| {
            attempts += 1;
            Ok(None)
        });
        assert_eq!(attempts, ATTEMPTS);
        let error = disturbed.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EINTR as i32));
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        let mut answers = vec![Ok(Some(1)), Err(Errno::EINTR.into()), Ok(None)];
        assert_eq!(undisturbed(|| answers.pop().unwrap()).unwrap(), 1);
        let refused = undisturbed::<()>(|| Err(Errno::EPERM.into())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_disturbance_told_of_with_the_last_message_counts() {
        let mut done = Message::new(0, NLMSG_DONE, 0).bytes(NLM_F_DUMP_INTR);
        let piece = read(&done, |_| unreachable!("there is nothing else")).unwrap();
        assert!(piece.is_last && !piece.unchanged);
        done[6..8].copy_from_slice(&[0, 0]);
        assert!(read(&done, |_| {}).unwrap().unchanged);
        done[..4].copy_from_slice(&8_u32.to_ne_bytes());
        assert!(read(&done, |_| {}).is_err(), "shorter than its headers");
    }
}
