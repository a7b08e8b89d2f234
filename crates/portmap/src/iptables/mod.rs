//! The rules of the `iptables` backend, byte for byte the reference's, and what makes or removes them. Pure: the table
//! as it is comes in, changes go out.
//!
//! Packets to the node itself go from PREROUTING and OUTPUT to [`DNAT`], from there by an entry for the ports to the
//! container's own chain, and in that one rule rewrites their destination. Rules before it mark what is to be
//! masqueraded; [`MASQ`], first in POSTROUTING, looks for the mark.
//!
//! Where we differ from the reference:
//! * The container's chain is emptied before it is filled, so a second ADD leads to the new address only.
//! * A new entry goes to the end, as the reference's does, so nothing changes for who is there; but where a rule of
//!   another container stands for the very same port (a DEL that never came: a runtime gives a port to one container
//!   at a time), it goes to the start, and wins. An older rule for one address of the node is not overtaken by a new
//!   one for all. Chains that lead to the address that is now this container's are of a dead one, and go.

mod compare;
mod glance;

pub(crate) mod act;
pub(crate) mod check;
pub(crate) mod remove;

use std::net::IpAddr;

use cni_net::firewall::iptables::{Change, Family, Rule, Saved};
use cni_net::firewall::name;
use ipnetwork::IpNetwork;

use crate::config::{Config, Mapping, Mark, Masquerade, Protocol};
use compare::{Redirect, redirects, same, same_list};

pub(crate) const TABLE: &str = "nat";
pub(crate) const DNAT: &str = "CNI-HOSTPORT-DNAT";
pub(crate) const SETMARK: &str = "CNI-HOSTPORT-SETMARK";
pub(crate) const MASQ: &str = "CNI-HOSTPORT-MASQ";
/// What the chain of a container starts with.
pub(crate) const CONTAINER_PREFIX: &str = "CNI-DN-";
/// And a second one that releases before 0.7 made.
const OLD_PREFIX: &str = "CNI-SN-";

/// How many ports one rule takes (`XT_MULTI_PORTS`).
const PORTS: usize = 15;
/// How long a comment may be, in bytes (`XT_MAX_COMMENT_LEN`, less the closing zero).
const COMMENT_LENGTH: usize = 255;

/// Who rules belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    pub(crate) network: &'a str,
    pub(crate) container_id: &'a str,
}

impl Owner<'_> {
    /// The container's chain.
    pub(crate) fn chain(&self) -> String {
        name::chain(CONTAINER_PREFIX, self.network, self.container_id)
    }

    /// All chains that may be its own.
    pub(crate) fn chains(&self) -> [String; 2] {
        [CONTAINER_PREFIX, OLD_PREFIX]
            .map(|prefix| name::chain(prefix, self.network, self.container_id))
    }

    /// By which a person, GC, or DEL under another network name, finds it.
    fn comment(&self) -> String {
        let comment = format!("dnat {}", name::comment(self.network, self.container_id));
        if comment.len() <= COMMENT_LENGTH {
            return comment;
        }
        // Names and ids are ASCII.
        let start: String = comment.chars().take(COMMENT_LENGTH - 2).collect();
        format!("{start}...")
    }
}

/// The network and, unless it was cut off, the container in an entry's comment; `None` if it is somebody else's.
pub(crate) fn parse_comment(comment: &str) -> Option<(&str, Option<&str>)> {
    let (network, rest) = comment
        .strip_prefix("dnat name: \"")?
        .split_once("\" id: \"")?;
    Some((network, rest.strip_suffix('"')))
}

/// What all containers of the node share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The mark, as value and mask, if ours.
    pub(crate) mark: Option<u32>,
}

impl Shared {
    pub(crate) fn of(config: &Config) -> Shared {
        let mark = match &config.masquerade {
            Some(Masquerade {
                mark: Mark::Own(mark),
                ..
            }) => Some(*mark),
            Some(Masquerade {
                mark: Mark::External(_),
                ..
            })
            | None => None,
        };
        Shared { mark }
    }

