//! Which gateways and default routes an attachment gets, and what that means for the bridge's addresses.

use std::net::IpAddr;

use cni_spec::{Ip, Route, Success, address};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::error::Error;

/// IPAM's answer with everything filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addressing {
    /// Every address with its gateway, if it has one, on interface 2: the container's.
    pub(crate) ips: Vec<Ip>,
    /// IPAM's routes, then the default routes that were missing.
    pub(crate) routes: Vec<Route>,
    /// What the bridge must have as addresses: IPv4 first, then IPv6, each in IPAM's order.
    pub(crate) gateways: Vec<IpNetwork>,
}

impl Addressing {
    /// Fills in what the configuration asks for. A default route of IPAM's, with or without a next hop, stays the only
    /// one of its family.
    pub(crate) fn new(config: &Config, ipam: &Success) -> Addressing {
        let mut addressing = Addressing {
            ips: ipam.ips.clone(),
            routes: ipam.routes.clone(),
            gateways: Vec::new(),
        };
        let (mut seen, mut v4, mut v6) = ((false, false), Vec::new(), Vec::new());
        for ip in &mut addressing.ips {
            ip.interface = Some(CONTAINER_INTERFACE);
            if config.is_gateway && ip.gateway.is_none() {
                ip.gateway = address::next(ip.address.network());
            }
            let (Some(gateway), true) = (ip.gateway, config.is_gateway) else {
                continue;
            };
            let seen = if gateway.is_ipv4() {
                &mut seen.0
            } else {
                &mut seen.1
            };
            if config.is_default_gateway && !std::mem::replace(seen, true) {
                let default = address::default_route(gateway);
                if !ipam
                    .routes
                    .iter()
                    .any(|route| is_default(route.dst, gateway))
                {
                    addressing.routes.push(Route::new(default, Some(gateway)));
                }
            }
            if let Ok(network) = IpNetwork::new(gateway, ip.address.prefix()) {
                if gateway.is_ipv4() {
                    v4.push(network)
                } else {
                    v6.push(network)
                }
            }
        }
        addressing.gateways = v4.into_iter().chain(v6).collect();
        addressing
    }

    /// The next hop of a route: its own, else the first gateway of its family, else none.
    pub(crate) fn next_hop(&self, route: &Route) -> Option<IpAddr> {
        let gateways = self.ips.iter().filter_map(|ip| ip.gateway);
        route.gw.or_else(|| {
            gateways
                .into_iter()
                .find(|gateway| gateway.is_ipv4() == route.dst.is_ipv4())
        })
    }
}

/// The container's position among a result's interfaces, behind the bridge and the host's end.
pub(crate) const CONTAINER_INTERFACE: i64 = 2;

fn is_default(dst: IpNetwork, family: IpAddr) -> bool {
    dst.prefix() == 0 && dst.is_ipv4() == family.is_ipv4()
}

/// One change of the gateway device's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressChange {
    Add(IpNetwork),
    Remove(IpNetwork),
}

