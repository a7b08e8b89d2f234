//! Which backend works on this node.

use cni_net::firewall::iptables::Family;
use cni_net::firewall::tool::Tools;
use cni_net::firewall::usable;

use crate::config::Backend;
use crate::error::Error;

/// `nftables` where `iptables` is not usable and `nft` is, else `iptables`. Usually found out without a process.
pub(crate) fn detect(tools: &Tools) -> Backend {
    let no_iptables = || usable::check_iptables(tools, Family::Ipv4).is_err();
    match no_iptables() && usable::check_nft(tools).is_ok() {
        true => Backend::Nftables,
        false => Backend::Iptables,
    }
}

/// Could ADD be served by this backend, or if none is asked for by any?
pub(crate) fn check(tools: &Tools, wanted: Option<Backend>) -> Result<(), Error> {
    let iptables = || {
        let four = usable::check_iptables(tools, Family::Ipv4);
        four.or_else(|_| usable::check_iptables(tools, Family::Ipv6))
    };
    let nftables = || usable::check_nft(tools);
    match wanted {
        Some(Backend::Iptables) => iptables().map_err(Error::IptablesUnusable),
        Some(Backend::Nftables) => nftables().map_err(Error::NftUnusable),
        None => match (iptables(), nftables()) {
            (Err(iptables), Err(nftables)) => Err(Error::NoBackend { iptables, nftables }),
            _ => Ok(()),
        },
    }
}
