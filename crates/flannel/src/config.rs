//! The plugin's configuration.

use std::collections::BTreeMap;

use cni_spec::conf::DnsConf;
use cni_spec::json;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// The configuration as meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The network's name. Wire: `name`.
    pub(crate) name: String,
    /// Empty if not said. Wire: `cniVersion`.
    pub(crate) cni_version: String,
    /// What flanneld writes. Wire: `subnetFile`, default `/run/flannel/subnet.env`; empty text is kept.
    pub(crate) subnet_file: String,
    /// The folder of the state files. Wire: `dataDir`, default `/var/lib/cni/flannel`; empty text is kept.
    pub(crate) data_dir: String,
    /// The base of the delegate's configuration, kept as spelled. Wire: `delegate`.
    pub(crate) delegate: Map<String, Value>,
    /// The base of the delegate's `ipam`, kept as spelled. Wire: `ipam`.
    pub(crate) ipam: Map<String, Value>,
    /// Takes the place of the delegate's own. Wire: `runtimeConfig`.
    pub(crate) runtime_config: Option<Map<String, Value>>,
    /// What ADD answered, for CHECK and DEL. Wire: `prevResult`.
    pub(crate) prev_result: Option<Map<String, Value>>,
}

impl Config {
    /// The configuration of a call. The keys match without regard to case.
    ///
    /// # Errors
    /// A key of the wrong type.
    pub(crate) fn read(conf: &Value) -> Result<Config, Error> {
        json::read::<Wire>(conf)
            .map(Config::from)
            .map_err(Error::Netconf)
    }
}

/// The configuration as spelled. Its last three keys go nowhere, but a wrong type is an error all the same.
#[derive(Default, Deserialize)]
#[serde(default, rename = "NetConf", rename_all = "camelCase")]
struct Wire {
    cni_version: String,
    name: String,
    subnet_file: Option<String>,
    data_dir: Option<String>,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    runtime_config: Option<Map<String, Value>>,
    prev_result: Option<Map<String, Value>>,
    r#type: String,
    capabilities: BTreeMap<String, bool>,
    dns: DnsConf,
}

impl From<Wire> for Config {
    fn from(wire: Wire) -> Config {
        Config {
            name: wire.name,
            cni_version: wire.cni_version,
            subnet_file: wire
                .subnet_file
                .unwrap_or_else(|| "/run/flannel/subnet.env".to_owned()),
            data_dir: wire
                .data_dir
                .unwrap_or_else(|| "/var/lib/cni/flannel".to_owned()),
            delegate: wire.delegate,
            ipam: wire.ipam,
            runtime_config: wire.runtime_config,
            prev_result: wire.prev_result,
        }
    }
}

#[cfg(test)]
mod tests;
