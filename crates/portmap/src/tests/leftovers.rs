//! Rules that another DEL would have left, and connections that the kernel would have gone on leading.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::machine::*;

// K12, K13, K14
#[test]
fn del_needs_neither_mappings_nor_backend_nor_the_networks_name_of_before() {
    with_each_kind(|machine| {
        for backend in ["iptables", "nftables"] {
            let added = conf(backend, &["10.0.0.2/24", "2001:db8::2/64"]);
            let other = if backend == "iptables" {
                "nftables"
            } else {
                "iptables"
            };
            let changes: [fn(&mut Value, &str); 4] = [
                |conf, _| conf["runtimeConfig"] = Value::Null,
                |conf, other| conf["backend"] = other.into(),
                |conf, _| conf["name"] = "renamed".into(),
                |conf, _| conf["prevResult"] = Value::Null,
            ];
            for (number, change) in changes.iter().enumerate() {
                machine.succeed("ADD", "c1", &added);
                let mut now = added.clone();
                change(&mut now, other);
                machine.succeed("DEL", "c1", &now);
                assert_eq!(machine.container_chains(), [""; 0], "{backend} {number}");
                let ruleset = machine.run("nft", "list ruleset");
                assert!(!ruleset.contains("\"c1\""), "{backend} {number}: {ruleset}");
            }
        }
    });
}

// K10
#[test]
fn k10_del_after_a_refused_add_succeeds() {
    with_each_kind(|machine| {
        let mut bad = conf("iptables", &["10.0.0.2/24"]);
        bad["runtimeConfig"]["portMappings"][0]["hostPort"] = 0.into();
        let (code, msg, _) = failed(&machine.call("ADD", "c1", &bad));
        assert_eq!(
            (code, msg.as_str()),
            (7, "failed to parse config: Invalid host port number: 0")
        );
        machine.succeed("DEL", "c1", &bad);
    });
}

