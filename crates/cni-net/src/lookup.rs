//! Asking the kernel where packets to an address go.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use nix::errno::Errno;

use crate::KernelError;
use crate::connection::{Found, Kind, Request};
use crate::net::Net;
use crate::step::At;

/// Where packets to an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLookup {
    /// The address is the namespace's own.
    pub local: bool,
    /// The index of the link that they leave by.
    pub oif: Option<u32>,
}

impl Net {
    /// `ip route get`; `None` if no route leads there.
    pub fn route_to(&self, at: At, address: IpAddr) -> Result<Option<RouteLookup>, KernelError> {
        let mut message = RouteMessage::default();
        (
            message.header.address_family,
            message.header.destination_prefix_length,
        ) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let request = Request::get(Kind::GetRoute, &message);
        match self.connection(at)?.ask(request) {
            Ok(answers) => Ok(answers.into_iter().find_map(RouteLookup::of)),
            Err(error) if is_unreachable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl RouteLookup {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "netlink's enums are open; what nobody asks for is passed over"
    )]
    fn of(answer: Found) -> Option<RouteLookup> {
        let Found::Route(route) = answer else {
            return None;
        };
        let local = match route.header.kind {
            RouteType::Local => true,
            // The kernel answers for a route that leads nowhere, too.
            RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => return None,
            _ => false,
        };
        let oif = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        Some(RouteLookup { local, oif })
    }
}

/// The kernel's words for "no route", by kind of route.
fn is_unreachable(error: &KernelError) -> bool {
    [
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
        Errno::EACCES,
        Errno::EINVAL,
        Errno::ESRCH,
    ]
    .into_iter()
    .any(|errno| error.is(errno))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Step;
    use crate::netns::in_namespace;

    #[test]
    fn routes_are_looked_up_as_the_kernel_takes_them() {
        in_namespace(|| {
            let ip = |arguments: &str| {
                let status = Command::new("ip").args(arguments.split(' ')).status();
                assert!(status.unwrap().success(), "ip {arguments}");
            };
            ip("link set lo up");
            ip("link add v0 type veth peer name v1");
            ip("link set v0 up");
            ip("link set v1 up");
            ip("addr add 10.1.0.1/24 dev v0");
            ip("addr add 2001:db8::1/64 dev v0 nodad");
            ip("route add unreachable 10.9.0.0/16");
            let net = Net::open().unwrap();
            // A link without carrier yet has no IPv6 route.
            net.apply(&[Step::AwaitUp {
                link: "v0".into(),
                bridge: "none".into(),
                peer: None,
            }])
            .unwrap()
            .keep();
            let index = net.link(At::Host, "v0").unwrap().unwrap().index;
            let look = |text: &str| net.route_to(At::Host, text.parse().unwrap()).unwrap();
            let by_v0 = Some(RouteLookup {
                local: false,
                oif: Some(index),
            });
            assert_eq!(look("10.1.0.7"), by_v0);
            assert_eq!(look("2001:db8::7"), by_v0);
            for own in ["10.1.0.1", "127.0.0.1", "2001:db8::1", "::1"] {
                assert!(look(own).is_some_and(|it| it.local), "{own}");
            }
            assert_eq!(look("192.0.2.1"), None);
            assert_eq!(look("10.9.0.1"), None);
            assert_eq!(look("2001:db8:1::1"), None);
        });
    }
}
