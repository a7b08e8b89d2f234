//! DEL: the delegate's DEL with what is stored of the attachment, or else with the next best.
//!
//! * No state file is removed before the delegate's DEL has succeeded with what it holds.
//! * Where the state is gone or torn, addresses are still given back by container id: the delegate's configuration is
//!   made anew from the configuration and `subnet.env`. Where `subnet.env` is gone too, the subnets are taken from the
//!   addresses in `prevResult`, if the runtime passes that.
//! * Where there is nothing to make it from, DEL succeeds without doing anything: an address pool needs its range to be
//!   spoken of at all, this is also how a DEL after a refused ADD looks, and a node whose flanneld is down must be able
//!   to let go of its pods. A torn file then stays for a later DEL or GC. An address that is left belongs to a
//!   container that is gone, which the address plugin's own GC and its check of boot ids find.

use cni_plugin::Call;
use cni_spec::request::Command;
use cni_spec::{Attachment, Code, Failure, Success, address};

use crate::config::Config;
use crate::delegate::Delegate;
use crate::error::together;
use crate::rewrite;
use crate::state::{Kept, State, Store};
use crate::subnet_env::SubnetEnv;

/// Detaches a container and forgets it.
pub(crate) fn detach(call: &Call<'_>, conf: &Config, at: &Attachment) -> Result<(), Failure> {
    let store = Store::at(&conf.data_dir);
    let Plan {
        stored,
        torn,
        keep_shared,
    } = plan(store.kept(at)?, &conf.name);
    let mut failures: Vec<Failure> = stored
        .iter()
        .filter_map(|delegate| with_stored(call, conf, delegate).err())
        .collect();
    // The stored configuration of a network that has another name now is followed, and so is this one's.
    if stored.iter().all(|delegate| delegate.name != conf.name) {
        match anew(conf) {
            Some(delegate) if torn => failures.extend(run(call, &delegate).err()),
            Some(delegate) => failures.extend(with_nothing_stored(call, &delegate).err()),
            None if torn && stored.is_empty() => return Ok(()),
            None => {}
        }
    }
    together(failures)?;
    Ok(store.forget(at, keep_shared)?)
}

/// What is to be done about the state files of an attachment.
struct Plan {
    /// The configurations to detach by, each once.
    stored: Vec<Delegate>,
    /// Is there a file without a configuration?
    torn: bool,
    /// Does the shared file belong to an attachment to another network?
    keep_shared: bool,
}

fn plan(kept: Kept, network: &str) -> Plan {
    let mut plan = Plan {
        stored: Vec::new(),
        torn: false,
        keep_shared: false,
    };
    match kept.own {
        Some(State::Whole(own)) => plan.stored.push(own),
        Some(State::Torn) => plan.torn = true,
        None => {}
    }
    match kept.shared {
        Some(State::Whole(shared)) if plan.stored.iter().any(|own| own.bytes == shared.bytes) => {}
        Some(State::Whole(shared)) if plan.stored.is_empty() || shared.name == network => {
            plan.stored.push(shared)
        }
        Some(State::Whole(_)) => plan.keep_shared = true,
        Some(State::Torn) => plan.torn = true,
        None => {}
    }
    plan
}

/// By a stored configuration. One that the delegate cannot use, such as one that was mended since, is tried as it would
/// be today, if that has its traces in the same places.
fn with_stored(call: &Call<'_>, conf: &Config, stored: &Delegate) -> Result<(), Failure> {
    let Err(failure) = run(call, stored) else {
        return Ok(());
    };
    match anew(conf).filter(|today| today.bytes != stored.bytes && today.same_places(stored)) {
        Some(today) if run(call, &today).is_ok() => Ok(()),
        Some(_) | None => Err(failure),
    }
}

/// With no sign that the attachment ever was, a delegate that is missing or refuses the configuration is no obstacle:
/// it would have been one to ADD as well.
fn with_nothing_stored(call: &Call<'_>, delegate: &Delegate) -> Result<(), Failure> {
    if call.find_plugin(&delegate.plugin).is_err() {
        return Ok(());
    }
    match run(call, delegate) {
        Err(failure)
            if [
                Code::UNSUPPORTED_FIELD,
                Code::DECODING,
                Code::INVALID_CONFIG,
            ]
            .contains(&failure.code) =>
        {
            Ok(())
        }
        done => done,
    }
}

fn run(call: &Call<'_>, delegate: &Delegate) -> Result<(), Failure> {
    call.delegate(Command::Del, &delegate.plugin, &delegate.bytes)
        .map(drop)
}

/// The delegate's configuration as ADD would make it now.
fn anew(conf: &Config) -> Option<Delegate> {
    let env = SubnetEnv::load(&conf.subnet_file)
        .ok()
        .or_else(|| from_prev_result(conf))?;
    rewrite::delegate(conf, &env).ok()
}

/// What the attachment's own addresses tell of this node. That is enough to give them back.
fn from_prev_result(conf: &Config) -> Option<SubnetEnv> {
    let prev = Success::decode_prev(conf.prev_result.as_ref()?, &conf.cni_version).ok()?;
    let mut subnets = Vec::new();
    for ip in prev.ips {
        let subnet = address::masked(ip.address);
        if !subnets.contains(&subnet) {
            subnets.push(subnet);
        }
    }
    // Whether the delegate masqueraded is not known; flanneld does where nobody says otherwise.
    (!subnets.is_empty()).then(|| SubnetEnv {
        networks: Vec::new(),
        subnets,
        mtu: 0,
        ip_masq: true,
    })
}

#[cfg(test)]
mod tests;
