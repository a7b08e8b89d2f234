//! What the packet filter holds, asked of the kernel itself, and removing some of it: microseconds where a tool takes
//! milliseconds, and nothing is started.
//!
//! `iptables` keeps its rules here too where it is the newer kind (`iptables-nft`): its table `nat` is the table `nat`
//! of the families `ip` and `ip6`. What the older kind keeps, the kernel tells no more of than the tables' names.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.

use std::fs;
use std::io::{self, ErrorKind};

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::iptables;

const NETLINK_NETFILTER: isize = 12;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// struct nlmsghdr and struct nfgenmsg, in bytes.
const HEADERS: usize = 16 + 4;

/// Large enough for any message of a dump (net/netlink/af_netlink.c: at most 32 KiB).
const BUFFER: usize = 64 * 1024;

/// What somebody else disturbs is tried so many times.
const ATTEMPTS: usize = 10;

/// A family of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// What crosses a bridge.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

/// A rule, as far as its owner can be told by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The chain that it is in.
    pub chain: String,
    /// By which it is deleted; unique in its table for as long as there is the table.
    pub handle: u64,
    /// The text behind `comment`, of `nft` or `iptables`.
    pub comment: Option<String>,
    /// What happens to a packet, if the rule decides that.
    pub verdict: Option<Verdict>,
    /// The values that the rule compares packets with, in order, as the packet has them.
    pub values: Vec<Vec<u8>>,
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `return`
    Return,
    /// `jump` to a chain
    Jump(String),
    /// `goto` a chain
    Goto(String),
    /// Any other, such as `accept` or `drop`
    Other,
}

/// Something to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A rule.
    Rule {
        /// The family of its table.
        family: Family,
        /// Its table.
        table: &'static str,
        /// Its chain.
        chain: String,
        /// Its handle.
        handle: u64,
    },
    /// A chain with all its rules. What still jumps to it is in the way.
    Chain {
        /// The family of its table.
        family: Family,
        /// Its table.
        table: &'static str,
        /// Its name.
        chain: String,
    },
}

/// The ruleset of the network namespace that [`Ruleset::open`] was called in.
///
/// Dropped after something was removed, it waits until no packet can be met by it any more, some 10 ms. That time passes
/// also while the caller does something else before.
pub struct Ruleset(Socket);

impl From<iptables::Family> for Family {
    fn from(family: iptables::Family) -> Family {
        match family {
            iptables::Family::Ipv4 => Family::Ip,
            iptables::Family::Ipv6 => Family::Ip6,
        }
    }
}

