//! `macspoofchk`: what a container sends from another hardware address than its own is dropped.
//!
//! A rule by which packets from the host end come to the attachment's chain, which leads to a second one with the
//! check itself. All three are made in one transaction of `nft`, and removed in one by asking the kernel.

use std::io;

use cni_net::firewall::nft::{self, Transaction};
use cni_net::firewall::ruleset::{Family, Removal, Rule, Ruleset, Verdict};
use cni_net::firewall::tool::{ToolError, Tools};
use cni_net::{At, Net};
use cni_spec::error::os_text;
use cni_spec::{Code, Coded};
use serde_json::{Value, json};

use crate::masquerade::Owner;
use crate::names::host_name;

#[cfg(test)]
mod tests;

const FAMILY: &str = "bridge";
const TABLE: &str = "nat";
/// The chain that all packets from bridge ports come to.
const PREROUTING: &str = "PREROUTING";

/// Rules that are being made. Dropped before [`Adding::finish`], they are removed.
#[must_use = "dropping this removes the rules"]
pub(crate) struct Adding {
    running: nft::Running,
    host_veth: String,
    mac: String,
    installed: Installed,
}

/// Rules that are there. Dropped, they are removed.
#[must_use = "dropping this removes the rules"]
pub(crate) struct Installed {
    tools: Tools,
    undo: Option<Id>,
}

/// Rules that are gone, though the kernel may not be done with them.
#[must_use = "dropping this loses what went wrong"]
pub(crate) struct Removing {
    outcome: Result<(), SpoofError>,
    /// Kept to the end: closing it waits for the kernel.
    ruleset: Option<Ruleset>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoofError {
    #[error("failed to setup spoof-check: {0}")]
    Setup(ToolError),
    #[error("failed to teardown spoof-check: {}, {}", text("iface match rule", .rule), text("regular chains", .chains))]
    Teardown {
        rule: Option<io::Error>,
        chains: Option<io::Error>,
    },
    #[error("failed to remove spoof-check rules of no attachment: {}", os_text(.0))]
    Garbage(io::Error),
}

fn text(what: &str, error: &Option<io::Error>) -> String {
    error.as_ref().map_or("<nil>".to_owned(), |error| {
        format!("failed to delete {what}: {}", os_text(error))
    })
}

/// What tells the rules and chains of an attachment from others': container id and interface name. The network is not
/// in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id(String);

/// What the kernel has of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Is [`PREROUTING`] there?
    base: bool,
    /// Of the rules in [`PREROUTING`] that lead to it.
    handles: Vec<u64>,
    /// Its chains, in an order in which they can be deleted.
    chains: Vec<String>,
}

/// Starts making the rules for the container behind this host end; does not wait.
pub(crate) fn start_add(
    owner: &Owner<'_>,
    host_veth: &str,
    mac: &str,
) -> Result<Adding, SpoofError> {
    start_add_with(Tools::system(), owner, host_veth, mac)
}

fn start_add_with(
    tools: Tools,
    owner: &Owner<'_>,
    host_veth: &str,
    mac: &str,
) -> Result<Adding, SpoofError> {
    let id = Id::of(owner.container_id, owner.ifname);
    let seen = Seen::look(&id).map_err(|error| SpoofError::Setup(ToolError::Ruleset(error)))?;
    let running =
        nft::start(&tools, setup(&id, &seen, host_veth, mac)).map_err(SpoofError::Setup)?;
    let installed = Installed {
        tools,
        undo: Some(id),
    };
    Ok(Adding {
        running,
        host_veth: host_veth.to_owned(),
        mac: mac.to_owned(),
        installed,
    })
}

impl Adding {
    /// Waits until the rules are there.
    ///
    /// # Errors
    /// If they cannot be made; then none is left.
    pub(crate) fn finish(self) -> Result<Installed, SpoofError> {
        let Adding {
            running,
            host_veth,
            mac,
            installed,
        } = self;
        let Some(id) = &installed.undo else {
            return Ok(installed);
        };
        let again = || Ok(Some(setup(id, &Seen::look(id)?, &host_veth, &mac)));
        running
            .finish(&installed.tools, again)
            .map_err(SpoofError::Setup)?;
        Ok(installed)
    }
}

impl Installed {
    /// All is well: the rules stay.
    pub(crate) fn keep(mut self) {
        self.undo = None;
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(id) = self.undo.take() {
            // The error that brought us here is the one to report; the runtime's DEL tries again.
            let _ = Removing::start(&id).finish();
        }
    }
}

/// Removes the attachment's rules; does not wait until the kernel is done with them.
pub(crate) fn start_del(owner: &Owner<'_>) -> Removing {
    Removing::start(&Id::of(owner.container_id, owner.ifname))
}