/// What must change for `device`, with the addresses `existing` in the kernel's order, to have `gateways`.
///
/// Any other IPv4 address is in the way, and an IPv6 one whose network overlaps; with `force` they go. Each address is
/// looked at until the wanted one is met, as in the reference, so one that stands behind it is in nobody's way.
pub(crate) fn address_changes(
    device: &str,
    existing: &[IpNetwork],
    gateways: &[IpNetwork],
    force: bool,
    vlan: bool,
) -> Result<Vec<AddressChange>, Error> {
    let (mut addresses, mut changes) = (existing.to_vec(), Vec::new());
    for &wanted in gateways {
        let mut missing = true;
        for address in addresses.clone() {
            if address.is_ipv4() != wanted.is_ipv4() {
                continue;
            }
            if address == wanted {
                missing = false;
                break;
            }
            if wanted.is_ipv6() && !address.contains(wanted.ip()) && !wanted.contains(address.ip())
            {
                continue;
            }
            if !force {
                return Err(Error::GatewayConflict {
                    link: device.to_owned(),
                    wanted,
                    existing: address,
                    vlan,
                });
            }
            changes.push(AddressChange::Remove(address));
            addresses.retain(|it| *it != address);
        }
        if missing {
            changes.push(AddressChange::Add(wanted));
            addresses.push(wanted);
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn changes(existing: &[&str], gateways: &[&str], force: bool) -> Result<String, String> {
        let list = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
        let text = |change: &AddressChange| match change {
            AddressChange::Add(address) => format!("+{address}"),
            AddressChange::Remove(address) => format!("-{address}"),
        };
        address_changes("cni0", &list(existing), &list(gateways), force, false)
            .map(|changes| changes.iter().map(text).collect::<Vec<_>>().join(" "))
            .map_err(|error| error.to_string())
    }

    // B21
    #[test]
    fn b21_another_ipv4_address_is_in_the_way() {
        assert_eq!(
            changes(&["10.0.0.1/8"], &["10.1.2.3/16"], false).unwrap_err(),
            "failed to set bridge addr: \"cni0\" already has an IP address different from 10.1.2.3/16"
        );
        assert_eq!(
            changes(&["10.0.0.1/8"], &["10.1.2.3/16"], true).unwrap(),
            "-10.0.0.1/8 +10.1.2.3/16"
        );
        assert_eq!(
            changes(&["10.1.2.3/16"], &["10.1.2.3/16"], false).unwrap(),
            ""
        );
        assert_eq!(
            changes(&["10.1.2.3/16", "10.9.9.9/8"], &["10.1.2.3/16"], false).unwrap(),
            ""
        );
        assert!(changes(&["10.9.9.9/8", "10.1.2.3/16"], &["10.1.2.3/16"], false).is_err());
        assert!(changes(&[], &["10.1.2.1/24", "10.1.3.1/24"], false).is_err());
        assert_eq!(
            changes(&[], &["10.1.2.1/24", "10.1.3.1/24"], true).unwrap(),
            "+10.1.2.1/24 -10.1.2.1/24 +10.1.3.1/24"
        );
    }

    // B22
    #[test]
    fn b22_an_overlapping_ipv6_network_is_in_the_way() {
        let (existing, wanted) = (["2001:db8:1::1/48"], ["2001:db8:1:2::1/64"]);
        assert!(changes(&existing, &wanted, false).is_err());
        assert_eq!(
            changes(&existing, &wanted, true).unwrap(),
            "-2001:db8:1::1/48 +2001:db8:1:2::1/64"
        );
    }

    // B23
    #[test]
    fn b23_a_disjoint_ipv6_network_stays() {
        for force in [false, true] {
            let existing = ["fe80::1/64", "2001:db8:1::1/64", "10.0.0.1/8"];
            assert_eq!(
                changes(&existing, &["2001:db8:2::1/64"], force).unwrap(),
                "+2001:db8:2::1/64"
            );
        }
    }

    fn addressing(
        keys: Value,
        ips: Value,
        routes: Value,
    ) -> (Vec<String>, Vec<String>, Vec<String>) {
        let config = Config::new(cni_spec::json::read(&keys).unwrap(), "").unwrap();
        let result = json!({ "cniVersion": "1.0.0", "ips": ips, "routes": routes });
        let addressing = Addressing::new(&config, &Success::decode(&result, "").unwrap().0);
        let route =
            |route: &Route| format!("{} {:?}", route.dst, route.gw.map(|gw| gw.to_string()));
        (
            addressing
                .ips
                .iter()
                .map(|ip| format!("{:?}", ip.gateway.map(|gw| gw.to_string())))
                .collect(),
            addressing.routes.iter().map(route).collect(),
            addressing
                .gateways
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    #[test]
    fn a_missing_gateway_is_the_networks_first_address() {
        let ips = json!([{ "address": "10.1.2.9/24" }, { "address": "fd00::9/64", "gateway": "fd00::7" }]);
        let (gateways, routes, bridge) =
            addressing(json!({ "isGateway": true }), ips.clone(), json!([]));
        assert_eq!(gateways, [r#"Some("10.1.2.1")"#, r#"Some("fd00::7")"#]);
        assert!(routes.is_empty());
        assert_eq!(bridge, ["10.1.2.1/24", "fd00::7/64"]);
        let (gateways, _, bridge) = addressing(json!({}), ips, json!([]));
        assert_eq!(gateways, ["None", r#"Some("fd00::7")"#]);
        assert!(bridge.is_empty());
    }

    // B06
    #[test]
    fn b06_one_default_route_a_family_by_the_first_gateway() {
        let ips = json!([
            { "address": "fd00:1::9/64" }, { "address": "10.1.2.9/24" }, { "address": "fd00:2::9/64" },
        ]);
        let (_, routes, bridge) = addressing(json!({ "isDefaultGateway": true }), ips, json!([]));
        assert_eq!(
            routes,
            [r#"::/0 Some("fd00:1::1")"#, r#"0.0.0.0/0 Some("10.1.2.1")"#]
        );
        assert_eq!(bridge, ["10.1.2.1/24", "fd00:1::1/64", "fd00:2::1/64"]);
    }

    #[test]
    fn ipams_own_default_route_stays_the_only_one() {
        let ips = json!([{ "address": "10.1.2.9/24" }]);
        for default in [
            json!({ "dst": "0.0.0.0/0" }),
            json!({ "dst": "0.0.0.0/0", "gw": "10.1.2.5" }),
        ] {
            let (_, routes, _) = addressing(
                json!({ "isDefaultGateway": true }),
                ips.clone(),
                json!([default]),
            );
            assert_eq!(routes.len(), 1);
        }
    }

    // L12
    #[test]
    fn l12_a_route_without_next_hop_takes_its_familys_gateway() {
        let config = Config::new(
            cni_spec::json::read(&json!({ "isGateway": true })).unwrap(),
            "",
        )
        .unwrap();
        let ipam = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.1.2.9/24" }] });
        let addressing = Addressing::new(&config, &Success::decode(&ipam, "").unwrap().0);
        let hop = |dst: &str, gw: Option<&str>| {
            addressing
                .next_hop(&Route::new(net(dst), gw.map(|gw| gw.parse().unwrap())))
                .map(|hop| hop.to_string())
        };
        assert_eq!(hop("10.8.0.0/16", None).as_deref(), Some("10.1.2.1"));
        assert_eq!(
            hop("10.8.0.0/16", Some("10.1.2.7")).as_deref(),
            Some("10.1.2.7")
        );
        assert_eq!(hop("fd00::/64", None), None);
    }
}
