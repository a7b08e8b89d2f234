//! How each step is done. Requests of one namespace keep their order, so as many as follow one another are sent at once;
//! only what the next step depends on, or what is no netlink request, is done by itself.

use std::fmt::{self, Write};
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData,
    InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::attributes::{NLA_F_NESTED, push_attribute};
use crate::connection::{Group, Request};
use crate::link::OperState;
use crate::net::Net;
use crate::step::{At, BridgePort, Step, Veth, WantedRoute};
use crate::{KernelError, sysctl};

/// How long a link may take to work.
const UP_LIMIT: Duration = Duration::from_millis(2550);
/// How long duplicate address detection may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// The steps done so far. What is the attachment's own is undone when this is dropped, unless it is kept.
#[must_use = "dropping this undoes what was done"]
pub struct Applied<'a> {
    net: &'a Net,
    undo: Vec<Step>,
    trace: Vec<(String, Duration)>,
}

/// A step that could not be done.
#[derive(Debug)]
pub struct StepError {
    /// The step.
    pub step: Box<Step>,
    /// Why.
    pub reason: Reason,
    /// The plan, a line a step with the time it took, and the failed step marked.
    pub trace: String,
}

/// Why a step could not be done. `Display` is the reference's wording of the cause.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The link did not start to work in time.
    #[error("bridge port in error state: {}", .0.0)]
    NotUp(OperState),
    /// Another host has the address.
    #[error("link {link} has address {address} in DADFAILED state")]
    DuplicateAddress {
        /// The link.
        link: String,
        /// The address.
        address: IpAddr,
    },
    /// Duplicate address detection did not end in time.
    #[error("link {0} still has tentative addresses after 5000000000 seconds")]
    StillTentative(String),
}

impl StepError {
    /// The kernel's own sentence about the refusal, where it gave one.
    pub fn explanation(&self) -> Option<&str> {
        match &self.reason {
            Reason::Kernel(error) => error.explanation.as_deref(),
            Reason::NotUp(_) | Reason::DuplicateAddress { .. } | Reason::StillTentative(_) => None,
        }
    }

    /// Did the kernel refuse with this error number?
    pub fn is(&self, errno: Errno) -> bool {
        matches!(&self.reason, Reason::Kernel(error) if error.is(errno))
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed", self.step)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl Applied<'_> {
    /// Does more steps, which are undone together with the ones before.
    pub fn extend(&mut self, plan: &[Step]) -> Result<(), StepError> {
        let start = self.trace.len();
        match self.net.run(plan, &mut self.undo, &mut self.trace) {
            Ok(()) => Ok(()),
            Err((at, reason)) => {
                let mut trace = lines(&self.trace[..start]);
                // What was sent before the answer to the failed step came may have been done.
                let sent = self.trace.len() - start;
                for (position, step) in plan.iter().enumerate() {
                    let mark = match position.cmp(&at) {
                        std::cmp::Ordering::Less => "done    ",
                        std::cmp::Ordering::Equal => "FAILED  ",
                        std::cmp::Ordering::Greater if position < sent => "sent    ",
                        std::cmp::Ordering::Greater => "not done",
                    };
                    let _ = write!(trace, "{mark} {step}");
                    if position == at {
                        let _ = write!(trace, ": {reason}");
                    }
                    trace.push('\n');
                }
                Err(StepError {
                    step: Box::new(plan[at].clone()),
                    reason,
                    trace,
                })
            }
        }
    }

    /// The steps and how long each took, a line each.
    pub fn trace(&self) -> String {
        lines(&self.trace)
    }

    /// All is well: nothing will be undone.
    pub fn keep(mut self) {
        self.undo.clear();
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.undo.pop() {
            // The error that brought us here is the one to report; the runtime's DEL tries again.
            let _ = self.net.run(&[step], &mut Vec::new(), &mut Vec::new());
        }
    }
}

fn lines(trace: &[(String, Duration)]) -> String {
    trace.iter().fold(String::new(), |mut text, (step, time)| {
        let _ = writeln!(text, "{:>7} µs {step}", time.as_micros());
        text
    })
}

impl Net {
    /// Does the steps in their order.
    ///
    /// # Errors
    /// The first step that could not be done; what was done is undone before this returns.
    pub fn apply(&self, plan: &[Step]) -> Result<Applied<'_>, StepError> {
        let mut applied = Applied {
            net: self,
            undo: Vec::new(),
            trace: Vec::new(),
        };
        applied.extend(plan)?;
        Ok(applied)
    }

