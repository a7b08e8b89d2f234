//! One rtnetlink connection in each namespace concerned, opened once and kept.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are open; what nobody asks for is passed over"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use nix::errno::Errno;

use crate::KernelError;
use crate::connection::{Answer, Connection, Events, Found, Group, Kind, Request};
use crate::link::{Address, InstalledRoute, Link};
use crate::netns::{Home, Netns};
use crate::step::At;

/// The node's network and, where there is one, a container's.
pub struct Net {
    host: Connection,
    container: Option<Container>,
    /// The links met so far, as they were when last looked at.
    pub(crate) links: RefCell<HashMap<(At, String), Link>>,
    /// The indexes of links that were not looked at otherwise.
    pub(crate) indexes: RefCell<HashMap<(At, String), u32>>,
}

struct Container {
    netns: Netns,
    home: Home,
    connection: Connection,
}

impl Net {
    /// The network of the namespace that the calling thread is in.
    pub fn open() -> io::Result<Net> {
        Ok(Net {
            host: Connection::open()?,
            container: None,
            links: RefCell::default(),
            indexes: RefCell::default(),
        })
    }

    /// The same, and the network of a container.
    pub fn open_with(netns: Netns) -> io::Result<Net> {
        let home = Home::here()?;
        let connection = netns.run_from(&home, Connection::open)?;
        Ok(Net {
            container: Some(Container {
                netns,
                home,
                connection,
            }),
            ..Net::open()?
        })
    }

    /// The container's namespace; an error if this was opened without one.
    pub fn netns(&self) -> io::Result<&Netns> {
        Ok(&self.container()?.netns)
    }

    /// Runs `f` in the container's namespace.
    pub(crate) fn inside<T: Send>(
        &self,
        f: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let Container { netns, home, .. } = self.container()?;
        netns.run_from(home, f)
    }

    fn container(&self) -> io::Result<&Container> {
        self.container
            .as_ref()
            .ok_or_else(|| io::Error::other("no container namespace is open"))
    }

    /// A link by its name; `None` if there is none.
    pub fn link(&self, at: At, name: &str) -> Result<Option<Link>, KernelError> {
        let [link] = self.links(at, [name])?;
        Ok(link)
    }

    /// Links of one namespace by their names, asked for all at once; `None` for each that is not there.
    pub fn links<const N: usize>(
        &self,
        at: At,
        names: [&str; N],
    ) -> Result<[Option<Link>; N], KernelError> {
        let requests = names.map(|name| get_link(link_named(name)));
        let answers = self.connection(at)?.exchange(&requests)?;
        let mut found = [const { None }; N];
        for (link, answer) in found.iter_mut().zip(answers) {
            *link = self.read_link(at, answer)?;
        }
        Ok(found)
    }

    /// A link as it was when last looked at, if it was; its name, index and hardware address are still so.
    pub fn known(&self, at: At, name: &str) -> Option<Link> {
        self.links.borrow().get(&(at, name.to_owned())).cloned()
    }

    /// Notes a link's index for steps to come.
    pub(crate) fn note_index(&self, at: At, link: &str, index: u32) {
        self.indexes
            .borrow_mut()
            .insert((at, link.to_owned()), index);
    }

    /// A link is gone, and what was known of it.
    pub(crate) fn forget(&self, at: At, link: &str) {
        let key = (at, link.to_owned());
        self.links.borrow_mut().remove(&key);
        self.indexes.borrow_mut().remove(&key);
    }