/// A namespace with `eth0` at this address, and another interface at another.
fn container(own: &str, other: &str) -> File {
    let (own, other) = (own.to_owned(), other.to_owned());
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for (link, address) in [("eth0", own), ("net1", other)] {
            for arguments in [
                format!("link add {link} type bridge"),
                format!("link set {link} up"),
                format!("addr add {address} dev {link}"),
            ] {
                let status = std::process::Command::new("ip")
                    .args(arguments.split(' '))
                    .status();
                assert!(status.unwrap().success());
            }
        }
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

#[test]
fn del_under_another_name_spares_the_containers_other_networks() {
    on_machine("nft", |machine| {
        let netns = container("10.0.0.2/24", "10.9.0.2/24");
        let netns = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        machine.succeed("ADD", "c1", &conf("iptables", &["10.9.0.2/24"]));
        let mut other = conf("iptables", &["10.0.0.2/24"]);
        other["name"] = "other".into();
        for _ in 0..2 {
            succeeded(&machine.call_at("DEL", "c1", &netns, &other));
            assert_eq!(machine.container_chains().len(), 1);
        }
        // Now it is the interface's own.
        machine.succeed("ADD", "c1", &conf("iptables", &["10.0.0.2/24"]));
        succeeded(&machine.call_at("DEL", "c1", &netns, &other));
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

#[test]
fn gc_takes_what_nobody_valid_owns_and_other_networks_not() {
    with_each_kind(|machine| {
        for backend in ["iptables", "nftables"] {
            let add = |id: &str, network: &str, number: u8| {
                let conf = conf(
                    backend,
                    &[
                        &format!("10.0.0.{number}/24"),
                        &format!("2001:db8::{number}/64"),
                    ],
                );
                let mut conf = mapped(conf, &[&format!("tcp {}:80", 8000 + u16::from(number))]);
                conf["name"] = network.into();
                machine.succeed("ADD", id, &conf);
            };
            add("alive", "cbr0", 2);
            add("dead", "cbr0", 3);
            add("other", "cbr1", 4);
            succeeded(&machine.gc(&conf(backend, &[]), &["alive"]));
            let left = machine.nat().join("\n") + &machine.run("nft", "list ruleset");
            assert!(!left.contains("dead"), "{left}");
            assert!(left.contains("alive") && left.contains("other"), "{left}");
            succeeded(&machine.gc(&conf(backend, &[]), &[]));
            let left = machine.nat().join("\n") + &machine.run("nft", "list ruleset");
            assert!(!left.contains("alive") && left.contains("other"), "{left}");
            machine.succeed("DEL", "other", &conf(backend, &[]));
        }
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

#[test]
fn gc_takes_ids_with_any_letter() {
    on_machine("nft", |machine| {
        machine.succeed("ADD", "c1", &conf("nftables", &["10.0.0.2/24"]));
        let odd = format!("{}ä", "c".repeat(110));
        succeeded(&machine.gc(&conf("nftables", &[]), &[&odd, "c1"]));
        let ruleset = machine.run("nft", "list ruleset");
        assert!(ruleset.contains("\"c1\""), "{ruleset}");
    });
}

#[test]
fn nft_removes_what_an_uninstalled_iptables_has_left() {
    on_machine("nft", |machine| {
        machine.succeed(
            "ADD",
            "c1",
            &conf("iptables", &["10.0.0.2/24", "2001:db8::2/64"]),
        );
        machine.succeed(
            "ADD",
            "c2",
            &mapped(conf("iptables", &["10.0.0.3/24"]), &["tcp 81:81"]),
        );
        for tool in [
            "iptables-save",
            "iptables-restore",
            "iptables",
            "ip6tables-save",
            "ip6tables-restore",
            "ip6tables",
        ] {
            machine.uninstall(tool);
        }
        machine.succeed("DEL", "c1", &conf("nftables", &[]));
        let ruleset = machine.run("nft", "list ruleset");
        assert_eq!(ruleset.matches("chain CNI-DN-").count(), 1, "{ruleset}");
        // No tool at all: rules are left for certain.
        machine.uninstall("nft");
        let (code, msg, _) = failed(&machine.call("DEL", "c2", &conf("nftables", &[])));
        assert_eq!(code, 999);
        assert!(
            msg.starts_with("could not teardown ipv4 dnat: exec: \"iptables-save\""),
            "{msg}"
        );
        machine.succeed("DEL", "c3", &conf("nftables", &[]));
    });
}

/// The UDP connections that the kernel remembers, as `DESTINATION-PORT SOURCE-OF-ANSWERS`.
fn remembered(machine: &Machine, source_port: u16) -> usize {
    let list = |family: &str| {
        machine.run(
            "conntrack",
            &format!("-L -f {family} -p udp --sport {source_port}"),
        )
    };
    [list("ipv4"), list("ipv6")]
        .concat()
        .lines()
        .filter(|it| it.starts_with("udp"))
        .count()
}

// K15
#[test]
fn k15_add_makes_the_kernel_forget_udp_connections_to_the_port() {
    with_each_kind(|machine| {
        machine.run("ip", "addr add 192.0.2.1/24 dev cni0");
        // Connections are remembered once anybody asks about them.
        let backend = "iptables";
        machine.succeed(
            "ADD",
            "other",
            &mapped(
                conf(backend, &["10.0.0.9/24", "2001:db8::9/64"]),
                &["tcp 1:1"],
            ),
        );
        let to_port = send_udp("192.0.2.1:53");
        let to_port_by_ipv6 = send_udp("[2001:db8::1]:53");
        let to_other_port = send_udp("192.0.2.1:54");
        let to_somebody_else = send_udp("10.0.0.77:53");
        for port in [to_port, to_port_by_ipv6, to_other_port, to_somebody_else] {
            assert_eq!(remembered(machine, port), 1);
        }
        let conf = mapped(
            conf(backend, &["10.0.0.2/24", "2001:db8::2/64"]),
            &["udp 53:5353", "udp 99:99"],
        );
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(remembered(machine, to_port), 0);
        assert_eq!(remembered(machine, to_port_by_ipv6), 0);
        assert_eq!(remembered(machine, to_other_port), 1);
        assert_eq!(remembered(machine, to_somebody_else), 1);
        // What leads to the container stays, and goes with it.
        let led = send_udp("192.0.2.1:53");
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(remembered(machine, led), 1);
        machine.succeed("DEL", "c1", &conf);
        assert_eq!(remembered(machine, led), 0);
        assert_eq!(remembered(machine, to_other_port), 1);
        assert_eq!(remembered(machine, to_somebody_else), 1);
    });
}

// K15
#[test]
fn k15_del_by_nft_makes_the_kernel_forget_too() {
    on_machine("nft", |machine| {
        machine.run("ip", "addr add 192.0.2.1/24 dev cni0");
        let mut conf = mapped(
            conf("nftables", &["10.0.0.2/24", "2001:db8::2/64"]),
            &["udp 53:5353"],
        );
        machine.succeed("ADD", "c1", &conf);
        let ports = [
            send_udp("192.0.2.1:53"),
            send_udp("[2001:db8::1]:53"),
            send_udp("127.0.0.1:53"),
        ];
        let kept = send_udp("192.0.2.1:54");
        for port in ports {
            assert_eq!(remembered(machine, port), 1);
        }
        conf["runtimeConfig"] = Value::Null;
        machine.succeed("DEL", "c1", &conf);
        for port in ports {
            assert_eq!(remembered(machine, port), 0);
        }
        assert_eq!(remembered(machine, kept), 1);
    });
}

/// The mapping is for one address of the node, so are the connections.
#[test]
fn k15_connections_to_other_addresses_of_the_node_stay() {
    on_machine("nft", |machine| {
        machine.run("ip", "addr add 192.0.2.1/24 dev cni0");
        machine.succeed(
            "ADD",
            "other",
            &mapped(conf("iptables", &["10.0.0.9/24"]), &["tcp 1:1"]),
        );
        let (one, other) = (send_udp("192.0.2.1:53"), send_udp("10.0.0.1:53"));
        let mut conf = mapped(conf("iptables", &["10.0.0.2/24"]), &["udp 53:5353"]);
        conf["runtimeConfig"]["portMappings"][0]["hostIP"] = "192.0.2.1".into();
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(
            (remembered(machine, one), remembered(machine, other)),
            (0, 1)
        );
    });
}
