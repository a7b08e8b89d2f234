//! What the packet filter holds, asked of the kernel itself, and removing some of it: microseconds where a tool takes
//! milliseconds, and nothing is started.
//!
//! `iptables` keeps its rules here too where it is the newer kind (`iptables-nft`): its table `nat` is the table `nat`
//! of the families `ip` and `ip6`. What the older kind keeps, the kernel tells no more of than the tables' names.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.

use std::fs;
use std::io::{self, ErrorKind};

use super::iptables;
use super::nf_tables::{
    self, NFNL_SUBSYS_NFTABLES, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_CHAIN,
    NFTA_RULE_HANDLE, NFTA_RULE_TABLE, NFTA_TABLE_NAME,
};
use super::nfnetlink::{ATTEMPTS, Connection, Message};
use crate::attributes::{Attributes, text};

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
pub struct Ruleset(Connection);

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
        Ok(Connection::open()?.map(Ruleset))
    }

    /// Has the kernel nf_tables, with tables of that family, be there any or not?
    pub fn is_there(&self, family: Family) -> io::Result<bool> {
        let any = nf_tables::message(NFT_MSG_GETTABLE, family, &[(NFTA_TABLE_NAME, "nat")]);
        self.0.understands(&any)
    }

    /// Is there such a table?
    pub fn has_table(&self, family: Family, table: &str) -> io::Result<bool> {
        let message = nf_tables::message(NFT_MSG_GETTABLE, family, &[(NFTA_TABLE_NAME, table)]);
        self.0.exists(&message)
    }

    /// Is there such a chain?
    pub fn has_chain(&self, family: Family, table: &str, chain: &str) -> io::Result<bool> {
        let names = [(NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain)];
        self.0
            .exists(&nf_tables::message(NFT_MSG_GETCHAIN, family, &names))
    }

    /// The rules of a chain, in order; none if there is no such chain.
    ///
    /// # Errors
    /// EINTR if they go on changing while they are read.
    pub fn rules(&self, family: Family, table: &str, chain: &str) -> io::Result<Vec<Rule>> {
        self.rules_of(
            family,
            &[(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)],
        )
    }

    /// The rules of all chains of a table, each chain's in order; none if there is no such table.
    ///
    /// # Errors
    /// EINTR if they go on changing while they are read.
    pub fn rules_of_table(&self, family: Family, table: &str) -> io::Result<Vec<Rule>> {
        self.rules_of(family, &[(NFTA_RULE_TABLE, table)])
    }

    /// Removes all of this as one change: as a whole or not at all.
    ///
    /// # Errors
    /// ENOENT if something of it is gone already, EBUSY if a chain is still jumped to.
    pub fn remove(&self, removals: &[Removal]) -> io::Result<()> {
        let messages: Vec<Message> = removals.iter().map(Removal::message).collect();
        self.0.batch(NFNL_SUBSYS_NFTABLES, &messages)
    }

    /// Makes what the messages tell of as one change: as a whole or not at all.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn make(&self, messages: &[Message]) -> io::Result<()> {
        self.0.batch(NFNL_SUBSYS_NFTABLES, messages)
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
        let found = self
            .0
            .dump(&nf_tables::message(NFT_MSG_GETRULE, family, wanted))?;
        // Kernels before 4.9 give the rules of all chains.
        let is_wanted = |rule: &&Vec<u8>| {
            let is = |&(kind, name): &(u16, &str)| {
                Attributes::find(rule, kind).is_some_and(|it| text(it) == name)
            };
            wanted.iter().all(is)
        };
        let rules = found.iter().filter(is_wanted);
        Ok(rules.map(|rule| rule::parse(rule)).collect())
    }
}

impl Removal {
    fn message(&self) -> Message {
        match self {
            Removal::Rule {
                family,
                table,
                chain,
                handle,
            } => {
                let names = [(NFTA_RULE_TABLE, *table), (NFTA_RULE_CHAIN, chain)];
                nf_tables::message(NFT_MSG_DELRULE, *family, &names)
                    .with(NFTA_RULE_HANDLE, &handle.to_be_bytes())
            }
            Removal::Chain {
                family,
                table,
                chain,
            } => {
                let names = [(NFTA_CHAIN_TABLE, *table), (NFTA_CHAIN_NAME, chain)];
                nf_tables::message(NFT_MSG_DELCHAIN, *family, &names)
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

/// How a rule is laid out.
mod rule {
    use super::{Attributes, Rule, Verdict, text};
    use crate::firewall::nf_tables::{
        NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS,
        NFTA_RULE_HANDLE, NFTA_RULE_USERDATA, expressions,
    };
    use crate::firewall::port_rule::comment;

    pub(super) fn parse(payload: &[u8]) -> Rule {
        let mut rule = Rule::default();
        for (kind, value) in Attributes(payload) {
            match kind {
                NFTA_RULE_CHAIN => rule.chain = text(value),
                NFTA_RULE_HANDLE => rule.handle = value.try_into().map_or(0, u64::from_be_bytes),
                NFTA_RULE_USERDATA => rule.comment = comment(value),
                NFTA_RULE_EXPRESSIONS => {
                    for (name, data) in expressions(value) {
                        parse_expression(&name, data, &mut rule);
                    }
                }
                _ => {}
            }
        }
        rule
    }

    fn parse_expression(name: &str, data: &[u8], rule: &mut Rule) {
        const NFTA_CMP_DATA: u16 = 3;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        const NFTA_MATCH_NAME: u16 = 1;
        const NFTA_MATCH_INFO: u16 = 3;
        match name {
            "cmp" => {
                let value = Attributes::find_in(data, &[NFTA_CMP_DATA, NFTA_DATA_VALUE]);
                rule.values.extend(value.map(<[u8]>::to_vec));
            }
            "immediate" => {
                let found = Attributes::find_in(data, &[NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT]);
                rule.verdict = found.and_then(verdict).or(rule.verdict.take());
            }
            // iptables' own comment, a match that always matches (struct xt_comment_info).
            "match"
                if Attributes::find(data, NFTA_MATCH_NAME).map(text).as_deref()
                    == Some("comment") =>
            {
                rule.comment = Attributes::find(data, NFTA_MATCH_INFO).map(text);
            }
            _ => {}
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
}
