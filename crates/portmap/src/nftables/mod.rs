//! The rules of the `nftables` backend, and what makes or removes them. Pure: the tables as they are come in, `nft`'s
//! statements go out.
//!
//! Packets to the node itself go from the base chains to `hostports_all` and on to `hostports`, where a rule a mapping
//! rewrites their destination. `masquerading` rewrites the source of those that could not be answered otherwise. The
//! container's rules carry its id as their comment, by which each implementation removes the other's.
//!
//! Where we differ from the reference:
//! * Conditions stand in the container's own rules. In the base chains, where the reference has them, they were those
//!   of whoever came last, for all. If the configuration has conditions and containers of the reference's are there,
//!   the base chains are left as they are, so that those keep theirs; else they are written without.
//! * A second ADD replaces the rules of the first. Of a container that is on another network too, the comment does not
//!   tell which network a rule is of: then only those rules go that lead to the same address.
//! * A new rule goes to the end, but for the very same port as a rule of another container to the start, as in the
//!   `iptables` backend; and rules that lead to the address that is now this container's are of a dead one, and go.
//! * A comment without the network's name tells GC too little: so which network a container is on is noted in a table
//!   of our own, [`OWNERS`], that no packet ever comes to. What the reference made has no such note, and GC leaves it.

pub(crate) mod act;
pub(crate) mod seen;

use std::net::IpAddr;

use cni_net::firewall::iptables::Family;
use cni_net::firewall::name;
use cni_net::firewall::port_rule::PortRule;
use ipnetwork::IpNetwork;

use crate::config::{Config, Mapping, family_of};
use crate::iptables::Owner;
use seen::{Seen, SeenFamily};

pub(crate) const TABLE: &str = "cni_hostport";
/// Our own table, of the family `inet`.
pub(crate) const OWNERS: &str = "cni_hostport_owners";
/// Its one chain.
pub(crate) const ATTACHMENTS: &str = "attachments";
pub(crate) const HOSTPORTS: &str = "hostports";
/// Rules of the reference's first releases with this backend.
pub(crate) const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
pub(crate) const PREROUTING: &str = "prerouting";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const HOSTPORTS_ALL: &str = "hostports_all";
pub(crate) const MASQUERADING: &str = "masquerading";

/// How long a comment may be, in bytes (libnftnl, `NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_LENGTH: usize = 128;
/// How many digits stand for a network's name.
const NETWORK_DIGITS: usize = 16;
/// How much of a container's id has room behind them, in bytes.
const ID_LENGTH: usize = COMMENT_LENGTH - NETWORK_DIGITS - 1;

/// The comment of a container's rules.
pub(crate) fn comment(container_id: &str) -> &str {
    start(container_id, COMMENT_LENGTH)
}

