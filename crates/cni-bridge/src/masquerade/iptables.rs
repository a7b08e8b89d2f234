//! Masquerading by `iptables`: a chain for each container on a network, and a jump to it for each address.
//!
//! Pure: what is there comes as [`Saved`], what is to be done goes out as [`Change`]s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_net::firewall::iptables::{Change, Family, Rule, Saved, TABLE};
use cni_net::firewall::name;
use cni_net::firewall::ruleset::{self, Removal, Verdict};
use ipnetwork::IpNetwork;

use super::{Owner, Stale};

const PREFIX: &str = "CNI-";
pub(super) const POSTROUTING: &str = "POSTROUTING";

/// The chain of the owner's container. All its interfaces on the network share it.
pub(super) fn chain(owner: &Owner<'_>) -> String {
    name::chain(PREFIX, owner.network, owner.container_id)
}

/// What is missing for these addresses, which are all of one family.
///
/// What an address sends to its own subnet is accepted before the rule that masquerades the rest.
pub(super) fn add(owner: &Owner<'_>, addresses: &[IpNetwork], saved: &Saved) -> Vec<Change> {
    let chain = chain(owner);
    let mut changes = Vec::new();
    if !saved.has_chain(&chain) {
        changes.push(Change::NewChain(chain.clone()));
    }
    let rules: Vec<&Rule> = saved.rules_of(&chain).collect();
    let masquerading = rules
        .iter()
        .position(|rule| rule.value("-j") == Some("MASQUERADE"));
    let mut subnets: Vec<IpNetwork> = Vec::new();
    for address in addresses {
        if subnets.contains(&subnet(address)) {
            continue;
        }
        subnets.push(subnet(address));
        let accepting = rules
            .iter()
            .position(|rule| accepted(rule) == Some(subnet(address)));
        let wanted = owned(owner, &chain, &["-d", &address.to_string(), "-j", "ACCEPT"]);
        match (accepting, masquerading) {
            (Some(accepting), Some(masquerading)) if accepting > masquerading => {
                // As the reference leaves it with two addresses: no packet ever comes so far.
                changes.extend([
                    Change::Delete(rules[accepting].clone()),
                    Change::Insert(wanted),
                ]);
            }
            (Some(_), _) => {}
            (None, Some(_)) => changes.push(Change::Insert(wanted)),
            (None, None) => changes.push(Change::Append(wanted)),
        }
    }
    if masquerading.is_none() {
        let multicast = match addresses.first().map(Family::of) {
            Some(Family::Ipv6) => "ff00::/8",
            Some(Family::Ipv4) | None => "224.0.0.0/4",
        };
        changes.push(Change::Append(owned(
            owner,
            &chain,
            &["!", "-d", multicast, "-j", "MASQUERADE"],
        )));
    }
    for address in addresses {
        let is_there =
            jumps(saved, &chain).any(|jump| source(jump) == Some(IpNetwork::from(address.ip())));
        if !is_there {
            changes.push(Change::Append(jump(owner, &chain, address.ip())));
        }
    }
    changes
}

/// What is to be removed: the jumps of stale addresses, and the chain unless another address still uses it.
pub(super) fn del(owner: &Owner<'_>, stale: &Stale<'_>, saved: &Saved) -> Vec<Change> {
    let chain = chain(owner);
    let (gone, left): (Vec<&Rule>, Vec<&Rule>) = jumps(saved, &chain)
        .partition(|jump| source(jump).is_none_or(|source| stale.covers(source)));
    let mut changes: Vec<Change> = gone.into_iter().cloned().map(Change::Delete).collect();
    if left.is_empty() {
        if saved.has_chain(&chain) {
            changes.extend([
                Change::FlushChain(chain.clone()),
                Change::DeleteChain(chain),
            ]);
        }
        return changes;
    }
    for rule in saved.rules_of(&chain) {
        let Some(subnet) = accepted(rule) else {
            continue;
        };
        let is_used = left
            .iter()
            .any(|jump| source(jump).is_some_and(|source| subnet.contains(source.ip())));
        if !is_used {
            changes.push(Change::Delete(rule.clone()));
        }
    }
    changes
}

/// What [`del`] finds if all is as [`add`] left it for these addresses alone.
pub(super) fn as_added(owner: &Owner<'_>, addresses: &[IpNetwork]) -> Saved {
    let chain = chain(owner);
    let rules = addresses
        .iter()
        .map(|address| jump(owner, &chain, address.ip()))
        .collect();
    Saved {
        chains: vec![chain],
        rules,
    }
}