    /// Runs the steps; on an error the position of the failed one.
    fn run(
        &self,
        plan: &[Step],
        undo: &mut Vec<Step>,
        trace: &mut Vec<(String, Duration)>,
    ) -> Result<(), (usize, Reason)> {
        let mut batch = Batch::default();
        let mut position = 0;
        while let Some(step) = plan.get(position) {
            let failed = |reason: Reason| (position, reason);
            if batch.at != Some(step.at()) || must_be_alone(step) {
                self.send(plan, mem::take(&mut batch), trace)?;
            }
            let start = Instant::now();
            let mut done = 1;
            match step {
                Step::Sysctl { at, .. } => {
                    let is_alike =
                        |it: &&Step| matches!(it, Step::Sysctl { at: its, .. } if its == at);
                    done = plan[position..].iter().take_while(is_alike).count();
                    let steps = &plan[position..position + done];
                    let outcome = match at {
                        At::Host => Ok(set_parameters(steps)),
                        At::Container => self.inside(|| Ok(set_parameters(steps))),
                    };
                    outcome
                        .map_err(|error| failed(KernelError::from(error).into()))?
                        .map_err(|(at, error)| (position + at, error.into()))?;
                }
                Step::AwaitUp { link, bridge } => self.await_up(link, bridge).map_err(failed)?,
                Step::AwaitAddresses { link } => self.await_addresses(link).map_err(failed)?,
                Step::AddBridge { .. } | Step::AddVeth(_) | Step::DelLink { .. } => {
                    let request = self.request(step).map_err(|error| failed(error.into()))?;
                    let answer = self.ask(step.at(), request);
                    accept(step, answer).map_err(|error| failed(error.into()))?;
                    undo.extend(step.undo());
                    if let Step::DelLink { at, link } = step {
                        self.links.borrow_mut().remove(&(*at, link.clone()));
                    }
                }
                Step::SetUp { .. }
                | Step::SetDown { .. }
                | Step::SetPromiscuous { .. }
                | Step::SetMac { .. }
                | Step::SetBridgePort { .. }
                | Step::AddVlan { .. }
                | Step::DelVlan { .. }
                | Step::AddAddress { .. }
                | Step::DelAddress { .. }
                | Step::AddRoute { .. }
                | Step::SetArpNotify { .. } => match self.request(step) {
                    Ok(request) => {
                        batch.at = Some(step.at());
                        batch.requests.push((position, request));
                        position += 1;
                        continue;
                    }
                    Err(error) => {
                        self.send(plan, batch, trace)?;
                        return Err(failed(error.into()));
                    }
                },
            }
            note(trace, &plan[position..position + done], start.elapsed());
            position += done;
        }
        self.send(plan, batch, trace)
    }

    /// Sends the requests that were put off. An error is that of the first that was refused.
    fn send(
        &self,
        plan: &[Step],
        batch: Batch,
        trace: &mut Vec<(String, Duration)>,
    ) -> Result<(), (usize, Reason)> {
        let Some(at) = batch.at else { return Ok(()) };
        let start = Instant::now();
        let (positions, requests): (Vec<usize>, Vec<Request>) = batch.requests.into_iter().unzip();
        let first = positions.first().copied().unwrap_or_default();
        let answers = self
            .connection(at)
            .map_err(KernelError::from)
            .and_then(|connection| connection.exchange(requests))
            .map_err(|error| (first, error.into()))?;
        note(
            trace,
            &plan[first..first + positions.len()],
            start.elapsed(),
        );
        for (position, answer) in positions.into_iter().zip(answers) {
            accept(&plan[position], answer.map(drop)).map_err(|error| (position, error.into()))?;
        }
        Ok(())
    }

