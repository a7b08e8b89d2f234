//! Messages to and from the kernel's packet filter (include/uapi/linux/netfilter/nfnetlink.h).

use std::io::{self, ErrorKind};

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

const NETLINK_NETFILTER: isize = 12;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The attribute holds others.
pub(super) const NLA_F_NESTED: u16 = 0x8000;

/// Large enough for any message of a dump (net/netlink/af_netlink.c: at most 32 KiB).
const BUFFER: usize = 64 * 1024;

/// A dump during which something changed is asked for again, so many times.
const ATTEMPTS: usize = 10;

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
        let mut last = ErrorKind::Interrupted.into();
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            match self.ask(message, Question::Dump, |payload| {
                found.push(payload.to_vec())
            }) {
                Ok(true) => return Ok(found),
                Ok(false) => {}
                Err(error) if is_absence(&error) => return Ok(Vec::new()),
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Has something done.
    pub(super) fn command(&self, message: &Message) -> io::Result<()> {
        self.ask(message, Question::Command, |_| {}).map(drop)
    }

    /// Sends a message and hands each answer on. Was all left alone meanwhile?
    fn ask(
        &self,
        message: &Message,
        question: Question,
        mut found: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        const HEADERS: usize = 16 + 4;
        self.0.send(&message.bytes(question), 0)?;
        let mut unchanged = true;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.0.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while let [a, b, c, d, e, f, g, h, ..] = *rest {
                let length = u32::from_ne_bytes([a, b, c, d]) as usize;
                let (kind, flags) = (u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]));
                let answer = rest.get(..length).ok_or(ErrorKind::InvalidData)?;
                rest = rest
                    .get(length.max(16).next_multiple_of(4)..)
                    .unwrap_or_default();
                unchanged &= flags & NLM_F_DUMP_INTR == 0;
                match (kind, answer.get(16..20)) {
                    (NLMSG_ERROR | NLMSG_DONE, Some(&[a, b, c, d])) => {
                        return match i32::from_ne_bytes([a, b, c, d]) {
                            0 => Ok(unchanged),
                            errno => Err(io::Error::from_raw_os_error(-errno)),
                        };
                    }
                    _ => found(answer.get(HEADERS..).unwrap_or_default()),
                }
            }
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
    family: u8,
    attributes: Vec<u8>,
}

impl Message {
    /// `kind` of message to `subsystem`, about a family of addresses.
    pub(super) fn new(subsystem: u16, kind: u16, family: u8) -> Message {
        Message {
            kind: subsystem << 8 | kind,
            family,
            attributes: Vec::new(),
        }
    }

    /// The same with one more attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Message {
        push_attribute(&mut self.attributes, kind, value);
        self
    }

    fn bytes(&self, question: Question) -> Vec<u8> {
        let flags = match question {
            Question::Dump => NLM_F_REQUEST | NLM_F_DUMP,
            Question::Command => NLM_F_REQUEST | NLM_F_ACK,
        };
        let length = 16 + 4 + self.attributes.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]); // sequence number and port: one question at a time
        bytes.extend([self.family, 0, 0, 0]); // struct nfgenmsg: version 0, no resource
        bytes.extend(&self.attributes);
        bytes
    }
}

/// Lays an attribute out behind others: length, kind, value, padding.
pub(super) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Attributes as netlink lays them out.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of an attribute.
    pub(super) fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Attributes(bytes)
            .find(|&(found, _)| found == kind)
            .map(|(_, value)| value)
    }

    /// The value of an attribute inside others.
    pub(super) fn find_in(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
        path.iter()
            .try_fold(bytes, |bytes, &kind| Attributes::find(bytes, kind))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        const NLA_TYPE_MASK: u16 = 0x3fff;
        let [a, b, c, d, ..] = *self.0 else {
            return None;
        };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    }
}

/// The text up to the first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
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
    fn attributes_are_laid_out_and_found() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"abc");
        let mut inner = Vec::new();
        push_attribute(&mut inner, 7, &[1, 2, 3, 4]);
        push_attribute(&mut bytes, 2 | NLA_F_NESTED, &inner);
        assert_eq!(bytes.len(), 8 + 4 + 8);
        assert_eq!(Attributes::find(&bytes, 1), Some(&b"abc"[..]));
        assert_eq!(
            Attributes::find_in(&bytes, &[2, 7]).and_then(number),
            Some(0x0102_0304)
        );
        assert_eq!(Attributes::find(&bytes, 3), None);
        // A length that lies is the end.
        assert_eq!(Attributes(&[200, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0]).count(), 0);
    }
}
