//! Rules of the real tools, in network namespaces of the tests' own.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// The rules of `chain` after `program` has read `script`; none where this machine cannot make a namespace.
fn rules_after(
    program: &str,
    script: &str,
    family: Family,
    table: &str,
    chain: &str,
) -> Option<Vec<PortRule>> {
    thread::scope(|scope| {
        let rules = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "cannot make a network namespace: {error}"
                );
                eprintln!("skipped: cannot make a network namespace (not root?): {error}");
                return None;
            }
            let arguments: &[&str] = match program {
                "nft" => &["-f", "-"],
                _ => &["--noflush"],
            };
            let mut tool = Command::new(format!("/usr/sbin/{program}"))
                .args(arguments)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            tool.stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(tool.wait().unwrap().success(), "{script}");
            Some(PortRules::open().unwrap().of(family, table, chain).unwrap())
        });
        rules.join().unwrap()
    })
}

#[test]
fn what_nft_writes_is_understood() {
    let script = r#"
        table ip t {
            chain other { udp dport 1 dnat to 10.0.0.9 comment "not asked for"; }
            chain c {
                ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.0.0.2:80 comment "one"
                udp dport 53 dnat to 10.0.0.3
                tcp dport != 22 jump other
                fib daddr type local jump other
            }
        }
    "#;
    let Some(rules) = rules_after("nft", script, Family::Ip, "t", "c") else {
        return;
    };
    let [first, second, third, fourth] = rules.as_slice() else {
        panic!("{rules:#?}");
    };
    assert_eq!(first.comment.as_deref(), Some("one"));
    assert_eq!(
        (first.protocol, first.ports.as_slice()),
        (Some(6), &[8080][..])
    );
    assert_eq!(first.destination, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(first.to, Some(("10.0.0.2".parse().unwrap(), Some(80))));
    assert_eq!(
        (second.comment.as_deref(), second.destination),
        (None, None)
    );
    assert_eq!(
        (second.protocol, second.ports.as_slice()),
        (Some(17), &[53][..])
    );
    assert_eq!(second.to, Some(("10.0.0.3".parse().unwrap(), None)));
    assert_eq!(
        (third.jump.as_deref(), third.ports.as_slice()),
        (Some("other"), &[][..])
    );
    assert_eq!(
        (fourth.jump.as_deref(), fourth.expressions),
        (Some("other"), 3)
    );
    assert!(first.handle < second.handle && second.handle < third.handle);
}

#[test]
fn what_nft_writes_for_ipv6_is_understood() {
    let script = r#"
        table ip6 t {
            chain c { ip6 daddr 2001:db8::1 sctp dport 7 dnat to [2001:db8::2]:70; }
        }
    "#;
    let Some(rules) = rules_after("nft", script, Family::Ip6, "t", "c") else {
        return;
    };
    assert_eq!(
        (rules[0].protocol, rules[0].ports.as_slice()),
        (Some(132), &[7][..])
    );
    assert_eq!(rules[0].destination, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(
        rules[0].to,
        Some(("2001:db8::2".parse().unwrap(), Some(70)))
    );
}

#[test]
fn what_the_newer_iptables_writes_is_understood() {
    let script = "*nat
-N C
-N M
-A C -p tcp -m comment --comment \"a \\\"b\\\"\" -m multiport --dports 80,81 -j M
-A C -p udp -m multiport --sports 53 -j M
-A C -p udp -m multiport ! --dports 53 -j M
-A M -j MARK --set-xmark 0x2000/0x2000
-A M -m mark --mark 0x40/0x40 -j MASQUERADE
-A M -m addrtype --dst-type LOCAL -j RETURN
COMMIT
";
    let read = |chain| rules_after("iptables-nft-restore", script, Family::Ip, "nat", chain);
    let (Some(entries), Some(marks)) = (read("C"), read("M")) else {
        return;
    };
    assert_eq!(entries[0].comment.as_deref(), Some("a \"b\""));
    assert_eq!(entries[0].jump.as_deref(), Some("M"));
    assert_eq!(
        (entries[0].protocol, entries[0].ports.as_slice()),
        (Some(6), &[80, 81][..])
    );
    assert!(entries[1].ports.is_empty());
    assert!(entries[2].ports.is_empty());
    assert_eq!(marks[0].mark, Some((0x2000, 0x2000)));
    assert!(marks[0].extensions.iter().any(|it| it == "MARK"));
    assert_eq!(marks[1].mark, Some((0x40, 0x40)));
    assert_eq!(marks[2].mark, None);
}

#[test]
fn where_there_is_no_chain_there_are_no_rules() {
    let rules = |table, chain| rules_after("nft", "add table ip t", Family::Ip, table, chain);
    for found in [rules("t", "c"), rules("u", "c")] {
        assert_eq!(found.unwrap_or_default(), []);
    }
}
