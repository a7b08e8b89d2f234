//! CHECK: is every rule of the container there, and does anything lead to it?

use cni_net::firewall::iptables::{self, Family, Rule, Saved};
use cni_net::firewall::tool::{Job, ToolError, Tools};
use ipnetwork::IpNetwork;

use super::compare::same;
use super::{Own, Owner, Shared, TABLE};
use crate::config::Config;
use crate::error::{Error, Missing};

/// Compares the tables with what ADD has made for these addresses.
pub(crate) fn check(
    tools: &Tools,
    owner: &Owner<'_>,
    config: &Config,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let jobs: Vec<_> = addresses
        .iter()
        .map(|address| {
            (
                Family::of(address),
                address,
                iptables::start_reading(tools, Family::of(address)),
            )
        })
        .collect();
    for (family, address, job) in jobs {
        let saved = read(job).map_err(|error| unusable(tools, family, error))?;
        let own = Own::new(owner, config, *address);
        let outcome = compare(&saved, &own, |rule| knows(tools, family, rule));
        outcome.map_err(|missing| Error::Check { family, missing })?;
    }
    Ok(())
}

fn read(job: Result<Job, ToolError>) -> Result<Saved, ToolError> {
    job.and_then(Saved::of)
}

/// What the reference says if a tool is not to be used; both are named.
fn unusable(tools: &Tools, family: Family, error: ToolError) -> Error {
    let (other_family, other) = match family {
        Family::Ipv4 => (Family::Ipv6, iptables::start_reading(tools, Family::Ipv6)),
        Family::Ipv6 => (Family::Ipv4, iptables::start_reading(tools, Family::Ipv4)),
    };
    match (other_family, read(other)) {
        (Family::Ipv6, Err(other)) => Error::NeitherIptables(error, other),
        (Family::Ipv4, Err(other)) => Error::NeitherIptables(other, error),
        (_, Ok(_)) => Error::NoIptables { family, error },
    }
}

/// Does the tool find the rule? It understands other spellings than ours of what the configuration adds.
fn knows(tools: &Tools, family: Family, rule: &Rule) -> bool {
    let wait = format!("--wait={}", tools.limits().lock_seconds);
    let mut arguments = vec![wait.as_str(), "-t", TABLE, "-C", rule.chain.as_str()];
    arguments.extend(rule.words.iter().map(String::as_str));
    tools
        .run(family.tool(), &arguments)
        .is_ok_and(|it| it.code() == Some(0))
}

/// The chain's rules from the last to the first, the entries, then the ways to those.
pub(super) fn compare(
    saved: &Saved,
    own: &Own,
    knows: impl Fn(&Rule) -> bool,
) -> Result<(), Missing> {
    if !saved.has_chain(&own.chain) {
        return Err(Missing::Chain(own.chain.clone()));
    }
    let there = |rule: &Rule| saved.rules_of(&rule.chain).any(|it| same(it, rule)) || knows(rule);
    for rules in [&own.rules, &own.entries] {
        if let Some(missing) = rules.iter().rev().find(|rule| !there(rule)) {
            return Err(Missing::Rule {
                chain: missing.chain.clone(),
                rules: rules.iter().map(|rule| shown(rule, &own.chain)).collect(),
            });
        }
    }
    match Shared::ways().into_iter().find(|way| !there(way)) {
        Some(way) => Err(Missing::Rule {
            chain: way.chain,
            rules: vec![way.words],
        }),
        None => Ok(()),
    }
}

/// A rule's words; of an entry those before the jump.
fn shown(rule: &Rule, chain: &str) -> Vec<String> {
    match rule.words.as_slice() {
        [words @ .., jump, target] if jump == "-j" && target == chain => words.to_vec(),
        words => words.to_vec(),
    }
}
