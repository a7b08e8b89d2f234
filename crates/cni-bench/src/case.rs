//! What is measured: a network's configuration, and what it is faced with.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};

use crate::report::Verb;

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// `bridge` and `host-local`, IPv4: the state that the floor makes.
    Bridge,
    /// The same with IPv6.
    DualStack,
    /// The same as the first, behind the node's address, by iptables.
    IptablesMasquerade,
    /// By nftables.
    NftablesMasquerade,
    /// `flannel`, `bridge` and `host-local`, as on a node of a cluster.
    Flannel,
    /// `loopback`.
    Loopback,
    /// `portmap` with one port, by iptables as it chooses, behind an attachment that is not measured.
    Portmap,
    /// The same without a port: there is nothing to do.
    PortmapWithoutPorts,
    /// The list that flannel ships, `flannel` and then `portmap`, with one port.
    Conflist,
}

/// The leases that lie in the store before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leases {
    /// That many, one after the other from the first address on.
    Consecutive(u32),
    /// All of a /16 but every hundredth.
    NearlyAll,
}

/// How the calls follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One call at a time, the contenders in turn.
    InTurn,
    /// Many pods at once, one contender after the other.
    AtOnce,
}

/// One thing that a case varies.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Empty where nothing is varied.
    pub(crate) label: &'static str,
    pub(crate) leases: Leases,
    pub(crate) at_once: usize,
}

/// One section of the report.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What `--case` looks at, and the JSON.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) network: Network,
    pub(crate) shape: Shape,
    pub(crate) settings: Vec<Setting>,
    /// What of it the floor does too.
    pub(crate) floor: &'static [Verb],
    /// How long it may take, unless told otherwise.
    pub(crate) budget: Duration,
}

/// All cases, in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let one = |name, title, network, seconds| Case {
        name,
        title,
        network,
        shape: Shape::InTurn,
        settings: vec![setting("", Leases::Consecutive(0), 1)],
        floor: match network {
            Network::Bridge | Network::Flannel => &[Verb::Start, Verb::Add, Verb::Del],
            Network::PortmapWithoutPorts => &[Verb::Start],
            Network::DualStack
            | Network::IptablesMasquerade
            | Network::NftablesMasquerade
            | Network::Loopback
            | Network::Portmap
            | Network::Conflist => &[],
        },
        budget: Duration::from_secs(seconds),
    };
    vec![
        one("bridge", "bridge + host-local", Network::Bridge, 40),
        one(
            "flannel",
            "flannel -> bridge -> host-local",
            Network::Flannel,
            40,
        ),
        one(
            "ipmasq-iptables",
            "bridge + host-local, ipMasq by iptables",
            Network::IptablesMasquerade,
            35,
        ),
        one(
            "ipmasq-nftables",
            "bridge + host-local, ipMasq by nftables",
            Network::NftablesMasquerade,
            15,
        ),
        one(
            "dual-stack",
            "bridge + host-local, IPv4 and IPv6",
            Network::DualStack,
            20,
        ),
        one("loopback", "loopback", Network::Loopback, 5),
        one(
            "portmap",
            "portmap, one port by iptables",
            Network::Portmap,
            30,
        ),
        one(
            "portmap-no-ports",
            "portmap without ports",
            Network::PortmapWithoutPorts,
            10,
        ),
        one(
            "conflist",
            "flannel -> bridge -> host-local, then portmap with one port",
            Network::Conflist,
            35,
        ),
        Case {
            settings: vec![
                setting(NO_LEASES, Leases::Consecutive(0), 1),
                setting("250", Leases::Consecutive(250), 1),
                setting("2,000", Leases::Consecutive(2_000), 1),
                setting(MANY_LEASES, Leases::Consecutive(20_000), 1),
                setting(NEARLY_FULL, Leases::NearlyAll, 1),
            ],
            floor: &[],
            ..one(
                "leases",
                "bridge + host-local, by leases in the store",
                Network::Bridge,
                80,
            )
        },
        Case {
            shape: Shape::AtOnce,
            settings: [1, 8, 32]
                .into_iter()
                .zip(["1 at once", EIGHT_AT_ONCE, "32 at once"])
                .map(|(at_once, label)| setting(label, Leases::Consecutive(0), at_once))
                .collect(),
            ..one(
                "at-once",
                "bridge + host-local, many pods at once",
                Network::Bridge,
                60,
            )
        },
    ]
}

