//! A configuration for the plugin that does the work.

use cni_spec::json;
use serde_json::{Map, Value};

/// A delegate's configuration, as it is handed over and as it lies on disk: the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delegate {
    /// Wire: `type`.
    pub(crate) plugin: String,
    /// The network's name; empty if not said. Wire: `name`.
    pub(crate) name: String,
    /// The configuration as JSON on one line, without a newline at the end.
    pub(crate) bytes: Vec<u8>,
    conf: Map<String, Value>,
}

impl Delegate {
    /// A configuration just made, its keys in the order in which they are to be printed.
    pub(crate) fn new(conf: Map<String, Value>) -> Delegate {
        let bytes = json::to_compact(&Value::Object(conf.clone()));
        Delegate {
            plugin: text(&conf, "type"),
            name: text(&conf, "name"),
            bytes,
            conf,
        }
    }

    /// A configuration as it was stored; `None` if this is not one: cut off, empty, or without a plugin to run.
    pub(crate) fn from_stored(bytes: Vec<u8>) -> Option<Delegate> {
        let Ok(Value::Object(conf)) = json::parse(&bytes) else {
            return None;
        };
        let plugin = text(&conf, "type");
        (!plugin.is_empty()).then(|| Delegate {
            plugin,
            name: text(&conf, "name"),
            bytes,
            conf,
        })
    }

    /// The version that its result has unless the result says otherwise; empty means 0.1.0. Wire: `cniVersion`.
    pub(crate) fn cni_version(&self) -> &str {
        self.conf
            .get("cniVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The plugin that gives addresses, if there is one. Wire: `ipam.type`.
    pub(crate) fn ipam_plugin(&self) -> Option<&str> {
        self.conf
            .get("ipam")?
            .get("type")?
            .as_str()
            .filter(|it| !it.is_empty())
    }

    /// The JSON of the same configuration in another version, if that is not empty, and with further keys.
    pub(crate) fn with(
        &self,
        cni_version: &str,
        more: impl IntoIterator<Item = (String, Value)>,
    ) -> Vec<u8> {
        let mut conf = self.conf.clone();
        if !cni_version.is_empty() {
            conf.insert("cniVersion".to_owned(), cni_version.into());
        }
        conf.extend(more);
        json::to_compact(&Value::Object(conf))
    }

    /// Do both have their traces in the same places? Then detaching by one removes what the other left.
    pub(crate) fn same_places(&self, other: &Delegate) -> bool {
        let ipam =
            |of: &Delegate, key: &str| of.conf.get("ipam").and_then(|ipam| ipam.get(key)).cloned();
        ["name", "type", "ipMasq", "bridge"]
            .iter()
            .all(|key| self.conf.get(*key) == other.conf.get(*key))
            && ["type", "dataDir"]
                .iter()
                .all(|key| ipam(self, key) == ipam(other, key))
    }
}

fn text(conf: &Map<String, Value>, key: &str) -> String {
    conf.get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
