//! CHECK: is everything as ADD reported it? Compares values; touches nothing.

use std::fmt;
use std::net::IpAddr;

use cni_net::{Address, InstalledRoute, Link, OperState};
use cni_spec::{Interface, Ip, Route, Success, address};
use ipnetwork::IpNetwork;

use crate::config::Config;

/// What the kernel has of what a result names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// The node's links of the result's names.
    pub(crate) host: Vec<Link>,
    /// The container's link.
    pub(crate) container: Option<Link>,
    /// Its addresses.
    pub(crate) addresses: Vec<Address>,
    /// The container's main routing table.
    pub(crate) routes: Vec<InstalledRoute>,
}

/// The first thing that is not as it was. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn mismatch<T>(text: impl Into<String>) -> Result<T, Mismatch> {
    Err(Mismatch(text.into()))
}

/// The parts of a result that are this attachment's: the rest belongs to other plugins of the chain.
struct Parts<'a> {
    bridge: Option<&'a Interface>,
    container: Option<(usize, &'a Interface)>,
    others: Vec<&'a Interface>,
}

fn parts<'a>(prev: &'a Success, config: &Config, ifname: &str, netns: &str) -> Parts<'a> {
    let mut parts = Parts {
        bridge: None,
        container: None,
        others: Vec::new(),
    };
    for (position, interface) in prev.interfaces.iter().enumerate() {
        if interface.name == config.bridge {
            parts.bridge = Some(interface);
        } else if interface.name == ifname {
            if interface.sandbox == netns || parts.container.is_none() {
                parts.container = Some((position, interface));
            }
        } else {
            parts.others.push(interface);
        }
    }
    parts
}

/// The names of the links on the node that [`compare`] wants to see.
pub(crate) fn host_links<'a>(prev: &'a Success, config: &'a Config, ifname: &str) -> Vec<&'a str> {
    let others = prev
        .interfaces
        .iter()
        .filter(|it| it.sandbox.is_empty() && it.name != ifname);
    let mut names: Vec<&str> = others.map(|it| it.name.as_str()).collect();
    names.push(&config.bridge);
    names.sort_unstable();
    names.dedup();
    names
}

/// Compares what ADD reported with what is there.
pub(crate) fn compare(
    prev: &Success,
    config: &Config,
    ifname: &str,
    netns: &str,
    seen: &Observed,
) -> Result<(), Mismatch> {
    let parts = parts(prev, config, ifname, netns);
    let bridge = check_bridge(&parts, config, seen)?;
    let (position, container) = check_container(&parts, netns, seen)?;
    check_host_end(&parts, bridge, container, config, seen)?;
    let ours = |ip: &&Ip| {
        ip.interface
            .is_none_or(|interface| usize::try_from(interface) == Ok(position))
    };
    for ip in prev.ips.iter().filter(ours) {
        check_address(ip, ifname, seen)?;
    }
    for route in &prev.routes {
        check_route(route, seen)?;
    }
    Ok(())
}

fn check_bridge<'a>(
    parts: &Parts<'_>,
    config: &Config,
    seen: &'a Observed,
) -> Result<&'a Link, Mismatch> {
    let Some(reported) = parts.bridge else {
        return mismatch("Interface name missing ");
    };
    let name = &reported.name;
    let Some(link) = seen.host.iter().find(|link| link.name == *name) else {
        return mismatch(format!("Interface name {name} not found"));
    };
    if !reported.sandbox.is_empty() {
        return mismatch(format!("Interface {name} should not be in sandbox"));
    }
    if link.kind != "bridge" {
        return mismatch(format!(
            "Interface {name} does not have link type of bridge"
        ));
    }
    // Without an address of its own a bridge has the MAC of one of its ports, so it changes as they come and go.
    if config.is_gateway && !reported.mac.is_empty() && reported.mac != link.mac_text() {
        return mismatch(format!(
            "Bridge interface {name} Mac doesn't match: {}",
            reported.mac
        ));
    }
    let promiscuous = link.promiscuity != 0;
    if promiscuous != config.promiscuous {
        return mismatch(format!(
            "Bridge interface {name} configured Promisc Mode {} doesn't match current state: {promiscuous} ",
            config.promiscuous
        ));
    }
    Ok(link)
}

