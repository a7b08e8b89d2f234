//! Adding rules of the newer `iptables` by a message to the kernel, where the tool would be a process of its own.
//!
//! The tool translates a rule into expressions of nf_tables, and back when it lists or compares rules. All its releases
//! read what is made here of a source or destination, a comment, and the targets that are needed back as the rule that
//! it is, though some write a shorter form themselves. All else is left to the tool.
//!
//! Source: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h, x_tables.h, xt_comment.h, nf_nat.h.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::iptables::{Change, Family, Rule, TABLE};
use super::nf_tables::{
    self, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE, NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE,
};
use super::nfnetlink::Message;
use super::ruleset::Ruleset;
use super::tool::Tools;
use super::usable::{self, Kind};
use crate::attributes::{NLA_F_NESTED, push_attribute};

/// Makes all changes, in order, as one. Did the kernel say that it has? If not, the tool is to do it, or to say why it
/// cannot be done.
pub fn make(tools: &Tools, family: Family, changes: &[Change]) -> bool {
    let Some(messages) = messages(family, changes) else {
        return false;
    };
    if !matches!(usable::kind(tools, family), Ok(Kind::Newer)) {
        return false;
    }
    match Ruleset::open() {
        // The tool makes the table and its first chains where they are not there yet.
        Ok(Some(ruleset)) => ruleset.make(&messages).is_ok(),
        Ok(None) | Err(_) => false,
    }
}

/// The changes as messages; `None` if only the tool knows how.
fn messages(family: Family, changes: &[Change]) -> Option<Vec<Message>> {
    let (mut messages, mut chains) = (Vec::new(), Vec::new());
    for change in changes {
        if let Change::NewChain(chain) = change {
            chains.push(chain.as_str());
        }
        messages.push(message(family, change, &chains)?);
    }
    Some(messages)
}

/// One change as a message; `chains` are those that are made before, and so can be targets.
fn message(family: Family, change: &Change, chains: &[&str]) -> Option<Message> {
    match change {
        Change::NewChain(chain) => {
            let names = [(NFTA_CHAIN_TABLE, TABLE), (NFTA_CHAIN_NAME, chain.as_str())];
            let message = nf_tables::message(NFT_MSG_NEWCHAIN, family.into(), &names);
            Some(message.creating_exclusively())
        }
        Change::Append(rule) => {
            let names = [(NFTA_RULE_TABLE, TABLE), (NFTA_RULE_CHAIN, &rule.chain)];
            let expressions = expressions(family, rule, chains)?;
            let message = nf_tables::message(NFT_MSG_NEWRULE, family.into(), &names)
                .with(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, &expressions);
            Some(message.appending())
        }
        Change::FlushChain(_) | Change::DeleteChain(_) | Change::Insert(_) | Change::Delete(_) => {
            None
        }
    }
}

/// What the words of a rule mean, in the order in which the tool lays it out: addresses, matches, counter, target.
fn expressions(family: Family, rule: &Rule, chains: &[&str]) -> Option<Vec<u8>> {
    let (mut matches, mut comment, mut target) = (Expressions::default(), None, None);
    let mut words = rule.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (negated, word) = match word {
            "!" => (true, words.next()?),
            word => (false, word),
        };
        match (word, negated) {
            ("-s" | "-d", negated) => {
                let network: IpNetwork = words.next()?.parse().ok()?;
                if Family::of(&network) != family {
                    return None;
                }
                matches.compare(word == "-s", network, negated);
            }
            ("-m", false) if words.next()? == "comment" => {}
            ("--comment", false) => comment = Some(words.next()?),
            ("-j", false) => target = Some(words.next()?),
            _ => return None,
        }
    }
    if let Some(comment) = comment {
        matches.comment(comment)?;
    }
    matches.count();
    match target? {
        "ACCEPT" => matches.accept(),
        "MASQUERADE" => matches.masquerade(family),
        chain if chains.contains(&chain) => matches.jump(chain),
        _ => return None,
    }
    Some(matches.0)
}

/// Expressions as a list of attributes.
#[derive(Default)]
struct Expressions(Vec<u8>);

