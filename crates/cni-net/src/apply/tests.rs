//! Steps mean what they print: done on the kernel, in namespaces made for each test, and read back with `ip`.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::step::{Veth, Vlan, WantedRoute};
use crate::{KernelError, Netns};

/// Runs a test on a thread that is in a namespace of its own, with another one as the container's.
fn on_node(test: impl FnOnce(&Net) + Send) {
    if !nix_is_root() {
        assert!(std::env::var_os("CI").is_none(), "namespaces need root");
        eprintln!("skipped: namespaces need root");
        return;
    }
    thread::scope(|scope| {
        let run = || {
            let container = new_namespace();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test(&Net::open_with(container).unwrap());
        };
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn nix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn new_namespace() -> Netns {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Netns::open(&PathBuf::from("/proc/thread-self/ns/net")).unwrap()
    };
    thread::spawn(make).join().unwrap()
}

/// What `ip` says, in the namespace of the calling thread or in the container's.
fn ip(net: &Net, at: At, arguments: &str) -> String {
    let run = || {
        let output = Command::new("ip").args(arguments.split(' ')).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr))
    };
    match at {
        At::Host => run().unwrap(),
        At::Container => net.netns().unwrap().run(run).unwrap(),
    }
}

fn bridge_step() -> Step {
    Step::AddBridge {
        name: "br0".into(),
        mtu: Some(1400),
        mac: Some(vec![2, 0, 0, 0, 0, 1]),
        vlan_filtering: false,
    }
}

fn veth_step() -> Step {
    Step::AddVeth(Veth {
        host: "veth0".into(),
        master: "br0".into(),
        peer: "eth0".into(),
        peer_at: At::Container,
        mtu: Some(1400),
        mac: Some(vec![2, 0, 0, 0, 0, 2]),
    })
}

fn up(at: At, link: &str) -> Step {
    Step::SetUp {
        at,
        link: link.into(),
    }
}

fn address_step(address: &str) -> Step {
    Step::AddAddress {
        at: At::Container,
        link: "eth0".into(),
        address: address.parse().unwrap(),
        nodad: true,
    }
}

fn route_step(dst: &str, via: Option<&str>) -> Step {
    let route = WantedRoute {
        dst: dst.parse().unwrap(),
        via: via.map(|via| via.parse().unwrap()),
        scope: if via.is_some() { 0 } else { 253 },
        metric: 0,
        table: 0,
        mtu: 0,
        advmss: 0,
    };
    Step::AddRoute {
        link: "eth0".into(),
        route,
    }
}

fn pair() -> Vec<Step> {
    vec![
        bridge_step(),
        up(At::Host, "br0"),
        veth_step(),
        up(At::Container, "eth0"),
    ]
}

#[test]
fn parameters_set_by_message_are_the_files_and_where_there_are_none_nothing_is_lost() {
    on_node(|net| {
        let notify = Step::SetArpNotify {
            link: "eth0".into(),
        };
        net.apply(&[pair(), vec![notify.clone()]].concat())
            .unwrap()
            .keep();
        let read = || sysctl::read("net/ipv4/conf/eth0/arp_notify");
        assert_eq!(net.inside(read).unwrap(), "1");
        // Below an MTU of 68 bytes a link has no IPv4.
        ip(net, At::Container, "link set eth0 mtu 67");
        net.apply(&[notify]).unwrap().keep();
    });
}

// L05
#[test]
fn l05_the_ends_of_a_pair_are_where_they_belong() {
    on_node(|net| {
        net.apply(
            &[
                pair(),
                vec![Step::AwaitUp {
                    link: "veth0".into(),
                    bridge: "br0".into(),
                    peer: None,
                }],
            ]
            .concat(),
        )
        .unwrap()
        .keep();
        let host = net.link(At::Host, "veth0").unwrap().unwrap();
        let container = net.link(At::Container, "eth0").unwrap().unwrap();
        assert_eq!(
            (host.peer, container.peer),
            (Some(container.index), Some(host.index))
        );
        assert_eq!(
            host.master,
            net.link(At::Host, "br0")
                .unwrap()
                .map(|bridge| bridge.index)
        );
        assert_eq!(
            (container.mac_text().as_str(), container.mtu),
            ("02:00:00:00:00:02", 1400)
        );
        assert_ne!(host.mac, container.mac);
        assert_eq!(
            (host.operstate, host.up, container.kind.as_str()),
            (OperState::UP, true, "veth")
        );
        assert!(ip(net, At::Host, "link show veth0").contains("master br0 state UP"));
        assert_eq!(net.link(At::Host, "eth0").unwrap(), None);
    });
}

