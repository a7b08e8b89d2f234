//! Masquerading: what a container sends beyond its own subnet leaves with an address of the node.
//!
//! What the rules are is decided in [`iptables`] and [`nftables`]; here is when they are made, and with what. A change
//! is started and then left to itself, so that it happens while the links are made or deleted.

mod iptables;
mod nftables;
#[cfg(test)]
mod tests;

use std::io;

use cni_net::firewall::direct;
use cni_net::firewall::iptables as tables;
use cni_net::firewall::iptables::{Family, Lock, Presence, Saved};
use cni_net::firewall::nft;
use cni_net::firewall::ruleset::{self, Removal, Ruleset};
use cni_net::firewall::tool::{Job, ToolError, Tools};
use cni_spec::error::os_text;
use cni_spec::{Code, Coded, quote};
use ipnetwork::IpNetwork;

/// Who makes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// `iptables` and `ip6tables`; if so chosen, `nft` should they turn out to be unusable.
    Iptables {
        /// Whether nobody asked for `iptables` by name.
        or_nftables: bool,
    },
    /// `nft`
    Nftables,
}

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    /// The network's name.
    pub(crate) network: &'a str,
    /// The container's id.
    pub(crate) container_id: &'a str,
    /// The interface's name in the container.
    pub(crate) ifname: &'a str,
}

/// Rules that are being made. Dropped before [`Adding::finish`], they are removed.
#[must_use = "dropping this removes the rules"]
pub(crate) struct Adding<'a> {
    addresses: Vec<IpNetwork>,
    // Above `installed`, so that what is being made has come to an end before it is removed.
    work: Work,
    installed: Installed<'a>,
}

/// Rules that are there. Dropped, they are removed.
#[must_use = "dropping this removes the rules"]
pub(crate) struct Installed<'a> {
    tools: Tools,
    owner: Owner<'a>,
    undo: Vec<IpNetwork>,
}

/// Rules that are being removed.
#[must_use = "dropping this leaves some of the rules"]
pub(crate) struct Removing<'a> {
    tools: Tools,
    owner: Owner<'a>,
    stale: Stale<'a>,
    /// What only the tool can remove; `None` if it is to look first.
    parts: Vec<(Family, Option<Job>)>,
    problems: Vec<MasqueradeError>,
    /// Kept to the end: closing it waits for the kernel.
    ruleset: Option<Ruleset>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MasqueradeError {
    #[error("unknown ipmasq backend {}", quote::quoted(.0))]
    UnknownBackend(String),
    #[error("failed to locate {}: {error}", .family.tool())]
    NoIptables { family: Family, error: ToolError },
    #[error("could not find nftables binary: {0}")]
    NoNft(ToolError),
    #[error("could not run nftables command: {0}")]
    Nft(ToolError),
    #[error(transparent)]
    Iptables(ToolError),
    #[error("failed to remove masquerade rules: {}", os_text(.0))]
    Kernel(io::Error),
    #[error("{}", .0.iter().map(MasqueradeError::to_string).collect::<Vec<String>>().join("\n"))]
    Several(Vec<MasqueradeError>),
}

/// Which addresses' rules are to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stale<'a> {
    /// These.
    Only(&'a [IpNetwork]),
    /// All that the container has on the network except these: nobody knows any more which its interface had.
    AllBut(&'a [IpNetwork]),
}

/// How far the rules of one family are.
enum Part {
    /// They are there.
    Done,
    /// The tool is at work.
    Running(Box<Job>),
    /// What is there is to be looked at first.
    Later,
}

enum Work {
    Iptables {
        parts: Vec<(Family, Part)>,
        or_nftables: bool,
    },
    Nftables {
        running: Box<nft::Running>,
    },
    Done,
}

/// The backend that the configuration means. Nothing is run to find that out.
///
/// # Errors
/// If there is none of that name.
pub(crate) fn choose(configured: Option<&str>) -> Result<Backend, MasqueradeError> {
    choose_among(&Tools::system(), configured)
}

fn choose_among(tools: &Tools, configured: Option<&str>) -> Result<Backend, MasqueradeError> {
    match configured {
        Some("iptables") => Ok(Backend::Iptables { or_nftables: false }),
        Some("nftables") => Ok(Backend::Nftables),
        Some(other) => Err(MasqueradeError::UnknownBackend(other.to_owned())),
        None if !tables::is_there(tools, Family::Ipv4) && nft::is_there(tools) => {
            Ok(Backend::Nftables)
        }
        None => Ok(Backend::Iptables { or_nftables: true }),
    }
}

/// Starts making the rules for these addresses; does not wait.
pub(crate) fn start_add<'a>(
    owner: &Owner<'a>,
    addresses: &[IpNetwork],
    backend: Backend,
) -> Result<Adding<'a>, MasqueradeError> {
    start_add_with(Tools::system(), owner, addresses, backend)
}

