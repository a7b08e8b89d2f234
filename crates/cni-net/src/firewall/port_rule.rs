//! Rules about ports, asked of the kernel itself: who made them, which ports they are about, and where those lead.
//!
//! Understands what `nft` makes of `tcp dport 80 dnat to 10.0.0.2:80 comment "x"`, and the newer `iptables` of
//! `-p tcp -m multiport --dports 80 -m comment --comment x -j CHAIN`. Whatever else a rule holds is passed over.
//!
//! Source: include/uapi/linux/netfilter/nf_tables.h, xt_comment.h, xt_multiport.h, xt_mark.h.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use super::nf_tables::{
    self, NFT_MSG_GETRULE, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, expressions,
};
use super::nfnetlink::{Connection, number};
use super::ruleset::Family;
use crate::attributes::{Attributes, text};

/// A rule, as far as it is about ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRule {
    /// By which `nft` deletes it; unique in its table.
    pub handle: u64,
    /// The comment, be it of `nft` or of `iptables`.
    pub comment: Option<String>,
    /// The chain that it jumps to.
    pub jump: Option<String>,
    /// The transport protocol's number.
    pub protocol: Option<u8>,
    /// The one address that packets go to.
    pub destination: Option<IpAddr>,
    /// The ports that packets go to, one of these; none if the rule does not say.
    pub ports: Vec<u16>,
    /// Where packets are redirected to.
    pub to: Option<(IpAddr, Option<u16>)>,
    /// Value and mask of the mark that it looks for, or sets.
    pub mark: Option<(u32, u32)>,
    /// The names of `iptables`' own matches and targets in it, such as `addrtype` and `MASQUERADE`.
    pub extensions: Vec<String>,
    /// How many expressions of the kernel's it is made of.
    pub expressions: usize,
}

/// The packet filter of the namespace that it was opened in.
pub struct PortRules(Option<Connection>);

impl PortRules {
    /// A connection to the packet filter; where the kernel has none, there are no rules.
    pub fn open() -> io::Result<PortRules> {
        Connection::open().map(PortRules)
    }

    /// The rules of a chain, in order; none if there is no such chain.
    pub fn of(&self, family: Family, table: &str, chain: &str) -> io::Result<Vec<PortRule>> {
        let Some(connection) = &self.0 else {
            return Ok(Vec::new());
        };
        let names = [(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)];
        let message = nf_tables::message(NFT_MSG_GETRULE, family, &names);
        let rules = connection.dump(&message)?;
        // Kernels before 4.9 give the rules of all chains.
        let is = |rule: &[u8], kind, name| {
            Attributes::find(rule, kind).is_some_and(|value| text(value) == name)
        };
        let here =
            |rule: &&Vec<u8>| is(rule, NFTA_RULE_TABLE, table) && is(rule, NFTA_RULE_CHAIN, chain);
        Ok(rules.iter().filter(here).map(|rule| parse(rule)).collect())
    }
}

fn parse(attributes: &[u8]) -> PortRule {
    let mut parser = Parser::default();
    for (kind, value) in Attributes(attributes) {
        match kind {
            NFTA_RULE_HANDLE => {
                parser.rule.handle = value.try_into().map_or(0, u64::from_be_bytes);
            }
            NFTA_RULE_USERDATA => {
                parser.rule.comment = comment(value).or(parser.rule.comment.take())
            }
            NFTA_RULE_EXPRESSIONS => {
                for (name, data) in expressions(value) {
                    parser.expression(&name, data);
                }
            }
            _ => {}
        }
    }
    parser.rule
}

/// What a comparison compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Protocol,
    Destination,
    Port,
    Mark,
}

/// The state of the kernel's small machine, as far as it is followed.
#[derive(Default)]
struct Parser {
    rule: PortRule,
    loaded: Option<Loaded>,
    mask: Option<u32>,
    registers: HashMap<u32, Vec<u8>>,
}

impl Parser {
    fn expression(&mut self, name: &str, data: &[u8]) {
        self.rule.expressions += 1;
        match name {
            "meta" => self.load_meta(data),
            "payload" => self.load_payload(data),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "immediate" => self.immediate(data),
            "nat" => self.redirect(data),
            "match" | "target" => self.extension(data),
            _ => {}
        }
    }

    fn load_meta(&mut self, data: &[u8]) {
        const NFTA_META_KEY: u16 = 2;
        const NFT_META_MARK: u32 = 3;
        const NFT_META_L4PROTO: u32 = 16;
        self.mask = None;
        self.loaded = match Attributes::find(data, NFTA_META_KEY).and_then(number) {
            Some(NFT_META_L4PROTO) => Some(Loaded::Protocol),
            Some(NFT_META_MARK) => Some(Loaded::Mark),
            Some(_) | None => None,
        };
    }

    fn load_payload(&mut self, data: &[u8]) {
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let value = |kind| Attributes::find(data, kind).and_then(number);
        let place = (
            value(NFTA_PAYLOAD_BASE),
            value(NFTA_PAYLOAD_OFFSET),
            value(NFTA_PAYLOAD_LEN),
        );
        self.mask = None;
        self.loaded = match place {
            (Some(NETWORK), Some(16), Some(4)) | (Some(NETWORK), Some(24), Some(16)) => {
                Some(Loaded::Destination)
            }
            (Some(NETWORK), Some(9), Some(1)) | (Some(NETWORK), Some(6), Some(1)) => {
                Some(Loaded::Protocol)
            }
            (Some(TRANSPORT), Some(2), Some(2)) => Some(Loaded::Port),
            _ => None,
        };
    }

