//! Results: what ADD answers, in every layout the protocol has had (CNI specification, "Success").

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::address::{self, AddressError};
use crate::json;
use crate::quote;
use crate::version::{Family, Version};

/// The result of ADD. Every layout is decoded to this and encoded from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// In the order in which `ips` refer to them. Wire: `interfaces`.
    pub interfaces: Vec<Interface>,
    /// Wire: `ips`.
    pub ips: Vec<Ip>,
    /// Wire: `routes`.
    pub routes: Vec<Route>,
    /// Wire: `dns`.
    pub dns: Dns,
}

/// A link that a plugin made or found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Wire: `name`.
    pub name: String,
    /// Lower-case hex with colons; empty if unknown. Wire: `mac`.
    pub mac: String,
    /// Bytes; 0 if not said. Wire: `mtu`, since 1.1.0.
    pub mtu: i64,
    /// The namespace's path; empty for the host's own. Wire: `sandbox`.
    pub sandbox: String,
    /// Wire: `socketPath`, since 1.1.0.
    #[serde(rename = "socketPath")]
    pub socket_path: String,
    /// Wire: `pciID`, since 1.1.0.
    #[serde(rename = "pciID")]
    pub pci_id: String,
}

/// An address of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// With the length of its network's prefix, host bits kept. Wire: `address`.
    pub address: IpNetwork,
    /// Wire: `gateway`.
    pub gateway: Option<IpAddr>,
    /// Position in `interfaces`, from 0. Wire: `interface`.
    pub interface: Option<i64>,
}

/// A route in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Host bits kept. Wire: `dst`.
    pub dst: IpNetwork,
    /// The next hop; `None` means the address's gateway. Wire: `gw`.
    pub gw: Option<IpAddr>,
    /// Bytes; 0 if not said. Wire: `mtu`.
    pub mtu: i64,
    /// The segment size to announce, in bytes; 0 if not said. Wire: `advmss`.
    pub advmss: i64,
    /// The metric; 0 if not said. Wire: `priority`.
    pub priority: i64,
    /// The routing table; `None` means main. Wire: `table`.
    pub table: Option<i64>,
    /// 0 universe, 200 site, 253 link, 254 host, 255 nowhere. Wire: `scope`.
    pub scope: Option<i64>,
}

impl Route {
    /// A route with nothing but its destination and next hop.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Route {
        Route {
            dst,
            gw,
            mtu: 0,
            advmss: 0,
            priority: 0,
            table: None,
            scope: None,
        }
    }
}

/// A resolver's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename = "DNS")]
pub struct Dns {
    /// Wire: `nameservers`.
    pub nameservers: Vec<String>,
    /// Wire: `domain`.
    pub domain: String,
    /// Wire: `search`.
    pub search: Vec<String>,
    /// Wire: `options`.
    pub options: Vec<String>,
}

/// A result that cannot be read or printed. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// A value of the wrong type.
    #[error(transparent)]
    Type(#[from] json::TypeError),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A version that nobody knows.
    #[error("unsupported CNI result version {}", quote::quoted(.0))]
    UnknownVersion(String),
    /// A version of another family than the configuration's.
    #[error("result type supports {supported} but unmarshalled CNIVersion is {}", quote::quoted(.found))]
    OtherFamily {
        /// The versions of the configuration's family.
        supported: &'static str,
        /// The result's version.
        found: String,
    },
    /// No address, where the layout has room for nothing else.
    #[error("cannot convert: no valid IP addresses")]
    NoAddresses,
}