impl Removing {
    fn start(id: &Id) -> Removing {
        let broken = |error| SpoofError::Teardown {
            rule: Some(error),
            chains: None,
        };
        match Ruleset::open() {
            Ok(None) => Removing {
                outcome: Ok(()),
                ruleset: None,
            },
            Ok(Some(ruleset)) => Removing {
                outcome: remove(&ruleset, id),
                ruleset: Some(ruleset),
            },
            Err(error) => Removing {
                outcome: Err(broken(error)),
                ruleset: None,
            },
        }
    }

    /// Waits until the kernel is done with the rules. That they were gone before is no error.
    ///
    /// # Errors
    /// If the rule or the chains cannot be removed; what can be is.
    pub(crate) fn finish(self) -> Result<(), SpoofError> {
        drop(self.ruleset);
        self.outcome
    }
}

fn remove(ruleset: &Ruleset, id: &Id) -> Result<(), SpoofError> {
    let rules = |it: &Ruleset| Ok(Seen::read(it, id)?.rules());
    let chains = |it: &Ruleset| Ok(Seen::read(it, id)?.chains());
    if ruleset
        .remove_found(|it| Ok([rules(it)?, chains(it)?].concat()))
        .is_ok()
    {
        return Ok(());
    }
    // What cannot be removed must not keep the rest.
    match (ruleset.remove_found(rules), ruleset.remove_found(chains)) {
        (Ok(()), Ok(())) => Ok(()),
        (rule, chains) => Err(SpoofError::Teardown {
            rule: rule.err(),
            chains: chains.err(),
        }),
    }
}

/// Removes the rules that belong to none of the attachments: container ids with interface names.
///
/// The rules do not name the network. Those are taken for this network's whose host end has the name that we would
/// give it, which follows from the network's name too. The reference's host ends have random names; a rule of its goes
/// once its host end is gone, since it can be no network's any more.
pub(crate) fn collect_garbage(network: &str, valid: &[(&str, &str)]) -> Result<(), SpoofError> {
    let Some(ruleset) = Ruleset::open().map_err(SpoofError::Garbage)? else {
        return Ok(());
    };
    let rules = ruleset
        .rules(Family::Bridge, TABLE, PREROUTING)
        .map_err(SpoofError::Garbage)?;
    if rules.is_empty() {
        return Ok(());
    }
    let net = Net::open().map_err(SpoofError::Garbage)?;
    // Who cannot be looked for may be there.
    let is_there = |link: &str| !matches!(net.link(At::Host, link), Ok(None));
    let ids = garbage(network, valid, &rules, is_there);
    ids.iter()
        .map(|id| remove(&ruleset, id))
        .fold(Ok(()), Result::and)
}

/// The attachments of this network, or of none, that have rules and are not valid.
fn garbage(
    network: &str,
    valid: &[(&str, &str)],
    rules: &[Rule],
    is_there: impl Fn(&str) -> bool,
) -> Vec<Id> {
    let valid: Vec<Id> = valid
        .iter()
        .map(|(container_id, ifname)| Id::of(container_id, ifname))
        .collect();
    let mut found = Vec::new();
    for rule in rules {
        let Some(id) = rule.comment.as_deref().and_then(Id::from_comment) else {
            continue;
        };
        if valid.contains(&id) || found.contains(&id) {
            continue;
        }
        let is_garbage = |host_end: String| id.is_of(network, &host_end) || !is_there(&host_end);
        if host_end(rule).is_some_and(is_garbage) {
            found.push(id);
        }
    }
    found
}

/// The link whose packets the rule takes to an attachment's chain.
fn host_end(rule: &Rule) -> Option<String> {
    let (Some(Verdict::Jump(_)), [name]) = (&rule.verdict, rule.values.as_slice()) else {
        return None;
    };
    let end = name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(name.len());
    String::from_utf8(name[..end].to_vec()).ok()
}

impl Id {
    fn of(container_id: &str, ifname: &str) -> Id {
        Id(format!("{container_id}-{ifname}"))
    }

    fn from_comment(comment: &str) -> Option<Id> {
        comment
            .strip_prefix("macspoofchk-")
            .map(|id| Id(id.to_owned()))
    }

    fn comment(&self) -> String {
        format!("macspoofchk-{}", self.0)
    }

    /// Where packets from the host end come to.
    fn interface_chain(&self) -> String {
        format!("cni-br-iface-{}", self.0)
    }

    /// Where the address is checked.
    fn mac_chain(&self) -> String {
        format!("cni-br-iface-{}-mac", self.0)
    }

    /// Is this an attachment of the network, with that host end? Both parts of an id may have hyphens in them.
    fn is_of(&self, network: &str, host_end: &str) -> bool {
        let hyphens = self.0.match_indices('-');
        hyphens
            .map(|(at, _)| host_name(network, &self.0[..at], &self.0[at + 1..]))
            .any(|name| name == host_end)
    }
}

