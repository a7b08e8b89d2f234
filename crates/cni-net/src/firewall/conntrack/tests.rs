//! Connections of real sockets, in a network namespace of the test's own.

use std::net::UdpSocket;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sends a datagram from a socket of its own; its port.
fn send(to: &str) -> u16 {
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.send_to(b"x", to).unwrap();
    socket.local_addr().unwrap().port()
}

fn is_remembered(family: &str, port: u16) -> bool {
    run(
        "conntrack",
        &format!("-L -f {family} -p udp --sport {port}"),
    )
    .contains("udp")
}

// K15
#[test]
fn k15_only_what_is_concerned_is_forgotten() {
    let test = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "cannot make a network namespace: {error}"
            );
            eprintln!("skipped: cannot make a network namespace (not root?): {error}");
            return;
        }
        run("ip", "link set lo up");
        // Connections are remembered once a rule is about them.
        run("nft", "add table inet t");
        run(
            "nft",
            "add chain inet t c { type filter hook output priority 0 ; }",
        );
        run("nft", "add rule inet t c ct state new accept");
        let (first, second) = (send("127.0.0.1:53"), send("127.0.0.2:53"));
        let (other, six) = (send("127.0.0.1:54"), send("[::1]:53"));
        for port in [first, second, other] {
            assert!(is_remembered("ipv4", port));
        }
        assert!(is_remembered("ipv6", six));

        let found = |ports: &[u16]| {
            let connection = Connection::open().unwrap().unwrap();
            connection
                .dump(&question(Family::Ipv4, ports))
                .unwrap()
                .len()
        };
        // One port is the kernel's to look for (linux 5.8), of several ours.
        assert_eq!((found(&[53]), found(&[53, 9])), (2, 3));
        for ports in [&[53][..], &[53, 9]] {
            let mut seen = Vec::new();
            let forgotten = forget_udp(Family::Ipv4, ports, |flow| {
                seen.push(*flow);
                false
            });
            assert_eq!(forgotten.unwrap(), 0);
            seen.sort_by_key(|flow| flow.to);
            let flow = |port: u16, to: &str| Flow {
                from: format!("127.0.0.1:{port}").parse().unwrap(),
                to: to.parse().unwrap(),
                answered_by: to.parse().unwrap(),
            };
            assert_eq!(
                seen,
                [flow(first, "127.0.0.1:53"), flow(second, "127.0.0.2:53")]
            );
        }
        let concerned = |flow: &Flow| flow.to.ip().to_string() == "127.0.0.1";
        assert_eq!(forget_udp(Family::Ipv4, &[53], concerned).unwrap(), 1);
        assert!(!is_remembered("ipv4", first));
        assert!(is_remembered("ipv4", second) && is_remembered("ipv4", other));
        assert!(is_remembered("ipv6", six));
        assert_eq!(forget_udp(Family::Ipv6, &[53, 54], |_| true).unwrap(), 1);
        assert!(!is_remembered("ipv6", six));
        assert_eq!(forget_udp(Family::Ipv4, &[], |_| true).unwrap(), 0);
        assert!(is_remembered("ipv4", second));
    };
    thread::spawn(test).join().unwrap();
}