impl Success {
    /// Reads a result by its own version; `default_version` (the configuration's) where it has none.
    pub fn decode(
        result: &Value,
        default_version: &str,
    ) -> Result<(Success, Version), ResultError> {
        let found = match result.get("cniVersion").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => text,
            Some(_) | None => default_version,
        };
        let version =
            Version::parse(found).ok_or_else(|| ResultError::UnknownVersion(found.to_owned()))?;
        let success = match version.family() {
            Family::Ip4Ip6 => json::read::<OldestWire>(result)?.into_success()?,
            Family::VersionedIps | Family::Current => json::read::<Wire>(result)?.into_success()?,
        };
        Ok((success, version))
    }

    /// Reads `prevResult`, whose version must be of the family of the configuration's `config_version`.
    pub fn decode_prev(
        prev: &Map<String, Value>,
        config_version: &str,
    ) -> Result<Success, ResultError> {
        let config = Version::parse(config_version)
            .ok_or_else(|| ResultError::UnknownVersion(config_version.to_owned()))?;
        let version = prev
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("cniVersion"))
            .map(|(_, value)| value);
        let found = version
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .unwrap_or(config.as_str());
        if Version::parse(found).is_none_or(|version| version.family() != config.family()) {
            let supported = config.family().listed();
            return Err(ResultError::OtherFamily {
                supported,
                found: found.to_owned(),
            });
        }
        Success::decode(&Value::Object(prev.clone()), found).map(|(success, _)| success)
    }

    /// The result in the layout and order of `version`.
    pub fn encode(&self, version: Version) -> Result<Value, ResultError> {
        match version.family() {
            Family::Ip4Ip6 => self.encode_oldest(version),
            Family::VersionedIps => Ok(self.encode_versioned(version)),
            Family::Current => Ok(json::sorted(self.encode_current(version))),
        }
    }

    fn encode_current(&self, version: Version) -> Value {
        let interfaces = self.interfaces.iter().map(|it| {
            let mut object = ObjectWriter::new();
            object.put("name", it.name.as_str());
            object.put_text("mac", &it.mac);
            object.put_number("mtu", it.mtu);
            object.put_text("sandbox", &it.sandbox);
            object.put_text("socketPath", &it.socket_path);
            object.put_text("pciID", &it.pci_id);
            object.finish()
        });
        let ips = self.ips.iter().map(|it| {
            let mut object = ObjectWriter::new();
            object.put_some("interface", it.interface);
            object.put("address", address::cidr_text(&it.address));
            object.put_some("gateway", it.gateway.map(|gateway| gateway.to_string()));
            object.finish()
        });
        let mut object = ObjectWriter::new();
        object.put("cniVersion", version.as_str());
        object.put_list("interfaces", interfaces.collect());
        object.put_list("ips", ips.collect());
        object.put_list("routes", self.routes.iter().map(Route::encode).collect());
        let dns = self.dns.encode();
        if dns.as_object().is_some_and(|dns| !dns.is_empty()) {
            object.put("dns", dns);
        }
        object.finish()
    }

    fn encode_versioned(&self, version: Version) -> Value {
        let interfaces = self.interfaces.iter().map(|it| {
            let mut object = ObjectWriter::new();
            object.put("name", it.name.as_str());
            object.put_text("mac", &it.mac);
            object.put_text("sandbox", &it.sandbox);
            object.finish()
        });
        let ips = self.ips.iter().map(|it| {
            let mut object = ObjectWriter::new();
            object.put("version", if it.address.is_ipv4() { "4" } else { "6" });
            object.put_some("interface", it.interface);
            object.put("address", address::cidr_text(&it.address));
            object.put_some("gateway", it.gateway.map(|gateway| gateway.to_string()));
            object.finish()
        });
        let mut object = ObjectWriter::new();
        object.put("cniVersion", version.as_str());
        object.put_list("interfaces", interfaces.collect());
        object.put_list("ips", ips.collect());
        object.put_list("routes", self.routes.iter().map(Route::encode).collect());
        object.put("dns", self.dns.encode());
        object.finish()
    }

    /// The first address of each family with that family's routes; all else has no place in this layout.
    fn encode_oldest(&self, version: Version) -> Result<Value, ResultError> {
        let mut object = ObjectWriter::new();
        object.put("cniVersion", version.as_str());
        let mut found = false;
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|it| it.address.is_ipv4() == is_v4) else {
                continue;
            };
            found = true;
            let routes = self.routes.iter().filter(|it| it.dst.is_ipv4() == is_v4);
            let routes = routes
                .map(|it| Route::new(it.dst, it.gw).encode())
                .collect();
            let mut config = ObjectWriter::new();
            config.put("ip", address::cidr_text(&ip.address));
            config.put_some("gateway", ip.gateway.map(|gateway| gateway.to_string()));
            config.put_list("routes", routes);
            object.put(key, config.finish());
        }
        if !found {
            return Err(ResultError::NoAddresses);
        }
        object.put("dns", self.dns.encode());
        Ok(object.finish())
    }
}

