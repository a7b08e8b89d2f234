//! DEL and GC: what is left is looked for by asking the kernel, and only then a tool runs.

use std::io;
use std::net::IpAddr;

use cni_net::firewall::iptables::{self, Family, Saved};
use cni_net::firewall::nft::{self, Transaction};
use cni_net::firewall::port_rule::{PortRule, PortRules};
use cni_net::firewall::ruleset::Ruleset;
use cni_net::firewall::tool::{Job, Output, ToolError, Tools};
use cni_net::firewall::usable::{self, Kind};

use super::act::commands;
use super::{
    DNAT, Owner, TABLE, detach, is_unowned, left_by, parse_comment, udp_redirects, unowned,
};
use crate::error::Error;

/// The UDP port of a family, and the address that it led to.
pub(crate) type UdpRedirect = (Family, u16, IpAddr);

/// What is to be removed.
pub(crate) enum Selection<'a> {
    /// All of one container. Where the network had another name at ADD, a chain is its own if this says so of the
    /// address that it leads to.
    Of(Owner<'a>, &'a dyn Fn(IpAddr) -> bool),
    /// All of this network, but for these chains.
    AllBut {
        network: &'a str,
        valid: Vec<String>,
    },
}

/// A removal on its way.
pub(crate) struct Removing<'a> {
    tools: &'a Tools,
    selection: Selection<'a>,
    jobs: Vec<(Family, Result<Step, ToolError>)>,
}

enum Step {
    Reading(Job),
    /// The tool that made the rules is not there, but `nft` can take them out, too.
    ByNft(nft::Running),
}

/// What a removal leaves.
#[derive(Default)]
pub(crate) struct Removed {
    /// Rules are left for certain.
    pub(crate) failures: Vec<Error>,
    /// Something failed, but there is no sign that anything is left.
    pub(crate) notes: Vec<String>,
    pub(crate) udp: Vec<UdpRedirect>,
    /// The changes as commands.
    pub(crate) trace: Vec<String>,
}

impl Selection<'_> {
    fn chains(&self, saved: &Saved) -> Vec<String> {
        let found = match self {
            Selection::Of(owner, is_its_own) => left_by(saved, owner, is_its_own),
            Selection::AllBut { network, valid } => unowned(saved, network, valid),
        };
        found.into_iter().map(str::to_owned).collect()
    }

    /// Chains that are known by name.
    fn known(&self) -> Vec<String> {
        match self {
            Selection::Of(owner, _) => owner.chains().into(),
            Selection::AllBut { .. } => Vec::new(),
        }
    }

    fn may_concern(&self, entry: &PortRule) -> bool {
        let comment = entry.comment.as_deref().unwrap_or_default();
        let chain = entry.jump.as_deref().unwrap_or_default();
        match self {
            Selection::Of(owner, _) => {
                let id = parse_comment(comment).and_then(|(_, id)| id);
                owner.chains().iter().any(|it| it == chain) || id == Some(owner.container_id)
            }
            Selection::AllBut { network, valid } => is_unowned(comment, chain, network, valid),
        }
    }

    /// Has the tool to be run? The kernel knows the newer kind's tables; of the older kind's only that there are some.
    fn may_be_there(&self, tools: &Tools, family: Family) -> bool {
        let older =
            usable::kind(tools, family).is_ok() && iptables::older_may_have_rules(tools, family);
        // If the kernel does not say, the tool may.
        older || self.is_known(family).unwrap_or(true)
    }

    /// Is anything of it in the newer kind's table?
    fn is_known(&self, family: Family) -> io::Result<bool> {
        let Some(ruleset) = Ruleset::open()? else {
            return Ok(false);
        };
        for chain in self.known() {
            if ruleset.has_chain(family.into(), TABLE, &chain)? {
                return Ok(true);
            }
        }
        let entries = PortRules::open()?.of(family.into(), TABLE, DNAT)?;
        Ok(entries.iter().any(|entry| self.may_concern(entry)))
    }
}

/// Starts looking for what is to go, in both families at once.
pub(crate) fn start<'a>(tools: &'a Tools, selection: Selection<'a>) -> Removing<'a> {
    let mut removing = Removing {
        tools,
        selection,
        jobs: Vec::new(),
    };
    for family in Family::ALL {
        if removing.selection.may_be_there(tools, family) {
            let step = removing.begin(family);
            removing.jobs.push((family, step));
        }
    }
    removing
}

