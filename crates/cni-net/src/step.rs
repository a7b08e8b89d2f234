//! What can be done to the kernel, one fact at a time. A step prints as the command it equals.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::mac::mac_text;

/// The namespace that a step works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The node's: the one that the plugin was started in.
    Host,
    /// The container's.
    Container,
}

/// A veth pair about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The name of the end on the node. It is born up, with a queue length of 0.
    pub host: String,
    /// The bridge that the host end is born in.
    pub master: String,
    /// The name of the other end.
    pub peer: String,
    /// Where the other end is born.
    pub peer_at: At,
    /// Of both ends, in bytes; `None` keeps the kernel's choice.
    pub mtu: Option<u32>,
    /// The other end's hardware address; `None` for a random one.
    pub mac: Option<Vec<u8>>,
}

/// What a bridge port does differently from a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Sends a packet back out of the port it came in by.
    pub hairpin: bool,
    /// Talks to no other isolated port.
    pub isolated: bool,
}

/// A VLAN of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// 1 to 4094.
    pub vid: u16,
    /// Untagged packets belong to it, and it leaves untagged; else it is tagged both ways.
    pub native: bool,
}

/// A route about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRoute {
    /// Length 0 for the default route.
    pub dst: IpNetwork,
    /// The next hop; `None` if the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// 0 universe, 200 site, 253 link, 254 host.
    pub scope: u8,
    /// The metric; 0 for the kernel's choice.
    pub metric: u32,
    /// 0 for the main table.
    pub table: u32,
    /// In bytes; 0 for the link's.
    pub mtu: u32,
    /// The segment size to announce, in bytes; 0 for the kernel's choice.
    pub advmss: u32,
}

/// One change of the kernel's state. Links are named, never numbered, so that a plan can be made before they exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a bridge; one that is there already is good.
    AddBridge {
        /// Its name.
        name: String,
        /// In bytes; `None` keeps the kernel's choice.
        mtu: Option<u32>,
        /// Its hardware address, which it then keeps; `None` lets it follow its ports'.
        mac: Option<Vec<u8>>,
        /// Look at VLAN tags?
        vlan_filtering: bool,
    },
    /// Makes a veth pair. One into a container is that container's own, and undone by deleting it; one whose ends both
    /// stay on the node is shared, and good if it is there already.
    AddVeth(Veth),
    /// Sets a link up.
    SetUp {
        /// Where the link is.
        at: At,
        /// Its name.
        link: String,
    },
    /// Sets a link down.
    SetDown {
        /// Where the link is.
        at: At,
        /// Its name.
        link: String,
    },
    /// Makes a link take in all packets.
    SetPromiscuous {
        /// Its name, on the node.
        link: String,
    },
    /// Sets a link's hardware address, also to the one it has: a bridge then keeps it, whatever ports come and go.
    SetMac {
        /// Its name, on the node.
        link: String,
        /// Six bytes.
        mac: Vec<u8>,
    },
    /// Sets what a bridge port does.
    SetBridgePort {
        /// The port's name, on the node.
        link: String,
        /// What it does.
        port: BridgePort,
    },
    /// Takes a bridge port into a VLAN.
    AddVlan {
        /// The port's name, on the node.
        link: String,
        /// The VLAN.
        vlan: Vlan,
    },
    /// Takes a bridge port out of a VLAN.
    DelVlan {
        /// The port's name, on the node.
        link: String,
        /// The VLAN.
        vid: u16,
    },
    /// Adds an address; one that is there already is good on the node and an error in the container.
    AddAddress {
        /// Where the link is.
        at: At,
        /// The link's name.
        link: String,
        /// The address with its prefix length.
        address: IpNetwork,
        /// IPv6: use it at once, without duplicate address detection.
        nodad: bool,
    },
    /// Removes an address.
    DelAddress {
        /// The link's name, on the node.
        link: String,
        /// The address with its prefix length.
        address: IpNetwork,
    },
    /// Adds a route by a link of the container.
    AddRoute {
        /// The link's name.
        link: String,
        /// The route.
        route: WantedRoute,
    },
    /// Has a link of the container tell its neighbours of its IPv4 addresses when it is set up or gets one; where there
    /// is no IPv4, nothing is done.
    SetArpNotify {
        /// Its name.
        link: String,
    },
    /// Sets a kernel parameter.
    Sysctl {
        /// Where.
        at: At,
        /// Its name below `/proc/sys`, parts separated by slashes.
        name: String,
        /// Its value.
        value: &'static str,
        /// Is failing to set it an error?
        required: bool,
    },
    /// Deletes a link; one that is gone already is good.
    DelLink {
        /// Where the link is.
        at: At,
        /// Its name.
        link: String,
    },
    /// Waits until a port of a bridge and its other end work, at most 2.55 seconds each, and looks at all: a bridge
    /// without a hardware address of its own has got one of its ports' then.
    AwaitUp {
        /// The port's name, on the node.
        link: String,
        /// The bridge's.
        bridge: String,
        /// That of the other end, in the container, if it is there and up.
        peer: Option<String>,
    },
    /// Waits until duplicate address detection is over on a link of the container, at most 5 seconds.
    AwaitAddresses {
        /// Its name.
        link: String,
    },
}

