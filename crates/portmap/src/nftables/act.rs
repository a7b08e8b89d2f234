//! Runs what the plans say: one `nft` for both families, and nothing where nothing is to be done.

use std::time::Instant;

use cni_net::firewall::iptables::Family;
use cni_net::firewall::nft::{self, Running, Transaction};
use cni_net::firewall::ruleset::Ruleset;
use cni_net::firewall::tool::{ToolError, Tools};
use ipnetwork::IpNetwork;

use super::seen::Seen;
use super::{
    HOSTPORTS, MASQUERADING, TABLE, attach, collect, comment, detach, expected, is_dead, undo,
};
use crate::config::Config;
use crate::error::{Error, Missing};
use crate::iptables::Owner;
use crate::iptables::remove::UdpRedirect;

/// Installs the rules of a container with these addresses, one of each family at most; if that fails, what was there
/// before is there. What is done goes to `trace`, a line a statement.
pub(crate) fn install(
    tools: &Tools,
    owner: &Owner<'_>,
    config: &Config,
    addresses: &[IpNetwork],
    trace: &mut Vec<String>,
) -> Result<(), Error> {
    let begin = Instant::now();
    let plan = |seen: &Seen, described| {
        Transaction::Statements(attach(seen, owner, config, addresses, described))
    };
    let before = Seen::read().map_err(Error::Ruleset)?;
    let first = plan(&before, true);
    trace.extend(first.to_string().lines().map(|line| format!("nft {line}")));
    // Refused, it is tried once more without what an old kernel may not know, on what is there then.
    let done = nft::start(tools, first).and_then(|running| {
        running.finish(tools, || Seen::read().map(|seen| Some(plan(&seen, false))))
    });
    trace.push(format!("# nft: {:.1?}", begin.elapsed()));
    done.map_err(|error| {
        if error.is_not_found() {
            return Error::NoNft(error);
        }
        // One that was refused has changed nothing. One that was killed may have come to its end.
        if !error.is_refusal() {
            take_back(tools, &before, owner.container_id);
        }
        Error::Nft(error)
    })
}

/// Removes what has been made since `before`. If this fails too, the runtime still calls DEL.
fn take_back(tools: &Tools, before: &Seen, container_id: &str) {
    let left = || {
        let lines = Seen::read().map(|now| undo(before, &now, container_id))?;
        Ok((!lines.is_empty()).then_some(Transaction::Statements(lines)))
    };
    if let Ok(Some(first)) = left() {
        let _ = nft::start(tools, first).and_then(|running| running.finish(tools, left));
    }
}

/// What is to be removed.
#[derive(Clone, Copy)]
pub(crate) enum Selection<'a> {
    /// All of one container.
    Of(&'a str),
    /// All of this network, but for these containers.
    AllBut {
        network: &'a str,
        valid: &'a [&'a str],
    },
}

impl Selection<'_> {
    fn plan(&self, seen: &Seen) -> Vec<String> {
        match self {
            Selection::Of(id) => detach(seen, id),
            Selection::AllBut { network, valid } => collect(seen, network, valid),
        }
    }
}

/// A removal on its way.
pub(crate) struct Removing<'a> {
    tools: &'a Tools,
    selection: Selection<'a>,
    running: Result<Option<Running>, Error>,
    udp: Vec<UdpRedirect>,
    /// The changes as statements.
    pub(crate) trace: Vec<String>,
}

/// Starts removing what is to go; without a process where there is nothing.
pub(crate) fn start<'a>(tools: &'a Tools, selection: Selection<'a>) -> Removing<'a> {
    let mut removing = Removing {
        tools,
        selection,
        running: Ok(None),
        udp: Vec::new(),
        trace: Vec::new(),
    };
    match Seen::read() {
        Err(error) => removing.running = Err(Error::NftList(error)),
        Ok(seen) => {
            let lines = selection.plan(&seen);
            if !lines.is_empty() {
                let is_gone = |id: &str| match selection {
                    Selection::Of(gone) => id == comment(gone),
                    Selection::AllBut { network, valid } => is_dead(&seen, network, valid, id),
                };
                removing.udp = seen.udp_redirects(is_gone);
                removing.trace = lines.iter().map(|line| format!("nft {line}")).collect();
                removing.running = nft::start(tools, Transaction::Statements(lines))
                    .map(Some)
                    .map_err(teardown_error);
            }
        }
    }
    removing
}

impl Removing<'_> {
    /// Waits for the end; where the UDP ports led that are no more.
    ///
    /// # Errors
    /// If rules are left.
    pub(crate) fn finish(self) -> Result<Vec<UdpRedirect>, Error> {
        let Removing {
            tools,
            selection,
            running,
            udp,
            ..
        } = self;
        let left = || {
            let lines = Seen::read().map(|seen| selection.plan(&seen))?;
            Ok((!lines.is_empty()).then_some(Transaction::Statements(lines)))
        };
        match running? {
            Some(running) => running
                .finish(tools, left)
                .map(|()| udp)
                .map_err(teardown_error),
            None => Ok(udp),
        }
    }
}

fn teardown_error(error: ToolError) -> Error {
    if error.is_not_found() {
        Error::NoNft(error)
    } else {
        Error::NftTeardown(error)
    }
}

/// CHECK: are there as many rules with the container's comment as ADD has made for these addresses?
pub(crate) fn check(
    owner: &Owner<'_>,
    config: &Config,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let ruleset = Ruleset::open().map_err(Error::NftList)?;
    let seen = Seen::read().map_err(Error::NftList)?;
    for address in addresses {
        let family = Family::of(address);
        let Some(seen) = seen.families.iter().find(|it| it.family == family) else {
            continue;
        };
        let (hostports, masquerading) = expected(config, family);
        let chains = [
            (HOSTPORTS, &seen.hostports, hostports),
            (MASQUERADING, &seen.masquerading, masquerading),
        ];
        for (chain, rules, expected) in chains
            .into_iter()
            .filter(|it| it.2 > 0 || it.0 == HOSTPORTS)
        {
            let there = match &ruleset {
                Some(ruleset) => ruleset
                    .has_chain(family.into(), TABLE, chain)
                    .map_err(Error::NftList)?,
                None => false,
            };
            if !there {
                return Err(Error::CheckNft(Missing::NftChain(chain)));
            }
            let id = comment(owner.container_id);
            let found = rules
                .iter()
                .filter(|rule| rule.comment.as_deref() == Some(id))
                .count();
            if found < expected {
                return Err(Error::CheckNft(Missing::NftRules(chain)));
            }
        }
    }
    Ok(())
}