impl Removing<'_> {
    fn begin(&self, family: Family) -> Result<Step, ToolError> {
        match iptables::start_reading(self.tools, family) {
            Err(error) if error.is_not_found() => match self.by_nft(family) {
                Ok(Some(running)) => Ok(Step::ByNft(running)),
                Ok(None) | Err(_) => Err(error),
            },
            job => job.map(Step::Reading),
        }
    }

    fn by_nft(&self, family: Family) -> Result<Option<nft::Running>, ToolError> {
        match self.plan_by_nft(family).map_err(ToolError::Ruleset)? {
            Some(transaction) => nft::start(self.tools, transaction).map(Some),
            None => Ok(None),
        }
    }

    /// What `nft` can take out of the other tool's table: chains that are known by name, or by the network in an entry.
    fn plan_by_nft(&self, family: Family) -> io::Result<Option<Transaction>> {
        let Some(ruleset) = Ruleset::open()? else {
            return Ok(None);
        };
        let tables = match family {
            Family::Ipv4 => "ip nat",
            Family::Ipv6 => "ip6 nat",
        };
        let entries = PortRules::open()?.of(family.into(), TABLE, DNAT)?;
        let mut chains = self.selection.known();
        // Without reading where a chain leads, one of another name may be another network's.
        let is_known = |entry: &PortRule| {
            chains.is_empty() || entry.jump.as_ref().is_some_and(|it| chains.contains(it))
        };
        let entries: Vec<&PortRule> = entries
            .iter()
            .filter(|it| self.selection.may_concern(it) && is_known(it))
            .collect();
        chains.extend(entries.iter().filter_map(|entry| entry.jump.clone()));
        chains.sort();
        chains.dedup();
        let mut lines: Vec<String> = entries
            .iter()
            .map(|entry| format!("delete rule {tables} {DNAT} handle {}", entry.handle))
            .collect();
        for chain in chains {
            if ruleset.has_chain(family.into(), TABLE, &chain)? {
                lines.push(format!("flush chain {tables} {chain}"));
                lines.push(format!("delete chain {tables} {chain}"));
            }
        }
        Ok((!lines.is_empty()).then_some(Transaction::Statements(lines)))
    }

    /// Waits for what was found, and has it removed.
    pub(crate) fn finish(mut self) -> Removed {
        let mut removed = Removed::default();
        let mut running = Vec::new();
        for (family, step) in std::mem::take(&mut self.jobs) {
            match step.and_then(|step| self.change(family, step, &mut removed)) {
                Ok(Some(job)) => running.push((family, job)),
                Ok(None) => {}
                Err(error) => self.fail(family, error, Certainty::Unread, &mut removed),
            }
        }
        for (family, job) in running {
            let outcome = job.finish().and_then(Output::success).map(drop);
            let outcome = outcome.or_else(|error| match error.is_refusal() {
                true => self.again(family),
                false => Err(error),
            });
            if let Err(error) = outcome {
                self.fail(family, error, Certainty::Read, &mut removed);
            }
        }
        removed
    }

    fn change(
        &mut self,
        family: Family,
        step: Step,
        removed: &mut Removed,
    ) -> Result<Option<Job>, ToolError> {
        let saved = match step {
            Step::Reading(job) => Saved::of(job)?,
            Step::ByNft(running) => {
                let plan = || self.plan_by_nft(family);
                return running.finish(self.tools, plan).map(|()| None);
            }
        };
        let chains = self.selection.chains(&saved);
        let chains: Vec<&str> = chains.iter().map(String::as_str).collect();
        let udp = udp_redirects(&saved, &chains);
        removed
            .udp
            .extend(udp.into_iter().map(|(port, ip)| (family, port, ip)));
        let changes = detach(&saved, &chains);
        if changes.is_empty() {
            return Ok(None);
        }
        removed.trace.extend(commands(family, &changes));
        iptables::start(self.tools, family, &changes, None).map(Some)
    }

    /// Somebody else has changed the table, maybe another DEL of the same container: what is left?
    fn again(&self, family: Family) -> Result<(), ToolError> {
        iptables::reconcile(self.tools, family, None, |saved| {
            let chains = self.selection.chains(saved);
            let chains: Vec<&str> = chains.iter().map(String::as_str).collect();
            detach(saved, &chains)
        })
    }

    /// An error of DEL keeps the plugins before this one from their own DEL: so it is one only if rules are left.
    fn fail(&self, family: Family, error: ToolError, certainty: Certainty, removed: &mut Removed) {
        let kind = usable::kind(self.tools, family);
        let left = match (kind, certainty) {
            (Ok(Kind::Older), Certainty::Read) => true,
            (Ok(_) | Err(_), _) => self.selection.is_known(family).unwrap_or(false),
        };
        match left {
            true => removed
                .failures
                .push(Error::IptablesTeardown { family, error }),
            false => removed
                .notes
                .push(format!("portmap: {error}; no rules seem to be left")),
        }
    }
}

/// Was the table seen to have something of ours?
#[derive(Clone, Copy)]
enum Certainty {
    Read,
    Unread,
}
