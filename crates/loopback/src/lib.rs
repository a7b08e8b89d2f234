//! `loopback`: sets `lo` up in a container on ADD, and down on DEL.
//!
//! Knows: the one link that every network namespace is born with. Refuses to know: the interface name that it is called
//! with, since there is no choice, and addresses: the kernel gives `lo` its own when it is set up, and those that an
//! administrator has removed stay away.

mod error;

use cni_net::{Address, At, Net, Netns, Step};
use cni_plugin::{Call, Plugin};
use cni_spec::conf::{CommonConf, ValidAttachment};
use cni_spec::version::Family;
use cni_spec::{Attachment, Failure, Interface, Ip, Success, Version};
use serde_json::{Value, json};

pub use error::Error;

/// The link's name.
const LO: &str = "lo";
/// The link's index, the same in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LO_INDEX: u32 = 1;

/// The plugin.
pub struct Loopback;

impl Plugin for Loopback {
    fn about(&self) -> String {
        format!("CNI loopback plugin v{}", env!("CARGO_PKG_VERSION"))
    }

    /// Sets `lo` up. The answer is the result of the plugin before, or `lo` with its first address of each family.
    fn add(&self, call: &Call<'_>, attachment: &Attachment) -> Result<Value, Failure> {
        let prev_result = prev_result(call)?;
        let net = open(attachment)?;
        let up = Step::SetUp {
            at: At::Container,
            link: LO.to_owned(),
        };
        let applied = net.apply(&[up]).map_err(Error::from)?;
        let addresses = net
            .addresses(At::Container, LO_INDEX)
            .map_err(Error::Kernel)?;
        let ips = loopback_ips(&addresses)?;
        let success = prev_result.unwrap_or_else(|| only_lo(attachment, ips));
        let result = encode(call, &success)?;
        if call.trace() {
            call.note(&applied.trace());
        }
        applied.keep();
        Ok(result)
    }

    /// Sets `lo` down. No namespace, no `lo`: a path that leads to none any more, be there nothing or something else
    /// (the mount point that a removed namespace left behind, a recycled `/proc` entry), is success, since an error
    /// would keep the runtime from ever removing the pod. The configuration is not looked at.
    fn del(&self, call: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        let net = match open(attachment) {
            Ok(net) => net,
            Err(error) if error.no_namespace() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let down = Step::SetDown {
            at: At::Container,
            link: LO.to_owned(),
        };
        let applied = net.apply(&[down]).map_err(Error::from)?;
        if call.trace() {
            call.note(&applied.trace());
        }
        applied.keep();
        Ok(())
    }

    /// Is `lo` up? Neither its addresses nor `prevResult` matter.
    fn check(&self, _: &Call<'_>, attachment: &Attachment) -> Result<(), Failure> {
        let lo = open(attachment)?
            .link(At::Container, LO)
            .map_err(Error::Kernel)?;
        if lo.is_some_and(|lo| lo.up) {
            Ok(())
        } else {
            Err(Error::Down.into())
        }
    }

    /// There is nothing to remove: `lo` goes with its namespace.
    fn gc(&self, _: &Call<'_>, _: &[ValidAttachment]) -> Result<(), Failure> {
        Ok(())
    }

    /// ADD needs nothing but the kernel.
    fn status(&self, _: &Call<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The result of the plugin before, if there was one.
fn prev_result(call: &Call<'_>) -> Result<Option<Success>, Error> {
    let conf = CommonConf::read(call.conf()).map_err(Error::Config)?;
    conf.prev_result().map_err(Error::PrevResult)
}

fn open(attachment: &Attachment) -> Result<Net, Error> {
    let path = attachment.netns.clone().unwrap_or_default();
    let netns = Netns::open(&path)?;
    Net::open_with(netns).map_err(|error| Error::Socket {
        netns: attachment.netns_text(),
        error,
    })
}

/// The first address of each family; an error if any address is not one that a host has of itself.
fn loopback_ips(addresses: &[Address]) -> Result<Vec<Ip>, Error> {
    let mut ips: Vec<Ip> = Vec::new();
    for address in addresses.iter().map(|it| it.address) {
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address.ip()));
        }
        if ips
            .iter()
            .all(|it| it.address.is_ipv4() != address.is_ipv4())
        {
            ips.push(Ip {
                address,
                gateway: None,
                interface: Some(0),
            });
        }
    }
    Ok(ips)
}

fn only_lo(attachment: &Attachment, ips: Vec<Ip>) -> Success {
    let lo = Interface {
        name: LO.to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        sandbox: attachment.netns_text(),
        ..Interface::default()
    };
    Success {
        interfaces: vec![lo],
        ips,
        ..Success::default()
    }
}

/// The result in the layout of the version asked for.
///
/// The oldest layout has room for addresses only, and other plugins' results without any are refused there; but a `lo`
/// whose addresses were removed is no failure.
fn encode(call: &Call<'_>, success: &Success) -> Result<Value, Failure> {
    match call.version().family() {
        Family::Ip4Ip6 if success.ips.is_empty() => Ok(without_addresses(call.version())),
        Family::Ip4Ip6 | Family::VersionedIps | Family::Current => call.encode(success),
    }
}

fn without_addresses(version: Version) -> Value {
    json!({ "cniVersion": version.as_str(), "dns": {} })
}

#[cfg(test)]
mod tests;