/// Settings that goals refer to.
pub(crate) const NO_LEASES: &str = "none";
pub(crate) const MANY_LEASES: &str = "20,000";
pub(crate) const NEARLY_FULL: &str = "99% of /16";
pub(crate) const EIGHT_AT_ONCE: &str = "8 at once";

fn setting(label: &'static str, leases: Leases, at_once: usize) -> Setting {
    Setting {
        label,
        leases,
        at_once,
    }
}

impl Network {
    /// The plugins that it needs.
    pub(crate) fn plugins(self) -> &'static [&'static str] {
        match self {
            Network::Flannel => &["flannel", "bridge", "host-local"],
            Network::Loopback => &["loopback"],
            Network::Portmap | Network::PortmapWithoutPorts => &["portmap"],
            Network::Conflist => &["flannel", "bridge", "host-local", "portmap"],
            Network::Bridge
            | Network::DualStack
            | Network::IptablesMasquerade
            | Network::NftablesMasquerade => &["bridge", "host-local"],
        }
    }

    /// The interface in the pod.
    pub(crate) fn ifname(self) -> &'static str {
        match self {
            Network::Loopback => "lo",
            Network::Bridge
            | Network::DualStack
            | Network::IptablesMasquerade
            | Network::NftablesMasquerade
            | Network::Flannel
            | Network::Portmap
            | Network::PortmapWithoutPorts
            | Network::Conflist => "eth0",
        }
    }

    /// The configurations that a runtime runs through for the network with this number (its second byte), with all
    /// files below `data`.
    pub(crate) fn confs(self, number: u8, data: &Path) -> io::Result<Vec<Value>> {
        Ok(match self {
            Network::Portmap => vec![portmap(number, &[PORT])],
            Network::PortmapWithoutPorts => vec![portmap(number, &[])],
            Network::Conflist => vec![flannel(number, data)?, portmap(number, &[PORT])],
            Network::Flannel => vec![flannel(number, data)?],
            Network::Loopback => {
                vec![
                    json!({ "cniVersion": "1.0.0", "name": network_name(number), "type": "loopback" }),
                ]
            }
            Network::Bridge
            | Network::DualStack
            | Network::IptablesMasquerade
            | Network::NftablesMasquerade => vec![self.bridge(number, data)],
        })
    }

    /// The result that the first plugin's ADD is handed; `None` where it comes first. It tells of `pod`, and is true of
    /// the node once that has the bridge of the network.
    pub(crate) fn result_before(self, number: u8, pod: &str) -> Option<Value> {
        matches!(self, Network::Portmap | Network::PortmapWithoutPorts).then(|| {
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [
                    { "name": bridge_name(number) },
                    { "name": "veth0" },
                    { "name": "eth0", "sandbox": pod },
                ],
                "ips": [{
                    "address": format!("10.{number}.0.2/16"),
                    "gateway": gateway(number),
                    "interface": 2,
                }],
                "routes": [{ "dst": "0.0.0.0/0", "gw": gateway(number) }],
            })
        })
    }

    fn bridge(self, number: u8, data: &Path) -> Value {
        let mut ranges = vec![json!([{ "subnet": format!("10.{number}.0.0/16") }])];
        let mut routes = vec![
            json!({ "dst": "0.0.0.0/0" }),
            json!({ "dst": "10.0.0.0/8", "gw": gateway(number) }),
        ];
        if self == Network::DualStack {
            ranges.push(json!([{ "subnet": format!("fd00:{number}::/64") }]));
            routes.push(json!({ "dst": "::/0" }));
        }
        let mut conf = json!({
            "cniVersion": "1.0.0",
            "name": network_name(number),
            "type": "bridge",
            "bridge": bridge_name(number),
            "isGateway": true,
            "mtu": 1450,
            "ipam": { "type": "host-local", "dataDir": data, "ranges": ranges, "routes": routes },
        });
        match self {
            Network::IptablesMasquerade => conf["ipMasq"] = true.into(),
            Network::NftablesMasquerade => {
                conf["ipMasq"] = true.into();
                conf["ipMasqBackend"] = "nftables".into();
            }
            Network::Bridge
            | Network::DualStack
            | Network::Flannel
            | Network::Loopback
            | Network::Portmap
            | Network::PortmapWithoutPorts
            | Network::Conflist => {}
        }
        conf
    }
}