    fn bitwise(&mut self, data: &[u8]) {
        const NFTA_BITWISE_MASK: u16 = 4;
        // Marks are in the order of the machine.
        let mask = Attributes::find_in(data, &[NFTA_BITWISE_MASK, NFTA_DATA_VALUE]);
        self.mask = mask
            .and_then(|mask| mask.try_into().ok())
            .map(u32::from_ne_bytes);
        if self.loaded != Some(Loaded::Mark) {
            self.loaded = None;
        }
    }

    fn compare(&mut self, data: &[u8]) {
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        const NFT_CMP_EQ: u32 = 0;
        let value =
            Attributes::find_in(data, &[NFTA_CMP_DATA, NFTA_DATA_VALUE]).unwrap_or_default();
        if Attributes::find(data, NFTA_CMP_OP).and_then(number) != Some(NFT_CMP_EQ) {
            return;
        }
        match self.loaded {
            Some(Loaded::Protocol) => self.rule.protocol = value.first().copied(),
            Some(Loaded::Destination) => self.rule.destination = address(value),
            Some(Loaded::Port) => self.rule.ports.extend(port(value)),
            Some(Loaded::Mark) => {
                let value = value.try_into().ok().map(u32::from_ne_bytes);
                self.rule.mark = value.map(|value| (value, self.mask.unwrap_or(u32::MAX)));
            }
            None => {}
        }
    }

    fn immediate(&mut self, data: &[u8]) {
        const NFTA_IMMEDIATE_DREG: u16 = 1;
        const NFTA_IMMEDIATE_DATA: u16 = 2;
        const NFTA_VERDICT_CODE: u16 = 1;
        const NFTA_VERDICT_CHAIN: u16 = 2;
        const NFT_JUMP: u32 = -3_i32 as u32;
        let inside =
            |path: &[u16]| Attributes::find_in(data, &[&[NFTA_IMMEDIATE_DATA], path].concat());
        if inside(&[NFTA_DATA_VERDICT, NFTA_VERDICT_CODE]).and_then(number) == Some(NFT_JUMP) {
            self.rule.jump = inside(&[NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN]).map(text);
        }
        let register = Attributes::find(data, NFTA_IMMEDIATE_DREG).and_then(number);
        if let (Some(register), Some(value)) = (register, inside(&[NFTA_DATA_VALUE])) {
            self.registers.insert(register, value.to_vec());
        }
    }

    fn redirect(&mut self, data: &[u8]) {
        const NFTA_NAT_TYPE: u16 = 1;
        const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
        const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
        const NFT_NAT_DNAT: u32 = 1;
        if Attributes::find(data, NFTA_NAT_TYPE).and_then(number) != Some(NFT_NAT_DNAT) {
            return;
        }
        let held = |kind| {
            let register = Attributes::find(data, kind).and_then(number)?;
            self.registers.get(&register).map(Vec::as_slice)
        };
        let port = held(NFTA_NAT_REG_PROTO_MIN).and_then(port);
        self.rule.to = held(NFTA_NAT_REG_ADDR_MIN)
            .and_then(address)
            .map(|address| (address, port));
    }

    /// A match or target of `iptables`: its name, and a structure of its own.
    fn extension(&mut self, data: &[u8]) {
        const NFTA_EXTENSION_NAME: u16 = 1;
        const NFTA_EXTENSION_INFO: u16 = 3;
        let name = Attributes::find(data, NFTA_EXTENSION_NAME)
            .map(text)
            .unwrap_or_default();
        let info = Attributes::find(data, NFTA_EXTENSION_INFO).unwrap_or_default();
        match name.as_str() {
            "comment" => self.rule.comment = Some(text(info)),
            "multiport" => self.rule.ports.extend(multiport(info)),
            "MARK" | "mark" => {
                if let [a, b, c, d, e, f, g, h, ..] = *info {
                    let value = u32::from_ne_bytes([a, b, c, d]);
                    self.rule.mark = Some((value, u32::from_ne_bytes([e, f, g, h])));
                }
            }
            _ => {}
        }
        self.rule.extensions.push(name);
    }
}

/// The destination ports of `struct xt_multiport_v1`, if it is about them and not negated.
fn multiport(info: &[u8]) -> Vec<u16> {
    const XT_MULTIPORT_DESTINATION: u8 = 1;
    const PORTS: usize = 15;
    const INVERT: usize = 2 + 2 * PORTS + PORTS;
    let (Some(&[kind, count]), Some(0)) = (info.get(..2), info.get(INVERT)) else {
        return Vec::new();
    };
    if kind != XT_MULTIPORT_DESTINATION {
        return Vec::new();
    }
    let ports = info[2..]
        .chunks_exact(2)
        .take(usize::from(count).min(PORTS));
    ports
        .map(|port| u16::from_ne_bytes([port[0], port[1]]))
        .collect()
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.get(..2)?.try_into().ok().map(u16::from_be_bytes)
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// nft's notes on a rule: kind, length, value, without padding (libnftnl, udata.h).
pub(super) fn comment(mut notes: &[u8]) -> Option<String> {
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

#[cfg(test)]
mod tests;