impl Step {
    /// What takes this step back; `None` if nothing has to be, or if others use the result too.
    pub fn undo(&self) -> Option<Step> {
        match self {
            Step::AddVeth(veth) if veth.peer_at == At::Container => Some(Step::DelLink {
                at: At::Host,
                link: veth.host.clone(),
            }),
            Step::AddVeth(_)
            | Step::AddBridge { .. }
            | Step::SetUp { .. }
            | Step::SetDown { .. }
            | Step::SetPromiscuous { .. }
            | Step::SetMac { .. }
            | Step::SetBridgePort { .. }
            | Step::AddVlan { .. }
            | Step::DelVlan { .. }
            | Step::AddAddress { .. }
            | Step::DelAddress { .. }
            | Step::AddRoute { .. }
            | Step::SetArpNotify { .. }
            | Step::Sysctl { .. }
            | Step::DelLink { .. }
            | Step::AwaitUp { .. }
            | Step::AwaitAddresses { .. } => None,
        }
    }

    /// The link that the step is about; `None` for parameters.
    pub(crate) fn link(&self) -> Option<&str> {
        match self {
            Step::AddBridge { name, .. } => Some(name),
            Step::AddVeth(veth) => Some(&veth.host),
            Step::SetUp { link, .. }
            | Step::SetDown { link, .. }
            | Step::SetPromiscuous { link }
            | Step::SetMac { link, .. }
            | Step::SetBridgePort { link, .. }
            | Step::AddVlan { link, .. }
            | Step::DelVlan { link, .. }
            | Step::AddAddress { link, .. }
            | Step::DelAddress { link, .. }
            | Step::AddRoute { link, .. }
            | Step::SetArpNotify { link }
            | Step::DelLink { link, .. }
            | Step::AwaitUp { link, .. }
            | Step::AwaitAddresses { link } => Some(link),
            Step::Sysctl { .. } => None,
        }
    }

    /// Where the step works.
    pub fn at(&self) -> At {
        match self {
            Step::SetUp { at, .. }
            | Step::SetDown { at, .. }
            | Step::AddAddress { at, .. }
            | Step::Sysctl { at, .. }
            | Step::DelLink { at, .. } => *at,
            Step::AddRoute { .. } | Step::SetArpNotify { .. } | Step::AwaitAddresses { .. } => {
                At::Container
            }
            Step::AddBridge { .. }
            | Step::AddVeth(_)
            | Step::SetPromiscuous { .. }
            | Step::SetMac { .. }
            | Step::SetBridgePort { .. }
            | Step::AddVlan { .. }
            | Step::DelVlan { .. }
            | Step::DelAddress { .. }
            | Step::AwaitUp { .. } => At::Host,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            At::Host => "host",
            At::Container => "container",
        })
    }
}

