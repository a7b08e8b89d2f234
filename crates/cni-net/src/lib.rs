//! The kernel: the only crate that changes links, addresses, routes, sysctls and packet filter rules.
//!
//! Knows: network namespaces, rtnetlink, nfnetlink, `/proc/sys`, `iptables-restore` and `nft`. Refuses to know: the
//! protocol, and why anything is wanted. What is to be done comes as a list of [`Step`]s, each of which prints as the
//! command it equals; [`Net::apply`] does them and hands back how to undo what is the attachment's own.
#![warn(missing_docs)]

mod apply;
mod attributes;
mod connection;
mod error;
pub mod firewall;
mod link;
mod lookup;
mod mac;
mod message;
mod net;
mod netns;
mod step;
pub mod sysctl;

pub use apply::{Applied, Reason, StepError};
pub use error::KernelError;
pub use link::{Address, Bridge, InstalledRoute, Link, OperState};
pub use lookup::RouteLookup;
pub use mac::{mac_text, parse_mac, random_mac};
pub use net::Net;
pub use netns::{Netns, NetnsError};
pub use step::{At, BridgePort, Step, Veth, Vlan, WantedRoute};
