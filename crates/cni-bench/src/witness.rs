//! Was the work done? A contender that does nothing is the fastest of all.

use crate::Failure;
use crate::case::Network;
use crate::node::{Pod, output};

/// An error if the pod is not attached as `network` says, or has something left though it should not be.
pub(crate) fn verify(network: Network, pod: &Pod, attached: bool) -> Result<(), Failure> {
    if network == Network::Loopback {
        let link = pod.enter(|| output("ip", &["-o", "link", "show", "lo"]))?;
        return expect("the pod", &link, ",UP", attached);
    }
    match network {
        Network::Portmap => return forwarding(attached),
        Network::PortmapWithoutPorts => return forwarding(false),
        Network::Bridge
        | Network::DualStack
        | Network::IptablesMasquerade
        | Network::NftablesMasquerade
        | Network::Flannel
        | Network::Loopback
        | Network::Conflist => {}
    }
    let inside = pod.enter(|| output("ip", &["-o", "addr", "show", "scope", "global"]))?;
    expect("the pod", &inside, " eth0 ", attached)?;
    expect("the pod", &inside, "inet 10.", attached)?;
    expect("the pod", &inside, "tentative", false)?;
    match network {
        Network::Bridge
        | Network::Flannel
        | Network::Loopback
        | Network::Portmap
        | Network::PortmapWithoutPorts => Ok(()),
        Network::Conflist => forwarding(attached),
        Network::DualStack => expect("the pod", &inside, "inet6 fd00:", attached),
        Network::IptablesMasquerade => expect(
            "the node",
            &output("iptables-save", &["-t", "nat"])?,
            // Not only the target, which one of the rules has that portmap leaves for all pods.
            "! -d 224.0.0.0/4",
            attached,
        ),
        Network::NftablesMasquerade => expect(
            "the node",
            &output("nft", &["list", "ruleset"])?,
            "ip saddr 10.",
            attached,
        ),
    }
}

/// The rules of one pod's port: the jump, the pod's chain, and what it does.
fn forwarding(wanted: bool) -> Result<(), Failure> {
    let rules = output("iptables-save", &["-t", "nat"])?;
    expect("the node", &rules, " -j CNI-DN-", wanted)?;
    expect("the node", &rules, "\n:CNI-DN-", wanted)?;
    expect("the node", &rules, " --to-destination 10.", wanted)
}

fn expect(place: &str, state: &str, text: &str, wanted: bool) -> Result<(), Failure> {
    match state.contains(text) {
        found if found == wanted => Ok(()),
        true => Err(format!("{place} still has `{}`", text.trim()).into()),
        false => Err(format!("{place} has no `{}`", text.trim()).into()),
    }
}