    fn ask(&self, at: At, request: Request) -> Result<(), KernelError> {
        self.connection(at)?.ask(request).map(drop)
    }

    /// The index of a link that a step names.
    fn index(&self, at: At, link: &str) -> Result<u32, KernelError> {
        if let Some(link) = self.links.borrow().get(&(at, link.to_owned())) {
            return Ok(link.index);
        }
        let found = self.link(at, link)?;
        found
            .map(|link| link.index)
            .ok_or_else(|| KernelError::from_errno(Errno::ENODEV))
    }

    /// The step's request. A link's index can be asked for while others are put off, since only steps that are done by
    /// themselves make or remove links.
    fn request(&self, step: &Step) -> Result<Request, KernelError> {
        let at = step.at();
        let (message, flags) = match step {
            Step::AddBridge {
                name,
                mtu,
                mac,
                vlan_filtering,
            } => {
                let message = bridge(name, *mtu, mac.as_deref(), *vlan_filtering);
                (
                    RouteNetlinkMessage::NewLink(message),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Step::AddVeth(wanted) => {
                let master = self.index(At::Host, &wanted.master)?;
                let netns = match wanted.peer_at {
                    At::Container => Some(self.netns()?.as_raw_fd()),
                    At::Host => None,
                };
                (
                    RouteNetlinkMessage::NewLink(veth(wanted, master, netns)),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Step::SetUp { link, .. } => {
                let mut message = named(link);
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                (RouteNetlinkMessage::SetLink(message), 0)
            }
            Step::SetDown { link, .. } => {
                let mut message = named(link);
                message.header.change_mask = LinkFlags::Up;
                (RouteNetlinkMessage::SetLink(message), 0)
            }
            Step::SetPromiscuous { link } => {
                let mut message = named(link);
                message.header.flags = LinkFlags::Promisc;
                message.header.change_mask = LinkFlags::Promisc;
                (RouteNetlinkMessage::SetLink(message), 0)
            }
            Step::SetMac { link, mac } => {
                let mut message = named(link);
                message.attributes.push(LinkAttribute::Address(mac.clone()));
                (RouteNetlinkMessage::SetLink(message), 0)
            }
            Step::SetBridgePort { link, port } => {
                (RouteNetlinkMessage::NewLink(bridge_port(link, *port)), 0)
            }
            Step::AddVlan { link, vlan } => {
                let flags = if vlan.native {
                    BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged
                } else {
                    BridgeVlanInfoFlags::empty()
                };
                let message = port_vlan(self.index(at, link)?, vlan.vid, flags);
                (RouteNetlinkMessage::SetLink(message), 0)
            }
            Step::DelVlan { link, vid } => {
                let message = port_vlan(self.index(at, link)?, *vid, BridgeVlanInfoFlags::empty());
                (RouteNetlinkMessage::DelLink(message), 0)
            }
            Step::AddAddress {
                link,
                address: wanted,
                nodad,
                ..
            } => {
                let message = address(self.index(at, link)?, *wanted, *nodad);
                (
                    RouteNetlinkMessage::NewAddress(message),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Step::DelAddress {
                link,
                address: unwanted,
            } => (
                RouteNetlinkMessage::DelAddress(address(self.index(at, link)?, *unwanted, false)),
                0,
            ),
            Step::AddRoute {
                link,
                route: wanted,
            } => (
                RouteNetlinkMessage::NewRoute(route(self.index(at, link)?, wanted)),
                NLM_F_CREATE,
            ),
            Step::SetArpNotify { link } => (RouteNetlinkMessage::SetLink(arp_notify(link)), 0),
            Step::DelLink { link, .. } => (RouteNetlinkMessage::DelLink(named(link)), 0),
            Step::Sysctl { .. } | Step::AwaitUp { .. } | Step::AwaitAddresses { .. } => {
                return Err(KernelError::from_errno(Errno::EOPNOTSUPP));
            }
        };
        Ok(Request::command(message, flags))
    }

    fn await_up(&self, link: &str, bridge: &str) -> Result<(), Reason> {
        let mut last = OperState("not-present");
        let up = self.until(At::Host, Group::Links, UP_LIMIT, || {
            let [link, _] = self.links(At::Host, [link, bridge])?;
            last = link.map_or(OperState("not-present"), |link| link.operstate);
            Ok((last == OperState::UP).then_some(()))
        })?;
        up.ok_or(Reason::NotUp(last))
    }

    fn await_addresses(&self, link: &str) -> Result<(), Reason> {
        let index = self.index(At::Container, link)?;
        let settled = self.until(At::Container, Group::Ipv6Addresses, SETTLE_LIMIT, || {
            let addresses = self.addresses_of(At::Container, index, AddressFamily::Inet6)?;
            if let Some(failed) = addresses.iter().find(|it| it.dad_failed) {
                return Ok(Some(Err(failed.address.ip())));
            }
            Ok(addresses.iter().all(|it| !it.tentative).then_some(Ok(())))
        })?;
        match settled {
            Some(Ok(())) => Ok(()),
            Some(Err(address)) => Err(Reason::DuplicateAddress {
                link: link.to_owned(),
                address,
            }),
            None => {
                let state = self.link(At::Container, link)?.map(|link| link.operstate);
                if state == Some(OperState::UP) {
                    Err(Reason::StillTentative(link.to_owned()))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Requests that are put off to be sent together: of one namespace, with the positions of their steps, which follow one
/// another.
#[derive(Default)]
struct Batch {
    at: Option<At>,
    requests: Vec<(usize, Request)>,
}

/// Is the step no request, or does what follows depend on its outcome?
fn must_be_alone(step: &Step) -> bool {
    matches!(
        step,
        Step::Sysctl { .. }
            | Step::AwaitUp { .. }
            | Step::AwaitAddresses { .. }
            | Step::AddBridge { .. }
            | Step::AddVeth(_)
            | Step::DelLink { .. }
    )
}

/// Notes steps that were done together, each with its part of the time.
fn note(trace: &mut Vec<(String, Duration)>, steps: &[Step], time: Duration) {
    let each = time / steps.len().max(1) as u32;
    trace.extend(steps.iter().map(|step| (step.to_string(), each)));
}

/// Sets parameters in the calling thread's namespace; the position of the first required one that cannot be set.
fn set_parameters(steps: &[Step]) -> Result<(), (usize, KernelError)> {
    for (position, step) in steps.iter().enumerate() {
        let Step::Sysctl {
            name,
            value,
            required,
            ..
        } = step
        else {
            continue;
        };
        let done = if *required {
            sysctl::ensure(name, value)
        } else {
            sysctl::write(name, value)
        };
        match done {
            Err(error) if *required => return Err((position, error.into())),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// "Already there" and "already gone" are success where the step says so.
fn accept(step: &Step, outcome: Result<(), KernelError>) -> Result<(), KernelError> {
    let Err(error) = outcome else { return Ok(()) };
    let fine = match step {
        Step::AddBridge { .. } | Step::AddAddress { at: At::Host, .. } => error.is(Errno::EEXIST),
        Step::AddVeth(veth) if veth.peer_at == At::Host => error.is(Errno::EEXIST),
        Step::DelLink { .. } => error.is(Errno::ENODEV),
        Step::DelAddress { .. } => error.is(Errno::EADDRNOTAVAIL),
        Step::DelVlan { .. } => error.is(Errno::ENOENT),
        Step::AddVeth(_)
        | Step::SetUp { .. }
        | Step::SetDown { .. }
        | Step::SetPromiscuous { .. }
        | Step::SetMac { .. }
        | Step::SetBridgePort { .. }
        | Step::AddVlan { .. }
        | Step::AddAddress {
            at: At::Container, ..
        }
        | Step::AddRoute { .. }
        | Step::Sysctl { .. }
        | Step::AwaitUp { .. }
        | Step::AwaitAddresses { .. } => false,
        // As the reference, which does without where the parameter cannot be set.
        Step::SetArpNotify { .. } => true,
    };
    if fine { Ok(()) } else { Err(error) }
}

/// A link message about the link of this name.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn bridge(name: &str, mtu: Option<u32>, mac: Option<&[u8]>, vlan_filtering: bool) -> LinkMessage {
    let mut message = named(name);
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
    if vlan_filtering {
        info.push(LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::VlanFiltering(true),
        ])));
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// The host end is the message's link, so that it can be born up and in the bridge; the peer cannot be born up
/// (drivers/net/veth.c).
fn veth(veth: &Veth, master: u32, netns: Option<i32>) -> LinkMessage {
    let mut peer = named(&veth.peer);
    peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    peer.attributes
        .extend(veth.mac.clone().map(LinkAttribute::Address));
    peer.attributes.extend(netns.map(LinkAttribute::NetNsFd));
    let mut message = named(&veth.host);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::TxQueueLen(0));
    message.attributes.push(LinkAttribute::Controller(master));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

fn bridge_port(link: &str, port: BridgePort) -> LinkMessage {
    let mut message = named(link);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::HairpinMode(port.hairpin),
            InfoBridgePort::Isolated(port.isolated),
        ])),
    ]));
    message
}

/// The parameter `arp_notify` among the link's own: the kernel takes a number for each that is to be set
/// (net/ipv4/devinet.c, `inet_set_link_af`), and a message costs less than a file.
fn arp_notify(link: &str) -> LinkMessage {
    // include/uapi/linux/if_link.h and ip.h
    const IFLA_AF_SPEC: u16 = 26;
    const AF_INET: u16 = 2;
    const IFLA_INET_CONF: u16 = 1;
    const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
    let nested = |kind: u16, value: &[u8]| {
        let mut attribute = Vec::new();
        push_attribute(&mut attribute, kind | NLA_F_NESTED, value);
        attribute
    };
    let mut parameters = Vec::new();
    push_attribute(
        &mut parameters,
        IPV4_DEVCONF_ARP_NOTIFY,
        &1_u32.to_ne_bytes(),
    );
    let family = nested(AF_INET, &nested(IFLA_INET_CONF, &parameters));
    let mut message = named(link);
    message
        .attributes
        .push(LinkAttribute::Other(DefaultNla::new(
            IFLA_AF_SPEC | NLA_F_NESTED,
            family,
        )));
    message
}

fn port_vlan(index: u32, vid: u16, flags: BridgeVlanInfoFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(
            BridgeVlanInfo { flags, vid },
        )]));
    message
}

fn address(index: u32, address: IpNetwork, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message
        .attributes
        .push(AddressAttribute::Local(address.ip()));
    message
        .attributes
        .push(AddressAttribute::Address(address.ip()));
    match address {
        IpNetwork::V4(v4) if v4.prefix() < 31 => message
            .attributes
            .push(AddressAttribute::Broadcast(v4.broadcast())),
        IpNetwork::V4(_) => {}
        IpNetwork::V6(_) if nodad => message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad)),
        IpNetwork::V6(_) => {}
    }
    message
}

fn route(index: u32, wanted: &WantedRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if wanted.dst.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.destination_prefix_length = wanted.dst.prefix();
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::from(wanted.scope);
    message.header.kind = RouteType::Unicast;
    message.header.table = match u8::try_from(wanted.table) {
        Ok(0) => RouteHeader::RT_TABLE_MAIN,
        Ok(table) => table,
        Err(_) => RouteHeader::RT_TABLE_UNSPEC,
    };
    if message.header.table == RouteHeader::RT_TABLE_UNSPEC {
        message.attributes.push(RouteAttribute::Table(wanted.table));
    }
    message
        .attributes
        .push(RouteAttribute::Destination(wanted.dst.network().into()));
    message
        .attributes
        .extend(wanted.via.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .extend((wanted.metric != 0).then_some(RouteAttribute::Priority(wanted.metric)));
    let mut metrics = Vec::new();
    metrics.extend((wanted.mtu != 0).then_some(RouteMetric::Mtu(wanted.mtu)));
    metrics.extend((wanted.advmss != 0).then_some(RouteMetric::Advmss(wanted.advmss)));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

#[cfg(test)]
mod tests;
