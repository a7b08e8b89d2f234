//! The backend's tables as they are.

use std::io;
use std::net::IpAddr;

use cni_net::firewall::iptables::Family;
use cni_net::firewall::port_rule::{PortRule, PortRules};
use cni_net::firewall::ruleset::{self, Ruleset};

use super::{
    ATTACHMENTS, HOSTIP_HOSTPORTS, HOSTPORTS, HOSTPORTS_ALL, MASQUERADING, OUTPUT, OWNERS,
    PREROUTING, TABLE, spelled,
};

/// Of how many expressions `fib daddr type local jump hostports_all` is made: look up, compare, jump.
const UNCONDITIONAL: usize = 3;

const CHAINS: [&str; 6] = [
    PREROUTING,
    OUTPUT,
    HOSTPORTS_ALL,
    HOSTPORTS,
    HOSTIP_HOSTPORTS,
    MASQUERADING,
];

/// Both families' tables, and the notes.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) families: [SeenFamily; 2],
    /// The notes about who is on which network, in their comments.
    pub(crate) owners: Vec<PortRule>,
}

/// A family's table; a chain that is not there has no rules.
#[derive(Clone, Debug)]
pub(crate) struct SeenFamily {
    pub(crate) family: Family,
    /// The chains that are there.
    pub(crate) chains: Vec<&'static str>,
    pub(crate) prerouting: Vec<PortRule>,
    pub(crate) output: Vec<PortRule>,
    pub(crate) hostports_all: Vec<PortRule>,
    pub(crate) hostports: Vec<PortRule>,
    pub(crate) hostip_hostports: Vec<PortRule>,
    pub(crate) masquerading: Vec<PortRule>,
}

impl Seen {
    pub(crate) fn read() -> io::Result<Seen> {
        let ruleset = Ruleset::open()?;
        let rules = PortRules::open()?;
        let read = |family| SeenFamily::read(ruleset.as_ref(), &rules, family);
        Ok(Seen {
            families: [read(Family::Ipv4)?, read(Family::Ipv6)?],
            owners: rules.of(ruleset::Family::Inet, OWNERS, ATTACHMENTS)?,
        })
    }

    pub(super) fn delete_notes(&self, which: impl Fn(&str) -> bool) -> Vec<String> {
        let notes = self
            .owners
            .iter()
            .filter(|note| note.comment.as_deref().is_some_and(&which));
        notes
            .map(|note| {
                format!(
                    "delete rule inet {OWNERS} {ATTACHMENTS} handle {}",
                    note.handle
                )
            })
            .collect()
    }

    /// Where the UDP ports lead that lines of ours delete the rules of.
    pub(crate) fn udp_redirects(&self, which: impl Fn(&str) -> bool) -> Vec<(Family, u16, IpAddr)> {
        const UDP: u8 = 17;
        let mut found = Vec::new();
        for seen in &self.families {
            for rule in seen.hostports.iter().chain(&seen.hostip_hostports) {
                let of_interest = rule.comment.as_deref().is_some_and(&which);
                if let (true, Some(UDP), Some((ip, _))) = (of_interest, rule.protocol, rule.to) {
                    found.extend(rule.ports.iter().map(|port| (seen.family, *port, ip)));
                }
            }
        }
        found
    }
}

impl SeenFamily {
    fn read(
        ruleset: Option<&Ruleset>,
        rules: &PortRules,
        family: Family,
    ) -> io::Result<SeenFamily> {
        let mut chains = Vec::new();
        if let Some(ruleset) = ruleset
            && ruleset.has_table(family.into(), TABLE)?
        {
            for chain in CHAINS {
                if ruleset.has_chain(family.into(), TABLE, chain)? {
                    chains.push(chain);
                }
            }
        }
        let of = |chain| match chains.contains(&chain) {
            true => rules.of(family.into(), TABLE, chain),
            false => Ok(Vec::new()),
        };
        Ok(SeenFamily {
            family,
            prerouting: of(PREROUTING)?,
            output: of(OUTPUT)?,
            hostports_all: of(HOSTPORTS_ALL)?,
            hostports: of(HOSTPORTS)?,
            hostip_hostports: of(HOSTIP_HOSTPORTS)?,
            masquerading: of(MASQUERADING)?,
            chains,
        })
    }

    /// Is the way from the base chains to the containers' rules there, as it would be made now?
    pub(super) fn is_complete(&self, masquerading: bool) -> bool {
        let leads = |rules: &[PortRule], to: &[&str]| {
            rules.len() == to.len()
                && rules
                    .iter()
                    .zip(to)
                    .all(|(rule, to)| rule.jump.as_deref() == Some(*to))
        };
        let base = |rules: &[PortRule]| {
            leads(rules, &[HOSTPORTS_ALL])
                && rules.iter().all(|rule| rule.expressions == UNCONDITIONAL)
        };
        let unneeded = |chain: &str| chain == MASQUERADING && !masquerading;
        CHAINS
            .iter()
            .all(|chain| self.chains.contains(chain) || unneeded(chain))
            && leads(&self.hostports_all, &[HOSTIP_HOSTPORTS, HOSTPORTS])
            && base(&self.prerouting)
            && base(&self.output)
    }

    /// Is it one of the containers' rules here?
    pub(super) fn has(&self, rule: &PortRule) -> bool {
        let chains = [&self.hostports, &self.hostip_hostports, &self.masquerading];
        chains.iter().any(|rules| rules.contains(rule))
    }

    /// Does the base chain have conditions, and has anybody but `id` rules that rely on them?
    pub(super) fn has_conditions_for_others(&self, id: &str) -> bool {
        let conditional = |rule: &PortRule| {
            rule.jump.as_deref() == Some(HOSTPORTS_ALL) && rule.expressions > UNCONDITIONAL
        };
        let others = |rule: &PortRule| rule.comment.as_deref() != Some(id);
        self.prerouting.iter().any(conditional) && self.hostports.iter().any(others)
    }

    /// Statements that delete the rules of containers which are wanted gone.
    pub(super) fn delete(&self, which: impl Fn(&PortRule) -> bool) -> Vec<String> {
        let chains = [
            (HOSTPORTS, &self.hostports),
            (HOSTIP_HOSTPORTS, &self.hostip_hostports),
            (MASQUERADING, &self.masquerading),
        ];
        let family = spelled(self.family);
        let mut lines = Vec::new();
        for (chain, rules) in chains {
            for rule in rules.iter().filter(|rule| which(rule)) {
                lines.push(format!(
                    "delete rule {family} {TABLE} {chain} handle {}",
                    rule.handle
                ));
            }
        }
        lines
    }
}