fn check_container<'a>(
    parts: &Parts<'_>,
    netns: &str,
    seen: &'a Observed,
) -> Result<(usize, &'a Link), Mismatch> {
    let Some((position, reported)) = parts.container else {
        return mismatch("Interface name missing ");
    };
    let name = &reported.name;
    if reported.sandbox != netns {
        return mismatch(format!(
            "Sandbox in prevResult {} doesn't match configured netns: {netns}",
            reported.sandbox
        ));
    }
    let Some(link) = &seen.container else {
        return mismatch(format!("Interface name {name} not found"));
    };
    if reported.sandbox.is_empty() {
        return mismatch(format!("Interface {name} is expected to be in a sandbox"));
    }
    if link.kind != "veth" {
        return mismatch(format!(
            "Error: Container interface {name} not of type veth"
        ));
    }
    if link.peer.is_none() {
        return mismatch(format!("Unable to obtain veth peer index for veth {name}"));
    }
    if !reported.mac.is_empty() && reported.mac != link.mac_text() {
        return mismatch(format!(
            "Interface {name} Mac {} doesn't match container Mac: {}",
            reported.mac,
            link.mac_text()
        ));
    }
    Ok((position, link))
}

fn check_host_end(
    parts: &Parts<'_>,
    bridge: &Link,
    container: &Link,
    config: &Config,
    seen: &Observed,
) -> Result<(), Mismatch> {
    for reported in &parts.others {
        let Some(link) = seen.host.iter().find(|link| link.name == reported.name) else {
            continue;
        };
        let ours = link.kind == "veth"
            && Some(link.index) == container.peer
            && link.peer == Some(container.index)
            && link.master == Some(bridge.index);
        if !ours {
            continue;
        }
        if !reported.mac.is_empty() && reported.mac != link.mac_text() {
            return mismatch(format!(
                "Interface {} Mac doesn't match: {} not found",
                reported.name, reported.mac
            ));
        }
        if !config.container_interface_down && link.operstate != OperState::UP {
            return mismatch(format!("bridge port in error state: {}", link.operstate.0));
        }
        return Ok(());
    }
    mismatch(format!(
        "CNI veth created for bridge {} was not found",
        config.bridge
    ))
}

fn check_address(ip: &Ip, ifname: &str, seen: &Observed) -> Result<(), Mismatch> {
    if !seen.addresses.iter().any(|it| it.address == ip.address) {
        return mismatch(format!(
            "Failed to match addr {} on interface {ifname}",
            ip.address
        ));
    }
    let host_only = ip.address.is_ipv4() && ip.address.prefix() == 32;
    let connected = address::masked(ip.address);
    if !host_only && !seen.routes.iter().any(|route| route.dst == connected) {
        let gateway = ip
            .gateway
            .map_or("<nil>".to_owned(), |gateway| gateway.to_string());
        return mismatch(format!(
            "Failed to find Gateway {gateway} for interface {ifname}"
        ));
    }
    Ok(())
}

/// Only the main table is looked at; of default routes the next hop does not count.
fn check_route(route: &Route, seen: &Observed) -> Result<(), Mismatch> {
    const MAIN: i64 = 254;
    if route.table.is_some_and(|table| table != 0 && table != MAIN) {
        return Ok(());
    }
    let dst = address::masked(route.dst);
    let fits = |installed: &&InstalledRoute| {
        installed.dst == dst
            && (dst.prefix() == 0 || route.gw.is_none_or(|gw| installed.gateways.contains(&gw)))
    };
    if seen.routes.iter().find(fits).is_some() {
        return Ok(());
    }
    mismatch(format!(
        "Expected Route {} not found in routing table",
        go_route(route)
    ))
}

/// A route as Go prints the struct.
fn go_route(route: &Route) -> String {
    let gw = route
        .gw
        .map_or("<nil>".to_owned(), |gw: IpAddr| gw.to_string());
    let optional = |value: Option<i64>| value.map_or("<nil>".to_owned(), |value| value.to_string());
    let mask: Vec<u8> = match route.dst {
        IpNetwork::V4(v4) => v4.mask().octets().to_vec(),
        IpNetwork::V6(v6) => v6.mask().octets().to_vec(),
    };
    let mask: String = mask.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{{Dst:{{IP:{} Mask:{mask}}} GW:{gw} MTU:{} AdvMSS:{} Priority:{} Table:{} Scope:{}}}",
        route.dst.ip(),
        route.mtu,
        route.advmss,
        route.priority,
        optional(route.table),
        optional(route.scope),
    )
}

#[cfg(test)]
mod tests;
