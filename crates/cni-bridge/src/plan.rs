//! What ADD does to the kernel, as data. Decides everything; touches nothing.

use cni_net::{At, BridgePort, Link, Step, Veth, Vlan, WantedRoute};
use cni_spec::Route;
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::error::Error;
use crate::gateway::{AddressChange, Addressing, address_changes};
use crate::names::Names;
use crate::seen::Seen;

/// The VLAN that a new bridge gives its ports (net/bridge/br_vlan.c).
const DEFAULT_PVID: u16 = 1;

/// Refuses what cannot work, before anybody is asked for an address.
pub(crate) fn admit(config: &Config, seen: &Seen, names: &Names) -> Result<(), Error> {
    if seen
        .bridge
        .as_ref()
        .is_some_and(|bridge| bridge.kind != "bridge")
    {
        return Err(Error::NotABridge(config.bridge.clone()));
    }
    // The kernel would make `eth0` of `eth%d`, and nobody would find it.
    if names.container.contains('%') {
        return Err(Error::InterfaceName(names.container.clone()));
    }
    if seen.container_link {
        return Err(Error::InterfaceExists {
            container: names.container.clone(),
            host: names.host.clone(),
        });
    }
    Ok(())
}

/// The steps of ADD, in order. `addressing` is `None` for layer 2 only; `fresh_mac` is what a new bridge with addresses
/// gets as its own, so that it does not change with its ports.
pub(crate) fn attach(
    config: &Config,
    seen: &Seen,
    names: &Names,
    addressing: Option<&Addressing>,
    fresh_mac: &[u8],
) -> Result<Vec<Step>, Error> {
    let gateways = addressing.map_or(&[][..], |addressing| &addressing.gateways);
    let mut plan = bridge(
        config,
        seen,
        (!gateways.is_empty() && config.vlan.is_none()).then_some(fresh_mac),
    );
    plan.extend(port(config, seen, names)?);
    match addressing {
        Some(addressing) => {
            plan.extend(container(config, names, addressing)?);
            if !gateways.is_empty() {
                plan.extend(vlan_gateway(config, seen, names));
                plan.extend(gateway(config, seen, gateways, fresh_mac)?);
            }
        }
        None if config.container_interface_down => {}
        None => plan.push(Step::SetUp {
            at: At::Container,
            link: names.container.clone(),
        }),
    }
    if !config.container_interface_down {
        plan.push(Step::AwaitUp {
            link: names.host.clone(),
            bridge: config.bridge.clone(),
            peer: Some(names.container.clone()),
        });
    }
    Ok(plan)
}

/// The bridge is there, up, and takes no router's advice.
fn bridge(config: &Config, seen: &Seen, mac: Option<&[u8]>) -> Vec<Step> {
    let link = &config.bridge;
    let mut plan = Vec::new();
    if seen.bridge.is_none() {
        plan.push(Step::AddBridge {
            name: link.clone(),
            mtu: config.mtu,
            mac: mac.map(<[u8]>::to_vec),
            vlan_filtering: config.vlan_filtering,
        });
    }
    if config.promiscuous
        && seen
            .bridge
            .as_ref()
            .is_none_or(|bridge| bridge.promiscuity == 0)
    {
        plan.push(Step::SetPromiscuous { link: link.clone() });
    }
    let takes_advice = |bridge: &Link| bridge.accept_ra.is_some_and(|advice| advice != 0);
    if seen.bridge.as_ref().is_none_or(takes_advice) {
        plan.push(no_router_advertisements(link));
    }
    if seen.bridge.as_ref().is_none_or(|bridge| !bridge.up) {
        plan.push(Step::SetUp {
            at: At::Host,
            link: link.clone(),
        });
    }
    plan
}

/// The veth pair is there and its host end a port of the bridge, as configured.
fn port(config: &Config, seen: &Seen, names: &Names) -> Result<Vec<Step>, Error> {
    let link = &names.host;
    let mut plan = vec![
        Step::AddVeth(Veth {
            host: link.clone(),
            master: config.bridge.clone(),
            peer: names.container.clone(),
            peer_at: At::Container,
            mtu: config.mtu,
            mac: config.mac_bytes()?,
        }),
        no_router_advertisements(link),
    ];
    let port = BridgePort {
        hairpin: config.hairpin,
        isolated: config.isolated,
    };
    if port != BridgePort::default() {
        plan.push(Step::SetBridgePort {
            link: link.clone(),
            port,
        });
    }
    plan.extend(vlans(config, seen, link, &config.trunk));
    Ok(plan)
}

/// A port is in its VLANs and, unless it is to stay, not in the bridge's default one.
fn vlans(config: &Config, seen: &Seen, link: &str, trunk: &[u16]) -> Vec<Step> {
    let mut plan = Vec::new();
    if config.vlan.is_none() && trunk.is_empty() {
        return plan;
    }
    let default_pvid = match &seen.bridge {
        Some(bridge) => bridge
            .bridge
            .map_or(DEFAULT_PVID, |bridge| bridge.default_pvid),
        None => DEFAULT_PVID,
    };
    if !config.preserve_default_vlan && default_pvid != 0 {
        plan.push(Step::DelVlan {
            link: link.to_owned(),
            vid: default_pvid,
        });
    }
    let add = |vid: u16, native: bool| Step::AddVlan {
        link: link.to_owned(),
        vlan: Vlan { vid, native },
    };
    plan.extend(config.vlan.map(|vid| add(vid, true)));
    plan.extend(trunk.iter().map(|&vid| add(vid, false)));
    if config.vlan.is_none() {
        plan.push(add(DEFAULT_PVID, true));
    }
    plan
}