impl Seen {
    fn read(ruleset: &Ruleset, id: &Id) -> io::Result<Seen> {
        let rules = ruleset.rules(Family::Bridge, TABLE, PREROUTING)?;
        let ours = rules
            .into_iter()
            .filter(|rule| rule.comment == Some(id.comment()));
        let mut seen = Seen {
            base: ruleset.has_chain(Family::Bridge, TABLE, PREROUTING)?,
            handles: ours.map(|rule| rule.handle).collect(),
            chains: Vec::new(),
        };
        for chain in [id.interface_chain(), id.mac_chain()] {
            if ruleset.has_chain(Family::Bridge, TABLE, &chain)? {
                seen.chains.push(chain);
            }
        }
        Ok(seen)
    }

    /// The same for whoever has no connection.
    fn look(id: &Id) -> io::Result<Seen> {
        Ruleset::open()?.map_or(Ok(Seen::default()), |ruleset| Seen::read(&ruleset, id))
    }

    fn rules(&self) -> Vec<Removal> {
        let (family, table) = (Family::Bridge, TABLE);
        let rule = |&handle: &u64| Removal::Rule {
            family,
            table,
            chain: PREROUTING.to_owned(),
            handle,
        };
        self.handles.iter().map(rule).collect()
    }

    fn chains(&self) -> Vec<Removal> {
        let (family, table) = (Family::Bridge, TABLE);
        self.chains
            .iter()
            .map(|chain| Removal::Chain {
                family,
                table,
                chain: chain.clone(),
            })
            .collect()
    }
}

/// Table, chains, and the attachment's rules in the place of those that it has already.
fn setup(id: &Id, seen: &Seen, host_veth: &str, mac: &str) -> Transaction {
    let (interface, check) = (id.interface_chain(), id.mac_chain());
    let mut commands = Vec::new();
    // Declaring what is there makes the kernel wait for all that may be using it.
    if !seen.base {
        commands.push(json!({ "table": { "family": FAMILY, "name": TABLE } }));
        commands.push(json!({ "chain": {
            "family": FAMILY, "table": TABLE, "name": PREROUTING,
            "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept",
        } }));
    }
    let chains = [&interface, &check]
        .map(|name| json!({ "chain": { "family": FAMILY, "table": TABLE, "name": name } }));
    commands.extend(chains.clone());
    commands.extend(chains.map(|chain| json!({ "flush": chain })));
    commands.extend(seen.handles.iter().map(|handle| {
        json!({ "delete": { "rule": { "family": FAMILY, "table": TABLE, "chain": PREROUTING, "handle": handle } } })
    }));
    let rule = |chain: &str, expressions: Value| {
        let rule = json!({
            "family": FAMILY, "table": TABLE, "chain": chain, "expr": expressions, "comment": id.comment(),
        });
        json!({ "rule": rule })
    };
    let is =
        |left: Value, right: &str| json!({ "match": { "op": "==", "left": left, "right": right } });
    let from_host_end = is(json!({ "meta": { "key": "iifname" } }), host_veth);
    let from_mac = is(
        json!({ "payload": { "protocol": "ether", "field": "saddr" } }),
        mac,
    );
    commands.extend([
        rule(
            PREROUTING,
            json!([from_host_end, { "jump": { "target": interface } }]),
        ),
        rule(&interface, json!([{ "jump": { "target": check } }])),
        rule(&check, json!([from_mac, { "return": null }])),
        rule(&check, json!([{ "drop": null }])),
    ]);
    Transaction::Document(json!({ "nftables": commands }).to_string())
}

impl Coded for SpoofError {
    fn code(&self) -> Code {
        match self {
            SpoofError::Setup(error) if error.is_temporary() => Code::TRY_AGAIN_LATER,
            // It changed whenever it was read.
            SpoofError::Garbage(error) if error.kind() == io::ErrorKind::Interrupted => {
                Code::TRY_AGAIN_LATER
            }
            SpoofError::Teardown { rule, chains }
                if [rule, chains]
                    .into_iter()
                    .flatten()
                    .all(|error| error.kind() == io::ErrorKind::Interrupted) =>
            {
                Code::TRY_AGAIN_LATER
            }
            SpoofError::Setup(_) | SpoofError::Teardown { .. } | SpoofError::Garbage(_) => {
                Code::INTERNAL
            }
        }
    }

    fn hint(&self) -> Option<String> {
        let is_missing = matches!(self, SpoofError::Setup(error) if error.is_not_found());
        is_missing.then(|| "`macspoofchk` needs `nft`: install nftables on the node".to_owned())
    }
}
