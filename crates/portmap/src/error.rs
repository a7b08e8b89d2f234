//! What can go wrong here, with the reference's sentences where it has them.

use std::io;

use cni_net::firewall::iptables::Family;
use cni_net::firewall::tool::ToolError;
use cni_spec::error::os_text;
use cni_spec::json::TypeError;
use cni_spec::result::ResultError;
use cni_spec::{Code, Coded, quote};

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// ADD, DEL, GC and STATUS say whose configuration it is.
    #[error("failed to parse config: {0}")]
    Parse(ConfigError),
    /// CHECK does not.
    #[error(transparent)]
    Config(ConfigError),
    #[error("must be called as chained plugin")]
    NotChained,
    #[error("Required prevResult missing")]
    PrevResultMissing,
    #[error("failed to open {}: {error}", .family.tool())]
    NoIptables { family: Family, error: ToolError },
    #[error("unable to setup DNAT: {0}")]
    Iptables(ToolError),
    #[error("could not find nftables binary: {0}")]
    NoNft(ToolError),
    #[error("unable to set up nftables rules for port mappings: {0}")]
    Nft(ToolError),
    #[error("unable to enable route_localnet: the link to the container cannot be found: {}", os_text(.0))]
    RouteLookup(io::Error),
    #[error("unable to enable route_localnet: {}", os_text(.error))]
    RouteLocalnet { interface: String, error: io::Error },
    #[error("unable to read the packet filter's rules: {}", os_text(.0))]
    Ruleset(io::Error),
    #[error("could not teardown {} dnat: {error}", version(*.family))]
    IptablesTeardown { family: Family, error: ToolError },
    #[error("could not list rules in table cni_hostport: {}", os_text(.0))]
    NftList(io::Error),
    #[error("error deleting nftables rules: {0}")]
    NftTeardown(ToolError),
    #[error("could not check {} dnat: {missing}", version(*.family))]
    Check { family: Family, missing: Missing },
    #[error("{0}")]
    CheckNft(Missing),
    #[error("neither iptables nor ip6tables is usable, (iptables) {0}, (ip6tables) {1}")]
    NeitherIptables(ToolError, ToolError),
    #[error("iptables is not usable: {0}")]
    IptablesUnusable(ToolError),
    #[error("nftables is not usable: {0}")]
    NftUnusable(ToolError),
    #[error(
        "neither iptables nor nftables is usable, (iptables) {iptables}, (nftables) {nftables}"
    )]
    NoBackend {
        iptables: ToolError,
        nftables: ToolError,
    },
}

/// A configuration that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("failed to parse network configuration: {0}")]
    Json(TypeError),
    #[error("could not parse prevResult: could not parse prevResult: {0}")]
    PrevResult(ResultError),
    #[error("Cannot specify externalSetMarkChain and markMasqBit")]
    ExternalChainAndBit,
    #[error("`externalSetMarkChain` is empty")]
    ExternalChainEmpty,
    #[error("MasqMarkBit must be between 0 and 31")]
    MarkBit,
    #[error(
        "{backend} backend was requested but configuration contains {other}-specific options {}",
        quote::list(.found)
    )]
    ForeignOptions {
        backend: String,
        other: &'static str,
        found: Vec<&'static str>,
    },
    #[error("unrecognized backend {}", quote::quoted(.0))]
    UnknownBackend(String),
    #[error(
        "`externalSetMarkChain` is {}, which cannot be a chain's name",
        quote::quoted(.0)
    )]
    ExternalChain(String),
    #[error("`{key}` holds {}, which would end the rule", quote::quoted(.word))]
    Condition { key: &'static str, word: String },
    #[error("`{key}` is too long: {bytes} bytes of {limit} at most")]
    ConditionsTooLong {
        key: &'static str,
        bytes: usize,
        limit: usize,
    },
    #[error("Invalid container port number: {port}")]
    ContainerPort { index: usize, port: i64 },
    #[error("Invalid host port number: {port}")]
    HostPort { index: usize, port: i64 },
    #[error("Invalid protocol: {}", quote::quoted(.protocol))]
    Protocol { index: usize, protocol: String },
    #[error("Invalid host IP: {}", quote::quoted(.host_ip))]
    HostIp { index: usize, host_ip: String },
}