    /// A link by its index; `None` if there is none.
    pub fn link_by_index(&self, at: At, index: u32) -> Result<Option<Link>, KernelError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answer = self.connection(at)?.ask(get_link(message));
        self.read_link(at, answer)
    }

    /// The addresses of a link, in the kernel's order, IPv4 first.
    pub fn addresses(&self, at: At, index: u32) -> Result<Vec<Address>, KernelError> {
        let mut found = self.addresses_of(at, index, AddressFamily::Inet)?;
        found.extend(self.addresses_of(at, index, AddressFamily::Inet6)?);
        Ok(found)
    }

    /// The same, but only of the families of `others`.
    pub fn addresses_like(
        &self,
        at: At,
        index: u32,
        others: &[IpNetwork],
    ) -> Result<Vec<Address>, KernelError> {
        let mut found = Vec::new();
        if others.iter().any(IpNetwork::is_ipv4) {
            found.extend(self.addresses_of(at, index, AddressFamily::Inet)?);
        }
        if others.iter().any(IpNetwork::is_ipv6) {
            found.extend(self.addresses_of(at, index, AddressFamily::Inet6)?);
        }
        Ok(found)
    }

    /// The addresses of all links of the container, IPv4 first.
    pub fn container_addresses(&self) -> Result<Vec<Address>, KernelError> {
        const ANY_LINK: u32 = 0;
        self.addresses(At::Container, ANY_LINK)
    }

    /// The addresses of a link that are of one family, in the kernel's order.
    pub(crate) fn addresses_of(
        &self,
        at: At,
        index: u32,
        family: AddressFamily,
    ) -> Result<Vec<Address>, KernelError> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        // The connection checks strictly, so the kernel looks at this link only (linux 4.20).
        message.header.index = index;
        let request = Request::get(Kind::GetAddress, &message);
        let dumped = self.connection(at)?.dump(&request);
        let answers = match dumped {
            Err(error) if error.is(Errno::ENODEV) => Vec::new(),
            answers => answers?,
        };
        let on_link = answers.iter().filter_map(|answer| match answer {
            Found::Address(message) if index == 0 || message.header.index == index => {
                Address::of(message)
            }
            _ => None,
        });
        Ok(on_link.collect())
    }

    /// The unicast routes of the container's main table.
    pub fn routes(&self) -> Result<Vec<InstalledRoute>, KernelError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let request = Request::get(Kind::GetRoute, &message);
            let answers = self.connection(At::Container)?.dump(&request)?;
            found.extend(answers.into_iter().filter_map(|answer| match answer {
                Found::Route(route) => InstalledRoute::of(route),
                _ => None,
            }));
        }
        Ok(found)
    }

    fn read_link(&self, at: At, answer: Answer) -> Result<Option<Link>, KernelError> {
        let answers = match answer {
            // A name that is too long for a link is no link's.
            Err(error) if error.is(Errno::ENODEV) || error.is(Errno::ERANGE) => return Ok(None),
            answers => answers?,
        };
        let link = answers.into_iter().find_map(|answer| match answer {
            Found::Link(link) => Some(link),
            Found::Address(_) | Found::Route(_) => None,
        });
        if let Some(link) = &link {
            self.links
                .borrow_mut()
                .insert((at, link.name.clone()), link.clone());
        }
        Ok(link)
    }

    /// The connection to one of the namespaces.
    pub(crate) fn connection(&self, at: At) -> io::Result<&Connection> {
        match at {
            At::Host => Ok(&self.host),
            At::Container => Ok(&self.container()?.connection),
        }
    }

    /// Calls `probe` now and after every event of `group` in the namespace, until it gives a value or time is up.
    pub(crate) fn until<T>(
        &self,
        at: At,
        group: Group,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>, KernelError>,
    ) -> Result<Option<T>, KernelError> {
        if let Some(value) = probe()? {
            return Ok(Some(value));
        }
        let end = Instant::now() + limit;
        let events = match at {
            At::Host => Events::open(group),
            At::Container => self.inside(|| Events::open(group)),
        }?;
        loop {
            // Between the last look and the first event there may have been a change: so look again.
            if let Some(value) = probe()? {
                return Ok(Some(value));
            }
            if !events.wait(end)? || Instant::now() >= end {
                return probe();
            }
        }
    }
}

/// The question for a link.
fn get_link(mut message: LinkMessage) -> Request {
    // Counters are two thirds of an answer, and nobody here wants them.
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::get(Kind::GetLink, &message)
}

fn link_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}