impl Ruleset {
    /// A connection to the ruleset; `None` if the kernel has none.
    pub fn open() -> io::Result<Option<Ruleset>> {
        let socket = match Socket::new(NETLINK_NETFILTER) {
            Err(error) if is_absence(&error) => return Ok(None),
            socket => socket?,
        };
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Some(Ruleset(socket)))
    }

    /// Is there such a table?
    pub fn has_table(&self, family: Family, table: &str) -> io::Result<bool> {
        self.exists(&nftables(
            NFT_MSG_GETTABLE,
            0,
            family,
            &[(NFTA_TABLE_NAME, table)],
        ))
    }

    /// Is there such a chain?
    pub fn has_chain(&self, family: Family, table: &str, chain: &str) -> io::Result<bool> {
        self.exists(&nftables(
            NFT_MSG_GETCHAIN,
            0,
            family,
            &[(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)],
        ))
    }

    /// The rules of a chain, in order; none if there is no such chain.
    pub fn rules(&self, family: Family, table: &str, chain: &str) -> io::Result<Vec<Rule>> {
        self.rules_of(
            family,
            &[(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)],
        )
    }

    /// The rules of all chains of a table, each chain's in order; none if there is no such table.
    pub fn rules_of_table(&self, family: Family, table: &str) -> io::Result<Vec<Rule>> {
        self.rules_of(family, &[(NFTA_RULE_TABLE, table)])
    }

    /// Removes all of this as one change: as a whole or not at all.
    ///
    /// # Errors
    /// ENOENT if something of it is gone already, EBUSY if a chain is still jumped to.
    pub fn remove(&self, removals: &[Removal]) -> io::Result<()> {
        let Some((last, others)) = removals.split_last() else {
            return Ok(());
        };
        let mut batch = message(NFNL_MSG_BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES);
        for removal in others {
            batch.extend(removal.message(0));
        }
        // Refusals are told of in any case; one answer more shows that all was looked at.
        batch.extend(last.message(NLM_F_ACK));
        batch.extend(message(NFNL_MSG_BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES));
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

    /// Removes what `find` finds. If it cannot be removed, somebody may have come in between: then all begins again.
    ///
    /// # Errors
    /// Why the same is refused twice.
    pub fn remove_found(
        &self,
        find: impl Fn(&Ruleset) -> io::Result<Vec<Removal>>,
    ) -> io::Result<()> {
        let mut removals = find(self)?;
        for _ in 0..ATTEMPTS {
            let Err(error) = self.remove(&removals) else {
                break;
            };
            let now = find(self)?;
            if now == removals {
                return Err(error);
            }
            removals = now;
        }
        Ok(())
    }

    /// The rules with all of these attributes.
    fn rules_of(&self, family: Family, wanted: &[(u16, &str)]) -> io::Result<Vec<Rule>> {
        let request = nftables(NFT_MSG_GETRULE, NLM_F_DUMP, family, wanted);
        let mut rules = Vec::new();
        for _ in 0..ATTEMPTS {
            rules.clear();
            let unchanged = self.ask(&request, |payload| {
                // Kernels before 4.9 give the rules of all chains.
                let is = |&(kind, name): &(u16, &str)| {
                    Attributes::find(payload, kind).is_some_and(|it| text(it) == name)
                };
                if wanted.iter().all(is) {
                    rules.push(rule::parse(payload));
                }
            });
            match unchanged {
                Ok(true) => return Ok(rules),
                Ok(false) => {}
                Err(error) if is_absence(&error) => return Ok(Vec::new()),
                Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    fn exists(&self, request: &[u8]) -> io::Result<bool> {
        match self.ask(request, |_| {}) {
            Ok(_) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and hands each answer on, without its headers. Was the ruleset left alone meanwhile?
    fn ask(&self, request: &[u8], mut found: impl FnMut(&[u8])) -> io::Result<bool> {
        self.0.send(request, 0)?;
        let mut unchanged = true;
        while let Some(is_unchanged) = read(&self.receive(MsgFlags::empty())?, &mut found)? {
            unchanged &= is_unchanged;
            if !is_dump(request) {
                break;
            }
        }
        Ok(unchanged)
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        self.0.recv(&mut buffer, flags.bits())?;
        Ok(buffer)
    }
}

/// Hands on each of the messages, without its headers. Was the ruleset left alone meanwhile? `None` with the last one.
fn read(mut messages: &[u8], mut found: impl FnMut(&[u8])) -> io::Result<Option<bool>> {
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
                let errno = i32::from_ne_bytes([a, b, c, d]);
                return if errno == 0 {
                    Ok(None)
                } else {
                    Err(io::Error::from_raw_os_error(-errno))
                };
            }
            _ => found(&message[HEADERS..]),
        }
    }
    Ok(Some(unchanged))
}

impl Removal {
    fn message(&self, flags: u16) -> Vec<u8> {
        match self {
            Removal::Rule {
                family,
                table,
                chain,
                handle,
            } => {
                let names = [(NFTA_RULE_TABLE, *table), (NFTA_RULE_CHAIN, chain)];
                let mut message = nftables(NFT_MSG_DELRULE, flags, *family, &names);
                append(&mut message, NFTA_RULE_HANDLE, &handle.to_be_bytes());
                message
            }
            Removal::Chain {
                family,
                table,
                chain,
            } => {
                let names = [(NFTA_CHAIN_TABLE, *table), (NFTA_CHAIN_NAME, chain)];
                nftables(NFT_MSG_DELCHAIN, flags, *family, &names)
            }
        }
    }
}

/// The tables of the older `iptables`, by name; `None` if they cannot be read.
///
/// A table is listed from its first use in the namespace on, be it empty.
pub fn legacy_tables(family: iptables::Family) -> Option<Vec<String>> {
    let file = match family {
        iptables::Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
        iptables::Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(file) {
        Ok(text) => Some(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    }
}

/// Does the error say that there is no such thing, be it because the kernel has no such subsystem or family at all?
fn is_absence(error: &io::Error) -> bool {
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

/// A message of nf_tables, with names as attributes.
fn nftables(kind: u16, flags: u16, family: Family, names: &[(u16, &str)]) -> Vec<u8> {
    let mut message = message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, family as u8, 0);
    for (kind, name) in names {
        append(&mut message, *kind, &[name.as_bytes(), &[0]].concat());
    }
    message
}

/// A message without attributes: struct nlmsghdr and struct nfgenmsg. Sequence number and port stay 0: each question is
/// answered before the next one.
fn message(kind: u16, flags: u16, family: u8, resource: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend((HEADERS as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message
}

/// Appends an attribute.
fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
}

fn is_dump(message: &[u8]) -> bool {
    u16::from_ne_bytes([message[6], message[7]]) & NLM_F_DUMP == NLM_F_DUMP
}

/// Attributes as netlink lays them out: length, kind, value, padding.
struct Attributes<'a>(&'a [u8]);

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

impl<'a> Attributes<'a> {
    /// The value of an attribute.
    fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Attributes(bytes)
            .find(|&(found, _)| found == kind)
            .map(|(_, value)| value)
    }

    /// The value of an attribute inside others.
    fn find_in(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
        path.iter()
            .try_fold(bytes, |bytes, &kind| Attributes::find(bytes, kind))
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// How a rule is laid out.
mod rule {
    use super::{Attributes, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, Rule, Verdict, text};

    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    const NFTA_RULE_USERDATA: u16 = 7;

    pub(super) fn parse(payload: &[u8]) -> Rule {
        let mut rule = Rule::default();
        for (kind, value) in Attributes(payload) {
            match kind {
                NFTA_RULE_CHAIN => rule.chain = text(value),
                NFTA_RULE_HANDLE => rule.handle = value.try_into().map_or(0, u64::from_be_bytes),
                NFTA_RULE_USERDATA => rule.comment = comment(value),
                NFTA_RULE_EXPRESSIONS => {
                    for (_, expression) in Attributes(value) {
                        parse_expression(expression, &mut rule);
                    }
                }
                _ => {}
            }
        }
        rule
    }

    fn parse_expression(expression: &[u8], rule: &mut Rule) {
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        const NFTA_DATA_VALUE: u16 = 1;
        const NFTA_DATA_VERDICT: u16 = 2;
        const NFTA_MATCH_NAME: u16 = 1;
        const NFTA_MATCH_INFO: u16 = 3;
        let data = Attributes::find(expression, NFTA_EXPR_DATA).unwrap_or_default();
        match Attributes::find(expression, NFTA_EXPR_NAME)
            .map(text)
            .as_deref()
        {
            Some("cmp") => {
                let value = Attributes::find_in(data, &[NFTA_CMP_DATA, NFTA_DATA_VALUE]);
                rule.values.extend(value.map(<[u8]>::to_vec));
            }
            Some("immediate") => {
                let found = Attributes::find_in(data, &[NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT]);
                rule.verdict = found.and_then(verdict).or(rule.verdict.take());
            }
            // iptables' own comment, a match that always matches (struct xt_comment_info).
            Some("match")
                if Attributes::find(data, NFTA_MATCH_NAME).map(text).as_deref()
                    == Some("comment") =>
            {
                rule.comment = Attributes::find(data, NFTA_MATCH_INFO).map(text);
            }
            Some(_) | None => {}
        }
    }

    fn verdict(attributes: &[u8]) -> Option<Verdict> {
        const NFTA_VERDICT_CODE: u16 = 1;
        const NFTA_VERDICT_CHAIN: u16 = 2;
        const NFT_JUMP: i32 = -3;
        const NFT_GOTO: i32 = -4;
        const NFT_RETURN: i32 = -5;
        let code = Attributes::find(attributes, NFTA_VERDICT_CODE)?
            .try_into()
            .ok()
            .map(i32::from_be_bytes)?;
        let chain = Attributes::find(attributes, NFTA_VERDICT_CHAIN).map(text);
        Some(match (code, chain) {
            (NFT_JUMP, Some(chain)) => Verdict::Jump(chain),
            (NFT_GOTO, Some(chain)) => Verdict::Goto(chain),
            (NFT_RETURN, _) => Verdict::Return,
            _ => Verdict::Other,
        })
    }

    /// nft's notes on a rule: kind, length, value, without padding (libnftnl, udata.h).
    fn comment(mut notes: &[u8]) -> Option<String> {
        const NFTNL_UDATA_RULE_COMMENT: u8 = 0;
        while let [kind, length, rest @ ..] = notes {
            let value = rest.get(..usize::from(*length))?;
            if *kind == NFTNL_UDATA_RULE_COMMENT {
                return Some(text(value));
            }
            notes = &rest[usize::from(*length)..];
        }
        None
    }
}