/// The same where `iptables` is of the newer kind, as far as it can be done without the tool: nothing if an address that
/// is not stale still uses the chain. `postrouting` are the rules of that chain.
pub(super) fn removals(
    owner: &Owner<'_>,
    family: Family,
    stale: &Stale<'_>,
    postrouting: Vec<ruleset::Rule>,
) -> Vec<Removal> {
    let chain = chain(owner);
    let is_jump = |rule: &ruleset::Rule| matches!(&rule.verdict, Some(Verdict::Jump(target)) if *target == chain);
    let is_stale =
        |rule: &ruleset::Rule| compared(rule, family).is_none_or(|source| stale.covers(source));
    let (family, table) = (family.into(), TABLE);
    let mut removals = Vec::new();
    for jump in postrouting.into_iter().filter(is_jump) {
        if !is_stale(&jump) {
            return Vec::new();
        }
        removals.push(Removal::Rule {
            family,
            table,
            chain: jump.chain,
            handle: jump.handle,
        });
    }
    removals.push(Removal::Chain {
        family,
        table,
        chain,
    });
    removals
}

/// The containers of this network that have a chain and no valid attachment. `rules` are those of the whole table.
pub(super) fn garbage<'a>(
    network: &str,
    valid: &[(&str, &str)],
    rules: &'a [ruleset::Rule],
) -> Vec<&'a str> {
    let mut found = Vec::new();
    for rule in rules {
        let chain = match &rule.verdict {
            Some(Verdict::Jump(target)) => target,
            Some(Verdict::Return | Verdict::Goto(_) | Verdict::Other) | None => &rule.chain,
        };
        let owner = rule
            .comment
            .as_deref()
            .and_then(|comment| name::owner_in_comment(comment, network));
        let Some(container_id) = owner else { continue };
        if is_garbage(network, container_id, chain, valid) && !found.contains(&container_id) {
            found.push(container_id);
        }
    }
    found
}

/// The name must follow from the owner, so that a chain of somebody else's is never taken for ours.
fn is_garbage(network: &str, container_id: &str, chain: &str, valid: &[(&str, &str)]) -> bool {
    let is_valid = valid.iter().any(|(valid, _)| *valid == container_id);
    !is_valid && name::chain(PREFIX, network, container_id) == chain
}

/// What is to be removed of this network: all of a container that has no valid attachment.
pub(super) fn collect_garbage(network: &str, valid: &[(&str, &str)], saved: &Saved) -> Vec<Change> {
    let mut changes = Vec::new();
    for chain in saved
        .chains
        .iter()
        .filter(|chain| chain.starts_with(PREFIX))
    {
        let rules = || {
            saved
                .rules
                .iter()
                .filter(|rule| &rule.chain == chain || rule.value("-j") == Some(chain))
        };
        let owner =
            rules().find_map(|rule| name::owner_in_comment(rule.value("--comment")?, network));
        let Some(container_id) = owner else { continue };
        if !is_garbage(network, container_id, chain, valid) {
            continue;
        }
        changes.extend(jumps(saved, chain).cloned().map(Change::Delete));
        changes.extend([
            Change::FlushChain(chain.clone()),
            Change::DeleteChain(chain.clone()),
        ]);
    }
    changes
}

fn jump(owner: &Owner<'_>, chain: &str, address: IpAddr) -> Rule {
    owned(
        owner,
        POSTROUTING,
        &["-s", &address.to_string(), "-j", chain],
    )
}

/// A rule with the owner's comment.
fn owned(owner: &Owner<'_>, chain: &str, words: &[&str]) -> Rule {
    let comment = name::comment(owner.network, owner.container_id);
    Rule::new(
        chain,
        words
            .iter()
            .copied()
            .chain(["-m", "comment", "--comment", &comment]),
    )
}

fn jumps<'a>(saved: &'a Saved, chain: &str) -> impl Iterator<Item = &'a Rule> {
    saved
        .rules_of(POSTROUTING)
        .filter(move |rule| rule.value("-j") == Some(chain))
}

/// Whose packets the rule is about: an address, or in the form of old releases its whole subnet.
fn source(rule: &Rule) -> Option<IpNetwork> {
    rule.value("-s")?.parse().ok()
}

/// The same of a rule in the kernel, which compares as many bytes of an address as matter.
fn compared(rule: &ruleset::Rule, family: Family) -> Option<IpNetwork> {
    fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
    }
    let bytes = rule.values.first()?;
    let address: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::from(padded::<4>(bytes)).into(),
        Family::Ipv6 => Ipv6Addr::from(padded::<16>(bytes)).into(),
    };
    IpNetwork::new(address, u8::try_from(8 * bytes.len()).ok()?).ok()
}

/// The subnet that the rule accepts packets to.
fn accepted(rule: &Rule) -> Option<IpNetwork> {
    let destination = rule
        .value("-d")
        .filter(|_| rule.value("-j") == Some("ACCEPT"))?;
    destination.parse().ok().as_ref().map(subnet)
}

/// The network that an address with its prefix length is in.
pub(super) fn subnet(address: &IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(*address)
}
