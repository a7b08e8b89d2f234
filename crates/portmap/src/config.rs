//! Configuration: as spelled ([`Wire`]) and as meant ([`Config`]).

use std::net::IpAddr;

use cni_net::firewall::iptables::Family;
use cni_spec::Success;
use cni_spec::address::parse_ip;
use cni_spec::conf::CommonConf;
use cni_spec::json;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ConfigError;

/// The bit of the packet's mark that asks for masquerading, unless the configuration has another.
const USUAL_MARK_BIT: u32 = 13;
/// How long a chain's name may be, in bytes (`XT_EXTENSION_MAXNAMELEN`, less the closing zero).
const CHAIN_LENGTH: usize = 28;
/// How long the conditions may be as they stand in the rule, in bytes. `iptables-restore` takes what exceeds 10,240 of
/// a line for a line of its own; the rest of a rule has less than 1,000.
const CONDITIONS_LENGTH: usize = 8192;

/// What an attachment wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Who redirects. Wire: `backend`; without it, what works on this node.
    pub(crate) backend: Backend,
    /// How the container sees the node's own connections, and its own, come in; `None` if as they are. Wire: `snat`,
    /// default true.
    pub(crate) masquerade: Option<Masquerade>,
    /// More conditions of the rules, words as the backend takes them. Wire: `conditionsV4`.
    pub(crate) conditions_v4: Vec<String>,
    /// Wire: `conditionsV6`.
    pub(crate) conditions_v6: Vec<String>,
    /// Wire: `runtimeConfig.portMappings`.
    pub(crate) mappings: Vec<Mapping>,
    /// The result of the plugin before; `None` if there was none. Wire: `prevResult`.
    pub(crate) prev_result: Option<Success>,
}

/// Who redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Iptables,
    Nftables,
}

/// Which connections are masqueraded, and how the `iptables` backend is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Masquerade {
    /// All that are redirected, not only those of the node and the container itself. Wire: `masqAll`.
    pub(crate) all: bool,
    pub(crate) mark: Mark,
}

/// How a packet that is to be masqueraded is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// By this bit. Wire: `markMasqBit`, 0 to 31, default 13.
    Own(u32),
    /// By a chain of somebody else's. Wire: `externalSetMarkChain`.
    External(String),
}

/// A port of the node that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Wire: `hostPort`.
    pub(crate) host_port: u16,
    /// Wire: `containerPort`.
    pub(crate) container_port: u16,
    /// Wire: `protocol`, in any case.
    pub(crate) protocol: Protocol,
    /// Wire: `hostIP`.
    pub(crate) host_ip: HostIp,
}

/// What both backends know with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Dccp,
    Sctp,
    Tcp,
    Udp,
    Udplite,
}

/// The node's address that a mapping is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostIp {
    /// Every one.
    Any,
    /// Every one of this family: `0.0.0.0` or `::`.
    AnyOf(Family),
    One(IpAddr),
}

/// The keys as spelled.
#[derive(Default, Deserialize)]
#[serde(default, rename = "PortMapConf", rename_all = "camelCase")]
struct Wire {
    backend: Option<String>,
    snat: Option<bool>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    runtime_config: RuntimeWire,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeWire {
    port_mappings: Option<Vec<MappingWire>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "PortMapEntry", rename_all = "camelCase")]
struct MappingWire {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// What DEL needs of a configuration: that it can be read. What makes no sense ADD has refused, and the DEL after that
/// must get through to the plugins before this one, or their addresses leak. What is wrong with `prevResult`, of which
/// DEL needs nothing, is the answer.
pub(crate) fn check_readable(conf: &Value) -> Result<Option<ConfigError>, ConfigError> {
    let mut rest = conf.clone();
    if let Some(keys) = rest.as_object_mut() {
        keys.retain(|key, _| !key.eq_ignore_ascii_case("prevResult"));
    }
    read(&rest)?;
    Ok(read(conf).err())
}

/// The backend that the configuration asks for; `None` if it leaves that to us. STATUS wants no more than that ADD would
/// not refuse the configuration itself.
pub(crate) fn requested_backend(
    conf: &Value,
    detect: impl FnOnce() -> Backend,
) -> Result<Option<Backend>, ConfigError> {
    let (wire, prev_result) = read(conf)?;
    let asked = wire.backend.is_some();
    let config = Config::new(wire, prev_result, detect)?;
    Ok(asked.then_some(config.backend))
}

fn read(conf: &Value) -> Result<(Wire, Option<Success>), ConfigError> {
    let common = CommonConf::read(conf).map_err(ConfigError::Json)?;
    let wire = json::read(conf).map_err(ConfigError::Json)?;
    let prev_result = common.prev_result().map_err(ConfigError::PrevResult)?;
    Ok((wire, prev_result))
}

impl Config {
    /// From a configuration; `detect` finds out which backend works here, and is asked only if that matters.
    pub(crate) fn read(
        conf: &Value,
        detect: impl FnOnce() -> Backend,
    ) -> Result<Config, ConfigError> {
        let (wire, prev_result) = read(conf)?;
        Config::new(wire, prev_result, detect)
    }

