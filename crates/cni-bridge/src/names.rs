//! The names of the links that an attachment makes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use cni_net::firewall::name::hash;
use cni_spec::Attachment;
use cni_spec::name::NetworkName;

/// The names of an attachment's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The end on the node.
    pub(crate) host: String,
    /// The end in the container: `CNI_IFNAME`.
    pub(crate) container: String,
    /// The other end of the VLAN gateway device, in the bridge; empty if there is none.
    pub(crate) gateway_port: String,
}

/// How many names are tried before giving up.
pub(crate) const ATTEMPTS: usize = 10;

impl Names {
    /// The names that follow from network, container and interface, so that a person can find a link.
    pub(crate) fn of(
        network: &NetworkName,
        attachment: &Attachment,
        vlan_gateway: Option<&str>,
    ) -> Names {
        Names {
            host: host_name(
                network.as_str(),
                attachment.container_id.as_str(),
                attachment.ifname.as_str(),
            ),
            container: attachment.ifname.as_str().to_owned(),
            gateway_port: vlan_gateway
                .map(|device| format!("veth{}", hash(8, device)))
                .unwrap_or_default(),
        }
    }
}

/// `veth` and eight hex digits of a hash.
pub(crate) fn host_name(network: &str, container_id: &str, ifname: &str) -> String {
    // None of the three can hold a space, so different attachments never give the same text.
    format!(
        "veth{}",
        hash(8, &format!("{network} {container_id} {ifname}"))
    )
}

/// A name for when the derived one is somebody else's. The hasher's keys come from the system's random numbers.
pub(crate) fn random_name() -> String {
    format!(
        "veth{:08x}",
        RandomState::new().build_hasher().finish() as u32
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // M09
    #[test]
    fn m09_names_differ_with_each_part() {
        let name = host_name("net", "id", "eth0");
        assert_eq!(name.len(), 12);
        assert!(
            name.strip_prefix("veth")
                .unwrap()
                .chars()
                .all(|digit| "0123456789abcdef".contains(digit))
        );
        for other in [
            host_name("net2", "id", "eth0"),
            host_name("net", "id2", "eth0"),
            host_name("net", "id", "eth1"),
        ] {
            assert_ne!(name, other);
        }
        assert_ne!(random_name(), random_name());
    }
}