fn start_add_with<'a>(
    tools: Tools,
    owner: &Owner<'a>,
    addresses: &[IpNetwork],
    backend: Backend,
) -> Result<Adding<'a>, MasqueradeError> {
    let installed = Installed {
        tools,
        owner: *owner,
        undo: addresses.to_vec(),
    };
    let mut adding = Adding {
        addresses: addresses.to_vec(),
        work: Work::Done,
        installed,
    };
    adding.work = match backend {
        Backend::Iptables { or_nftables } => Work::Iptables {
            parts: adding.start_iptables()?,
            or_nftables,
        },
        Backend::Nftables => Work::Nftables {
            running: Box::new(adding.start_nftables()?),
        },
    };
    Ok(adding)
}

impl<'a> Adding<'a> {
    /// Waits until the rules are there.
    ///
    /// # Errors
    /// If they cannot be made; then none is left.
    pub(crate) fn finish(mut self) -> Result<Installed<'a>, MasqueradeError> {
        match std::mem::replace(&mut self.work, Work::Done) {
            Work::Iptables { parts, or_nftables } => match self.finish_iptables(parts) {
                Err(error) if or_nftables && self.should_be_nftables(&error) => {
                    self.finish_nftables(self.start_nftables()?)?;
                }
                outcome => outcome?,
            },
            Work::Nftables { running } => self.finish_nftables(*running)?,
            Work::Done => {}
        }
        Ok(self.installed)
    }

    /// Starts at once what is sure to be right: where the container has no chain yet, and nobody else has the lock.
    fn start_iptables(&self) -> Result<Vec<(Family, Part)>, MasqueradeError> {
        let Installed { tools, owner, .. } = &self.installed;
        let chain = iptables::chain(owner);
        let mut parts = Vec::new();
        let mut lock = None;
        for (family, addresses) in by_family(&self.addresses) {
            let changes = iptables::add(owner, &addresses, &Saved::default());
            if direct::make(tools, family, &changes) {
                parts.push((family, Part::Done));
                continue;
            }
            let mut part = Part::Later;
            if tables::presence(tools, family, &chain) != Presence::Present {
                let locks_by_itself = tables::locks_by_itself(tools, family);
                if !locks_by_itself {
                    lock = lock.or_else(|| Lock::try_take(tools));
                }
                if locks_by_itself || lock.is_some() {
                    let started = tables::start(tools, family, &changes, lock.as_ref());
                    let job = started.map_err(|error| iptables_error(family, error))?;
                    part = Part::Running(Box::new(job));
                }
            }
            parts.push((family, part));
        }
        Ok(parts)
    }

    fn finish_iptables(&self, parts: Vec<(Family, Part)>) -> Result<(), MasqueradeError> {
        let Installed { tools, owner, .. } = &self.installed;
        for (family, part) in parts {
            let job = match part {
                Part::Done => continue,
                Part::Running(job) => Some(*job),
                Part::Later => None,
            };
            if ended_well(job).map_err(|error| iptables_error(family, error))? {
                continue;
            }
            // What others did meanwhile is in the way, or maybe was only when we looked.
            let addresses: Vec<IpNetwork> = of_family(&self.addresses, family);
            let is_absent =
                tables::presence(tools, family, &iptables::chain(owner)) == Presence::Absent;
            let guess = is_absent.then(Saved::default);
            tables::reconcile(tools, family, guess, |saved| {
                iptables::add(owner, &addresses, saved)
            })
            .map_err(|error| iptables_error(family, error))?;
        }
        Ok(())
    }

    fn start_nftables(&self) -> Result<nft::Running, MasqueradeError> {
        let Installed { tools, owner, .. } = &self.installed;
        let seen = read_nftables().map_err(|error| nft_error(ToolError::Ruleset(error)))?;
        nft::start(tools, nftables::add(owner, &self.addresses, &seen, true)).map_err(nft_error)
    }

    fn finish_nftables(&self, running: nft::Running) -> Result<(), MasqueradeError> {
        let Installed { tools, owner, .. } = &self.installed;
        // Whatever the reason of a refusal, the next attempt does without comments on table and chain.
        let again = || {
            Ok(Some(nftables::add(
                owner,
                &self.addresses,
                &read_nftables()?,
                false,
            )))
        };
        running.finish(tools, again).map_err(nft_error)
    }

    /// Is `iptables` to blame, and nft there to do it instead? Asked only once it has failed, by the command by which
    /// the reference finds out.
    fn should_be_nftables(&self, error: &MasqueradeError) -> bool {
        let tools = &self.installed.tools;
        if is_temporary(error) || !nft::is_there(tools) {
            return false;
        }
        let first = tools.run(Family::Ipv4.tool(), &["-t", "filter", "-S", "INPUT", "1"]);
        !matches!(first.map(|output| output.code()), Ok(Some(0 | 1)))
    }
}

