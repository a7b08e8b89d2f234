//! The keys that every plugin's configuration has (CNI specification, "Network configuration format").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::json;
use crate::result::{Dns, ResultError, Success};
use crate::version::Version;
use crate::{Code, Failure};

/// One attachment that is still wanted. Wire: an element of `cni.dev/valid-attachments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename = "GCAttachment")]
pub struct ValidAttachment {
    /// Wire: `containerID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Wire: `ifname`.
    pub ifname: String,
}

/// The common keys, checked for their types even where a plugin has no use for them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "NetConf", rename_all = "camelCase")]
pub struct CommonConf {
    /// Wire: `cniVersion`; empty means 0.1.0.
    pub cni_version: String,
    /// Wire: `name`.
    pub name: String,
    /// Wire: `type`.
    pub r#type: String,
    /// Which capability arguments the plugin takes. Wire: `capabilities`.
    pub capabilities: BTreeMap<String, bool>,
    /// Wire: `ipam`.
    pub ipam: IpamType,
    /// Wire: `dns`.
    pub dns: DnsConf,
    /// The result of the plugin before, or of ADD. Wire: `prevResult`.
    pub prev_result: Option<Map<String, Value>>,
    /// For GC: what is still wanted. Wire: `cni.dev/valid-attachments`.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

/// The IPAM plugin's name. Wire: `ipam`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "IPAM")]
pub struct IpamType {
    /// Wire: `type`; empty means no IPAM, so layer 2 only.
    pub r#type: String,
}

/// DNS as configured; unlike in a result, an empty list and none differ.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "DNS")]
pub struct DnsConf {
    /// Wire: `nameservers`.
    pub nameservers: Option<Vec<String>>,
    /// Wire: `domain`.
    pub domain: String,
    /// Wire: `search`.
    pub search: Option<Vec<String>>,
    /// Wire: `options`.
    pub options: Option<Vec<String>>,
}

impl DnsConf {
    /// Is anything there, be it an empty list? Then it takes the place of what IPAM says.
    pub fn is_present(&self) -> bool {
        self.nameservers.is_some()
            || !self.domain.is_empty()
            || self.search.is_some()
            || self.options.is_some()
    }

    /// As a result has it.
    pub fn to_dns(&self) -> Dns {
        Dns {
            nameservers: self.nameservers.clone().unwrap_or_default(),
            domain: self.domain.clone(),
            search: self.search.clone().unwrap_or_default(),
            options: self.options.clone().unwrap_or_default(),
        }
    }
}

impl CommonConf {
    /// The typed keys of a configuration.
    pub fn read(conf: &Value) -> Result<CommonConf, json::TypeError> {
        json::read(conf)
    }

    /// `prevResult` in the newest form; `None` if there is none.
    ///
    /// It must be of the configuration's family of versions; without a version of its own it has the configuration's.
    pub fn prev_result(&self) -> Result<Option<Success>, ResultError> {
        let Some(prev) = &self.prev_result else {
            return Ok(None);
        };
        Success::decode_prev(prev, &self.cni_version).map(Some)
    }

    /// The version of the configuration, which the dispatcher has checked.
    pub fn version(&self) -> Version {
        Version::parse(&self.cni_version).unwrap_or(Version::V0_1_0)
    }
}

/// GC's list of what is still wanted; `None` if there is none, which is not the same as an empty one: then all goes.
///
/// libcni writes `null` where the list is empty, so `null` counts as one. Wire: `cni.dev/valid-attachments`, or
/// `cni.dev/attachments` as its first releases spelled it.
pub fn valid_attachments(conf: &Value) -> Result<Option<Vec<ValidAttachment>>, Failure> {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        match conf.get(key) {
            None => {}
            Some(Value::Null) => return Ok(Some(Vec::new())),
            Some(list) => {
                return json::read(list).map(Some).map_err(|error| {
                    Failure::new(Code::INVALID_CONFIG, format!("`{key}`: {error}"))
                });
            }
        }
    }
    Ok(None)
}