    fn new(
        wire: Wire,
        prev_result: Option<Success>,
        detect: impl FnOnce() -> Backend,
    ) -> Result<Config, ConfigError> {
        if wire.external_set_mark_chain.is_some() && wire.mark_masq_bit.is_some() {
            return Err(ConfigError::ExternalChainAndBit);
        }
        let bit = u32::try_from(wire.mark_masq_bit.unwrap_or(USUAL_MARK_BIT.into()));
        let bit = bit.ok().filter(|bit| *bit < 32);
        let bit = bit.ok_or(ConfigError::MarkBit)?;
        let mappings = wire.runtime_config.port_mappings.unwrap_or_default();
        let conditions_v4 = wire.conditions_v4.unwrap_or_default();
        let conditions_v6 = wire.conditions_v6.unwrap_or_default();
        let options = Options {
            external_chain: wire.external_set_mark_chain.is_some(),
            conditions_v4: style(&conditions_v4),
            conditions_v6: style(&conditions_v6),
        };
        let backend = match wire.backend.as_deref() {
            Some(name) => options.requested(name)?,
            None if mappings.is_empty() && options == Options::default() => Backend::Iptables,
            None => options.suits(detect())?,
        };
        check_words("conditionsV4", &conditions_v4, backend)?;
        check_words("conditionsV6", &conditions_v6, backend)?;
        let mark = match wire.external_set_mark_chain {
            Some(chain) if chain.is_empty() => return Err(ConfigError::ExternalChainEmpty),
            Some(chain) if !is_chain_name(&chain) => return Err(ConfigError::ExternalChain(chain)),
            Some(chain) => Mark::External(chain),
            None => Mark::Own(1 << bit),
        };
        let all = wire.masq_all;
        let mappings = mappings.iter().enumerate();
        Ok(Config {
            backend,
            masquerade: wire
                .snat
                .unwrap_or(true)
                .then_some(Masquerade { all, mark }),
            conditions_v4: used(conditions_v4),
            conditions_v6: used(conditions_v6),
            mappings: mappings
                .map(|(index, mapping)| mapping.meant(index))
                .collect::<Result<_, _>>()?,
            prev_result,
        })
    }

    /// The family's conditions.
    pub(crate) fn conditions(&self, family: Family) -> &[String] {
        match family {
            Family::Ipv4 => &self.conditions_v4,
            Family::Ipv6 => &self.conditions_v6,
        }
    }

    /// The mappings that concern a family, in order.
    pub(crate) fn mappings_of(&self, family: Family) -> impl Iterator<Item = &Mapping> {
        self.mappings
            .iter()
            .filter(move |mapping| mapping.host_ip.concerns(family))
    }
}

/// Whose language conditions are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Iptables,
    Nftables,
}

/// The first word tells; an empty one means that there are none.
fn style(conditions: &[String]) -> Option<Style> {
    match conditions.first()?.chars().next()? {
        '-' | '!' => Some(Style::Iptables),
        _ => Some(Style::Nftables),
    }
}

fn used(conditions: Vec<String>) -> Vec<String> {
    match style(&conditions) {
        Some(_) => conditions,
        None => Vec::new(),
    }
}

/// A rule is one line. What would be another statement, or make the rest of the line something else, is refused, not
/// left out.
fn check_words(key: &'static str, words: &[String], backend: Backend) -> Result<(), ConfigError> {
    let ends_rule = |letter: char| match (backend, letter) {
        // White space as good as any other.
        (_, '\t') => false,
        (Backend::Nftables, ';' | '#' | '\\') => true,
        (_, letter) => letter.is_control(),
    };
    let quotes = |text: &str| text.matches('"').count();
    let is_open = words.iter().map(|word| quotes(word)).sum::<usize>() % 2 == 1;
    // For iptables, a quotation mark is a letter like others.
    let opens = |word: &str| backend == Backend::Nftables && is_open && quotes(word) % 2 == 1;
    let bad = |word: &&String| word.contains(ends_rule) || opens(word);
    if let Some(word) = words.iter().find(bad) {
        let word = word.clone();
        return Err(ConfigError::Condition { key, word });
    }
    // With a space before it, and in quotes, which are escaped within.
    let length = |word: &String| word.len() + word.matches(['"', '\\']).count() + 3;
    let bytes = words.iter().map(length).sum();
    if bytes > CONDITIONS_LENGTH {
        let limit = CONDITIONS_LENGTH;
        return Err(ConfigError::ConditionsTooLong { key, bytes, limit });
    }
    Ok(())
}