    /// Marks, and looks for marks: the two rules, each in a chain of its own, and the way to the second.
    fn marking(mark: u32) -> [Rule; 3] {
        let value = format!("{mark:#x}/{mark:#x}");
        let comment = |text| ["-m", "comment", "--comment", text];
        let set = comment("CNI portfwd masquerade mark").into_iter();
        let way = comment("CNI portfwd requiring masquerade").into_iter();
        [
            Rule::new(
                SETMARK,
                set.chain(["-j", "MARK", "--set-xmark", value.as_str()]),
            ),
            Rule::new(
                MASQ,
                ["-m", "mark", "--mark", value.as_str(), "-j", "MASQUERADE"],
            ),
            Rule::new("POSTROUTING", way.chain(["-j", MASQ])),
        ]
    }

    /// From where packets to the node itself come to the entries.
    fn ways() -> [Rule; 2] {
        ["PREROUTING", "OUTPUT"]
            .map(|chain| Rule::new(chain, ["-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT]))
    }

    /// What of it is not there yet. POSTROUTING's first rule it must be, to see marks before others masquerade; at the
    /// end of PREROUTING and OUTPUT, so that no port of the node takes what belongs to a service (CVE-2019-9946).
    fn missing(&self, saved: &Saved) -> Vec<Change> {
        let mut changes = Vec::new();
        let chain =
            |name: &str| (!saved.has_chain(name)).then(|| Change::NewChain(name.to_owned()));
        if let Some(mark) = self.mark {
            let [set, masquerade, way] = Shared::marking(mark);
            let value = format!("{mark:#x}/{mark:#x}");
            let has = |rule: &Rule, word: &str| {
                let mut rules = saved.rules_of(&rule.chain);
                rules.any(|it| {
                    it.value("-j") == rule.value("-j") && it.words.iter().any(|it| it == word)
                })
            };
            changes.extend(chain(SETMARK));
            changes.extend((!has(&set, &value)).then_some(Change::Append(set)));
            changes.extend(chain(MASQ));
            changes.extend((!has(&masquerade, &value)).then_some(Change::Append(masquerade)));
            changes.extend((!has(&way, MASQ)).then_some(Change::Insert(way)));
        }
        changes.extend(chain(DNAT));
        for way in Shared::ways() {
            let there = saved
                .rules_of(&way.chain)
                .any(|it| it.value("-j") == Some(DNAT));
            changes.extend((!there).then_some(Change::Append(way)));
        }
        changes
    }
}

/// A container's rules in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) chain: String,
    /// The chain's rules, in order; what several mappings have in common is there once, as the reference has it.
    pub(crate) rules: Vec<Rule>,
    /// The rules that lead to it, in order.
    pub(crate) entries: Vec<Rule>,
}

impl Own {
    pub(crate) fn new(owner: &Owner<'_>, config: &Config, container: IpNetwork) -> Own {
        let family = Family::of(&container);
        let chain = owner.chain();
        let mut rules = Vec::new();
        for mapping in config.mappings_of(family) {
            for rule in redirecting(&chain, config, container, mapping) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        Own {
            rules,
            entries: entries(owner, config, family, &chain),
            chain,
        }
    }
}

/// The entries, by protocol: all ports, also those of mappings that do not concern the family.
fn entries(owner: &Owner<'_>, config: &Config, family: Family, chain: &str) -> Vec<Rule> {
    let mut protocols: Vec<Protocol> = config.mappings.iter().map(|it| it.protocol).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let comment = owner.comment();
    let mut entries = Vec::new();
    for protocol in protocols {
        let mappings = config.mappings.iter().filter(|it| it.protocol == protocol);
        let ports: Vec<String> = mappings.map(|it| it.host_port.to_string()).collect();
        for ports in ports.chunks(PORTS) {
            let ports = ports.join(",");
            let words = [
                "-m",
                "comment",
                "--comment",
                &comment,
                "-m",
                "multiport",
                "-p",
            ];
            let words = words
                .into_iter()
                .chain([protocol.name(), "--destination-ports", &ports]);
            let words = words.chain(config.conditions(family).iter().map(String::as_str));
            entries.push(Rule::new(DNAT, words.chain(["-j", chain])));
        }
    }
    entries
}

/// The rules of one mapping: first what is to be masqueraded, then where it goes.
fn redirecting(chain: &str, config: &Config, container: IpNetwork, mapping: &Mapping) -> Vec<Rule> {
    let port = mapping.host_port.to_string();
    let mut base = vec![
        "-p".to_owned(),
        mapping.protocol.name().to_owned(),
        "--dport".to_owned(),
        port,
    ];
    if let Some(ip) = mapping.host_ip.one() {
        base.extend(["-d".to_owned(), ip.to_string()]);
    }
    let rule = |more: [&str; 4]| {
        let more = more
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(str::to_owned);
        Rule::new(chain, base.iter().cloned().chain(more))
    };
    let mut rules = Vec::new();
    if let Some(masquerade) = &config.masquerade {
        let target = match &masquerade.mark {
            Mark::Own(_) => SETMARK,
            Mark::External(chain) => chain,
        };
        let (source, node_too) = match (masquerade.all, container) {
            (true, IpNetwork::V4(_)) => ("0.0.0.0/0".to_owned(), false),
            (true, IpNetwork::V6(_)) => ("::/0".to_owned(), false),
            (false, container) => (container.to_string(), container.is_ipv4()),
        };
        rules.push(rule(["-s", &source, "-j", target]));
        if node_too {
            rules.push(rule(["-s", "127.0.0.1", "-j", target]));
        }
    }
    let to = match container.ip() {
        IpAddr::V4(ip) => format!("{ip}:{}", mapping.container_port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", mapping.container_port),
    };
    rules.push(rule(["-j", "DNAT", "--to-destination", &to]));
    rules
}

/// What makes the container's rules those of `own`, and the shared ones complete.
pub(crate) fn attach(saved: &Saved, shared: &Shared, own: &Own) -> Vec<Change> {
    let mut changes = shared.missing(saved);
    let wanted: Vec<Redirect> = own.rules.iter().filter_map(Redirect::of).collect();
    let others = others(saved, own);
    let leads_here = |theirs: &Redirect| {
        let (here, there) = (wanted.first().and_then(|it| it.to), theirs.to);
        here.zip(there)
            .is_some_and(|(here, there)| here.0 == there.0)
    };
    let stale = others
        .iter()
        .filter(|(_, theirs)| theirs.iter().any(leads_here));
    let stale: Vec<&str> = stale.map(|(chain, _)| *chain).collect();
    changes.extend(detach(saved, &stale));

    let left = others.iter().filter(|(chain, _)| !stale.contains(chain));
    let overtakes = left
        .flat_map(|(_, theirs)| theirs)
        .any(|theirs| wanted.iter().any(|ours| ours.overtakes(theirs)));
    changes.extend(refill(
        saved,
        own,
        if overtakes { Place::Start } else { Place::End },
    ));
    changes
}

/// Where new entries go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    End,
}

/// Makes chain and entries those of `own`; what is right already stays.
fn refill(saved: &Saved, own: &Own, place: Place) -> Vec<Change> {
    let mut changes = Vec::new();
    if !saved.has_chain(&own.chain) {
        changes.push(Change::NewChain(own.chain.clone()));
    }
    let rules: Vec<&Rule> = saved.rules_of(&own.chain).collect();
    if !same_list(&rules, &own.rules) {
        if !rules.is_empty() {
            changes.push(Change::FlushChain(own.chain.clone()));
        }
        changes.extend(own.rules.iter().cloned().map(Change::Append));
    }
    let entries: Vec<&Rule> = saved.jumps_to(&own.chain).collect();
    let at_start = saved
        .rules_of(DNAT)
        .zip(&own.entries)
        .all(|(there, ours)| same(there, ours));
    if !same_list(&entries, &own.entries) || (place == Place::Start && !at_start) {
        changes.extend(entries.into_iter().cloned().map(Change::Delete));
        match place {
            Place::Start => changes.extend(own.entries.iter().rev().cloned().map(Change::Insert)),
            Place::End => changes.extend(own.entries.iter().cloned().map(Change::Append)),
        }
    }
    changes
}

/// The other containers' chains and where they lead.
fn others<'a>(saved: &'a Saved, own: &Own) -> Vec<(&'a str, Vec<Redirect>)> {
    let chains = saved.chains.iter().map(String::as_str);
    let chains = chains.filter(|it| it.starts_with(CONTAINER_PREFIX) && *it != own.chain);
    chains
        .map(|chain| (chain, redirects(saved, chain).collect()))
        .collect()
}

/// What removes chains, and the rules that lead to them.
pub(crate) fn detach(saved: &Saved, chains: &[&str]) -> Vec<Change> {
    let mut changes = Vec::new();
    for &chain in chains {
        changes.extend(saved.jumps_to(chain).cloned().map(Change::Delete));
        if saved.has_chain(chain) {
            changes.push(Change::FlushChain(chain.to_owned()));
            changes.push(Change::DeleteChain(chain.to_owned()));
        }
    }
    changes
}

/// The rules that a chain has, to be put back if what replaces them fails; `None` if there is no such chain.
pub(crate) fn present(saved: &Saved, chain: &str) -> Option<Own> {
    saved.has_chain(chain).then(|| Own {
        chain: chain.to_owned(),
        rules: saved.rules_of(chain).cloned().collect(),
        entries: saved.jumps_to(chain).cloned().collect(),
    })
}

/// What brings back the rules that a chain had before.
pub(crate) fn restore(saved: &Saved, chain: &str, before: Option<&Own>) -> Vec<Change> {
    match before {
        Some(before) => refill(saved, before, Place::End),
        None => detach(saved, &[chain]),
    }
}

/// The chains that go with DEL: its own, or, where the network had another name at ADD, those that the comment tells
/// to be the container's. `is_its_own` decides by the address that such a chain leads to, since a container can be on
/// several networks.
pub(crate) fn left_by<'a>(
    saved: &'a Saved,
    owner: &Owner<'_>,
    is_its_own: impl Fn(IpAddr) -> bool,
) -> Vec<&'a str> {
    let own = owner.chains();
    let is_own = |chain: &&str| own.iter().any(|it| it == chain);
    let chains = saved.chains.iter().map(String::as_str);
    let mut found: Vec<&str> = chains.filter(is_own).collect();
    if !found.is_empty() {
        return found;
    }
    for entry in saved.rules_of(DNAT) {
        let id = entry
            .value("--comment")
            .and_then(parse_comment)
            .and_then(|(_, id)| id);
        let Some(chain) = entry
            .value("-j")
            .filter(|it| it.starts_with(CONTAINER_PREFIX))
        else {
            continue;
        };
        let leads_here =
            || redirects(saved, chain).all(|it| it.to.is_none_or(|(ip, _)| is_its_own(ip)));
        if id == Some(owner.container_id) && !found.contains(&chain) && leads_here() {
            found.push(chain);
        }
    }
    found
}

/// The chains of this network that are none of the `valid` ones.
pub(crate) fn unowned<'a>(saved: &'a Saved, network: &str, valid: &[String]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for entry in saved.rules_of(DNAT) {
        let comment = entry.value("--comment").unwrap_or_default();
        let Some(chain) = entry.value("-j") else {
            continue;
        };
        if is_unowned(comment, chain, network, valid) && !found.contains(&chain) {
            found.push(chain);
        }
    }
    found
}

/// Does an entry of this network lead to a chain of no valid container?
pub(crate) fn is_unowned(comment: &str, chain: &str, network: &str, valid: &[String]) -> bool {
    parse_comment(comment).is_some_and(|(its, _)| its == network)
        && chain.starts_with(CONTAINER_PREFIX)
        && !valid.iter().any(|it| it == chain)
}

/// Where the UDP ports of chains lead.
pub(crate) fn udp_redirects(saved: &Saved, chains: &[&str]) -> Vec<(u16, IpAddr)> {
    let all = chains.iter().flat_map(|chain| redirects(saved, chain));
    let udp = all.filter(|it| it.protocol == Protocol::Udp.name());
    udp.filter_map(|it| Some((it.port, it.to?.0))).collect()
}

#[cfg(test)]
pub(crate) mod tests;