/// The port of the node that is forwarded, and the pod's.
const PORT: (u16, u16) = (8080, 80);

fn flannel(number: u8, data: &Path) -> io::Result<Value> {
    let subnet_file = data.join(format!("subnet-{number}.env"));
    let subnet = format!("FLANNEL_SUBNET={}/16", gateway(number));
    fs::write(
        &subnet_file,
        format!("FLANNEL_NETWORK=10.0.0.0/8\n{subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"),
    )?;
    Ok(json!({
        "cniVersion": "1.0.0",
        "name": network_name(number),
        "type": "flannel",
        "subnetFile": subnet_file,
        "dataDir": data.join("flannel"),
        "ipam": { "dataDir": data },
        "delegate": { "bridge": bridge_name(number), "hairpinMode": true, "isDefaultGateway": true },
    }))
}

fn portmap(number: u8, ports: &[(u16, u16)]) -> Value {
    let mapping = |(host, pod): &(u16, u16)| json!({ "hostPort": host, "containerPort": pod, "protocol": "tcp" });
    json!({
        "cniVersion": "1.0.0",
        "name": network_name(number),
        "type": "portmap",
        "runtimeConfig": { "portMappings": ports.iter().map(mapping).collect::<Vec<_>>() },
    })
}

/// The name of the network with this number.
pub(crate) fn network_name(number: u8) -> String {
    format!("bench-{number}")
}

/// The bridge's address in it.
pub(crate) fn gateway(number: u8) -> String {
    format!("10.{number}.0.1")
}

pub(crate) fn bridge_name(number: u8) -> String {
    format!("bench{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conflist_is_flannel_then_portmap_with_a_port() {
        let data = tempfile::tempdir().unwrap();
        let confs = Network::Conflist.confs(9, data.path()).unwrap();
        assert_eq!(confs.len(), 2);
        assert_eq!(confs[0]["type"], "flannel");
        assert_eq!(
            confs[1],
            json!({
                "cniVersion": "1.0.0",
                "name": "bench-9",
                "type": "portmap",
                "runtimeConfig": {
                    "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
                },
            })
        );
        assert_eq!(
            fs::read_to_string(data.path().join("subnet-9.env")).unwrap(),
            "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.9.0.1/16\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
    }

    #[test]
    fn portmap_alone_is_handed_the_result_of_an_attachment() {
        let result = Network::Portmap.result_before(9, "/proc/1/ns/net").unwrap();
        assert_eq!(result["interfaces"][2]["sandbox"], "/proc/1/ns/net");
        assert_eq!(result["ips"][0]["address"], "10.9.0.2/16");
        assert_eq!(Network::Conflist.result_before(9, "/proc/1/ns/net"), None);
    }

    /// A whole run ends within seven minutes: what the cases need beside their budgets takes less than 45 seconds.
    #[test]
    fn the_budgets_leave_45_seconds_of_seven_minutes() {
        let budgets: Duration = all().iter().map(|case| case.budget).sum();
        assert!(budgets <= Duration::from_secs(6 * 60 + 15), "{budgets:?}");
    }
}
