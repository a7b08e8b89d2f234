//! What either backend makes, keeps and removes.

use std::thread;

use serde_json::{Value, json};

use super::machine::*;

const BOTH: [&str; 2] = ["10.0.0.2/24", "2001:db8::2/64"];

#[test]
fn n01_a_container_has_a_chain_and_entries_beside_those_of_others() {
    with_each_kind(|machine| {
        machine.tool("iptables", "-t nat -N CNI-HOSTPORT-DNAT");
        machine.tool(
            "iptables",
            "-t nat -A CNI-HOSTPORT-DNAT -m comment --comment canary -j ACCEPT",
        );
        machine.succeed("ADD", "c1", &conf("iptables", &BOTH));
        let expected = [
            "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
            "-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
            r#"-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ"#,
            "-A CNI-DN-68f1f1eeb62cad3d0bdd5 -s 10.0.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
            "-A CNI-DN-68f1f1eeb62cad3d0bdd5 -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
            "-A CNI-DN-68f1f1eeb62cad3d0bdd5 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80",
            "-A CNI-HOSTPORT-DNAT -m comment --comment canary -j ACCEPT",
            r#"-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"c1\"" -m multiport --dports 8080 -j CNI-DN-68f1f1eeb62cad3d0bdd5"#,
            "-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE",
            r#"-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000"#,
        ];
        // The older kind lists chains in another order.
        let sorted = |mut lines: Vec<String>| {
            lines.sort_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
            lines
        };
        let four: Vec<String> = machine.nat().into_iter().take(expected.len()).collect();
        assert_eq!(sorted(four), sorted(expected.map(str::to_owned).to_vec()));
        machine.succeed("CHECK", "c1", &conf("iptables", &BOTH));
        machine.succeed("DEL", "c1", &conf("iptables", &BOTH));
        let entries: Vec<String> = machine
            .nat()
            .into_iter()
            .filter(|it| it.starts_with("-A CNI-HOSTPORT-DNAT"))
            .collect();
        assert_eq!(
            entries,
            ["-A CNI-HOSTPORT-DNAT -m comment --comment canary -j ACCEPT"]
        );
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

#[test]
fn n02_a_second_add_adds_nothing() {
    with_each_kind(|machine| {
        let conf = mapped(
            conf("iptables", &BOTH),
            &["tcp 8080:80", "udp 53:5353", "sctp 7:7"],
        );
        machine.succeed("ADD", "c1", &conf);
        let before = machine.nat();
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(machine.nat(), before);
    });
}

#[test]
fn n03_a_second_del_is_no_error() {
    with_each_kind(|machine| {
        let conf = conf("iptables", &BOTH);
        machine.succeed("ADD", "c1", &conf);
        for _ in 0..3 {
            machine.succeed("DEL", "c1", &conf);
            assert_eq!(machine.container_chains(), [""; 0]);
        }
    });
}

#[test]
fn n04_ten_dels_at_once_leave_nothing_and_fail_nowhere() {
    with_each_kind(|machine| {
        let conf = conf("iptables", &BOTH);
        machine.succeed("ADD", "c1", &conf);
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| machine.succeed("DEL", "c1", &conf));
            }
        });
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

// K17
#[test]
fn k17_twelve_first_adds_at_once_share_what_is_shared() {
    with_each_kind(|machine| {
        thread::scope(|scope| {
            for number in 0..12 {
                scope.spawn(move || {
                    let address = format!("10.0.0.{}/24", 10 + number);
                    let six = format!("2001:db8::{}/64", 10 + number);
                    let conf = conf("iptables", &[&address, &six]);
                    let conf = mapped(conf, &[&format!("tcp {}:80", 8000 + number)]);
                    machine.succeed("ADD", &format!("c{number}"), &conf);
                });
            }
        });
        let nat = machine.nat();
        let count = |text: &str| nat.iter().filter(|it| it.contains(text)).count();
        // In each of the two families.
        assert_eq!(count("-A PREROUTING"), 2, "{nat:#?}");
        assert_eq!(count("-A OUTPUT"), 2);
        assert_eq!(count("-A POSTROUTING"), 2);
        assert_eq!(count("-A CNI-HOSTPORT-MASQ"), 2);
        assert_eq!(count("-A CNI-HOSTPORT-SETMARK"), 2);
        assert_eq!(count("-A CNI-HOSTPORT-DNAT"), 24);
        assert_eq!(count("-j DNAT"), 24);
        assert_eq!(machine.container_chains().len(), 24);
    });
}

// K17
#[test]
fn k17_twelve_first_adds_at_once_by_nft() {
    on_machine("nft", |machine| {
        thread::scope(|scope| {
            for number in 0..12 {
                scope.spawn(move || {
                    let conf = conf("nftables", &[&format!("10.0.0.{}/24", 10 + number)]);
                    let conf = mapped(conf, &[&format!("tcp {}:80", 8000 + number)]);
                    machine.succeed("ADD", &format!("c{number}"), &conf);
                });
            }
        });
        let ruleset = machine.tool("nft", "list table ip cni_hostport");
        let count = |text: &str| ruleset.lines().filter(|it| it.contains(text)).count();
        assert_eq!(
            count("fib daddr type local jump hostports_all"),
            2,
            "{ruleset}"
        );
        assert_eq!((count("dnat to"), count("masquerade comment")), (12, 24));
    });
}

// K11
#[test]
fn k11_a_second_add_leads_to_the_new_address_only() {
    with_each_kind(|machine| {
        machine.succeed("ADD", "c1", &conf("iptables", &BOTH));
        let second = conf("iptables", &["10.0.0.3/24"]);
        machine.succeed("ADD", "c1", &second);
        let nat = machine.nat();
        let redirects: Vec<&String> = nat.iter().filter(|it| it.contains("-j DNAT")).collect();
        // Of the older kind's other table only that tool could tell, and nobody asks it.
        if machine.kind == "nft" {
            assert_eq!(redirects.len(), 1, "{nat:#?}");
        }
        assert!(redirects[0].ends_with("--to-destination 10.0.0.3:80"));
        machine.succeed("CHECK", "c1", &second);
    });
    on_machine("nft", |machine| {
        machine.succeed("ADD", "c1", &conf("nftables", &BOTH));
        machine.succeed("ADD", "c1", &conf("nftables", &["10.0.0.3/24"]));
        let ruleset = machine.tool("nft", "list ruleset");
        assert_eq!(ruleset.matches("dnat to").count(), 1, "{ruleset}");
        assert_eq!(
            ruleset.matches("masquerade comment").count(),
            2,
            "{ruleset}"
        );
        assert!(
            ruleset.contains("dnat to 10.0.0.3:80 comment \"c1\""),
            "{ruleset}"
        );
    });
}

// K11
#[test]
fn k11_a_dead_containers_rule_does_not_hide_the_new_ones() {
    with_each_kind(|machine| {
        machine.succeed("ADD", "dead", &conf("iptables", &["10.0.0.2/24"]));
        machine.succeed("ADD", "new", &conf("iptables", &["10.0.0.3/24"]));
        let nat = machine.nat();
        let first = nat
            .iter()
            .find(|it| it.starts_with("-A CNI-HOSTPORT-DNAT"))
            .unwrap();
        assert!(first.contains(r#"id: \"new\""#), "{nat:#?}");
        // The address of the first is given away: its chain must go.
        machine.succeed(
            "ADD",
            "third",
            &mapped(conf("iptables", &["10.0.0.2/24"]), &["tcp 8080:80"]),
        );
        assert_eq!(machine.container_chains().len(), 2, "{:#?}", machine.nat());
    });
}

#[test]
fn conditions_and_an_external_chain_go_through_as_they_are() {
    with_each_kind(|machine| {
        machine.tool("iptables", "-t nat -N PLZ-SET-MARK");
        let mut conf = conf("iptables", &["10.0.0.2/24"]);
        conf["externalSetMarkChain"] = "PLZ-SET-MARK".into();
        conf["conditionsV4"] = json!([
            "!",
            "--source",
            "192.0.2.9/24",
            "-m",
            "comment",
            "--comment",
            "a \"b\""
        ]);
        machine.succeed("ADD", "c1", &conf);
        let nat = machine.nat();
        let entry = nat
            .iter()
            .find(|it| it.starts_with("-A CNI-HOSTPORT-DNAT"))
            .unwrap();
        assert!(
            entry.contains("! -s 192.0.2.0/24") && entry.contains(r#"--comment "a \"b\"""#),
            "{entry}"
        );
        assert_eq!(
            nat.iter()
                .filter(|it| it.ends_with("-j PLZ-SET-MARK"))
                .count(),
            2
        );
        assert!(
            !nat.iter().any(|it| it.contains("CNI-HOSTPORT-MASQ")),
            "{nat:#?}"
        );
        machine.succeed("CHECK", "c1", &conf);
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(machine.nat(), nat);
        machine.succeed("DEL", "c1", &conf);
        assert_eq!(machine.container_chains(), [""; 0]);
    });
}

#[test]
fn without_mappings_nothing_is_executed() {
    with_each_kind(|machine| {
        machine.count_starts();
        for backend in [json!(null), json!("iptables"), json!("nftables")] {
            let mut conf = mapped(conf("iptables", &BOTH), &[]);
            conf["backend"] = backend;
            let outcome = machine.call("ADD", "c1", &conf);
            succeeded(&outcome);
            let result: Value = serde_json::from_slice(&outcome.stdout).unwrap();
            assert_eq!(result, conf["prevResult"]);
            machine.succeed("CHECK", "c1", &conf);
            machine.succeed("DEL", "c1", &conf);
        }
        assert_eq!(machine.starts(), [""; 0]);
    });
}

#[test]
fn an_add_is_one_process_a_family() {
    on_machine("nft", |machine| {
        machine.count_starts();
        // Behind a script, the newer kind is not recognised, and the table is read first.
        machine.succeed("ADD", "c1", &conf("iptables", &["10.0.0.2/24"]));
        assert_eq!(machine.starts(), ["iptables-save", "iptables-restore"]);
    });
    on_machine("nft", |machine| {
        // What reads the table does not work, and nobody misses it.
        machine.script("iptables-save", "exit 1");
        machine.script("ip6tables-save", "exit 1");
        machine.succeed("ADD", "c1", &conf("iptables", &BOTH));
        machine.succeed(
            "ADD",
            "c2",
            &mapped(conf("iptables", &["10.0.0.3/24"]), &["tcp 81:81"]),
        );
    });
    on_machine("nft", |machine| {
        machine.count_starts();
        machine.succeed("ADD", "c1", &conf("nftables", &BOTH));
        assert_eq!(machine.starts(), ["nft"]);
        machine.succeed("DEL", "c1", &conf("nftables", &BOTH));
        assert_eq!(machine.starts(), ["nft"]);
        machine.succeed("DEL", "c1", &conf("nftables", &BOTH));
        assert_eq!(machine.starts(), [""; 0]);
    });
}

#[test]
fn packets_from_127_0_0_1_may_leave_for_the_container() {
    on_machine("nft", |machine| {
        let value = || machine.run("sysctl", "-n net.ipv4.conf.cni0.route_localnet");
        let mut conf = conf("iptables", &["10.0.0.2/24"]);
        conf["snat"] = false.into();
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(value(), "0\n");
        conf["snat"] = true.into();
        machine.succeed("ADD", "c1", &conf);
        assert_eq!(value(), "1\n");
        // Without a route there is no link.
        conf["prevResult"]["ips"][0]["address"] = "192.0.2.2/24".into();
        machine.succeed("ADD", "c1", &conf);
    });
}

#[test]
fn a_container_on_two_networks_has_the_ports_of_both() {
    on_machine("nft", |machine| {
        let first = mapped(conf("nftables", &BOTH), &["tcp 8080:80", "tcp 9090:90"]);
        let second = conf("nftables", &["10.0.0.3/24", "2001:db8::3/64"]);
        let mut second = mapped(second, &["tcp 8081:81", "tcp 9090:91"]);
        second["name"] = "cbr1".into();
        machine.succeed("ADD", "c1", &first);
        let rules = || -> Vec<String> {
            let text = machine.run("nft", "list ruleset");
            let lines = text.lines().filter(|it| it.contains("\"c1\""));
            lines.map(|it| it.trim().to_owned()).collect()
        };
        let of_first = rules();
        machine.succeed("ADD", "c1", &second);
        let of_both = rules();
        for rule in &of_first {
            assert!(of_both.contains(rule), "{rule} is gone: {of_both:#?}");
        }
        assert_eq!(of_both.len(), 2 * of_first.len(), "{of_both:#?}");
        // The same port leads to where it was led last.
        let leads = |to: &str| of_both.iter().position(|it| it.contains(to)).unwrap();
        assert!(leads("10.0.0.3:91") < leads("10.0.0.2:90"), "{of_both:#?}");
        // Once more, each replaces its own.
        for conf in [&second, &first] {
            machine.succeed("ADD", "c1", conf);
            let sorted = |mut lines: Vec<String>| {
                lines.sort_unstable();
                lines
            };
            assert_eq!(sorted(rules()), sorted(of_both.clone()));
            machine.succeed("CHECK", "c1", conf);
        }
    });
}

#[test]
fn t20_del_by_nft_leaves_the_shared_chains_only() {
    on_machine("nft", |machine| {
        let conf = mapped(conf("nftables", &BOTH), &["tcp 8080:80", "udp 8080:81"]);
        machine.succeed("ADD", "c1", &conf);
        let tables = || {
            ["ip", "ip6"]
                .map(|family| machine.tool("nft", &format!("list table {family} cni_hostport")))
        };
        for table in tables() {
            assert_eq!(
                table.matches("comment \"c1\"").count(),
                if table.starts_with("table ip6") { 3 } else { 4 }
            );
        }
        machine.succeed("DEL", "c1", &conf);
        for table in tables() {
            assert!(!table.contains("comment \"c1\""), "{table}");
            for left in [
                "jump hostip_hostports",
                "jump hostports\n",
                "chain masquerading",
                "comment \"CNI portmap plugin\"",
            ] {
                assert!(table.contains(left), "{left} is not in {table}");
            }
            assert_eq!(
                table
                    .matches("fib daddr type local jump hostports_all")
                    .count(),
                2
            );
        }
        assert!(!machine.tool("nft", "list ruleset").contains("-c1\""));
    });
}

#[test]
fn t21_check_by_nft_tells_what_is_there_from_what_is_not() {
    for address in BOTH {
        on_machine("nft", |machine| {
            let mut conf = conf("nftables", &[address]);
            let check = |conf: &Value| machine.call("CHECK", "c1", conf);
            let (code, msg, _) = failed(&check(&conf));
            assert_eq!(code, 102);
            assert!(
                msg.starts_with("failed to run nft: Error: No such file or directory"),
                "{msg}"
            );
            conf["snat"] = false.into();
            machine.succeed("ADD", "c1", &conf);
            succeeded(&check(&conf));
            conf["snat"] = true.into();
            let (_, msg, _) = failed(&check(&conf));
            assert!(msg.contains("masquerading"), "{msg}");
            machine.succeed("ADD", "c1", &conf);
            succeeded(&check(&conf));
            machine.succeed("DEL", "c1", &conf);
            assert_eq!(
                failed(&check(&conf)).1,
                "missing hostport rules in \"hostports\" chain"
            );
        });
    }
}

// T18, T19: what nft lists is what was meant.
#[test]
fn t18_t19_nft_lists_what_was_written() {
    on_machine("nft", |machine| {
        let mut conf = mapped(conf("nftables", &BOTH), &["TCP 8080:80", "udp 8080:81"]);
        conf["conditionsV4"] = json!(["ip saddr", "!=", "192.0.2.0/24"]);
        machine.succeed("ADD", "c1", &conf);
        let four = machine.tool("nft", "list table ip cni_hostport");
        let expected = expect_test::expect![[r#"
            table ip cni_hostport {
            	comment "CNI portmap plugin"
            	chain hostports {
            		ip saddr != 192.0.2.0/24 tcp dport 8080 dnat to 10.0.0.2:80 comment "c1"
            		ip saddr != 192.0.2.0/24 udp dport 8080 dnat to 10.0.0.2:81 comment "c1"
            	}

            	chain hostip_hostports {
            	}

            	chain hostports_all {
            		jump hostip_hostports
            		jump hostports
            	}

            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		fib daddr type local jump hostports_all
            	}

            	chain output {
            		type nat hook output priority -100; policy accept;
            		fib daddr type local jump hostports_all
            	}

            	chain masquerading {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr 10.0.0.2 ip daddr 10.0.0.2 masquerade comment "c1"
            		ip saddr 127.0.0.1 ip daddr 10.0.0.2 masquerade comment "c1"
            	}
            }
        "#]];
        expected.assert_eq(&four);
        let six = machine.tool("nft", "list table ip6 cni_hostport");
        assert!(
            six.contains("\t\ttcp dport 8080 dnat to [2001:db8::2]:80 comment \"c1\"\n"),
            "{six}"
        );
    });
}

// K21
#[test]
fn k21_conditions_concern_their_own_container() {
    on_machine("nft", |machine| {
        let mut first = conf("nftables", &["10.0.0.2/24"]);
        first["conditionsV4"] = json!(["ip saddr 192.0.2.1"]);
        machine.succeed("ADD", "c1", &first);
        machine.succeed(
            "ADD",
            "c2",
            &mapped(conf("nftables", &["10.0.0.3/24"]), &["tcp 81:81"]),
        );
        let table = machine.tool("nft", "list table ip cni_hostport");
        assert!(
            table.contains("ip saddr 192.0.2.1 tcp dport 8080 dnat to 10.0.0.2:80 comment \"c1\""),
            "{table}"
        );
        assert!(
            table.contains("\t\ttcp dport 81 dnat to 10.0.0.3:81 comment \"c2\""),
            "{table}"
        );
        // The reference's conditions, and a container of its.
        machine.tool("nft", "flush chain ip cni_hostport prerouting");
        machine.tool(
            "nft",
            "add rule ip cni_hostport prerouting ip saddr 192.0.2.1 fib daddr type local jump hostports_all",
        );
        machine.succeed("ADD", "c3", &mapped(first.clone(), &["tcp 82:82"]));
        let table = machine.tool("nft", "list table ip cni_hostport");
        assert!(
            table.contains("ip saddr 192.0.2.1 fib daddr type local jump hostports_all"),
            "{table}"
        );
    });
}
