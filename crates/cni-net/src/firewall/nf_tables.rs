//! nf_tables as netlink speaks of it: the kinds of messages, their attributes, and what a rule is made of.
//!
//! Source: include/uapi/linux/netfilter/nf_tables.h.

use super::nfnetlink::Message;
use super::ruleset::Family;
use crate::attributes::{Attributes, text};

pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
pub(super) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
pub(super) const NFT_MSG_DELCHAIN: u16 = 5;
pub(super) const NFT_MSG_NEWRULE: u16 = 6;
pub(super) const NFT_MSG_GETRULE: u16 = 7;
pub(super) const NFT_MSG_DELRULE: u16 = 8;

pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;

pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;

/// A message of nf_tables, with names as attributes.
pub(super) fn message(kind: u16, family: Family, names: &[(u16, &str)]) -> Message {
    let message = Message::new(NFNL_SUBSYS_NFTABLES, kind, family as u8);
    names.iter().fold(message, |message, (kind, name)| {
        message.with_text(*kind, name)
    })
}

/// The expressions of a rule, in order: the name of each, and its attributes. `list` is what the rule has as its
/// expressions.
pub(super) fn expressions(list: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    Attributes(list).map(|(_, expression)| {
        let name = Attributes::find(expression, NFTA_EXPR_NAME).map(text);
        let data = Attributes::find(expression, NFTA_EXPR_DATA);
        (name.unwrap_or_default(), data.unwrap_or_default())
    })
}
