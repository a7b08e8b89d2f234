//! Which of the previous result's addresses ports lead to.

use cni_net::firewall::iptables::Family;
use cni_spec::Success;
use cni_spec::address::canonical;
use ipnetwork::IpNetwork;

/// The container's first address of each family, IPv4 first, with its prefix.
///
/// An address counts if it says no interface, one that is not listed, or the one of this attachment inside a sandbox.
pub(crate) fn addresses(prev_result: &Success, ifname: &str) -> Vec<IpNetwork> {
    let listed = |index: i64| prev_result.interfaces.get(usize::try_from(index).ok()?);
    let on_interface = |interface: Option<i64>| match interface.and_then(listed) {
        Some(interface) => interface.name == ifname && !interface.sandbox.is_empty(),
        None => true,
    };
    let found = prev_result
        .ips
        .iter()
        .filter(|ip| on_interface(ip.interface));
    let found: Vec<IpNetwork> = found.map(|ip| canonical(ip.address)).collect();
    let first = |family| found.iter().find(|address| Family::of(address) == family);
    Family::ALL.into_iter().filter_map(first).copied().collect()
}

#[cfg(test)]
mod tests {
    use cni_spec::{Interface, Ip};

    use super::*;

    fn ip(address: &str, interface: Option<i64>) -> Ip {
        Ip {
            address: address.parse().unwrap(),
            gateway: None,
            interface,
        }
    }

    fn chosen(ips: Vec<Ip>) -> Vec<String> {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.to_owned(),
            sandbox: sandbox.to_owned(),
            ..Interface::default()
        };
        let interfaces = vec![
            interface("host", ""),
            interface("container", "/ns"),
            interface("container", ""),
            interface("other", "/ns"),
        ];
        let success = Success {
            interfaces,
            ips,
            ..Success::default()
        };
        addresses(&success, "container")
            .iter()
            .map(IpNetwork::to_string)
            .collect()
    }

    #[test]
    fn only_addresses_of_this_attachment_count() {
        let on = |interface| {
            vec![
                ip("10.0.0.1/24", Some(interface)),
                ip("10.0.0.2/24", Some(1)),
            ]
        };
        for other in [0, 2, 3] {
            assert_eq!(chosen(on(other)), ["10.0.0.2/24"], "interface {other}");
        }
    }

    // T09
    #[test]
    fn t09_an_address_without_a_listed_interface_counts() {
        for interface in [None, Some(4), Some(-1)] {
            let ips = vec![ip("10.0.0.1/24", interface), ip("10.0.0.2/24", Some(1))];
            assert_eq!(chosen(ips), ["10.0.0.1/24"], "{interface:?}");
        }
    }

    #[test]
    fn one_of_each_family_ipv4_first() {
        let all = [
            "2001:db8::2/64",
            "10.0.0.2/24",
            "10.0.0.3/24",
            "2001:db8::3/64",
        ];
        let ips = all.iter().map(|it| ip(it, Some(1))).collect();
        assert_eq!(chosen(ips), ["10.0.0.2/24", "2001:db8::2/64"]);
        assert_eq!(chosen(Vec::new()), [""; 0]);
    }
}
