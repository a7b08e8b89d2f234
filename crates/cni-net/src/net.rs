//! One rtnetlink socket in each namespace concerned, opened once and kept.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are open; what nobody asks for is passed over"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use rtnetlink::{Handle, MulticastGroup};
use tokio::runtime::{Builder, Runtime};

use crate::KernelError;
use crate::link::{Address, InstalledRoute, Link};
use crate::netns::Netns;
use crate::step::At;
use crate::worker::Worker;

/// The node's network and, where there is one, a container's.
///
/// Everything asynchronous ends here: the methods are ordinary calls.
pub struct Net {
    pub(crate) runtime: Runtime,
    host: Handle,
    container: Option<Container>,
    /// The links met so far, as they were when last looked at.
    pub(crate) links: RefCell<HashMap<(At, String), Link>>,
}

struct Container {
    netns: Netns,
    worker: Worker,
    handle: Handle,
}

/// The answers to one request, still to come.
pub(crate) type Answers =
    std::pin::Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>;

impl Net {
    /// The network of the namespace that the calling thread is in.
    pub fn open() -> io::Result<Net> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let socket = route_socket(runtime.handle(), &[])?;
        let host = connect(&runtime, socket);
        Ok(Net {
            runtime,
            host,
            container: None,
            links: RefCell::default(),
        })
    }

    /// The same, and the network of a container.
    pub fn open_with(netns: Netns) -> io::Result<Net> {
        let mut net = Net::open()?;
        let worker = Worker::start(&netns)?;
        let runtime = net.runtime.handle().clone();
        let socket = worker.run(move || route_socket(&runtime, &[]))?;
        let handle = connect(&net.runtime, socket);
        net.container = Some(Container {
            netns,
            worker,
            handle,
        });
        Ok(net)
    }

    /// The container's namespace; an error if this was opened without one.
    pub fn netns(&self) -> io::Result<&Netns> {
        Ok(&self.container()?.netns)
    }

    /// Runs `f` in the container's namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.container()?.worker.run(f)
    }

    fn container(&self) -> io::Result<&Container> {
        self.container
            .as_ref()
            .ok_or_else(|| io::Error::other("no container namespace is open"))
    }

    /// A link by its name; `None` if there is none.
    pub fn link(&self, at: At, name: &str) -> Result<Option<Link>, KernelError> {
        self.runtime.block_on(self.read_link(at, name))
    }

    /// Links by their names, asked for all at once; `None` for each that is not there.
    pub fn links<const N: usize>(
        &self,
        names: [(At, &str); N],
    ) -> Result<[Option<Link>; N], KernelError> {
        self.runtime.block_on(async {
            let mut answers = Vec::with_capacity(N);
            for (at, name) in names {
                answers.push((at, self.request_link(at, link_named(name))?));
            }
            let mut found = [const { None }; N];
            for (link, (at, answers)) in found.iter_mut().zip(answers) {
                *link = self.take_link(at, answers).await?;
            }
            Ok(found)
        })
    }

    /// A link as it was when last looked at, if it was; its name, index and hardware address are still so.
    pub fn known(&self, at: At, name: &str) -> Option<Link> {
        self.links.borrow().get(&(at, name.to_owned())).cloned()
    }

    /// A link by its index; `None` if there is none.
    pub fn link_by_index(&self, at: At, index: u32) -> Result<Option<Link>, KernelError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.runtime
            .block_on(async { self.take_link(at, self.request_link(at, message)?).await })
    }

    /// The addresses of a link, in the kernel's order, IPv4 first.
    pub fn addresses(&self, at: At, index: u32) -> Result<Vec<Address>, KernelError> {
        self.runtime.block_on(async {
            let v4 = self.request_addresses(at, index, AddressFamily::Inet)?;
            let v6 = self.request_addresses(at, index, AddressFamily::Inet6)?;
            let mut found = take_addresses(index, v4).await?;
            found.extend(take_addresses(index, v6).await?);
            Ok(found)
        })
    }

    /// The addresses of all links of the container, IPv4 first.
    pub fn container_addresses(&self) -> Result<Vec<Address>, KernelError> {
        const ANY_LINK: u32 = 0;
        self.addresses(At::Container, ANY_LINK)
    }

    /// The unicast routes of the container's main table.
    pub fn routes(&self) -> Result<Vec<InstalledRoute>, KernelError> {
        let request = |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            self.request(
                At::Container,
                RouteNetlinkMessage::GetRoute(message),
                NLM_F_DUMP,
            )
        };
        self.runtime.block_on(async {
            let (v4, v6) = (
                request(AddressFamily::Inet)?,
                request(AddressFamily::Inet6)?,
            );
            let answers = collect(v4).await?.into_iter().chain(collect(v6).await?);
            Ok(answers
                .filter_map(|answer| match answer {
                    RouteNetlinkMessage::NewRoute(route) => InstalledRoute::of(route),
                    _ => None,
                })
                .collect())
        })
    }

    pub(crate) async fn read_link(&self, at: At, name: &str) -> Result<Option<Link>, KernelError> {
        self.take_link(at, self.request_link(at, link_named(name))?)
            .await
    }

    fn request_link(&self, at: At, mut message: LinkMessage) -> Result<Answers, KernelError> {
        // Counters are two thirds of an answer, and nobody here wants them.
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.request(at, RouteNetlinkMessage::GetLink(message), 0)
    }

    async fn take_link(&self, at: At, answers: Answers) -> Result<Option<Link>, KernelError> {
        let answers = match collect(answers).await {
            // A name that is too long for a link is no link's.
            Err(error) if error.is(Errno::ENODEV) || error.is(Errno::ERANGE) => return Ok(None),
            answers => answers?,
        };
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::of(message)),
            _ => None,
        });
        if let Some(link) = &link {
            self.links
                .borrow_mut()
                .insert((at, link.name.clone()), link.clone());
        }
        Ok(link)
    }

    pub(crate) async fn read_addresses(
        &self,
        at: At,
        index: u32,
        family: AddressFamily,
    ) -> Result<Vec<Address>, KernelError> {
        take_addresses(index, self.request_addresses(at, index, family)?).await
    }

    fn request_addresses(
        &self,
        at: At,
        index: u32,
        family: AddressFamily,
    ) -> Result<Answers, KernelError> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        // The socket checks strictly, so the kernel looks at this link only (linux 4.20).
        message.header.index = index;
        self.request(at, RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)
    }

    /// Sends a request; it is on its way when this returns, in order with all others of its namespace.
    pub(crate) fn request(
        &self,
        at: At,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, KernelError> {
        let mut handle = match at {
            At::Host => self.host.clone(),
            At::Container => self.container()?.handle.clone(),
        };
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let answers = handle
            .request(message)
            .map_err(|error| KernelError::from(io::Error::other(error)))?;
        Ok(Box::pin(answers))
    }

    /// A request that the kernel acknowledges.
    pub(crate) fn command(
        &self,
        at: At,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, KernelError> {
        self.request(at, message, flags | NLM_F_ACK)
    }

    /// Calls `probe` now and after every event of `group` in the namespace, until it gives a value or time is up.
    pub(crate) async fn until<T>(
        &self,
        at: At,
        group: MulticastGroup,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> Result<Option<T>, KernelError>,
    ) -> Result<Option<T>, KernelError> {
        if let Some(value) = probe().await? {
            return Ok(Some(value));
        }
        let runtime = self.runtime.handle().clone();
        let socket = match at {
            At::Host => route_socket(&runtime, &[group]),
            At::Container => self.inside(move || route_socket(&runtime, &[group])),
        }?;
        let (connection, handle, mut events) = rtnetlink::from_socket(socket);
        let listening = self.runtime.spawn(connection);
        let end = tokio::time::Instant::now() + limit;
        let value = loop {
            // Between the first look and the first event there may have been a change: so look again.
            if let Some(value) = probe().await? {
                break Some(value);
            }
            match tokio::time::timeout_at(end, events.next()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break probe().await?,
            }
        };
        drop(handle);
        listening.abort();
        Ok(value)
    }
}

fn link_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

async fn take_addresses(index: u32, answers: Answers) -> Result<Vec<Address>, KernelError> {
    let answers = collect(answers).await?;
    let on_link = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) if index == 0 || message.header.index == index => {
            Address::of(message)
        }
        _ => None,
    });
    Ok(on_link.collect())
}

