//! What is measured: a network's configuration, and what it is faced with.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};

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
    pub(crate) has_floor: bool,
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
        has_floor: matches!(network, Network::Bridge | Network::Flannel),
        budget: Duration::from_secs(seconds),
    };
    vec![
        one("bridge", "bridge + host-local", Network::Bridge, 50),
        one(
            "flannel",
            "flannel -> bridge -> host-local",
            Network::Flannel,
            50,
        ),
        one(
            "ipmasq-iptables",
            "bridge + host-local, ipMasq by iptables",
            Network::IptablesMasquerade,
            45,
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
            35,
        ),
        one("loopback", "loopback", Network::Loopback, 10),
        Case {
            settings: vec![
                setting(NO_LEASES, Leases::Consecutive(0), 1),
                setting("250", Leases::Consecutive(250), 1),
                setting("2,000", Leases::Consecutive(2_000), 1),
                setting(MANY_LEASES, Leases::Consecutive(20_000), 1),
                setting(NEARLY_FULL, Leases::NearlyAll, 1),
            ],
            has_floor: false,
            ..one(
                "leases",
                "bridge + host-local, by leases in the store",
                Network::Bridge,
                130,
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
                90,
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
            | Network::Flannel => "eth0",
        }
    }

    /// The configuration of the network with this number (its second byte), with all its files below `data`.
    pub(crate) fn conf(self, number: u8, data: &Path) -> io::Result<Value> {
        let mut ranges = vec![json!([{ "subnet": format!("10.{number}.0.0/16") }])];
        let mut routes = vec![
            json!({ "dst": "0.0.0.0/0" }),
            json!({ "dst": "10.0.0.0/8", "gw": format!("10.{number}.0.1") }),
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
            Network::Bridge | Network::DualStack => {}
            Network::IptablesMasquerade => conf["ipMasq"] = true.into(),
            Network::NftablesMasquerade => {
                conf["ipMasq"] = true.into();
                conf["ipMasqBackend"] = "nftables".into();
            }
            Network::Flannel => {
                let subnet_file = data.join(format!("subnet-{number}.env"));
                let subnet = format!("FLANNEL_SUBNET=10.{number}.0.1/16");
                fs::write(
                    &subnet_file,
                    format!(
                        "FLANNEL_NETWORK=10.0.0.0/8\n{subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
                    ),
                )?;
                conf = json!({
                    "cniVersion": "1.0.0",
                    "name": network_name(number),
                    "type": "flannel",
                    "subnetFile": subnet_file,
                    "dataDir": data.join("flannel"),
                    "ipam": { "dataDir": data },
                    "delegate": { "bridge": bridge_name(number), "hairpinMode": true, "isDefaultGateway": true },
                });
            }
            Network::Loopback => {
                conf = json!({ "cniVersion": "1.0.0", "name": network_name(number), "type": "loopback" })
            }
        }
        Ok(conf)
    }
}

/// The name of the network with this number.
pub(crate) fn network_name(number: u8) -> String {
    format!("bench-{number}")
}

fn bridge_name(number: u8) -> String {
    format!("bench{number}")
}