/// The command that the step equals, behind the namespace it would be given in.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: bool| if on { "on" } else { "off" };
        write!(f, "{}: ", self.at())?;
        match self {
            Step::AddBridge {
                name,
                mtu,
                mac,
                vlan_filtering,
            } => {
                write!(f, "ip link add {name}")?;
                optional(f, "mtu", mtu.as_ref())?;
                optional(f, "address", mac.as_ref().map(|mac| mac_text(mac)).as_ref())?;
                f.write_str(" type bridge")?;
                if *vlan_filtering {
                    f.write_str(" vlan_filtering 1")
                } else {
                    Ok(())
                }
            }
            Step::AddVeth(veth) => {
                write!(f, "ip link add {} up master {}", veth.host, veth.master)?;
                optional(f, "mtu", veth.mtu.as_ref())?;
                write!(f, " txqueuelen 0 type veth peer {}", veth.peer)?;
                if veth.peer_at == At::Container {
                    f.write_str(" netns container")?;
                }
                optional(f, "mtu", veth.mtu.as_ref())?;
                optional(
                    f,
                    "address",
                    veth.mac.as_ref().map(|mac| mac_text(mac)).as_ref(),
                )
            }
            Step::SetUp { link, .. } => write!(f, "ip link set {link} up"),
            Step::SetDown { link, .. } => write!(f, "ip link set {link} down"),
            Step::SetPromiscuous { link } => write!(f, "ip link set {link} promisc on"),
            Step::SetMac { link, mac } => write!(f, "ip link set {link} address {}", mac_text(mac)),
            Step::SetBridgePort { link, port } => {
                write!(
                    f,
                    "bridge link set dev {link} hairpin {} isolated {}",
                    on_off(port.hairpin),
                    on_off(port.isolated)
                )
            }
            Step::AddVlan { link, vlan } => {
                write!(f, "bridge vlan add dev {link} vid {}", vlan.vid)?;
                if vlan.native {
                    f.write_str(" pvid untagged master")
                } else {
                    f.write_str(" master")
                }
            }
            Step::DelVlan { link, vid } => write!(f, "bridge vlan del dev {link} vid {vid} master"),
            Step::AddAddress {
                link,
                address,
                nodad,
                ..
            } => {
                write!(f, "ip addr add {address} dev {link}")?;
                if *nodad && address.is_ipv6() {
                    f.write_str(" nodad")
                } else {
                    Ok(())
                }
            }
            Step::DelAddress { link, address } => write!(f, "ip addr del {address} dev {link}"),
            Step::AddRoute { link, route } => route.fmt_on(f, link),
            Step::SetArpNotify { link } => {
                write!(f, "sysctl -w net/ipv4/conf/{link}/arp_notify=1")
            }
            Step::Sysctl { name, value, .. } => write!(f, "sysctl -w {name}={value}"),
            Step::DelLink { link, .. } => write!(f, "ip link del {link}"),
            Step::AwaitUp { link, .. } => write!(f, "wait for {link} to be up"),
            Step::AwaitAddresses { link } => {
                write!(f, "wait for the addresses of {link} to settle")
            }
        }
    }
}

impl WantedRoute {
    fn fmt_on(&self, f: &mut fmt::Formatter<'_>, link: &str) -> fmt::Result {
        write!(f, "ip route append {}", self.dst)?;
        optional(f, "via", self.via.as_ref())?;
        write!(f, " dev {link}")?;
        for (key, value) in [
            ("scope", u32::from(self.scope)),
            ("metric", self.metric),
            ("table", self.table),
            ("mtu", self.mtu),
            ("advmss", self.advmss),
        ] {
            optional(f, key, (value != 0).then_some(value).as_ref())?;
        }
        Ok(())
    }
}

fn optional(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: Option<&impl fmt::Display>,
) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {key} {value}"))
}
