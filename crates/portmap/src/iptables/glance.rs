//! The table without a process: enough of it for most changes, asked of the kernel.

use std::io;

use cni_net::firewall::iptables::{Family, Rule, Saved};
use cni_net::firewall::port_rule::{PortRule, PortRules};
use cni_net::firewall::ruleset::Ruleset;

use super::{CONTAINER_PREFIX, DNAT, MASQ, Own, SETMARK, Shared, TABLE};
use crate::config::Protocol;

/// What the kernel tells of the newer `iptables`' table.
#[derive(Clone, Debug, Default)]
pub(super) struct Glance {
    /// Which of the chains asked for are there.
    pub(super) chains: Vec<String>,
    /// Their rules, and those of the kernel's chains.
    pub(super) rules: Vec<(&'static str, PortRule)>,
}

impl Glance {
    pub(super) fn read(family: Family, shared: &Shared, own: &Own) -> io::Result<Glance> {
        let mut glance = Glance::default();
        let Some(ruleset) = Ruleset::open()? else {
            return Ok(glance);
        };
        let marking: &[&str] = if shared.mark.is_some() {
            &[SETMARK, MASQ]
        } else {
            &[]
        };
        let mut read = vec!["PREROUTING", "OUTPUT"];
        read.extend(shared.mark.map(|_| "POSTROUTING"));
        for chain in marking.iter().copied().chain([DNAT]) {
            if ruleset.has_chain(family.into(), TABLE, chain)? {
                glance.chains.push(chain.to_owned());
                read.push(chain);
            }
        }
        if ruleset.has_chain(family.into(), TABLE, &own.chain)? {
            glance.chains.push(own.chain.clone());
        }
        let rules = PortRules::open()?;
        for chain in read {
            let found = rules.of(family.into(), TABLE, chain)?;
            glance
                .rules
                .extend(found.into_iter().map(|rule| (chain, rule)));
        }
        Ok(glance)
    }

    /// The shared part as `iptables-save` would print it; `None` if a change needs more than that, because something of
    /// this container is there already, or of another one with the same port, or anything that is not understood.
    pub(super) fn saved(self, shared: &Shared, own: &Own) -> Option<Saved> {
        if self.chains.contains(&own.chain) || self.of(DNAT).any(|entry| concerns(entry, own)) {
            return None;
        }
        let mut rules = Vec::new();
        for way in Shared::ways() {
            let jumps = self
                .of(&way.chain)
                .any(|rule| rule.jump.as_deref() == Some(DNAT));
            rules.extend(jumps.then_some(way));
        }
        if let Some(mark) = shared.mark {
            let [set, masquerade, way] = Shared::marking(mark);
            rules.extend(self.marks(mark, set)?);
            rules.extend(self.marks(mark, masquerade)?);
            let jumps = self
                .of(&way.chain)
                .any(|rule| rule.jump.as_deref() == Some(MASQ));
            rules.extend(jumps.then_some(way));
        }
        Some(Saved {
            chains: self.chains,
            rules,
        })
    }

    /// The rule, if it is there; `None` if the chain has others.
    fn marks(&self, mark: u32, rule: Rule) -> Option<Option<Rule>> {
        let there: Vec<&PortRule> = self.of(&rule.chain).collect();
        let does = |it: &&PortRule| it.mark == Some((mark, mark));
        match there.is_empty() {
            true => Some(None),
            false => there.iter().any(does).then_some(Some(rule)),
        }
    }

    fn of(&self, chain: &str) -> impl Iterator<Item = &PortRule> {
        self.rules
            .iter()
            .filter(move |(its, _)| *its == chain)
            .map(|(_, rule)| rule)
    }
}

/// Is the entry this container's, or maybe for a port of its?
fn concerns(entry: &PortRule, own: &Own) -> bool {
    let Some(chain) = entry
        .jump
        .as_deref()
        .filter(|it| it.starts_with(CONTAINER_PREFIX))
    else {
        return false;
    };
    let same_port = || {
        own.rules.iter().any(|rule| {
            let port = rule.value("--dport").and_then(|it| it.parse().ok());
            let protocol = rule
                .value("-p")
                .and_then(Protocol::parse)
                .map(Protocol::number);
            port.is_some_and(|port| entry.ports.contains(&port))
                && (entry.protocol.is_none() || entry.protocol == protocol)
        })
    };
    chain == own.chain || entry.ports.is_empty() || same_port()
}
