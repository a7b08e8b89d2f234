//! GC: what no valid attachment owns is detached, then the delegate collects its own.

use std::ffi::OsString;

use cni_plugin::{Call, Environment, dispatch};
use cni_spec::conf::ValidAttachment;
use cni_spec::request::Command;
use cni_spec::{Code, Failure, json};
use serde::Deserialize;
use serde_json::Value;

use crate::Flannel;
use crate::config::Config;
use crate::delegate::Delegate;
use crate::error::{Error, together};
use crate::rewrite;
use crate::state::{Entry, State, Store};
use crate::subnet_env::SubnetEnv;

/// The name that runtimes give a pod's first interface. The reference's state files do not say which one it was.
const USUAL_INTERFACE: &str = "eth0";

/// Collects in this network only; files that do not say that they are of this network stay. All is tried, then all
/// that failed is reported.
pub(crate) fn collect(
    call: &Call<'_>,
    conf: &Config,
    valid: &[ValidAttachment],
) -> Result<(), Failure> {
    let store = Store::at(&conf.data_dir);
    let mut failures = Vec::new();
    failures.extend(store.sweep().err().map(Failure::from));
    let entries = store.entries().unwrap_or_else(|error| {
        failures.push(error.into());
        Vec::new()
    });
    for stale in entries
        .iter()
        .filter(|entry| is_ours(entry, &conf.name) && !is_valid(entry, valid))
    {
        failures.extend(del(call, stale).err());
    }
    failures.extend(delegate_gc(call, conf, &entries).err());
    together(failures)
}

/// A torn file in our own folder is ours; one in the folder that a person may have pointed anywhere need not be.
fn is_ours(entry: &Entry, network: &str) -> bool {
    match &entry.state {
        State::Whole(delegate) => delegate.name == network,
        State::Torn => entry.ifname.is_some(),
    }
}

fn is_valid(entry: &Entry, valid: &[ValidAttachment]) -> bool {
    valid.iter().any(|it| {
        it.container_id == entry.container_id.as_str()
            && entry
                .ifname
                .as_ref()
                .is_none_or(|ifname| it.ifname == ifname.as_str())
    })
}

/// This plugin's DEL of an attachment that the runtime has forgotten, and whose namespace is gone.
fn del(call: &Call<'_>, entry: &Entry) -> Result<(), Failure> {
    let ifname = entry
        .ifname
        .as_ref()
        .map_or(USUAL_INTERFACE, |ifname| ifname.as_str());
    let of_attachment = [
        ("CNI_COMMAND", Command::Del.as_str()),
        ("CNI_CONTAINERID", entry.container_id.as_str()),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", ""),
    ];
    let inherited = call
        .environment()
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    let of_attachment =
        of_attachment.map(|(key, value)| (OsString::from(key), OsString::from(value)));
    let environment: Environment = inherited.chain(of_attachment).collect();
    let outcome = dispatch(&Flannel, call.registry(), &environment, &mut call.stdin());
    if !outcome.failed {
        return Ok(());
    }
    let ErrorWire { code, msg, details } = json::parse(&outcome.stdout)
        .ok()
        .and_then(|error| json::read(&error).ok())
        .unwrap_or_default();
    let msg = format!(
        "container {}, interface {ifname}: {msg}",
        entry.container_id
    );
    Err(Failure {
        code: Code(code),
        msg,
        details,
    })
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "Error")]
struct ErrorWire {
    code: u32,
    msg: String,
    details: String,
}

/// The delegate's GC, with the list as it came. While flanneld is down, what an attachment of this network was made
/// with serves as well.
fn delegate_gc(call: &Call<'_>, conf: &Config, entries: &[Entry]) -> Result<(), Failure> {
    let stored = || {
        entries.iter().find_map(|entry| match &entry.state {
            State::Whole(delegate) if delegate.name == conf.name => Some(delegate.clone()),
            State::Whole(_) | State::Torn => None,
        })
    };
    let env = SubnetEnv::load(&conf.subnet_file).map_err(Error::SubnetEnv);
    let delegate: Delegate = match env.and_then(|env| rewrite::delegate(conf, &env)) {
        Ok(delegate) => delegate,
        Err(error) => stored().ok_or(error)?,
    };
    let lists = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let lists = lists
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), call.conf().get(key)?.clone())));
    let lists: Vec<(String, Value)> = lists.collect();
    call.delegate(
        Command::Gc,
        &delegate.plugin,
        &delegate.with(&conf.cni_version, lists),
    )
    .map(drop)
}

#[cfg(test)]
mod tests;
