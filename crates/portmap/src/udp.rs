//! UDP connections that the kernel would go on sending where they went before.
//!
//! Only those are forgotten that the changed rules are about: what a pod itself asks of port 53 somewhere else stays.

use std::collections::HashMap;
use std::net::IpAddr;

use cni_net::firewall::conntrack::forget_udp;
use cni_net::firewall::iptables::Family;
use cni_net::{At, KernelError, Net};

use crate::config::{HostIp, Mapping, Protocol};
use crate::iptables::remove::UdpRedirect;

/// After ADD: connections to a mapped port of the node that do not lead to `container` yet.
pub(crate) fn forget_others(
    net: &Net,
    container: IpAddr,
    mappings: &[&Mapping],
) -> Result<(), String> {
    let udp: Vec<&&Mapping> = mappings
        .iter()
        .filter(|it| it.protocol == Protocol::Udp)
        .collect();
    let ports: Vec<u16> = udp.iter().map(|it| it.host_port).collect();
    let family = crate::config::family_of(container);
    let mut own = OwnAddresses::default();
    let forgotten = forget_udp(family, &ports, |flow| {
        let mut about = udp
            .iter()
            .filter(|mapping| mapping.host_port == flow.to.port());
        let leads_here =
            |mapping: &&&&Mapping| flow.answered_by == (container, mapping.container_port).into();
        about.clone().find(leads_here).is_none()
            && about.any(|mapping| match mapping.host_ip {
                HostIp::One(ip) => ip == flow.to.ip(),
                HostIp::Any | HostIp::AnyOf(_) => own.contains(net, flow.to.ip()),
            })
    });
    let text = |error| {
        let text = cni_spec::error::os_text(&error);
        format!("failed to delete stale UDP conntrack entries for {container}: {text}")
    };
    forgotten.map(drop).map_err(text)
}

/// After DEL: connections that were led to the container.
pub(crate) fn forget_led(redirects: &[UdpRedirect]) -> Result<(), String> {
    for family in Family::ALL {
        let of_family = redirects.iter().filter(|(its, ..)| *its == family);
        let mut ports: Vec<u16> = of_family.clone().map(|(_, port, _)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        let forgotten = forget_udp(family, &ports, |flow| {
            of_family
                .clone()
                .any(|(_, port, ip)| *port == flow.to.port() && *ip == flow.answered_by.ip())
        });
        forgotten.map_err(|error| {
            let text = cni_spec::error::os_text(&error);
            format!("failed to delete stale UDP conntrack entries: {text}")
        })?;
    }
    Ok(())
}

/// Which addresses are the node's own, asked once each.
#[derive(Default)]
struct OwnAddresses(HashMap<IpAddr, bool>);

impl OwnAddresses {
    fn contains(&mut self, net: &Net, ip: IpAddr) -> bool {
        *self.0.entry(ip).or_insert_with(|| {
            let route: Result<_, KernelError> = net.route_to(At::Host, ip);
            route.is_ok_and(|route| route.is_some_and(|route| route.local))
        })
    }
}
