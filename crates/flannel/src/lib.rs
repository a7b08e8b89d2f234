//! `flannel`: hands a container to another plugin (`bridge`, if nobody says otherwise), with what flanneld wrote about
//! this node filled in: its subnets, the cluster's networks, the MTU, who masquerades.
//!
//! Knows: `subnet.env`, how it becomes the delegate's configuration, and the state files in which that is kept for
//! DEL. Refuses to know: the kernel, addresses in use, any one delegate.
//!
//! * `config`, `subnet_env` and `rewrite` decide: configuration and file in, the delegate's JSON out.
//! * `state` is the only one that writes to disk.
//! * `detach` is DEL, `collect` GC; the other verbs are here.
#![warn(missing_docs)]

mod collect;
mod config;
mod delegate;
mod detach;
mod error;
mod file;
mod rewrite;
mod state;
mod subnet_env;

use cni_plugin::{Call, Plugin};
use cni_spec::conf::ValidAttachment;
use cni_spec::request::Command;
use cni_spec::result::ResultError;
use cni_spec::{Attachment, Code, Failure, Success, Version, json};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::delegate::Delegate;
use crate::error::Error;
use crate::state::{State, Store};
use crate::subnet_env::SubnetEnv;

/// The plugin.
pub struct Flannel;

impl Plugin for Flannel {
    fn about(&self) -> String {
        let (version, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS);
        format!(
            "CNI Plugin flannel version v{version} ({os}/{})",
            std::env::consts::ARCH
        )
    }

    /// The state is on disk before the delegate runs, so that whatever happens from then on DEL knows what to undo.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        let conf = Config::read(call.conf())?;
        let delegate = delegate(&conf)?;
        call.find_plugin(&delegate.plugin).map_err(own)?;
        let store = Store::at(&conf.data_dir);
        let before = store.save(attachment, &delegate.bytes)?;
        match call.delegate(Command::Add, &delegate.plugin, &delegate.bytes) {
            Ok(stdout) => answer(&stdout, &delegate).map_err(|failure| {
                // Nobody can use what cannot be read; the runtime's DEL tries again.
                let _ = call.delegate(Command::Del, &delegate.plugin, &delegate.bytes);
                own(failure)
            }),
            Err(failure) => {
                store.put_back(attachment, &before);
                Err(failure)
            }
        }
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        detach::detach(call, &Config::read(call.conf())?, attachment)
    }

    /// The delegate's CHECK, with the configuration that it had for ADD and the result that is to be checked.
    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        let conf = Config::read(call.conf())?;
        let store = Store::at(&conf.data_dir);
        let kept = store.kept(attachment)?;
        let delegate = match kept.own.or(kept.shared) {
            Some(State::Whole(delegate)) if delegate.name == conf.name => delegate,
            Some(State::Torn) => return Err(Error::TornState(store.folder().to_owned()).into()),
            Some(State::Whole(_)) | None => {
                return Err(Error::NoState(store.folder().to_owned()).into());
            }
        };
        let prev_result = conf
            .prev_result
            .map(|prev| ("prevResult".to_owned(), prev.into()));
        let stdin = delegate.with(&conf.cni_version, prev_result);
        call.delegate(Command::Check, &delegate.plugin, &stdin)
            .map(drop)
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        collect::collect(call, &Config::read(call.conf())?, valid)
    }

    /// Code 50 while ADD would fail: `subnet.env` is not there or no use, or a program is missing. Then the delegate's
    /// own STATUS.
    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        let conf = Config::read(call.conf())?;
        let unavailable = |failure: Failure| Failure {
            code: Code::NOT_AVAILABLE,
            ..failure
        };
        let env = SubnetEnv::load(&conf.subnet_file)
            .map_err(|error| unavailable(Error::SubnetEnv(error).into()))?;
        let delegate = rewrite::delegate(&conf, &env)?;
        for plugin in [Some(delegate.plugin.as_str()), delegate.ipam_plugin()]
            .into_iter()
            .flatten()
        {
            call.find_plugin(plugin).map_err(unavailable)?;
        }
        call.delegate(Command::Status, &delegate.plugin, &delegate.bytes)
            .map(drop)
    }
}

/// The delegate's configuration for an attachment made now.
fn delegate(conf: &Config) -> Result<Delegate, Error> {
    let env = SubnetEnv::load(&conf.subnet_file).map_err(Error::SubnetEnv)?;
    rewrite::delegate(conf, &env)
}

/// What went wrong on this side of the delegation, as against within the delegate.
fn own(failure: Failure) -> Failure {
    Failure {
        msg: format!("failed to delegate add: {}", failure.msg),
        ..failure
    }
}

/// The delegate's result, in its own version and in that version's layout.
fn answer(stdout: &[u8], delegate: &Delegate) -> Result<Value, Failure> {
    let raw = |error: String| {
        Failure::new(
            Code::INTERNAL,
            format!("failed to unmarshal raw result: {error}"),
        )
    };
    let mut result = json::parse(stdout).map_err(|error| raw(error.to_string()))?;
    if result.is_null() {
        result = Value::Object(Map::new());
    }
    if !result.is_object() {
        return Err(raw(format!(
            "json: cannot unmarshal {result} into Go value of type map"
        )));
    }
    let unusable = |error: ResultError| Failure::new(Code::INTERNAL, error.to_string());
    let (success, version) = Success::decode(&result, delegate.cni_version()).map_err(unusable)?;
    match success.encode(version) {
        Err(ResultError::NoAddresses) => Ok(without_addresses(success, version)),
        encoded => encoded.map_err(unusable),
    }
}

/// The oldest layout of a result has room for nothing but addresses and DNS. One without addresses cannot be converted
/// to it, but a delegate that printed it is passed on.
fn without_addresses(success: Success, version: Version) -> Value {
    let only_dns = Success {
        dns: success.dns,
        ..Success::default()
    };
    let mut result = only_dns.encode(Version::V0_3_1).unwrap_or_default();
    result["cniVersion"] = version.as_str().into();
    result
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