impl Installed<'_> {
    /// All is well: the rules stay.
    pub(crate) fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if !self.undo.is_empty() {
            // The error that brought us here is the one to report; the runtime's DEL tries again.
            let _ =
                start_del_with(self.tools.clone(), &self.owner, Stale::Only(&self.undo)).finish();
        }
    }
}

/// Starts removing the attachment's rules, of whichever backend; does not wait.
///
/// The rules of `iptables` do not tell a container's interfaces apart, hence `stale`.
pub(crate) fn start_del<'a>(owner: &Owner<'a>, stale: Stale<'a>) -> Removing<'a> {
    start_del_with(Tools::system(), owner, stale)
}

fn start_del_with<'a>(tools: Tools, owner: &Owner<'a>, stale: Stale<'a>) -> Removing<'a> {
    let mut removing = Removing {
        tools,
        owner: *owner,
        stale,
        parts: Vec::new(),
        problems: Vec::new(),
        ruleset: None,
    };
    match Ruleset::open() {
        Ok(ruleset) => removing.ruleset = ruleset,
        Err(error) => removing.problems.push(MasqueradeError::Kernel(error)),
    }
    removing.remove();
    removing.start_tools();
    removing
}

impl Removing<'_> {
    /// Waits until the rules are gone. That they were gone before is no error.
    ///
    /// # Errors
    /// All that went wrong.
    pub(crate) fn finish(mut self) -> Result<(), MasqueradeError> {
        for (family, job) in std::mem::take(&mut self.parts) {
            let outcome = self
                .finish_tool(family, job)
                .map_err(|error| iptables_error(family, error));
            self.problems.extend(outcome.err());
        }
        several(self.problems)
    }

    /// Removes what the kernel can be asked to, in one go.
    fn remove(&mut self) {
        let Some(ruleset) = &self.ruleset else { return };
        let iptables = |ruleset: &Ruleset| {
            let mut removals = Vec::new();
            for (family, _) in self.concerned() {
                removals.extend(iptables_removals(
                    ruleset,
                    &self.owner,
                    family,
                    &self.stale,
                )?);
            }
            Ok(removals)
        };
        let instance = nftables::instance(&self.owner);
        let nftables = |ruleset: &Ruleset| nftables_removals(ruleset, &instance);
        if ruleset
            .remove_found(|it| Ok([iptables(it)?, nftables(it)?].concat()))
            .is_ok()
        {
            return;
        }
        // What cannot be removed must not keep the rest. Of the chains that are left, the tool will tell more.
        let _ = ruleset.remove_found(iptables);
        let outcome = ruleset
            .remove_found(nftables)
            .map_err(MasqueradeError::Kernel);
        self.problems.extend(outcome.err());
    }

    /// Starts the tool where it alone can remove what is left: the older kind's rules, and a chain that is still used.
    fn start_tools(&mut self) {
        let chain = iptables::chain(&self.owner);
        let is_left = |family: Family| {
            self.ruleset.as_ref().is_some_and(|it| {
                it.has_chain(family.into(), tables::TABLE, &chain)
                    .unwrap_or(true)
            })
        };
        let (mut parts, mut problems) = (Vec::new(), Vec::new());
        for (family, addresses) in self.concerned() {
            if is_left(family) {
                parts.push((family, None));
            } else if tables::older_may_have_rules(&self.tools, family) {
                // Most often all is as it was made, so that is removed without looking first.
                let start = |addresses: Vec<IpNetwork>| {
                    let guess = iptables::as_added(&self.owner, &addresses);
                    tables::start(
                        &self.tools,
                        family,
                        &iptables::del(&self.owner, &self.stale, &guess),
                        None,
                    )
                };
                match addresses.map(start).transpose() {
                    Ok(job) => parts.push((family, job)),
                    // As in the reference, what cannot be used cannot have left anything.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => problems.push(iptables_error(family, error)),
                }
            }
        }
        self.parts = parts;
        self.problems.extend(problems);
    }

    fn finish_tool(&self, family: Family, job: Option<Job>) -> Result<(), ToolError> {
        if ended_well(job)? {
            return Ok(());
        }
        let plan = |saved: &Saved| iptables::del(&self.owner, &self.stale, saved);
        match tables::reconcile(&self.tools, family, None, plan) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// The families to look at, with their stale addresses if these are known.
    fn concerned(&self) -> Vec<(Family, Option<Vec<IpNetwork>>)> {
        match self.stale {
            Stale::Only(addresses) => by_family(addresses)
                .map(|(family, of_it)| (family, Some(of_it)))
                .collect(),
            Stale::AllBut(_) => Family::ALL.map(|family| (family, None)).into(),
        }
    }
}