impl Route {
    /// As flannel and results print it: zero values left out.
    pub fn encode(&self) -> Value {
        let mut object = ObjectWriter::new();
        object.put("dst", address::cidr_text(&self.dst));
        object.put_some("gw", self.gw.map(|gw| gw.to_string()));
        object.put_number("mtu", self.mtu);
        object.put_number("advmss", self.advmss);
        object.put_number("priority", self.priority);
        object.put_some("table", self.table);
        object.put_some("scope", self.scope);
        object.finish()
    }
}

impl Dns {
    fn encode(&self) -> Value {
        let mut object = ObjectWriter::new();
        object.put_list(
            "nameservers",
            self.nameservers
                .iter()
                .map(|it| it.as_str().into())
                .collect(),
        );
        object.put_text("domain", &self.domain);
        object.put_list(
            "search",
            self.search.iter().map(|it| it.as_str().into()).collect(),
        );
        object.put_list(
            "options",
            self.options.iter().map(|it| it.as_str().into()).collect(),
        );
        object.finish()
    }
}

/// An object under construction that leaves out what is empty.
struct ObjectWriter(Map<String, Value>);

impl ObjectWriter {
    fn new() -> ObjectWriter {
        ObjectWriter(Map::new())
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_text(&mut self, key: &str, text: &str) {
        self.put_some(key, (!text.is_empty()).then_some(text));
    }

    fn put_number(&mut self, key: &str, number: i64) {
        self.put_some(key, (number != 0).then_some(number));
    }

    fn put_list(&mut self, key: &str, list: Vec<Value>) {
        self.put_some(key, (!list.is_empty()).then_some(list));
    }

    fn finish(self) -> Value {
        Value::Object(self.0)
    }
}

/// A result since 0.3.0 as spelled; the addresses' `version` says nothing that the address does not.
#[derive(Default, Deserialize)]
#[serde(default, rename = "Result")]
struct Wire {
    interfaces: Vec<Interface>,
    ips: Vec<IpWire>,
    routes: Vec<RouteWire>,
    dns: Dns,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "IPConfig")]
struct IpWire {
    address: String,
    gateway: String,
    interface: Option<i64>,
}

/// A route as spelled, in results and in `ipam.routes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "Route")]
pub struct RouteWire {
    dst: String,
    gw: String,
    mtu: i64,
    advmss: i64,
    priority: i64,
    table: Option<i64>,
    scope: Option<i64>,
}

/// A result up to 0.2.0 as spelled.
#[derive(Default, Deserialize)]
#[serde(default, rename = "Result")]
struct OldestWire {
    ip4: Option<OldestIp>,
    ip6: Option<OldestIp>,
    dns: Dns,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "IPConfig")]
struct OldestIp {
    ip: String,
    gateway: String,
    routes: Vec<RouteWire>,
}

impl Wire {
    fn into_success(self) -> Result<Success, ResultError> {
        let ips = self.ips.into_iter().map(|it| {
            Ok(Ip {
                address: address::canonical(address::parse_cidr(&it.address)?),
                gateway: optional_ip(&it.gateway)?,
                interface: it.interface,
            })
        });
        Ok(Success {
            interfaces: self.interfaces,
            ips: ips.collect::<Result<_, AddressError>>()?,
            routes: self
                .routes
                .into_iter()
                .map(RouteWire::into_route)
                .collect::<Result<_, _>>()?,
            dns: self.dns,
        })
    }
}

impl OldestWire {
    fn into_success(self) -> Result<Success, ResultError> {
        let mut success = Success {
            dns: self.dns,
            ..Success::default()
        };
        for config in [self.ip4, self.ip6].into_iter().flatten() {
            let address = address::canonical(address::parse_cidr(&config.ip)?);
            success.ips.push(Ip {
                address,
                gateway: optional_ip(&config.gateway)?,
                interface: None,
            });
            for route in config.routes {
                success.routes.push(route.into_route()?);
            }
        }
        Ok(success)
    }
}

impl RouteWire {
    /// The route as meant; its destination must be `address/length`.
    pub fn into_route(self) -> Result<Route, AddressError> {
        Ok(Route {
            dst: address::canonical(address::parse_cidr(&self.dst)?),
            gw: optional_ip(&self.gw)?,
            mtu: self.mtu,
            advmss: self.advmss,
            priority: self.priority,
            table: self.table,
            scope: self.scope,
        })
    }
}

fn optional_ip(text: &str) -> Result<Option<IpAddr>, AddressError> {
    if text.is_empty() {
        Ok(None)
    } else {
        address::parse_ip(text).map(Some)
    }
}

#[cfg(test)]
mod tests;