// L06
#[test]
fn l06_a_name_that_is_taken_is_refused() {
    on_node(|net| {
        net.apply(&pair()).unwrap().keep();
        let error = net.apply(&[veth_step()]).map(drop).unwrap_err();
        assert!(error.is(Errno::EEXIST), "{error}");
        assert!(
            error.trace.contains("FAILED   host: ip link add veth0"),
            "{}",
            error.trace
        );
        assert!(net.link(At::Container, "eth0").unwrap().is_some());
    });
}

// L07
#[test]
fn l07_deleting_one_end_deletes_both() {
    on_node(|net| {
        net.apply(&pair()).unwrap().keep();
        let index = net.link(At::Container, "eth0").unwrap().unwrap().index;
        net.apply(&[Step::DelLink {
            at: At::Container,
            link: "eth0".into(),
        }])
        .unwrap()
        .keep();
        assert_eq!(net.link(At::Container, "eth0").unwrap(), None);
        assert_eq!(net.link(At::Host, "veth0").unwrap(), None);
        assert!(
            net.addresses(At::Container, index)
                .map_or(true, |addresses| addresses.is_empty())
        );
        // What is gone already is good.
        net.apply(&[Step::DelLink {
            at: At::Container,
            link: "eth0".into(),
        }])
        .unwrap()
        .keep();
    });
}

// L09, L10
#[test]
fn l10_addresses_and_routes() {
    on_node(|net| {
        let more = Step::AddRoute {
            link: "eth0".into(),
            route: WantedRoute {
                dst: "10.9.0.0/16".parse().unwrap(),
                via: Some("10.1.2.1".parse().unwrap()),
                scope: 200,
                metric: 7,
                table: 5000,
                mtu: 1300,
                advmss: 1200,
            },
        };
        let plan = [
            bridge_step(),
            up(At::Host, "br0"),
            veth_step(),
            address_step("10.1.2.5/24"),
            address_step("fd00::5/64"),
            up(At::Container, "eth0"),
            route_step("10.8.0.0/16", Some("10.1.2.1")),
            route_step("10.8.0.0/16", Some("10.1.2.2")),
            route_step("fd01::/64", Some("fd00::1")),
            route_step("fd01::/64", Some("fd00::2")),
            route_step("0.0.0.0/0", Some("10.1.2.1")),
            route_step("10.7.0.0/16", None),
            more,
        ];
        net.apply(&plan).unwrap().keep();
        let routes = net.routes().unwrap();
        let hops = |dst: &str| {
            let to = routes.iter().filter(|route| route.dst.to_string() == dst);
            let mut hops: Vec<_> = to
                .flat_map(|route| &route.gateways)
                .map(ToString::to_string)
                .collect();
            hops.sort();
            hops
        };
        assert_eq!(hops("10.8.0.0/16"), ["10.1.2.1", "10.1.2.2"]);
        assert_eq!(hops("fd01::/64"), ["fd00::1", "fd00::2"]);
        assert_eq!(hops("0.0.0.0/0"), ["10.1.2.1"]);
        assert!(hops("10.9.0.0/16").is_empty(), "it is in another table");
        let other = ip(net, At::Container, "-d route show table 5000");
        for part in [
            "10.9.0.0/16 via 10.1.2.1",
            "scope site",
            "metric 7",
            "mtu 1300",
            "advmss 1200",
        ] {
            assert!(other.contains(part), "{part}: {other}");
        }
        let index = net.link(At::Container, "eth0").unwrap().unwrap().index;
        let addresses = net.addresses(At::Container, index).unwrap();
        assert!(
            addresses.iter().all(
                |address| !address.tentative || address.address.to_string().starts_with("fe80")
            )
        );
        assert!(
            ip(net, At::Container, "addr show eth0")
                .contains("inet 10.1.2.5/24 brd 10.1.2.255 scope global")
        );
        // The very same route again is an error.
        assert!(
            net.apply(&[route_step("0.0.0.0/0", Some("10.1.2.1"))])
                .map(drop)
                .unwrap_err()
                .is(Errno::EEXIST)
        );
    });
}