/// Removes the rules of this network, of either backend, that belong to none of the attachments: container ids with
/// interface names.
///
/// The rules of `iptables` do not tell interfaces apart: they go when the container has no attachment at all.
pub(crate) fn collect_garbage(
    network: &str,
    valid: &[(&str, &str)],
) -> Result<(), MasqueradeError> {
    collect_garbage_with(&Tools::system(), network, valid)
}

fn collect_garbage_with(
    tools: &Tools,
    network: &str,
    valid: &[(&str, &str)],
) -> Result<(), MasqueradeError> {
    let mut problems = Vec::new();
    problems.extend(
        remove_garbage(network, valid)
            .err()
            .map(MasqueradeError::Kernel),
    );
    for family in Family::ALL {
        if tables::older_may_have_rules(tools, family) && tables::is_there(tools, family) {
            let plan = |saved: &Saved| iptables::collect_garbage(network, valid, saved);
            let outcome = tables::reconcile(tools, family, None, plan);
            problems.extend(outcome.err().map(|error| iptables_error(family, error)));
        }
    }
    several(problems)
}

/// Removes the garbage that the kernel can be asked to remove.
fn remove_garbage(network: &str, valid: &[(&str, &str)]) -> io::Result<()> {
    let Some(ruleset) = Ruleset::open()? else {
        return Ok(());
    };
    let mut outcome = Ok(());
    for family in Family::ALL {
        let rules = ruleset.rules_of_table(family.into(), tables::TABLE)?;
        for container_id in iptables::garbage(network, valid, &rules) {
            let owner = Owner {
                network,
                container_id,
                ifname: "",
            };
            let find = |it: &Ruleset| iptables_removals(it, &owner, family, &Stale::AllBut(&[]));
            outcome = outcome.and(ruleset.remove_found(find));
        }
    }
    let checks = read_checks(&ruleset)?;
    for instance in nftables::garbage(network, valid, &checks) {
        outcome = outcome.and(ruleset.remove_found(|it| nftables_removals(it, instance)));
    }
    outcome
}

fn iptables_removals(
    ruleset: &Ruleset,
    owner: &Owner<'_>,
    family: Family,
    stale: &Stale<'_>,
) -> io::Result<Vec<Removal>> {
    if !ruleset.has_chain(family.into(), tables::TABLE, &iptables::chain(owner))? {
        return Ok(Vec::new());
    }
    let postrouting = ruleset.rules(family.into(), tables::TABLE, iptables::POSTROUTING)?;
    Ok(iptables::removals(owner, family, stale, postrouting))
}

fn nftables_removals(ruleset: &Ruleset, instance: &str) -> io::Result<Vec<Removal>> {
    Ok(nftables::removals(instance, &read_checks(ruleset)?))
}