fn is_chain_name(name: &str) -> bool {
    name.len() <= CHAIN_LENGTH
        && !name.starts_with(['-', '!'])
        && !name.contains(|letter: char| letter.is_control() || letter.is_whitespace())
}

/// The options that only one backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    external_chain: bool,
    conditions_v4: Option<Style>,
    conditions_v6: Option<Style>,
}

impl Options {
    /// The backend of that name, if nothing speaks against it. What is said of an unknown one is what is said of
    /// `nftables`, and only then that it is unknown.
    fn requested(self, name: &str) -> Result<Backend, ConfigError> {
        let backend = match name {
            "iptables" => Backend::Iptables,
            _ => Backend::Nftables,
        };
        self.check(backend, name)?;
        match name {
            "iptables" | "nftables" => Ok(backend),
            _ => Err(ConfigError::UnknownBackend(name.to_owned())),
        }
    }

    fn suits(self, backend: Backend) -> Result<Backend, ConfigError> {
        self.check(backend, backend.name()).map(|()| backend)
    }

    fn check(self, backend: Backend, name: &str) -> Result<(), ConfigError> {
        let (other, foreign) = match backend {
            Backend::Iptables => (Backend::Nftables, Style::Nftables),
            Backend::Nftables => (Backend::Iptables, Style::Iptables),
        };
        let found = [
            (
                "externalSetMarkChain",
                self.external_chain && foreign == Style::Iptables,
            ),
            ("conditionsV4", self.conditions_v4 == Some(foreign)),
            ("conditionsV6", self.conditions_v6 == Some(foreign)),
        ];
        let found: Vec<&'static str> = found.iter().filter(|it| it.1).map(|it| it.0).collect();
        if found.is_empty() {
            return Ok(());
        }
        let (backend, other) = (name.to_owned(), other.name());
        Err(ConfigError::ForeignOptions {
            backend,
            other,
            found,
        })
    }
}

impl Backend {
    /// As the configuration spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Iptables => "iptables",
            Backend::Nftables => "nftables",
        }
    }
}

impl MappingWire {
    /// `index` is its place in the list, from 0.
    fn meant(&self, index: usize) -> Result<Mapping, ConfigError> {
        let port = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0);
        let container_port = port(self.container_port);
        let host_port = port(self.host_port);
        Ok(Mapping {
            container_port: container_port.ok_or(ConfigError::ContainerPort {
                index,
                port: self.container_port,
            })?,
            host_port: host_port.ok_or(ConfigError::HostPort {
                index,
                port: self.host_port,
            })?,
            protocol: Protocol::parse(&self.protocol).ok_or_else(|| ConfigError::Protocol {
                index,
                protocol: self.protocol.clone(),
            })?,
            host_ip: HostIp::parse(&self.host_ip).ok_or_else(|| ConfigError::HostIp {
                index,
                host_ip: self.host_ip.clone(),
            })?,
        })
    }
}

impl Protocol {
    const ALL: [Protocol; 5] = [
        Protocol::Dccp,
        Protocol::Sctp,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Udplite,
    ];

    pub(crate) fn parse(text: &str) -> Option<Protocol> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(text))
    }

    /// As both backends spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Dccp => "dccp",
            Protocol::Sctp => "sctp",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Udplite => "udplite",
        }
    }

    /// As a packet's header has it (include/uapi/linux/in.h).
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Dccp => 33,
            Protocol::Sctp => 132,
            Protocol::Udplite => 136,
        }
    }
}

impl HostIp {
    fn parse(text: &str) -> Option<HostIp> {
        if text.is_empty() {
            return Some(HostIp::Any);
        }
        let ip = parse_ip(text).ok()?;
        Some(match ip.is_unspecified() {
            true => HostIp::AnyOf(family_of(ip)),
            false => HostIp::One(ip),
        })
    }

    fn concerns(self, family: Family) -> bool {
        match self {
            HostIp::Any => true,
            HostIp::AnyOf(its) => its == family,
            HostIp::One(ip) => family_of(ip) == family,
        }
    }

    /// The one address; `None` for every one.
    pub(crate) fn one(self) -> Option<IpAddr> {
        match self {
            HostIp::Any | HostIp::AnyOf(_) => None,
            HostIp::One(ip) => Some(ip),
        }
    }
}

/// The family of an address.
pub(crate) fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

#[cfg(test)]
mod tests;