// L11
#[test]
fn l11_an_ipv6_address_outlives_its_link_going_down() {
    on_node(|net| {
        let keep = Step::Sysctl {
            at: At::Container,
            name: "net/ipv6/conf/eth0/keep_addr_on_down".into(),
            value: "1",
            required: true,
        };
        net.apply(&[pair(), vec![keep, address_step("fd00::5/64")]].concat())
            .unwrap()
            .keep();
        let index = net.link(At::Container, "eth0").unwrap().unwrap().index;
        net.apply(&[Step::SetDown {
            at: At::Container,
            link: "eth0".into(),
        }])
        .unwrap()
        .keep();
        let addresses = net.addresses(At::Container, index).unwrap();
        assert!(
            addresses
                .iter()
                .any(|address| address.address.to_string() == "fd00::5/64"),
            "{addresses:?}"
        );
    });
}

// L13
#[test]
fn l13_a_link_that_is_not_there_is_an_error() {
    on_node(|net| {
        for step in [
            address_step("10.1.2.5/24"),
            route_step("10.8.0.0/16", None),
            up(At::Container, "eth0"),
        ] {
            assert!(net.apply(&[step]).map(drop).unwrap_err().is(Errno::ENODEV));
        }
    });
}

#[test]
fn a_failed_plan_leaves_only_what_is_shared() {
    on_node(|net| {
        let plan = [pair(), vec![route_step("10.8.0.0/16", Some("192.0.2.1"))]].concat();
        let error = net.apply(&plan).map(drop).unwrap_err();
        assert!(error.is(Errno::ENETUNREACH), "{:?}", error.reason);
        assert_eq!(net.link(At::Container, "eth0").unwrap(), None);
        assert_eq!(net.link(At::Host, "veth0").unwrap(), None);
        assert!(net.link(At::Host, "br0").unwrap().is_some());
        drop(net.apply(&[veth_step()]).unwrap());
        assert_eq!(net.link(At::Host, "veth0").unwrap(), None);
    });
}

#[test]
fn the_kernel_explains_itself() {
    on_node(|net| {
        net.apply(&pair()).unwrap().keep();
        let error = net
            .apply(&[route_step("10.8.0.0/16", Some("192.0.2.1"))])
            .map(drop)
            .unwrap_err();
        assert_eq!(error.explanation(), Some("Nexthop has invalid gateway"));
        assert_eq!(error.reason.to_string(), "network is unreachable");
    });
}

#[test]
fn a_bridge_that_is_there_already_is_good() {
    on_node(|net| {
        net.apply(&[bridge_step(), bridge_step()]).unwrap().keep();
        assert_eq!(
            net.link(At::Host, "br0").unwrap().unwrap().mac_text(),
            "02:00:00:00:00:01"
        );
    });
}

#[test]
fn a_port_without_peer_does_not_come_up() {
    on_node(|net| {
        let plan = [
            bridge_step(),
            up(At::Host, "br0"),
            veth_step(),
            Step::AwaitUp {
                link: "veth0".into(),
                bridge: "br0".into(),
                peer: None,
            },
        ];
        let error = net.apply(&plan).map(drop).unwrap_err();
        assert_eq!(error.reason.to_string(), "bridge port in error state: down");
        assert_eq!(net.link(At::Host, "veth0").unwrap(), None);
    });
}

#[test]
fn a_kernel_without_vlans_says_so() {
    on_node(|net| {
        let vlan = Step::AddVlan {
            link: "veth0".into(),
            vlan: Vlan {
                vid: 100,
                native: true,
            },
        };
        let outcome = net
            .apply(&[pair(), vec![vlan]].concat())
            .map(|applied| applied.keep());
        match outcome {
            Ok(()) => assert!(ip(net, At::Host, "-d link show br0").contains("vlan_filtering")),
            Err(error) => assert!(error.is(Errno::EOPNOTSUPP), "{:?}", error.reason),
        }
    });
}

// L14
#[test]
fn l14_work_inside_a_namespace_leaves_the_thread_where_it_was() {
    on_node(|net| {
        let own = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let (before, netns) = (own(), net.netns().unwrap());
        let inside = netns.run(|| Ok(own())).unwrap();
        assert_ne!(before, inside);
        assert!(
            netns
                .run(|| Err::<(), _>(std::io::Error::other("inside")))
                .is_err()
        );
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: std::io::Result<()> = netns.run(|| panic!("on purpose"));
        }));
        assert!(panicked.is_err());
        assert_eq!(own(), before);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(netns.run(|| Ok(own())).unwrap(), inside));
            }
        });
        assert_eq!(own(), before);
    });
}

#[test]
fn a_file_that_is_no_namespace_cannot_be_entered() {
    let file = File::open("/proc/self/status").unwrap();
    assert!(nix::sched::setns(&file, CloneFlags::CLONE_NEWNET).is_err());
    assert!(KernelError::from_errno(Errno::EINVAL).to_string() == "invalid argument");
}
