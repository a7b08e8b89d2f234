//! The configuration: as spelled on the wire, and as meant.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_plugin::Call;
use cni_spec::address::{self, AddressError};
use cni_spec::args::{self, ArgsError};
use cni_spec::json::TypeError;
use cni_spec::result::RouteWire;
use cni_spec::{Code, Coded, Route, Version};
use serde::Deserialize;

use crate::range::{RangeError, RangeSet, Wanted};

/// What the configuration asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The folder of all networks' folders. Wire: `ipam.dataDir`, by default `/var/lib/cni/networks`.
    pub(crate) data_dir: PathBuf,
    /// The file that the result's `dns` is read from. Wire: `ipam.resolvConf`.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Handed on as they are. Wire: `ipam.routes`.
    pub(crate) routes: Vec<Route>,
    /// An address is leased from each. Wire, in this order: `runtimeConfig.ipRanges`, the range of `ipam` itself,
    /// `ipam.ranges`.
    pub(crate) sets: Vec<RangeSet>,
    /// Addresses asked for, each once. Wire, in this order: `IP` of `CNI_ARGS`, `args.cni.ips`, `runtimeConfig.ips`.
    pub(crate) requested: Vec<IpAddr>,
}

const DATA_DIR: &str = "/var/lib/cni/networks";

/// A configuration that cannot be used. `Display` is the reference's sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Type(#[from] TypeError),
    #[error("IPAM config missing 'ipam' key")]
    NoIpam,
    #[error("{error}")]
    Address { error: AddressError, key: String },
    #[error(transparent)]
    Args(#[from] ArgsError),
    #[error("cannot understand ip: IP <nil> not v4 nor v6")]
    EmptyRequest { key: String },
    #[error("no IP ranges specified")]
    NoRanges,
    #[error("invalid range set {set}: {error}")]
    Set { set: usize, error: RangeError },
    #[error("CNI version {0} does not support more than 1 address per family")]
    TooManySets(String),
    #[error("range set {0} overlaps with {1}")]
    SetsOverlap(usize, usize),
}

impl Config {
    /// The configuration of a call, with the attachment's `CNI_ARGS` (empty for verbs without an attachment).
    pub(crate) fn read(call: &Call<'_>, args: &str) -> Result<Config, ConfigError> {
        call.read::<Wire>()?.mean(call.version(), args)
    }
}

impl Coded for ConfigError {
    fn code(&self) -> Code {
        match self {
            ConfigError::Args(_) => Code::INVALID_ENVIRONMENT,
            ConfigError::Type(_)
            | ConfigError::NoIpam
            | ConfigError::Address { .. }
            | ConfigError::EmptyRequest { .. }
            | ConfigError::NoRanges
            | ConfigError::Set { .. }
            | ConfigError::TooManySets(_)
            | ConfigError::SetsOverlap(..) => Code::INVALID_CONFIG,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Address { key, .. } | ConfigError::EmptyRequest { key } => Some(format!("in `{key}`")),
            ConfigError::Args(_) => Some("in `CNI_ARGS`".to_owned()),
            ConfigError::NoRanges => {
                Some("set `ipam.ranges` or `ipam.subnet`, or have the runtime pass `ipRanges`".to_owned())
            }
            ConfigError::Set { .. } | ConfigError::SetsOverlap(..) => Some(
                "range sets count from 0 through `runtimeConfig.ipRanges`, the range of `ipam` itself, `ipam.ranges`"
                    .to_owned(),
            ),
            ConfigError::TooManySets(_) => Some("set `cniVersion` to 0.3.0 or newer".to_owned()),
            ConfigError::Type(_) | ConfigError::NoIpam => None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "Net", rename_all = "camelCase")]
struct Wire {
    cni_version: String,
    ipam: Option<IpamWire>,
    runtime_config: RuntimeWire,
    args: ArgsWire,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "IPAMConfig", rename_all = "camelCase")]
struct IpamWire {
    subnet: Option<String>,
    range_start: String,
    range_end: String,
    gateway: String,
    routes: Vec<RouteWire>,
    data_dir: String,
    resolv_conf: String,
    ranges: Vec<Vec<RangeWire>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "RuntimeConfig", rename_all = "camelCase")]
struct RuntimeWire {
    ip_ranges: Vec<Vec<RangeWire>>,
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "Args")]
struct ArgsWire {
    cni: CniArgsWire,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "IPAMArgs")]
struct CniArgsWire {
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "Range", rename_all = "camelCase")]
struct RangeWire {
    subnet: Option<String>,
    range_start: String,
    range_end: String,
    gateway: String,
}

