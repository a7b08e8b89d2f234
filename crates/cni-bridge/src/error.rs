//! Everything that can go wrong here, in the reference's words where it has some.

use std::io;

use cni_net::{At, KernelError, NetnsError, Reason, Step, StepError};
use cni_spec::args::ArgsError;
use cni_spec::error::os_text;
use cni_spec::json::TypeError;
use cni_spec::result::ResultError;
use cni_spec::{Code, Coded, quote};
use ipnetwork::IpNetwork;

use crate::check::Mismatch;
use crate::masquerade::MasqueradeError;
use crate::spoof::SpoofError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to load netconf: {0}")]
    Load(#[from] TypeError),
    #[error("invalid VLAN ID {0} (must be between 0 and 4094)")]
    VlanId(i64),
    #[error("incorrect trunk minID parameter")]
    TrunkMinId,
    #[error("incorrect trunk maxID parameter")]
    TrunkMaxId,
    #[error("minID is greater than maxID in trunk parameter")]
    TrunkOrder,
    #[error("minID and maxID should be configured simultaneously, minID is missing")]
    TrunkMinIdMissing,
    #[error("minID and maxID should be configured simultaneously, maxID is missing")]
    TrunkMaxIdMissing,
    #[error("incorrect trunk id parameter")]
    TrunkId,
    #[error("incorrect trunk parameter: element is null")]
    TrunkNull,
    #[error("invalid mtu {0}")]
    Mtu(i64),
    #[error(transparent)]
    Args(#[from] ArgsError),
    #[error("cannot use IPAM when DisableContainerInterface flag is set")]
    IpamWithInterfaceDown,
    #[error("cannot set hairpin mode and promiscuous mode at the same time")]
    HairpinWithPromiscuous,
    #[error("failed to create bridge \"\": could not add \"\": LinkAttrs.Name cannot be empty")]
    BridgeNameEmpty,
    #[error("failed to create bridge {name}: could not add {name}: {reason}", name = quote::quoted(.0), reason = name_refused(.0))]
    BridgeName(String),
    #[error("failed to create bridge {name}: {name} already exists but is not a bridge", name = quote::quoted(.0))]
    NotABridge(String),
    #[error("failed to make veth pair: address {0}: invalid MAC address")]
    Mac(String),
    #[error("failed to open netns {}: {error}", quote::quoted(.path))]
    OpenNetns { path: String, error: NetnsError },
    #[error("failed to open netns {}: {}", quote::quoted(.path), os_text(.error))]
    EnterNetns { path: String, error: io::Error },
    #[error(transparent)]
    Netns(NetnsError),
    #[error("cannot talk to the kernel: {}", os_text(.0))]
    Socket(io::Error),
    #[error("container veth name ({}) peer provided ({}) already exists", quote::quoted(.container), quote::quoted(.host))]
    InterfaceExists { container: String, host: String },
    #[error("failed to make veth pair: interface name {} is a pattern", quote::quoted(.0))]
    InterfaceName(String),
    #[error("failed to find a unique veth name")]
    NoFreeName,
    #[error("IPAM plugin returned missing IP config")]
    NoAddresses,
    #[error("failed to set {device} addr: {address}", device = if *.vlan { "vlan interface for bridge with" } else { "bridge" }, address = conflict(.link, .wanted))]
    GatewayConflict {
        link: String,
        wanted: IpNetwork,
        existing: IpNetwork,
        vlan: bool,
    },
    #[error("failed to lookup {}: {error}", quote::quoted(.link))]
    Lookup { link: String, error: KernelError },
    #[error("{text}")]
    Step { text: String, error: StepError },
    #[error("invalid `{key}` {value} of the route to {dst}")]
    RouteField {
        dst: IpNetwork,
        key: &'static str,
        value: i64,
    },
    #[error("{} has disappeared while its container was being attached", quote::quoted(.0))]
    Gone(String),
    #[error(transparent)]
    Masquerade(#[from] MasqueradeError),
    #[error(transparent)]
    Spoof(#[from] SpoofError),
    #[error("{0}")]
    Check(Mismatch),
    #[error("could not parse prevResult: {0}")]
    PrevResult(ResultError),
    #[error("Required prevResult missing")]
    PrevResultMissing,
}

fn conflict(link: &str, wanted: &IpNetwork) -> String {
    format!(
        "{} already has an IP address different from {wanted}",
        quote::quoted(link)
    )
}

/// What the kernel says of a name that it does not take.
fn name_refused(name: &str) -> &'static str {
    if name.len() > 15 {
        "numerical result out of range"
    } else {
        "invalid argument"
    }
}

impl Error {
    /// The reference's sentence for a step that failed.
    pub(crate) fn step(error: StepError, bridge: &str) -> Error {
        Error::Step {
            text: sentence(&error.step, &error.reason, bridge),
            error,
        }
    }

    /// A link that was there a moment ago.
    pub(crate) fn gone(link: &str) -> Error {
        Error::Gone(link.to_owned())
    }

    /// The plan with the failed step marked, for standard error.
    pub(crate) fn trace(&self) -> Option<&str> {
        if let Error::Step { error, .. } = self {
            Some(&error.trace)
        } else {
            None
        }
    }
}

fn sentence(step: &Step, reason: &Reason, bridge: &str) -> String {
    let q = |name: &str| quote::quoted(name);
    let creating = |text: String| format!("failed to create bridge {}: {text}", q(bridge));
    match step {
        Step::AddBridge { name, .. } => creating(format!("could not add {}: {reason}", q(name))),
        Step::SetPromiscuous { link } => creating(format!(
            "could not set promiscuous mode on {}: {reason}",
            q(link)
        )),
        Step::SetUp { at: At::Host, link } if link == bridge => creating(reason.to_string()),
        Step::SetUp { at: At::Host, link } => format!(
            "failed to create vlan interface: failed to up {}: {reason}",
            q(link)
        ),
        Step::SetUp {
            at: At::Container,
            link,
        } => format!("failed to set {} UP: {reason}", q(link)),
        Step::AddVeth(veth) if veth.peer_at == At::Host => {
            format!(
                "failed to create vlan interface: faild to create vlan gateway {}: failed to make veth pair: {reason}",
                q(&veth.peer)
            )
        }
        Step::AddVeth(_) => format!("failed to make veth pair: {reason}"),
        Step::SetMac { .. } => format!("could not set bridge's mac: {reason}"),
        Step::SetBridgePort { link, port } if port.isolated => {
            format!("failed to set isolated on for {link}: {reason}")
        }
        Step::SetBridgePort { link, .. } => {
            format!("failed to setup hairpin mode for {link}: {reason}")
        }
        Step::AddVlan { link, .. } => format!(
            "failed to setup vlan tag on interface {}: {reason}",
            q(link)
        ),
        Step::DelVlan { link, .. } => format!(
            "failed to remove default vlan on interface {}: {reason}",
            q(link)
        ),
        Step::AddAddress {
            at: At::Host,
            link,
            address,
            ..
        } => {
            let device = if link == bridge {
                "bridge"
            } else {
                "vlan interface for bridge with"
            };
            format!(
                "failed to set {device} addr: could not add IP address {address} to {}: {reason}",
                q(link)
            )
        }
        Step::AddAddress {
            at: At::Container,
            link,
            address,
            ..
        } => {
            format!("failed to add IP addr {address} to {}: {reason}", q(link))
        }
        Step::DelAddress { link, .. } => {
            format!(
                "failed to set bridge addr: could not remove IP address from {}: {reason}",
                q(link)
            )
        }
        Step::AddRoute { link, route } => {
            let scope = match route.scope {
                0 => "universe",
                200 => "site",
                253 => "link",
                254 => "host",
                255 => "nowhere",
                _ => "unknown",
            };
            format!(
                "failed to add route '{} via {} dev {link} metric {} (Scope: {scope}, Table: {})': {reason}",
                go_network(route.dst),
                route.via.map_or("<nil>".to_owned(), |via| via.to_string()),
                route.metric,
                route.table,
            )
        }
        Step::Sysctl { name, value, .. }
            if name.ends_with("/forwarding") || name.ends_with("/ip_forward") =>
        {
            format!("failed to enable forwarding: cannot set {name} to {value}: {reason}")
        }
        Step::Sysctl { name, value, .. } if name.ends_with("/disable_ipv6") => {
            format!(
                "failed to enable IPv6 for interface {} ({name}={value}): {reason}",
                q(interface_of(name))
            )
        }
        Step::Sysctl { name, .. } if name.ends_with("/keep_addr_on_down") => {
            format!(
                "failed to enable keep_addr_on_down for interface {}: {reason}",
                q(interface_of(name))
            )
        }
        Step::Sysctl { name, value, .. } => format!("cannot set {name} to {value}: {reason}"),
        Step::SetArpNotify { link } => format!("cannot set arp_notify of {link}: {reason}"),
        Step::SetDown { link, .. } => format!("failed to set {} down: {reason}", q(link)),
        Step::DelLink { link, .. } => format!("failed to delete {}: {reason}", q(link)),
        Step::AwaitUp { .. } => reason.to_string(),
        Step::AwaitAddresses { link } => {
            format!("failed to settle addresses for {}: {reason}", q(link))
        }
    }
}

/// The interface in `net/ipv6/conf/<interface>/<parameter>`.
fn interface_of(name: &str) -> &str {
    name.rsplit('/').nth(1).unwrap_or_default()
}

/// A prefix as Go prints the struct that holds it: `{10.7.0.0 ffff0000}`.
fn go_network(network: IpNetwork) -> String {
    let mask: Vec<u8> = match network {
        IpNetwork::V4(v4) if v4.prefix() == 0 => {
            return "{0.0.0.0 00000000000000000000ffff00000000}".to_owned();
        }
        IpNetwork::V4(v4) => v4.mask().octets().to_vec(),
        IpNetwork::V6(v6) => v6.mask().octets().to_vec(),
    };
    let mask: String = mask.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{{} {mask}}}", network.ip())
}

impl Coded for Error {
    fn code(&self) -> Code {
        match self {
            Error::Load(_)
            | Error::VlanId(_)
            | Error::TrunkMinId
            | Error::TrunkMaxId
            | Error::TrunkOrder
            | Error::TrunkMinIdMissing
            | Error::TrunkMaxIdMissing
            | Error::TrunkId
            | Error::TrunkNull
            | Error::Mtu(_)
            | Error::IpamWithInterfaceDown
            | Error::HairpinWithPromiscuous
            | Error::BridgeNameEmpty
            | Error::BridgeName(_)
            | Error::Mac(_)
            | Error::RouteField { .. }
            | Error::PrevResult(_)
            | Error::PrevResultMissing => Code::INVALID_CONFIG,
            Error::Args(_) | Error::InterfaceName(_) => Code::INVALID_ENVIRONMENT,
            Error::OpenNetns { .. } | Error::EnterNetns { .. } | Error::Netns(_) => {
                Code::INVALID_NETNS
            }
            Error::InterfaceExists { .. } => Code::INTERFACE_EXISTS,
            Error::Check(_) => Code::CHECK_FAILED,
            Error::Masquerade(error) => error.code(),
            Error::Spoof(error) => error.code(),
            Error::NotABridge(_)
            | Error::Socket(_)
            | Error::NoFreeName
            | Error::NoAddresses
            | Error::GatewayConflict { .. }
            | Error::Lookup { .. }
            | Error::Gone(_)
            | Error::Step { .. } => Code::INTERNAL,
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "most errors say all there is to say"
    )]
    fn hint(&self) -> Option<String> {
        match self {
            Error::NotABridge(name) => Some(format!(
                "choose another `bridge`, or remove the link: ip link del {name}"
            )),
            Error::InterfaceExists { container, .. } => Some(format!(
                "`{container}` is in the container's namespace already: this is a repeated ADD, or another network's \
                 interface; the first attachment is left as it is"
            )),
            Error::GatewayConflict { link, existing, .. } => Some(format!(
                "`{link}` has {existing}, maybe from a node's subnet of before; if no container uses it: \
                 ip addr del {existing} dev {link}, or set `forceAddress`"
            )),
            Error::Step { error, .. } => {
                let explanation = error
                    .explanation()
                    .map(|text| format!("the kernel says: {text}; "));
                let removing = matches!(*error.step, Step::DelLink { .. });
                let undone = if removing {
                    ""
                } else {
                    "; of this attachment nothing is left"
                };
                Some(format!(
                    "{}at step `{}`{undone}",
                    explanation.unwrap_or_default(),
                    error.step
                ))
            }
            Error::Mac(_) => Some("six bytes in hex, such as 02:00:0a:16:00:05".to_owned()),
            Error::Mtu(_) => Some("bytes, up to 65535".to_owned()),
            Error::NoAddresses => Some("the result of the IPAM plugin has no `ips`".to_owned()),
            Error::OpenNetns { .. } | Error::EnterNetns { .. } => {
                Some("the container may have died before its network was set up".to_owned())
            }
            _ => None,
        }
    }
}
