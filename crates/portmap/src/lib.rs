//! `portmap`: leads ports of the node to a container that a plugin before it has attached.
//!
//! Knows: what the container's rules are in either backend, `iptables` or `nftables`, and what of them is to be changed.
//! Refuses to know: how a tool is run and how the kernel is asked, which is `cni-net`'s business.
//!
//! * [`iptables`] and [`nftables`] decide, each with an `act` that has it done; without mappings nothing is executed.
//! * DEL and GC look for rules of both, whatever the configuration says now: the backend, the network's name or the
//!   mappings may have changed since ADD.
//! * [`udp`] has the kernel forget connections that would go on the old way.
#![warn(missing_docs)]

mod backend;
mod config;
mod container;
mod error;
mod iptables;
mod nftables;
mod udp;

use std::net::IpAddr;
use std::path::Path;

use cni_net::firewall::iptables::Family;
use cni_net::firewall::tool::Tools;
use cni_net::{At, KernelError, Net, Netns, RouteLookup, sysctl};
use cni_plugin::{Call, Plugin};
use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Failure};
use serde_json::Value;

use crate::config::{Backend, Config};
use crate::error::Error;
use crate::iptables::Owner;
use crate::iptables::remove::{self, Selection};

/// The plugin.
pub struct Portmap;

impl Plugin for Portmap {
    fn about(&self) -> String {
        format!("CNI portmap plugin v{}", env!("CARGO_PKG_VERSION"))
    }

    /// Leads the mapped ports to the container; the answer is the result of the plugin before.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        add(call, attachment, &Tools::system())
    }

    /// Removes the container's rules, wherever they are. An error is told only if rules are left for certain, since it
    /// keeps the plugins before this one from their DEL.
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        del(call, attachment, &Tools::system())
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        check(call, attachment, &Tools::system())
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        gc(call, valid, &Tools::system())
    }

    /// Code 50 if the tool of the configured backend, or without one any tool, is missing or of no use.
    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        status(call, &Tools::system())
    }
}

fn add(call: &Call<'_>, attachment: &Attachment, tools: &Tools) -> Result<Value, Failure> {
    let config = Config::read(call.conf(), || backend::detect(tools)).map_err(Error::Parse)?;
    let prev_result = config.prev_result.as_ref().ok_or(Error::NotChained)?;
    // What cannot be printed fails before anything is made.
    let result = call.encode(prev_result)?;
    let addresses = container::addresses(prev_result, attachment.ifname.as_str());
    if config.mappings.is_empty() || addresses.is_empty() {
        return Ok(result);
    }
    // What is not about this attachment alone comes first: if it fails, no rule has been changed.
    let net = Net::open().map_err(Error::RouteLookup)?;
    if config.masquerade.is_some() {
        for address in addresses.iter().filter(|it| it.is_ipv4()) {
            enable_route_localnet(&net, address.ip())?;
        }
    }
    let owner = owner(call, attachment);
    let mut trace = Vec::new();
    let installed = match config.backend {
        Backend::Iptables => iptables::act::install(tools, &owner, &config, &addresses, &mut trace),
        Backend::Nftables => nftables::act::install(tools, &owner, &config, &addresses, &mut trace),
    };
    if installed.is_err() || call.trace() {
        trace.iter().for_each(|line| call.note(line));
    }
    installed?;
    // Packets of connections that are older than the rules pass them by.
    for address in &addresses {
        let mappings: Vec<_> = config.mappings_of(Family::of(address)).collect();
        if let Err(text) = udp::forget_others(&net, address.ip(), &mappings) {
            call.note(&text);
        }
    }
    Ok(result)
}

/// Lets packets from 127.0.0.1 out by the link to the container. Without such a link there is nothing to let.
fn enable_route_localnet(net: &Net, container: IpAddr) -> Result<(), Error> {
    let route = net.route_to(At::Host, container);
    let link = link_of(route, |index| net.link_by_index(At::Host, index));
    let Some(link) = link.map_err(|error| Error::RouteLookup(error.errno))? else {
        return Ok(());
    };
    sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", link.name), "1").map_err(|error| {
        Error::RouteLocalnet {
            interface: link.name,
            error,
        }
    })
}

/// The link that a route leads out by. Only that there is none is an answer; that the kernel does not tell is an error.
fn link_of<Link>(
    route: Result<Option<RouteLookup>, KernelError>,
    by_index: impl FnOnce(u32) -> Result<Option<Link>, KernelError>,
) -> Result<Option<Link>, KernelError> {
    match route?.and_then(|route| route.oif) {
        Some(index) => by_index(index),
        None => Ok(None),
    }
}