/// The container's end has its addresses and routes, and is up.
fn container(config: &Config, names: &Names, addressing: &Addressing) -> Result<Vec<Step>, Error> {
    let link = &names.container;
    let parameter = |name: String, value: &'static str, required: bool| Step::Sysctl {
        at: At::Container,
        name,
        value,
        required,
    };
    let mut plan = Vec::new();
    if config.detect_duplicates {
        plan.push(parameter(
            format!("net/ipv6/conf/{link}/enhanced_dad"),
            "1",
            false,
        ));
    }
    let accept_dad = if config.detect_duplicates { "1" } else { "0" };
    plan.push(parameter(
        format!("net/ipv6/conf/{link}/accept_dad"),
        accept_dad,
        false,
    ));
    if addressing.ips.iter().any(|ip| ip.address.is_ipv6()) {
        for interface in ["lo", link] {
            plan.push(parameter(
                format!("net/ipv6/conf/{interface}/disable_ipv6"),
                "0",
                true,
            ));
        }
        plan.push(parameter(
            format!("net/ipv6/conf/{link}/keep_addr_on_down"),
            "1",
            true,
        ));
    }
    plan.push(Step::SetArpNotify { link: link.clone() });
    plan.extend(addressing.ips.iter().map(|ip| Step::AddAddress {
        at: At::Container,
        link: link.clone(),
        address: ip.address,
        nodad: !config.detect_duplicates,
    }));
    plan.push(Step::SetUp {
        at: At::Container,
        link: link.clone(),
    });
    if config.detect_duplicates && addressing.ips.iter().any(|ip| ip.address.is_ipv6()) {
        plan.push(Step::AwaitAddresses { link: link.clone() });
    }
    for route in &addressing.routes {
        plan.push(Step::AddRoute {
            link: link.clone(),
            route: wanted(route, addressing)?,
        });
    }
    Ok(plan)
}

/// The route as the kernel gets it; its fields must fit the kernel's.
fn wanted(route: &Route, addressing: &Addressing) -> Result<WantedRoute, Error> {
    let fit = |key: &'static str, value: i64| {
        u32::try_from(value).map_err(|_| Error::RouteField {
            dst: route.dst,
            key,
            value,
        })
    };
    let scope = route.scope.unwrap_or_default();
    Ok(WantedRoute {
        dst: route.dst,
        via: addressing.next_hop(route),
        scope: u8::try_from(scope).map_err(|_| Error::RouteField {
            dst: route.dst,
            key: "scope",
            value: scope,
        })?,
        metric: fit("priority", route.priority)?,
        table: fit("table", route.table.unwrap_or_default())?,
        mtu: fit("mtu", route.mtu)?,
        advmss: fit("advmss", route.advmss)?,
    })
}

/// The VLAN gateway device: a veth pair on the node, one end in the bridge and the VLAN, the other with the addresses.
fn vlan_gateway(config: &Config, seen: &Seen, names: &Names) -> Vec<Step> {
    let (Some(_), None) = (config.vlan, &seen.vlan_device) else {
        return Vec::new();
    };
    let device = config.gateway_device();
    let mut plan = vec![
        Step::AddVeth(Veth {
            host: names.gateway_port.clone(),
            master: config.bridge.clone(),
            peer: device.clone(),
            peer_at: At::Host,
            mtu: seen.bridge.as_ref().map(|bridge| bridge.mtu).or(config.mtu),
            mac: None,
        }),
        no_router_advertisements(&names.gateway_port),
    ];
    plan.extend(vlans(config, seen, &names.gateway_port, &[]));
    plan.push(Step::SetUp {
        at: At::Host,
        link: device,
    });
    plan
}

/// The gateway device has the gateways' addresses and no others in their way, keeps its MAC, and the node forwards.
fn gateway(
    config: &Config,
    seen: &Seen,
    gateways: &[IpNetwork],
    fresh_mac: &[u8],
) -> Result<Vec<Step>, Error> {
    let device = config.gateway_device();
    let changes = address_changes(
        &device,
        &seen.gateway_addresses,
        gateways,
        config.force_address,
        config.vlan.is_some(),
    )?;
    let mut plan = Vec::new();
    for change in &changes {
        plan.push(match *change {
            AddressChange::Remove(address) => Step::DelAddress {
                link: device.clone(),
                address,
            },
            // Duplicate address detection would hold back the first packets of the first pod for two seconds.
            AddressChange::Add(address) => Step::AddAddress {
                at: At::Host,
                link: device.clone(),
                address,
                nodad: true,
            },
        });
    }
    let added = changes
        .iter()
        .any(|change| matches!(change, AddressChange::Add(_)));
    if let (None, Some(bridge), true) = (config.vlan, &seen.bridge, added) {
        // A bridge whose last port has left, without a MAC of its own, has none.
        let none = bridge.mac.iter().all(|byte| *byte == 0);
        let mac = if none {
            fresh_mac.to_vec()
        } else {
            bridge.mac.clone()
        };
        plan.push(Step::SetMac { link: device, mac });
    }
    for (parameter, is_v4) in [
        ("net/ipv4/ip_forward", true),
        ("net/ipv6/conf/all/forwarding", false),
    ] {
        if gateways.iter().any(|gateway| gateway.is_ipv4() == is_v4) {
            plan.push(Step::Sysctl {
                at: At::Host,
                name: parameter.to_owned(),
                value: "1",
                required: true,
            });
        }
    }
    Ok(plan)
}

fn no_router_advertisements(link: &str) -> Step {
    Step::Sysctl {
        at: At::Host,
        name: format!("net/ipv6/conf/{link}/accept_ra"),
        value: "0",
        required: false,
    }
}

#[cfg(test)]
mod tests;
