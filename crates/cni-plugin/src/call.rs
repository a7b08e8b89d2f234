//! One call of a plugin: all that its verbs may know.

use std::cell::RefCell;

use cni_spec::json::TypeError;
use cni_spec::name::NetworkName;
use cni_spec::{Code, Failure, Success, Version, json};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Environment, Registry};

/// One call of a plugin: its configuration, its environment and the plugins beside it.
pub struct Call<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) registry: &'static Registry,
    pub(crate) stdin: Vec<u8>,
    pub(crate) conf: Value,
    pub(crate) name: NetworkName,
    pub(crate) version: Version,
    pub(crate) stderr: RefCell<Vec<u8>>,
}

impl Call<'_> {
    /// The configuration's bytes, as IPAM plugins get them.
    pub fn stdin(&self) -> &[u8] {
        &self.stdin
    }

    /// The configuration as it stands.
    pub fn conf(&self) -> &Value {
        &self.conf
    }

    /// The configuration as a typed value; see [`json::read`] for the rules.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, TypeError> {
        json::read(&self.conf)
    }

    /// The network's name. Wire: `name`.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The configuration's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The process's environment.
    pub fn environment(&self) -> &Environment {
        self.environment
    }

    /// The plugins of this process, for a plugin that calls itself about other attachments.
    pub fn registry(&self) -> &'static Registry {
        self.registry
    }

    /// A result in the layout of the configuration's version.
    pub fn encode(&self, success: &Success) -> Result<Value, Failure> {
        success
            .encode(self.version)
            .map_err(|error| Failure::new(Code::INTERNAL, error.to_string()))
    }

    /// A line for standard error, for people. On success there should be none, unless a trace was asked for.
    pub fn note(&self, line: &str) {
        let mut stderr = self.stderr.borrow_mut();
        stderr.extend_from_slice(line.as_bytes());
        stderr.push(b'\n');
    }

    /// Is the plan to be printed even on success?
    pub fn trace(&self) -> bool {
        self.environment.trace()
    }
}