fn del(call: &Call<'_>, attachment: &Attachment, tools: &Tools) -> Result<(), Failure> {
    check_readable(call)?;
    let owner = owner(call, attachment);
    let is_its_own = |ip| !is_of_another_interface(attachment, ip);
    // Both at once: they mostly wait for the kernel.
    let by_nft = nftables::act::start(tools, nftables::act::Selection::Of(owner.container_id));
    let by_iptables = remove::start(tools, Selection::Of(owner, &is_its_own));
    finish(call, by_nft, by_iptables)
}

fn gc(call: &Call<'_>, valid: &[ValidAttachment], tools: &Tools) -> Result<(), Failure> {
    check_readable(call)?;
    let network = call.name().as_str();
    let ids: Vec<&str> = valid.iter().map(|it| it.container_id.as_str()).collect();
    let chains = ids
        .iter()
        .map(|container_id| {
            Owner {
                network,
                container_id,
            }
            .chain()
        })
        .collect();
    let selection = nftables::act::Selection::AllBut {
        network,
        valid: &ids,
    };
    let by_nft = nftables::act::start(tools, selection);
    let by_iptables = remove::start(
        tools,
        Selection::AllBut {
            network,
            valid: chains,
        },
    );
    finish(call, by_nft, by_iptables)
}

/// DEL and GC need none of what the plugins before have answered, so that it cannot be used is only noted.
fn check_readable(call: &Call<'_>) -> Result<(), Error> {
    let unused = config::check_readable(call.conf()).map_err(Error::Parse)?;
    if let Some(error) = unused {
        let error = Error::Parse(error);
        call.note(&format!("{error}; rules are removed without it"));
    }
    Ok(())
}

/// Waits for both, and then has the kernel forget what was led by the rules that are gone.
fn finish(
    call: &Call<'_>,
    by_nft: nftables::act::Removing<'_>,
    by_iptables: remove::Removing<'_>,
) -> Result<(), Failure> {
    trace(call, &by_nft.trace);
    let removed = by_iptables.finish();
    trace(call, &removed.trace);
    let mut failures: Vec<Failure> = removed.failures.into_iter().map(Failure::from).collect();
    let mut udp = removed.udp;
    match by_nft.finish() {
        Ok(led) => udp.extend(led),
        Err(error) => failures.push(error.into()),
    }
    for note in removed.notes {
        call.note(&note);
    }
    if let Err(text) = udp::forget_led(&udp) {
        call.note(&text);
    }
    together(failures)
}

fn check(call: &Call<'_>, attachment: &Attachment, tools: &Tools) -> Result<(), Failure> {
    let config = Config::read(call.conf(), || backend::detect(tools)).map_err(Error::Config)?;
    let prev_result = config
        .prev_result
        .as_ref()
        .ok_or(Error::PrevResultMissing)?;
    if config.mappings.is_empty() {
        return Ok(());
    }
    let addresses = container::addresses(prev_result, attachment.ifname.as_str());
    let owner = owner(call, attachment);
    match config.backend {
        Backend::Iptables => iptables::check::check(tools, &owner, &config, &addresses)?,
        Backend::Nftables => nftables::act::check(&owner, &config, &addresses)?,
    }
    Ok(())
}

fn status(call: &Call<'_>, tools: &Tools) -> Result<(), Failure> {
    let wanted = config::requested_backend(call.conf(), || backend::detect(tools));
    backend::check(tools, wanted.map_err(Error::Parse)?)?;
    Ok(())
}

fn owner<'a>(call: &'a Call<'_>, attachment: &'a Attachment) -> Owner<'a> {
    Owner {
        network: call.name().as_str(),
        container_id: attachment.container_id.as_str(),
    }
}

/// Has the container the address on another interface than the one that is being detached? Then it is on another
/// network with that one, and the rules that lead there stay.
fn is_of_another_interface(attachment: &Attachment, ip: IpAddr) -> bool {
    let netns = attachment
        .netns
        .as_deref()
        .and_then(|path: &Path| Netns::open(path).ok());
    let Some(net) = netns.and_then(|netns| Net::open_with(netns).ok()) else {
        return false;
    };
    let route = net.route_to(At::Container, ip).ok().flatten();
    if !route.is_some_and(|route| route.local) {
        return false;
    }
    let link = net
        .link(At::Container, attachment.ifname.as_str())
        .ok()
        .flatten();
    let own = link.and_then(|link| net.addresses(At::Container, link.index).ok());
    !own.unwrap_or_default()
        .iter()
        .any(|it| it.address.ip() == ip)
}

fn trace(call: &Call<'_>, lines: &[String]) {
    if call.trace() {
        lines.iter().for_each(|line| call.note(line));
    }
}

/// One failure of all that failed; the first gives the code.
fn together(failures: Vec<Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    let Some(mut first) = failures.next() else {
        return Ok(());
    };
    for other in failures {
        first.msg.push('\n');
        first.msg.push_str(&other.to_string());
    }
    Err(first)
}

#[cfg(test)]
mod tests;
