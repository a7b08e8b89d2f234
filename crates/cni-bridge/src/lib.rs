//! `bridge`: attaches a container to a Linux bridge, with addresses from an IPAM plugin or on layer 2 only.
//!
//! Knows: in what order things are done and when a step is left out ([`plan`]). How a step is done is `cni-net`'s
//! business, who gives addresses the IPAM plugin's.

mod check;
mod config;
mod error;
mod gateway;
mod masquerade;
mod names;
mod plan;
mod seen;
mod spoof;

use std::path::Path;

use cni_net::{Address, At, Link, Net, Netns, Step};
use cni_plugin::{Call, Lease, Plugin};
use cni_spec::conf::{CommonConf, ValidAttachment};
use cni_spec::request::Command;
use cni_spec::{Attachment, Code, Failure, Interface, Success};
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::check::Observed;
use crate::config::{Config, Wire};
use crate::error::Error;
use crate::gateway::Addressing;
use crate::masquerade::{Owner, Stale};
use crate::names::Names;
use crate::seen::Seen;

/// The plugin.
pub struct Bridge;

impl Plugin for Bridge {
    fn about(&self) -> String {
        format!("CNI bridge plugin v{}", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        let config = load(call, attachment)?;
        add(call, attachment, &config)
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        let config = load(call, attachment)?;
        del(call, attachment, &config)
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        let config = load(call, attachment)?;
        check(call, attachment, &config)
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        let wire: Wire = call.read().map_err(Error::from)?;
        let mut failures = Vec::new();
        if !wire.ipam.r#type.is_empty() {
            failures.extend(
                call.delegate(Command::Gc, &wire.ipam.r#type, call.stdin())
                    .err(),
            );
        }
        let valid: Vec<(&str, &str)> = valid
            .iter()
            .map(|it| (it.container_id.as_str(), it.ifname.as_str()))
            .collect();
        failures.extend(
            masquerade::collect_garbage(call.name().as_str(), &valid)
                .err()
                .map(Failure::from),
        );
        failures.extend(
            spoof::collect_garbage(call.name().as_str(), &valid)
                .err()
                .map(Failure::from),
        );
        all_of(failures)
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        let wire: Wire = call.read().map_err(Error::from)?;
        let ipam = &wire.ipam.r#type;
        if ipam.is_empty() {
            return Ok(());
        }
        call.find_plugin(ipam).map_err(|failure| Failure {
            code: Code::NOT_AVAILABLE,
            ..failure
        })?;
        call.delegate(Command::Status, ipam, call.stdin()).map(drop)
    }
}

/// The configuration, its common keys checked for their types too.
fn load(call: &Call<'_>, attachment: &Attachment) -> Result<Config, Error> {
    let _: CommonConf = call.read()?;
    Config::new(call.read()?, &attachment.args)
}

fn add(call: &Call<'_>, attachment: &Attachment, config: &Config) -> Result<Value, Failure> {
    config.check_for_add()?;
    let backend = match config.masquerade && config.ipam.is_some() {
        true => Some(masquerade::choose(config.masquerade_backend.as_deref())?),
        false => None,
    };
    let net = open(attachment)?;
    let mut names = Names::of(call.name(), attachment, config.vlan_gateway().as_deref());
    let mut seen = Seen::read(&net, config, &mut names)?;
    plan::admit(config, &seen, &names)?;

    let lease = config
        .ipam
        .as_deref()
        .map(|ipam| Lease::acquire(call, ipam))
        .transpose()?;
    let addressing = lease
        .as_ref()
        .map(|lease| Addressing::new(config, lease.success()));
    if addressing
        .as_ref()
        .is_some_and(|addressing| addressing.ips.is_empty())
    {
        return Err(Error::NoAddresses.into());
    }
    let dns = config
        .dns
        .0
        .clone()
        .or_else(|| lease.as_ref().map(|lease| lease.success().dns.clone()));
    let mut success = Success {
        dns: dns.unwrap_or_default(),
        ..Success::default()
    };
    if let Some(addressing) = &addressing {
        success.ips = addressing.ips.clone();
        success.routes = addressing.routes.clone();
    }
    // A layout with room for addresses only is told of before anything is made.
    if success.ips.is_empty() {
        call.encode(&success)?;
    }
    if let Some(addressing) = &addressing {
        seen.read_gateway_addresses(&net, config, &addressing.gateways)?;
    }
    let plan = plan::attach(
        config,
        &seen,
        &names,
        addressing.as_ref(),
        &cni_net::random_mac(),
    )?;

    let owner = owner(call, attachment);
    let addresses: Vec<_> = success.ips.iter().map(|ip| ip.address).collect();
    // The tool works while the links are made: it needs nothing of them.
    let adding = backend
        .map(|backend| masquerade::start_add(&owner, &addresses, backend))
        .transpose()?;
    let applied = net
        .apply(&plan)
        .map_err(|error| noted(call, Error::step(error, &config.bridge)))?;
    if call.trace() {
        call.note(applied.trace().trim_end());
    }
    let look = |at: At, link: &str| {
        let found = net.link(at, link).map_err(|error| Error::Lookup {
            link: link.to_owned(),
            error,
        })?;
        found.ok_or_else(|| Error::gone(link))
    };
    let made = |at: At, link: &str| net.known(at, link).map_or_else(|| look(at, link), Ok);
    let container = made(At::Container, &names.container)?;
    let spoof_check = match config.mac_spoof_check {
        true => Some(spoof::start_add(&owner, &names.host, &container.mac_text())?.finish()?),
        false => None,
    };
    let masqueraded = adding.map(|adding| adding.finish()).transpose()?;

    let on_node = |link: Link| Interface {
        mac: link.mac_text(),
        name: link.name,
        ..Interface::default()
    };
    // The bridge may have another MAC than before it got the port; whoever waits for that looks at both.
    let bridge = match config.container_interface_down {
        true => look(At::Host, &config.bridge)?,
        false => made(At::Host, &config.bridge)?,
    };
    success.interfaces = vec![
        on_node(bridge),
        on_node(made(At::Host, &names.host)?),
        Interface {
            sandbox: attachment.netns_text(),
            ..on_node(container)
        },
    ];
    if config.vlan.is_some() && config.is_gateway && addressing.is_some() {
        success
            .interfaces
            .push(on_node(look(At::Host, &config.gateway_device())?));
    }
    let result = call.encode(&success)?;
    applied.keep();
    if let Some(rules) = spoof_check {
        rules.keep();
    }
    if let Some(rules) = masqueraded {
        rules.keep();
    }
    if let Some(lease) = lease {
        lease.keep();
    }
    Ok(result)
}

fn del(call: &Call<'_>, attachment: &Attachment, config: &Config) -> Result<(), Failure> {
    let owner = owner(call, attachment);
    let net = match &attachment.netns {
        Some(path) => open_existing(path)?,
        None => None,
    };
    let link = match &net {
        Some(net) => net
            .link(At::Container, attachment.ifname.as_str())
            .map_err(|error| Error::Lookup {
                link: attachment.ifname.as_str().to_owned(),
                error,
            })?,
        None => None,
    };
    // The rules go while the kernel takes the link apart: both mostly wait.
    let masqueraded = config.masquerade && config.ipam.is_some();
    let (own, others) = match &net {
        Some(net) if masqueraded => addresses_of(net, link.as_ref())?,
        Some(_) | None => (Vec::new(), Vec::new()),
    };
    let stale = if own.is_empty() {
        Stale::AllBut(&others)
    } else {
        Stale::Only(&own)
    };
    let removing = masqueraded.then(|| masquerade::start_del(&owner, stale));
    let unchecking = config.mac_spoof_check.then(|| spoof::start_del(&owner));
    let mut failures = Vec::new();
    let gone = match (&net, link) {
        (Some(net), Some(link)) => {
            let step = Step::DelLink {
                at: At::Container,
                link: link.name,
            };
            net.apply(&[step])
                .map(|applied| applied.keep())
                .map_err(|error| Error::step(error, &config.bridge))
        }
        (Some(_), None) => Ok(()),
        (None, _) => delete_orphan(call, attachment, config),
    };
    match gone {
        // An address goes back only when nobody can use it any more.
        Ok(()) => {
            if let Some(ipam) = &config.ipam {
                failures.extend(call.delegate(Command::Del, ipam, call.stdin()).err());
            }
        }
        Err(error) => failures.push(error.into()),
    }
    if let Some(Err(error)) = unchecking.map(|it| it.finish()) {
        call.note(&error.to_string());
    }
    if let Some(Err(error)) = removing.map(|it| it.finish()) {
        failures.push(error.into());
    }
    all_of(failures)
}

fn check(call: &Call<'_>, attachment: &Attachment, config: &Config) -> Result<(), Failure> {
    let net = open(attachment)?;
    if let Some(ipam) = &config.ipam {
        call.delegate(Command::Check, ipam, call.stdin())?;
    }
    let common: CommonConf = call.read().map_err(Error::from)?;
    let prev = common
        .prev_result()
        .map_err(Error::PrevResult)?
        .ok_or(Error::PrevResultMissing)?;
    let look = |at: At, link: &str| {
        net.link(at, link).map_err(|error| Error::Lookup {
            link: link.to_owned(),
            error,
        })
    };
    let ifname = attachment.ifname.as_str();
    let mut seen = Observed {
        container: look(At::Container, ifname)?,
        ..Observed::default()
    };
    for name in check::host_links(&prev, config, ifname) {
        seen.host.extend(look(At::Host, name)?);
    }
    if let Some(link) = &seen.container {
        let lookup = |error| Error::Lookup {
            link: ifname.to_owned(),
            error,
        };
        seen.addresses = net.addresses(At::Container, link.index).map_err(lookup)?;
        seen.routes = net.routes().map_err(lookup)?;
    }
    check::compare(&prev, config, ifname, &attachment.netns_text(), &seen).map_err(Error::Check)?;
    Ok(())
}

/// The addresses of a link of the container, and those of its other links, as far as they could be masqueraded.
fn addresses_of(net: &Net, link: Option<&Link>) -> Result<(Vec<IpNetwork>, Vec<IpNetwork>), Error> {
    let global = |found: Vec<Address>| -> Vec<IpNetwork> {
        let addresses = found.into_iter().map(|it| it.address);
        addresses.filter(|it| is_global(it.ip())).collect()
    };
    let lookup = |error| Error::Lookup {
        link: link.map(|link| link.name.clone()).unwrap_or_default(),
        error,
    };
    let own = match link {
        Some(link) => global(net.addresses(At::Container, link.index).map_err(lookup)?),
        None => Vec::new(),
    };
    if !own.is_empty() {
        return Ok((own, Vec::new()));
    }
    Ok((own, global(net.container_addresses().map_err(lookup)?)))
}

/// The host end of an attachment whose namespace is gone but, held by somebody, not yet dead.
///
/// Only the name that follows from the attachment is looked for, and only a port of this network's bridge is deleted.
fn delete_orphan(call: &Call<'_>, attachment: &Attachment, config: &Config) -> Result<(), Error> {
    let net = Net::open().map_err(Error::Socket)?;
    let name = Names::of(call.name(), attachment, config.vlan_gateway().as_deref()).host;
    let look = |link: &str| {
        net.link(At::Host, link).map_err(|error| Error::Lookup {
            link: link.to_owned(),
            error,
        })
    };
    let Some(link) = look(&name)? else {
        return Ok(());
    };
    let bridge = look(&config.bridge)?;
    if link.kind != "veth"
        || link.master.is_none()
        || link.master != bridge.map(|bridge| bridge.index)
    {
        return Ok(());
    }
    let step = Step::DelLink {
        at: At::Host,
        link: name,
    };
    net.apply(&[step])
        .map(|applied| applied.keep())
        .map_err(|error| Error::step(error, &config.bridge))
}

fn open(attachment: &Attachment) -> Result<Net, Error> {
    let path = attachment.netns_text();
    let netns =
        Netns::open(attachment.netns.as_deref().unwrap_or(Path::new(""))).map_err(|error| {
            Error::OpenNetns {
                path: path.clone(),
                error,
            }
        })?;
    Net::open_with(netns).map_err(|error| Error::EnterNetns { path, error })
}

/// The node's network and the container's; `None` if the path leads to no namespace (any more), be it that a file of
/// another kind has taken its place: there is nothing to detach, and what else is left can be freed.
fn open_existing(path: &Path) -> Result<Option<Net>, Error> {
    match Netns::open(path) {
        Ok(netns) => {
            let path = path.to_string_lossy().into_owned();
            Net::open_with(netns)
                .map(Some)
                .map_err(|error| Error::EnterNetns { path, error })
        }
        Err(error) if error.is_gone() || error.is_no_namespace() => Ok(None),
        Err(error) => Err(Error::Netns(error)),
    }
}

fn owner<'a>(call: &'a Call<'_>, attachment: &'a Attachment) -> Owner<'a> {
    Owner {
        network: call.name().as_str(),
        container_id: attachment.container_id.as_str(),
        ifname: attachment.ifname.as_str(),
    }
}

/// Could the address have been masqueraded? Not if it means nothing beyond its link.
fn is_global(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified())
        }
        std::net::IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified())
        }
    }
}

/// Notes the plan of a failed step for whoever looks at standard error.
fn noted(call: &Call<'_>, error: Error) -> Error {
    if let Some(trace) = error.trace() {
        call.note(trace.trim_end());
    }
    error
}

/// One failure of all that failed; the first gives the code.
fn all_of(failures: Vec<Failure>) -> Result<(), Failure> {
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