/// A socket in the namespace of the calling thread.
fn route_socket(
    runtime: &tokio::runtime::Handle,
    groups: &[MulticastGroup],
) -> io::Result<TokioSocket> {
    let _entered = runtime.enter();
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    let raw = socket.socket_mut();
    raw.set_netlink_get_strict_chk(true)?;
    raw.set_ext_ack(true)?;
    raw.set_cap_ack(true)?;
    if !groups.is_empty() {
        raw.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            raw.add_membership(*group as u32)?;
        }
    }
    Ok(socket)
}

fn connect(runtime: &Runtime, socket: TokioSocket) -> Handle {
    let (mut connection, handle, _) = rtnetlink::from_socket(socket);
    // Else an acknowledgement and a connection that broke off look the same.
    connection.set_forward_ack(true);
    runtime.spawn(connection);
    handle
}

/// All answers to one question, or the kernel's refusal.
pub(crate) async fn collect(mut answers: Answers) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
    let mut found = Vec::new();
    while let Some(message) = answers.next().await {
        found.extend(content(message.payload)?);
    }
    Ok(found)
}

/// The kernel's word that a command was done. A connection that broke off is no such word.
pub(crate) async fn acknowledged(mut answers: Answers) -> Result<(), KernelError> {
    let mut done = false;
    while let Some(message) = answers.next().await {
        done |= content(message.payload)?.is_none();
    }
    if done {
        Ok(())
    } else {
        Err(KernelError::from_errno(Errno::ECONNRESET))
    }
}

/// What an answer holds: `None` for an acknowledgement.
fn content(
    payload: NetlinkPayload<RouteNetlinkMessage>,
) -> Result<Option<RouteNetlinkMessage>, KernelError> {
    match payload {
        NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
        NetlinkPayload::Error(error) if error.code.is_some() => {
            Err(KernelError::from_message(&error))
        }
        NetlinkPayload::Overrun(_) => Err(KernelError::from_errno(Errno::ENOBUFS)),
        _ => Ok(None),
    }
}