/// What CHECK looked for and did not find.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("chain {0} not found in iptables table nat")]
    Chain(String),
    #[error("rule {} in chain {chain} not found in table nat", go_lists(.rules))]
    Rule {
        chain: String,
        /// All rules that should be there, a list of words each.
        rules: Vec<Vec<String>>,
    },
    #[error(
        "failed to run nft: Error: No such file or directory; there is no chain {0} in table cni_hostport"
    )]
    NftChain(&'static str),
    #[error("missing hostport rules in {} chain", quote::quoted(.0))]
    NftRules(&'static str),
}

/// Lists of words as Go prints them.
fn go_lists(lists: &[Vec<String>]) -> String {
    quote::list(lists.iter().map(quote::list))
}

fn version(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

impl Error {
    /// Will the same perhaps work in a while?
    fn is_temporary(&self) -> bool {
        match self {
            Error::Iptables(error)
            | Error::Nft(error)
            | Error::NftTeardown(error)
            | Error::NoIptables { error, .. }
            | Error::IptablesTeardown { error, .. } => error.is_temporary(),
            Error::NeitherIptables(first, second) => first.is_temporary() || second.is_temporary(),
            // It changed whenever it was read.
            Error::Ruleset(error) | Error::NftList(error) => {
                error.kind() == io::ErrorKind::Interrupted
            }
            Error::Parse(_)
            | Error::Config(_)
            | Error::NotChained
            | Error::PrevResultMissing
            | Error::NoNft(_)
            | Error::RouteLookup(_)
            | Error::RouteLocalnet { .. }
            | Error::Check { .. }
            | Error::CheckNft(_)
            | Error::IptablesUnusable(_)
            | Error::NftUnusable(_)
            | Error::NoBackend { .. } => false,
        }
    }
}

impl Coded for Error {
    fn code(&self) -> Code {
        if self.is_temporary() {
            return Code::TRY_AGAIN_LATER;
        }
        match self {
            Error::Parse(ConfigError::Json(_)) | Error::Config(ConfigError::Json(_)) => {
                Code::DECODING
            }
            Error::Parse(_) | Error::Config(_) | Error::NotChained | Error::PrevResultMissing => {
                Code::INVALID_CONFIG
            }
            Error::Check { .. } | Error::CheckNft(_) => Code::CHECK_FAILED,
            Error::IptablesUnusable(_) | Error::NftUnusable(_) | Error::NoBackend { .. } => {
                Code::NOT_AVAILABLE
            }
            Error::RouteLookup(_) | Error::RouteLocalnet { .. } => Code::IO,
            Error::NoIptables { .. }
            | Error::Iptables(_)
            | Error::NoNft(_)
            | Error::Nft(_)
            | Error::Ruleset(_)
            | Error::IptablesTeardown { .. }
            | Error::NftList(_)
            | Error::NftTeardown(_)
            | Error::NeitherIptables(..) => Code::INTERNAL,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Parse(error) | Error::Config(error) => error.hint(),
            Error::NotChained => Some(
                "`prevResult` is missing: portmap stands in a list, behind the plugin that gives the container its \
                 addresses"
                    .to_owned(),
            ),
            Error::PrevResultMissing => None,
            Error::NoIptables { .. }
            | Error::NoNft(_)
            | Error::IptablesUnusable(_)
            | Error::NftUnusable(_) => {
                Some("install it on the node, or choose the other `backend`".to_owned())
            }
            Error::Iptables(error) | Error::Nft(error) if error.is_temporary() => {
                Some("the packet filter's tool is kept waiting; what was begun has been undone".to_owned())
            }
            Error::Iptables(error) | Error::Nft(error) if error.is_refusal() => Some(
                "this attachment's rules are those from before this ADD, if there were any; `conditionsV4`, \
                 `conditionsV6` and `externalSetMarkChain` are passed on as they are"
                    .to_owned(),
            ),
            Error::Iptables(_) | Error::Nft(_) | Error::Ruleset(_) | Error::RouteLookup(_) => None,
            Error::RouteLocalnet { interface, .. } => Some(format!(
                "net/ipv4/conf/{interface}/route_localnet has to be 1 for 127.0.0.1 to reach the container, unless \
                 `snat` is false; no rule has been changed"
            )),
            Error::IptablesTeardown { .. } | Error::NftTeardown(_) => Some(
                "rules of this container are left; the runtime should call DEL again".to_owned(),
            ),
            Error::NftList(_) => None,
            Error::Check { .. } | Error::CheckNft(_) => Some(
                "something has removed rules since ADD, maybe a restart of the node's firewall; start the pod anew"
                    .to_owned(),
            ),
            Error::NeitherIptables(..) | Error::NoBackend { .. } => {
                Some("portmap needs iptables or nft on the node".to_owned())
            }
        }
    }
}

impl ConfigError {
    fn hint(&self) -> Option<String> {
        let field = |index: &usize, key: &str, wanted: &str| {
            Some(format!(
                "`runtimeConfig.portMappings[{index}].{key}`: {wanted}"
            ))
        };
        match self {
            ConfigError::ContainerPort { index, .. } => field(index, "containerPort", "1 to 65535"),
            ConfigError::HostPort { index, .. } => field(index, "hostPort", "1 to 65535"),
            ConfigError::Protocol { index, .. } => field(
                index,
                "protocol",
                "`tcp`, `udp`, `sctp`, `dccp` or `udplite`",
            ),
            ConfigError::HostIp { index, .. } => field(
                index,
                "hostIP",
                "an IPv4 or IPv6 address of the node, or none",
            ),
            ConfigError::UnknownBackend(_) => Some("`iptables` or `nftables`".to_owned()),
            ConfigError::MarkBit => Some("the key is `markMasqBit`".to_owned()),
            ConfigError::ExternalChain(_) => Some(
                "1 to 28 bytes, no `-` or `!` at the start, neither white space nor control characters"
                    .to_owned(),
            ),
            ConfigError::Condition { .. } => Some(
                "no control characters; for `nftables` no `;`, `#` or `\\` either, and quotation marks in pairs"
                    .to_owned(),
            ),
            ConfigError::Json(_)
            | ConfigError::PrevResult(_)
            | ConfigError::ExternalChainAndBit
            | ConfigError::ExternalChainEmpty
            | ConfigError::ForeignOptions { .. }
            | ConfigError::ConditionsTooLong { .. } => None,
        }
    }
}
