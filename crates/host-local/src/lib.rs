//! `host-local`: leases addresses from ranges, in files on the node.
//!
//! Knows: ranges and the order in which their addresses are given, and the store that it shares with the reference
//! plugin. Refuses to know: the kernel's network; what the addresses are for.
//!
//! * [`config`]: what is asked for. [`range`], [`pick`]: pure arithmetic of addresses.
//! * [`store`]: lease files, the lock, the index. [`allocate`]: ADD on top of it.
#![warn(missing_docs)]

mod allocate;
mod config;
mod error;
mod file;
mod owner;
mod pick;
mod range;
mod resolv;
mod store;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cni_plugin::{Call, Plugin};
use cni_spec::conf::ValidAttachment;
use cni_spec::{Attachment, Failure, Success};
use serde_json::Value;

use config::Config;
use error::Error;
use owner::Owner;
use store::{Node, Store};

/// The plugin.
pub struct HostLocal;

impl Plugin for HostLocal {
    fn about(&self) -> String {
        format!("CNI host-local plugin v{}", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        add(call, attachment, this_node())
    }

    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        del(call, attachment, this_node())
    }

    fn check(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        check(call, attachment, this_node())
    }

    fn gc(&self, call: &Call<'_>, valid: &[ValidAttachment]) -> Result<(), Failure> {
        gc(call, valid, this_node())
    }

    fn status(&self, call: &Call<'_>) -> Result<(), Failure> {
        status(call, this_node())
    }
}

/// The machine as it is.
///
/// Runtimes give a call minutes; a call that does its work needs milliseconds. So whoever waits this long waits for one
/// that is stuck.
///
/// Source of the path: proc_sys_kernel(5).
fn this_node() -> Node<'static> {
    Node {
        boot_id: Path::new("/proc/sys/kernel/random/boot_id"),
        patience: Duration::from_secs(60),
    }
}

fn add(call: &Call<'_>, attachment: &Attachment, node: Node<'_>) -> Result<Value, Failure> {
    let config = Config::read(call, &attachment.args)?;
    let dns = config
        .resolv_conf
        .as_deref()
        .map(resolv::read)
        .transpose()?
        .unwrap_or_default();
    let owner = Owner::of(attachment);
    let store = Store::new(&config.data_dir, call.name(), node);
    let mut locked = store.lock().map_err(Error::Store)?;
    let ips = allocate::allocate(&mut locked, &config, &owner, &|line| call.note(line))?;
    let success = Success {
        ips,
        routes: config.routes,
        dns,
        ..Success::default()
    };
    let result = call.encode(&success)?;
    locked.keep(&owner).map_err(Error::Store)?;
    Ok(result)
}

/// Leases that name only the container are freed where none names the interface too.
fn del(call: &Call<'_>, attachment: &Attachment, node: Node<'_>) -> Result<(), Failure> {
    let config = Config::read(call, &attachment.args)?;
    let owner = Owner::of(attachment);
    let store = Store::new(&config.data_dir, call.name(), node);
    let mut locked = store.lock().map_err(Error::Store)?;
    if !locked.release(&owner).map_err(Error::Store)? {
        locked.release(&owner.container()).map_err(Error::Store)?;
    }
    Ok(())
}

/// Whether there is a lease is all that is asked.
fn check(call: &Call<'_>, attachment: &Attachment, node: Node<'_>) -> Result<(), Failure> {
    let config = Config::read(call, &attachment.args)?;
    let owner = Owner::of(attachment);
    let store = Store::new(&config.data_dir, call.name(), node);
    let mut locked = store.lock().map_err(Error::Store)?;
    for owner in [&owner, &owner.container()] {
        if locked.held(owner).map_err(Error::Store)?.is_some() {
            return Ok(());
        }
    }
    Err(Error::NoLease {
        id: owner.id,
        dir: store.folder().to_owned(),
    }
    .into())
}

/// A lease that names only its container is valid with any of the container's interfaces.
fn gc(call: &Call<'_>, valid: &[ValidAttachment], node: Node<'_>) -> Result<(), Failure> {
    let config = Config::read(call, "")?;
    let store = Store::new(&config.data_dir, call.name(), node);
    let mut locked = store.lock().map_err(Error::Store)?;
    let valid: BTreeSet<(&str, &str)> = valid
        .iter()
        .map(|it| (it.container_id.trim(), it.ifname.trim()))
        .collect();
    let is_valid = |owner: &Owner| match &owner.ifname {
        Some(ifname) => valid.contains(&(owner.id.as_str(), ifname.as_str())),
        None => valid
            .range((owner.id.as_str(), "")..)
            .next()
            .is_some_and(|(id, _)| *id == owner.id),
    };
    locked
        .collect(is_valid)
        .map_err(|errors| Error::Several { errors })?;
    Ok(())
}

/// A full range set is no reason to say no: the runtime would take the whole node out of service. Nor is a store that is
/// in use: somebody is writing leases.
fn status(call: &Call<'_>, node: Node<'_>) -> Result<(), Failure> {
    let config = Config::read(call, "")?;
    let store = Store::new(&config.data_dir, call.name(), node);
    let proved = match store.try_lock() {
        Ok(Some(mut locked)) => locked.prove_writable(),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    proved.map_err(Error::NotWritable)?;
    Ok(())
}

#[cfg(test)]
mod tests;