impl Wire {
    /// Every text is read before anything is judged, as the reference's decoder does.
    fn mean(self, version: Version, args: &str) -> Result<Config, ConfigError> {
        let mut sets = sets(self.runtime_config.ip_ranges, "runtimeConfig.ipRanges")?;
        let at_runtime = requests(&self.runtime_config.ips, "runtimeConfig.ips")?;
        let in_args = requests(&self.args.cni.ips, "args.cni.ips")?;
        let ipam = self.ipam.ok_or(ConfigError::NoIpam)?;
        let own = RangeWire {
            subnet: ipam.subnet,
            range_start: ipam.range_start,
            range_end: ipam.range_end,
            gateway: ipam.gateway,
        };
        let own = own.mean("ipam")?;
        if own.subnet.is_some() {
            sets.push(vec![own]);
        }
        sets.extend(self::sets(ipam.ranges, "ipam.ranges")?);
        let routes = ipam.routes.into_iter().enumerate().map(|(at, route)| {
            route.into_route().map_err(|error| ConfigError::Address {
                error,
                key: format!("ipam.routes[{at}]"),
            })
        });
        let routes = routes.collect::<Result<_, _>>()?;

        let mut requested = Vec::new();
        for request in requested_by_args(args)?
            .into_iter()
            .chain(in_args)
            .chain(at_runtime)
        {
            let (ip, key) = request;
            let ip = ip.ok_or(ConfigError::EmptyRequest { key })?;
            if !requested.contains(&ip) {
                requested.push(ip);
            }
        }
        Ok(Config {
            data_dir: PathBuf::from(if ipam.data_dir.is_empty() {
                DATA_DIR
            } else {
                &ipam.data_dir
            }),
            resolv_conf: (!ipam.resolv_conf.is_empty()).then(|| PathBuf::from(ipam.resolv_conf)),
            routes,
            sets: check(&sets, version, self.cni_version)?,
            requested,
        })
    }
}

impl RangeWire {
    fn mean(self, key: &str) -> Result<Wanted, ConfigError> {
        let at = |name: &str| format!("{key}.{name}");
        let ip = |text: &str, name: &str| match text {
            "" => Ok(None),
            text => address::parse_ip(text)
                .map(Some)
                .map_err(|error| ConfigError::Address {
                    error,
                    key: at(name),
                }),
        };
        let subnet = self
            .subnet
            .map(|text| address::parse_cidr(&text))
            .transpose();
        Ok(Wanted {
            subnet: subnet.map_err(|error| ConfigError::Address {
                error,
                key: at("subnet"),
            })?,
            start: ip(&self.range_start, "rangeStart")?,
            end: ip(&self.range_end, "rangeEnd")?,
            gateway: ip(&self.gateway, "gateway")?,
        })
    }
}

fn sets(wire: Vec<Vec<RangeWire>>, key: &str) -> Result<Vec<Vec<Wanted>>, ConfigError> {
    let range = |set, at, range: RangeWire| range.mean(&format!("{key}[{set}][{at}]"));
    let set = |(set, ranges): (usize, Vec<RangeWire>)| {
        ranges
            .into_iter()
            .enumerate()
            .map(|(at, it)| range(set, at, it))
            .collect()
    };
    wire.into_iter().enumerate().map(set).collect()
}

/// An address asked for, `None` from empty text, with the key that it comes from.
type Request = (Option<IpAddr>, String);

fn requests(texts: &[String], key: &str) -> Result<Vec<Request>, ConfigError> {
    let request = |(at, text): (usize, &String)| {
        let key = format!("{key}[{at}]");
        if text.is_empty() {
            return Ok((None, key));
        }
        match address::parse_ip_or_cidr(text) {
            Ok(ip) => Ok((Some(ip), key)),
            Err(error) => Err(ConfigError::Address { error, key }),
        }
    };
    texts.iter().enumerate().map(request).collect()
}

/// `IP` of `CNI_ARGS`; `MAC` is another plugin's.
fn requested_by_args(args: &str) -> Result<Option<Request>, ConfigError> {
    let [ip] = args::parse(args, ["IP"], &["MAC"])?;
    let Some(text) = ip.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match address::parse_ip_or_cidr(&text) {
        Ok(ip) => Ok(Some((Some(ip), "CNI_ARGS".to_owned()))),
        Err(error) => Err(ArgsError::InvalidValue {
            pair: format!("IP={text}"),
            reason: error.to_string(),
        }
        .into()),
    }
}

/// The sets with their defaults, each and all together checked. `config_version` is the key's own text.
fn check(
    wanted: &[Vec<Wanted>],
    version: Version,
    config_version: String,
) -> Result<Vec<RangeSet>, ConfigError> {
    if wanted.is_empty() {
        return Err(ConfigError::NoRanges);
    }
    let checked = |(set, wanted): (usize, &Vec<Wanted>)| {
        RangeSet::check(wanted).map_err(|error| ConfigError::Set { set, error })
    };
    let sets = wanted
        .iter()
        .enumerate()
        .map(checked)
        .collect::<Result<Vec<_>, _>>()?;
    let of_v4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (of_v4 > 1 || sets.len() - of_v4 > 1) {
        return Err(ConfigError::TooManySets(config_version));
    }
    for (at, one) in sets.iter().enumerate() {
        if let Some(two) = sets[at + 1..].iter().position(|two| one.overlaps(two)) {
            return Err(ConfigError::SetsOverlap(at, at + 1 + two));
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests;