impl Expressions {
    /// The packet's source or destination is in a network, or is not.
    fn compare(&mut self, is_source: bool, network: IpNetwork, negated: bool) {
        const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
        const NFT_PAYLOAD_NETWORK_HEADER: [u8; 4] = 1_u32.to_be_bytes();
        let (offset, full): (u32, u8) = match (network.ip(), is_source) {
            (IpAddr::V4(_), true) => (12, 32), // struct iphdr
            (IpAddr::V4(_), false) => (16, 32),
            (IpAddr::V6(_), true) => (8, 128), // struct ipv6hdr
            (IpAddr::V6(_), false) => (24, 128),
        };
        if network.prefix() == 0 && !negated {
            return;
        }
        let value = bytes(network.network());
        self.push(
            "payload",
            &[
                (1, &REGISTER), // destination
                (2, &NFT_PAYLOAD_NETWORK_HEADER),
                (3, &offset.to_be_bytes()),
                (4, &(value.len() as u32).to_be_bytes()),
            ],
        );
        if network.prefix() < full {
            self.push(
                "bitwise",
                &[
                    (1, &REGISTER), // source
                    (2, &REGISTER), // destination
                    (3, &(value.len() as u32).to_be_bytes()),
                    (4 | NLA_F_NESTED, &data(&bytes(network.mask()))), // and
                    (5 | NLA_F_NESTED, &data(&vec![0; value.len()])),  // xor
                ],
            );
        }
        let operator = u32::from(negated); // NFT_CMP_EQ, NFT_CMP_NEQ
        self.push(
            "cmp",
            &[
                (1, &REGISTER),
                (2, &operator.to_be_bytes()),
                (3 | NLA_F_NESTED, &data(&value)),
            ],
        );
    }

    /// `-m comment`, which always matches; `None` if the text is too long for it.
    fn comment(&mut self, text: &str) -> Option<()> {
        const XT_MAX_COMMENT_LEN: usize = 256;
        let mut info = text.as_bytes().to_vec();
        info.push(0);
        if info.len() > XT_MAX_COMMENT_LEN {
            return None;
        }
        info.resize(XT_MAX_COMMENT_LEN, 0);
        self.extension("match", "comment", &info);
        Some(())
    }

    fn count(&mut self) {
        let zero = 0_u64.to_be_bytes();
        self.push("counter", &[(1, &zero), (2, &zero)]); // bytes, packets
    }

    fn accept(&mut self) {
        const NF_ACCEPT: i32 = 1;
        self.verdict(NF_ACCEPT, None);
    }

    fn jump(&mut self, chain: &str) {
        const NFT_JUMP: i32 = -3;
        self.verdict(NFT_JUMP, Some(chain));
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        const NFT_REG_VERDICT: [u8; 4] = 0_u32.to_be_bytes();
        let mut verdict = Vec::new();
        push_attribute(&mut verdict, 1, &code.to_be_bytes());
        if let Some(chain) = chain {
            push_attribute(&mut verdict, 2, &with_end(chain));
        }
        let mut data = Vec::new();
        push_attribute(&mut data, NFTA_DATA_VERDICT | NLA_F_NESTED, &verdict);
        self.push(
            "immediate",
            &[(1, &NFT_REG_VERDICT), (2 | NLA_F_NESTED, &data)],
        );
    }

    /// `-j MASQUERADE` without options: no range of ports.
    fn masquerade(&mut self, family: Family) {
        let info = match family {
            // struct nf_nat_ipv4_multi_range_compat: one range, all of it zero
            Family::Ipv4 => [&1_u32.to_ne_bytes()[..], &[0; 20]].concat(),
            // struct nf_nat_range
            Family::Ipv6 => vec![0; 40],
        };
        self.extension("target", "MASQUERADE", &info);
    }

    /// A match or target of `iptables`' own, in its first revision.
    fn extension(&mut self, kind: &str, name: &str, info: &[u8]) {
        let revision = 0_u32.to_be_bytes();
        self.push(kind, &[(1, &with_end(name)), (2, &revision), (3, info)]);
    }

    fn push(&mut self, name: &str, attributes: &[(u16, &[u8])]) {
        let mut data = Vec::new();
        for (kind, value) in attributes {
            push_attribute(&mut data, *kind, value);
        }
        let mut expression = Vec::new();
        push_attribute(&mut expression, NFTA_EXPR_NAME, &with_end(name));
        push_attribute(&mut expression, NFTA_EXPR_DATA | NLA_F_NESTED, &data);
        push_attribute(&mut self.0, NFTA_LIST_ELEM | NLA_F_NESTED, &expression);
    }
}

/// A value in an attribute of its own.
fn data(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_attribute(&mut bytes, NFTA_DATA_VALUE, value);
    bytes
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The text with the zero byte that ends it.
fn with_end(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