/// Did it do its work? Not if it was not even started, or if what is there was in its way.
fn ended_well(job: Option<Job>) -> Result<bool, ToolError> {
    let Some(job) = job else { return Ok(false) };
    match job.finish()?.success() {
        Ok(_) => Ok(true),
        Err(error) if error.is_refusal() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What there is of nft's rules.
fn read_nftables() -> io::Result<nftables::Seen> {
    let Some(ruleset) = Ruleset::open()? else {
        return Ok(nftables::Seen::default());
    };
    let postrouting = ruleset.rules(
        ruleset::Family::Inet,
        nftables::TABLE,
        nftables::POSTROUTING,
    )?;
    Ok(nftables::Seen {
        checks: read_checks(&ruleset)?,
        postrouting,
    })
}

fn read_checks(ruleset: &Ruleset) -> io::Result<Vec<ruleset::Rule>> {
    ruleset.rules(ruleset::Family::Inet, nftables::TABLE, nftables::CHECKS)
}

fn by_family(addresses: &[IpNetwork]) -> impl Iterator<Item = (Family, Vec<IpNetwork>)> {
    let families = Family::ALL
        .into_iter()
        .map(|family| (family, of_family(addresses, family)));
    families.filter(|(_, addresses)| !addresses.is_empty())
}

fn of_family(addresses: &[IpNetwork], family: Family) -> Vec<IpNetwork> {
    addresses
        .iter()
        .copied()
        .filter(|address| Family::of(address) == family)
        .collect()
}

impl Stale<'_> {
    /// Is a rule with this source to go? It is an address, or, as old releases have it, its subnet.
    fn covers(&self, source: IpNetwork) -> bool {
        let is_of = |address: &IpNetwork| {
            source == IpNetwork::from(address.ip()) || source == iptables::subnet(address)
        };
        match self {
            Stale::Only(addresses) => addresses.iter().any(is_of),
            Stale::AllBut(addresses) => !addresses.iter().any(is_of),
        }
    }
}

fn iptables_error(family: Family, error: ToolError) -> MasqueradeError {
    if error.is_not_found() {
        MasqueradeError::NoIptables { family, error }
    } else {
        MasqueradeError::Iptables(error)
    }
}

fn nft_error(error: ToolError) -> MasqueradeError {
    if error.is_not_found() {
        MasqueradeError::NoNft(error)
    } else {
        MasqueradeError::Nft(error)
    }
}

fn several(mut problems: Vec<MasqueradeError>) -> Result<(), MasqueradeError> {
    match problems.len() {
        0 => Ok(()),
        1 => Err(problems.remove(0)),
        _ => Err(MasqueradeError::Several(problems)),
    }
}

fn is_temporary(error: &MasqueradeError) -> bool {
    match error {
        MasqueradeError::UnknownBackend(_) => false,
        MasqueradeError::NoIptables { error, .. }
        | MasqueradeError::NoNft(error)
        | MasqueradeError::Nft(error)
        | MasqueradeError::Iptables(error) => error.is_temporary(),
        // It changed whenever it was read.
        MasqueradeError::Kernel(error) => error.kind() == io::ErrorKind::Interrupted,
        // What will not work later stays the more important news.
        MasqueradeError::Several(errors) => errors.iter().all(is_temporary),
    }
}

impl Coded for MasqueradeError {
    fn code(&self) -> Code {
        match self {
            MasqueradeError::UnknownBackend(_) => Code::INVALID_CONFIG,
            error if is_temporary(error) => Code::TRY_AGAIN_LATER,
            MasqueradeError::NoIptables { .. }
            | MasqueradeError::NoNft(_)
            | MasqueradeError::Nft(_)
            | MasqueradeError::Iptables(_)
            | MasqueradeError::Kernel(_)
            | MasqueradeError::Several(_) => Code::INTERNAL,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            MasqueradeError::UnknownBackend(_) => {
                Some("`ipMasqBackend` can be \"iptables\" or \"nftables\"".to_owned())
            }
            MasqueradeError::NoIptables { .. } => Some(
                "install iptables on the node, or set `ipMasqBackend` to \"nftables\"".to_owned(),
            ),
            MasqueradeError::NoNft(_) => Some(
                "install nftables on the node, or set `ipMasqBackend` to \"iptables\"".to_owned(),
            ),
            error if is_temporary(error) => {
                Some("another program may be working on the packet filter; try again".to_owned())
            }
            MasqueradeError::Nft(_)
            | MasqueradeError::Iptables(_)
            | MasqueradeError::Kernel(_)
            | MasqueradeError::Several(_) => None,
        }
    }
}