/// What of a text has room in so many bytes. GC's list may hold any text, not only ids.
fn start(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The note that a container is on a network.
pub(crate) fn note(owner: &Owner<'_>) -> String {
    let id = start(owner.container_id, ID_LENGTH);
    format!("{}-{id}", name::hash(NETWORK_DIGITS, owner.network))
}

/// Network and container in a note.
fn parse_note(note: &str) -> Option<(&str, &str)> {
    note.split_at_checked(NETWORK_DIGITS)
        .and_then(|(network, rest)| Some((network, rest.strip_prefix('-')?)))
}

/// Is the note about this container, as far as it has room for the id?
fn is_about(note: &str, container_id: &str) -> bool {
    parse_note(note).is_some_and(|(_, id)| id == start(container_id, ID_LENGTH))
}

/// As `nft` spells a family.
pub(crate) fn spelled(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

/// One transaction that makes the rules of a container with these addresses, one of each family at most, what they are
/// to be, in both families. `described`: does the table get a comment, which old kernels refuse?
pub(crate) fn attach(
    seen: &Seen,
    owner: &Owner<'_>,
    config: &Config,
    addresses: &[IpNetwork],
    described: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    let id = comment(owner.container_id);
    let shared = is_on_another_network(seen, owner);
    for seen in &seen.families {
        let address = addresses.iter().find(|it| Family::of(it) == seen.family);
        if let Some(address) = address {
            lines.extend(structure(seen, config, id, described));
            lines.extend(evict(seen, id, address.ip()));
        }
        let replaced = |rule: &PortRule| {
            let leads_here = address.is_some_and(|address| is_to(rule, address.ip()));
            rule.comment.as_deref() == Some(id) && (!shared || leads_here)
        };
        lines.extend(seen.delete(replaced));
        if let Some(address) = address {
            let stays = |rule: &&PortRule| !replaced(rule) && !is_redirected_to(rule, address.ip());
            let others: Vec<&PortRule> = seen.hostports.iter().filter(stays).collect();
            for mapping in config.mappings_of(seen.family) {
                lines.push(redirecting(mapping, config, address.ip(), id, &others));
            }
            lines.extend(masquerading(config, address.ip(), id));
        }
    }
    let note = note(owner);
    if !seen
        .owners
        .iter()
        .any(|it| it.comment.as_deref() == Some(&note))
    {
        lines.push(format!("add table inet {OWNERS}"));
        lines.push(format!("add chain inet {OWNERS} {ATTACHMENTS}"));
        lines.push(format!(
            "add rule inet {OWNERS} {ATTACHMENTS} return comment \"{note}\""
        ));
    }
    lines
}

/// Is there a note that the container is on a network besides the owner's?
fn is_on_another_network(seen: &Seen, owner: &Owner<'_>) -> bool {
    let own = note(owner);
    let mut notes = seen.owners.iter().filter_map(|it| it.comment.as_deref());
    notes.any(|note| note != own && is_about(note, owner.container_id))
}

/// Is the rule, be it one that redirects or one that masquerades, about packets to the container with this address?
fn is_to(rule: &PortRule, container: IpAddr) -> bool {
    match rule.to {
        Some(_) => is_redirected_to(rule, container),
        None => rule.destination == Some(container),
    }
}

fn is_redirected_to(rule: &PortRule, container: IpAddr) -> bool {
    rule.to.is_some_and(|(ip, _)| ip == container)
}

/// Table and chains, as the reference makes them at every ADD; nothing if they are that way.
fn structure(seen: &SeenFamily, config: &Config, id: &str, described: bool) -> Vec<String> {
    if seen.is_complete(config.masquerade.is_some()) {
        return Vec::new();
    }
    let table = format!("{} {TABLE}", spelled(seen.family));
    let comment = if described {
        " { comment \"CNI portmap plugin\" ; }"
    } else {
        ""
    };
    let mut lines = vec![format!("add table {table}{comment}")];
    for chain in [HOSTPORTS, HOSTIP_HOSTPORTS, HOSTPORTS_ALL] {
        lines.push(format!("add chain {table} {chain}"));
    }
    lines.push(format!("flush chain {table} {HOSTPORTS_ALL}"));
    for chain in [HOSTIP_HOSTPORTS, HOSTPORTS] {
        lines.push(format!("add rule {table} {HOSTPORTS_ALL} jump {chain}"));
    }
    let keep = !config.conditions(seen.family).is_empty() && seen.has_conditions_for_others(id);
    // `priority dstnat` is a name that older releases refuse in `output`.
    for hook in [PREROUTING, OUTPUT] {
        lines.push(format!(
            "add chain {table} {hook} {{ type nat hook {hook} priority -100 ; }}"
        ));
        if !keep {
            lines.push(format!("flush chain {table} {hook}"));
            lines.push(format!(
                "add rule {table} {hook} fib daddr type local jump {HOSTPORTS_ALL}"
            ));
        }
    }
    if config.masquerade.is_some() {
        let hook = "{ type nat hook postrouting priority 100 ; }";
        lines.push(format!("add chain {table} {MASQUERADING} {hook}"));
    }
    lines
}

/// Deletes the rules of containers that had this address before.
fn evict(seen: &SeenFamily, id: &str, address: IpAddr) -> Vec<String> {
    let dead = seen
        .hostports
        .iter()
        .filter(|rule| is_redirected_to(rule, address))
        .filter_map(|rule| rule.comment.as_deref());
    let dead: Vec<&str> = dead.filter(|it| *it != id).collect();
    seen.delete(|rule| rule.comment.as_deref().is_some_and(|it| dead.contains(&it)))
}

fn redirecting(
    mapping: &Mapping,
    config: &Config,
    to: IpAddr,
    id: &str,
    others: &[&PortRule],
) -> String {
    let family = family_of(to);
    let ip = spelled(family);
    let overtaken = |other: &&PortRule| {
        let as_narrow = other.destination.is_none() || other.destination == mapping.host_ip.one();
        other.ports.contains(&mapping.host_port)
            && other.protocol == Some(mapping.protocol.number())
            && as_narrow
    };
    let verb = if others.iter().any(overtaken) {
        "insert"
    } else {
        "add"
    };
    let mut words = vec![format!("{verb} rule {ip} {TABLE} {HOSTPORTS}")];
    words.extend(config.conditions(family).iter().cloned());
    words.extend(
        mapping
            .host_ip
            .one()
            .map(|host_ip| format!("{ip} daddr {host_ip}")),
    );
    let to = match to {
        IpAddr::V4(to) => format!("{to}:{}", mapping.container_port),
        IpAddr::V6(to) => format!("[{to}]:{}", mapping.container_port),
    };
    let (protocol, port) = (mapping.protocol.name(), mapping.host_port);
    words.push(format!(
        "{protocol} dport {port} dnat to {to} comment \"{id}\""
    ));
    words.join(" ")
}

fn masquerading(config: &Config, container: IpAddr, id: &str) -> Vec<String> {
    let Some(masquerade) = &config.masquerade else {
        return Vec::new();
    };
    let ip = spelled(family_of(container));
    let own = container.to_string();
    let sources: &[&str] = match (masquerade.all, container) {
        (true, IpAddr::V4(_)) => &["0.0.0.0/0"],
        (true, IpAddr::V6(_)) => &["::/0"],
        (false, IpAddr::V4(_)) => &[&own, "127.0.0.1"],
        (false, IpAddr::V6(_)) => &[&own],
    };
    let rule = |source: &&str| {
        format!(
            "add rule {ip} {TABLE} {MASQUERADING} {ip} saddr {source} {ip} daddr {container} masquerade comment \"{id}\""
        )
    };
    sources.iter().map(rule).collect()
}

/// How many rules a container has in `hostports` and, if it has any there, in `masquerading`.
pub(crate) fn expected(config: &Config, family: Family) -> (usize, usize) {
    let masquerading = match (&config.masquerade, family) {
        (None, _) => 0,
        (Some(masquerade), Family::Ipv4) if !masquerade.all => 2,
        (Some(_), _) => 1,
    };
    (config.mappings_of(family).count(), masquerading)
}

/// Deletes what a container has now and did not have `before`.
pub(crate) fn undo(before: &Seen, now: &Seen, container_id: &str) -> Vec<String> {
    let id = comment(container_id);
    let mut lines = Vec::new();
    for (before, now) in before.families.iter().zip(&now.families) {
        let is_new = |rule: &PortRule| !before.has(rule);
        lines.extend(now.delete(|rule| rule.comment.as_deref() == Some(id) && is_new(rule)));
    }
    let noted = |note: &str| {
        let mut notes = before.owners.iter();
        notes.any(|it| it.comment.as_deref() == Some(note))
    };
    lines.extend(now.delete_notes(|note| is_about(note, container_id) && !noted(note)));
    lines
}

/// Deletes all rules of a container, and all notes about it.
pub(crate) fn detach(seen: &Seen, container_id: &str) -> Vec<String> {
    let id = comment(container_id);
    let rules = seen.families.iter();
    let mut lines: Vec<String> = rules
        .flat_map(|seen| seen.delete(|rule| rule.comment.as_deref() == Some(id)))
        .collect();
    lines.extend(seen.delete_notes(|note| is_about(note, container_id)));
    lines
}

/// Deletes the notes of this network about containers that are not `valid`, and the rules of those that are on no
/// other network.
pub(crate) fn collect(seen: &Seen, network: &str, valid: &[&str]) -> Vec<String> {
    let rules = seen.families.iter();
    let dead = |rule: &PortRule| {
        rule.comment
            .as_deref()
            .is_some_and(|id| is_dead(seen, network, valid, id))
    };
    let mut lines: Vec<String> = rules.flat_map(|seen| seen.delete(dead)).collect();
    lines.extend(seen.delete_notes(|note| is_stale(note, network, valid)));
    lines
}

/// Is there a note about the container, and none but stale ones?
pub(crate) fn is_dead(seen: &Seen, network: &str, valid: &[&str], container_id: &str) -> bool {
    let notes = seen.owners.iter().filter_map(|it| it.comment.as_deref());
    let mut about: Vec<&str> = notes.filter(|note| is_about(note, container_id)).collect();
    let noted = !about.is_empty();
    about.retain(|note| !is_stale(note, network, valid));
    noted && about.is_empty()
}

fn is_stale(note: &str, network: &str, valid: &[&str]) -> bool {
    let network = name::hash(NETWORK_DIGITS, network);
    parse_note(note).is_some_and(|(its, _)| its == network)
        && !valid.iter().any(|id| is_about(note, id))
}

#[cfg(test)]
mod tests;
