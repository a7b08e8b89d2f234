use cni_net::firewall::iptables::Rule;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::config::Backend;

const LONG_ID: &str = "icee6giejonei6sohng6ahngee7laquohquee9shiGo7fohferakah3Feiyoolu2pei7ciPhoh7shaoX6vai3vuf0ahfaeng8yohb9ceu0daez5hashee8ooYai5wa3y";

const OWNER: Owner<'static> = Owner {
    network: "cbr0",
    container_id: "c1",
};

fn config(conf: Value) -> Config {
    Config::read(&conf, || Backend::Iptables).unwrap()
}

/// Eight mappings of all kinds.
pub(crate) fn eight(keys: Value) -> Value {
    let mapping = |host: u16, protocol: &str, ip: &str| json!({ "hostPort": host, "containerPort": host - 8000, "protocol": protocol, "hostIP": ip });
    let mut conf = json!({
        "name": "test", "cniVersion": "1.0.0",
        "runtimeConfig": { "portMappings": [
            mapping(8080, "tcp", ""),
            { "hostPort": 8081, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 8080, "containerPort": 81, "protocol": "udp" },
            mapping(8082, "udp", ""),
            mapping(8083, "tcp", "192.168.0.2"),
            mapping(8084, "tcp", "0.0.0.0"),
            mapping(8085, "tcp", "2001:db8:a::1"),
            mapping(8086, "tcp", "::"),
        ] },
    });
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// One port, and these keys.
fn one(keys: Value) -> Config {
    let mut conf = eight(keys);
    conf["runtimeConfig"]["portMappings"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    config(conf)
}

fn own(config: &Config, container: &str) -> Own {
    Own::new(
        &Owner {
            network: "testNetName",
            container_id: "c1",
        },
        config,
        container.parse().unwrap(),
    )
}

fn check(rules: &[Rule], expected: &Expect) {
    let lines: Vec<String> = rules.iter().map(|rule| format!("{rule}\n")).collect();
    expected.assert_eq(
        &lines
            .concat()
            .replace("CNI-DN-c4f17ad0044b7038ab081", "CHAIN"),
    );
}

fn changes(changes: &[Change], expected: &Expect) {
    let lines: Vec<String> = changes.iter().map(|change| format!("{change}\n")).collect();
    expected.assert_eq(&lines.concat());
}

/// What `iptables-save` would print after these changes; enough of it for changes of ours.
fn apply(saved: &Saved, changes: &[Change]) -> Saved {
    let mut saved = saved.clone();
    for change in changes {
        match change {
            Change::NewChain(chain) => {
                assert!(!saved.has_chain(chain), "{chain} is there");
                saved.chains.push(chain.clone());
            }
            Change::FlushChain(chain) => saved.rules.retain(|rule| rule.chain != *chain),
            Change::DeleteChain(chain) => {
                assert_eq!(
                    saved.rules_of(chain).chain(saved.jumps_to(chain)).count(),
                    0
                );
                saved.chains.retain(|it| it != chain);
            }
            Change::Append(rule) => saved.rules.push(rule.clone()),
            Change::Insert(rule) => saved.rules.insert(0, rule.clone()),
            Change::Delete(rule) => {
                let at = saved
                    .rules
                    .iter()
                    .position(|it| it == rule)
                    .expect("it is there");
                saved.rules.remove(at);
            }
        }
    }
    saved
}

fn attached(saved: &Saved, config: &Config, id: &str, container: &str) -> Saved {
    let owner = Owner {
        network: "cbr0",
        container_id: id,
    };
    let own = Own::new(&owner, config, container.parse().unwrap());
    apply(saved, &attach(saved, &Shared::of(config), &own))
}

fn entries(saved: &Saved) -> Vec<String> {
    saved
        .rules_of(DNAT)
        .map(|it| {
            parse_comment(it.value("--comment").unwrap())
                .unwrap()
                .1
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn t10_names() {
    let chain = |network, container_id| {
        Owner {
            network,
            container_id,
        }
        .chain()
    };
    assert_eq!(
        chain("testNetName", LONG_ID),
        "CNI-DN-bfd599665540dd91d5d28"
    );
    assert_eq!(chain("test", LONG_ID), "CNI-DN-67e92b96e692a494b6b85");
    assert_eq!(chain("cbr0", "c1"), "CNI-DN-68f1f1eeb62cad3d0bdd5");
    assert_eq!(
        OWNER.chains(),
        [
            "CNI-DN-68f1f1eeb62cad3d0bdd5",
            "CNI-SN-68f1f1eeb62cad3d0bdd5"
        ]
    );
    assert_eq!((TABLE, DNAT), ("nat", "CNI-HOSTPORT-DNAT"));
    let entries = own(&one(json!({})), "10.0.0.2/24").entries;
    assert!(entries.iter().all(|entry| entry.chain == DNAT));
}

#[test]
fn t11_entry_rules() {
    let conf = eight(json!({ "conditionsV4": ["-a", "b"], "conditionsV6": ["-c", "d"] }));
    let config = config(conf);
    check(
        &own(&config, "10.0.0.2/24").entries,
        &expect![[r#"
        CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"testNetName\" id: \"c1\"" -m multiport -p tcp --destination-ports 8080,8081,8083,8084,8085,8086 -a b -j CHAIN
        CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"testNetName\" id: \"c1\"" -m multiport -p udp --destination-ports 8080,8082 -a b -j CHAIN
    "#]],
    );
    check(
        &own(&config, "2001:db8::2/64").entries,
        &expect![[r#"
        CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"testNetName\" id: \"c1\"" -m multiport -p tcp --destination-ports 8080,8081,8083,8084,8085,8086 -c d -j CHAIN
        CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"testNetName\" id: \"c1\"" -m multiport -p udp --destination-ports 8080,8082 -c d -j CHAIN
    "#]],
    );
}

#[test]
fn fifteen_ports_fit_into_an_entry() {
    let mapping = |port: usize| json!({ "hostPort": port, "containerPort": 1, "protocol": "TCP" });
    let mappings: Value = (1..=31).map(mapping).collect();
    let config = one(json!({}));
    let config = Config {
        mappings: self::config(
            json!({ "name": "n", "runtimeConfig": { "portMappings": mappings } }),
        )
        .mappings,
        ..config
    };
    let entries = own(&config, "10.0.0.2/24").entries;
    let ports: Vec<&str> = entries
        .iter()
        .map(|it| it.value("--destination-ports").unwrap())
        .collect();
    assert_eq!(
        ports,
        [
            "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
            "31"
        ]
    );
}

#[test]
fn a_long_comment_is_cut() {
    let (network, id) = ("n".repeat(200), "c".repeat(64));
    let comment = Owner {
        network: &network,
        container_id: &id,
    }
    .comment();
    assert_eq!(comment.len(), 256);
    assert!(comment.ends_with("cc..."), "{comment}");
    assert_eq!(parse_comment(&comment), Some((network.as_str(), None)));
    assert_eq!(parse_comment(&OWNER.comment()), Some(("cbr0", Some("c1"))));
    assert_eq!(parse_comment("name: \"a\" id: \"b\""), None);
}

#[test]
fn t12_the_containers_rules_in_ipv4() {
    check(
        &own(&config(eight(json!({}))), "10.0.0.2/24").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8080 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
        CHAIN -p tcp --dport 8081 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8081 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8081 -j DNAT --to-destination 10.0.0.2:80
        CHAIN -p udp --dport 8080 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8080 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8080 -j DNAT --to-destination 10.0.0.2:81
        CHAIN -p udp --dport 8082 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8082 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8082 -j DNAT --to-destination 10.0.0.2:82
        CHAIN -p tcp --dport 8083 -d 192.168.0.2 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8083 -d 192.168.0.2 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8083 -d 192.168.0.2 -j DNAT --to-destination 10.0.0.2:83
        CHAIN -p tcp --dport 8084 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8084 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8084 -j DNAT --to-destination 10.0.0.2:84
    "#]],
    );
}

#[test]
fn t13_the_containers_rules_in_ipv6() {
    check(
        &own(&config(eight(json!({}))), "2001:db8::2/64").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination "[2001:db8::2]:80"
        CHAIN -p tcp --dport 8081 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8081 -j DNAT --to-destination "[2001:db8::2]:80"
        CHAIN -p udp --dport 8080 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8080 -j DNAT --to-destination "[2001:db8::2]:81"
        CHAIN -p udp --dport 8082 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p udp --dport 8082 -j DNAT --to-destination "[2001:db8::2]:82"
        CHAIN -p tcp --dport 8085 -d 2001:db8:a::1 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8085 -d 2001:db8:a::1 -j DNAT --to-destination "[2001:db8::2]:85"
        CHAIN -p tcp --dport 8086 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8086 -j DNAT --to-destination "[2001:db8::2]:86"
    "#]],
    );
}

#[test]
fn t14_without_source_translation_there_are_destination_rules_only() {
    let config = one(json!({ "snat": false }));
    check(
        &own(&config, "10.0.0.2/24").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
    "#]],
    );
    check(
        &own(&config, "2001:db8::2/64").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination "[2001:db8::2]:80"
    "#]],
    );
    assert_eq!(Shared::of(&config).mark, None);
}

#[test]
fn what_two_mappings_have_in_common_is_there_once() {
    let mapping =
        |container: u16| json!({ "hostPort": 80, "containerPort": container, "protocol": "tcp" });
    let mappings = json!([mapping(80), mapping(81), mapping(80)]);
    let config = config(json!({
        "name": "test", "cniVersion": "1.0.0", "runtimeConfig": { "portMappings": mappings },
    }));
    check(
        &own(&config, "2001:db8::2/64").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 80 -s 2001:db8::2/64 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 80 -j DNAT --to-destination "[2001:db8::2]:80"
        CHAIN -p tcp --dport 80 -j DNAT --to-destination "[2001:db8::2]:81"
    "#]],
    );
}

#[test]
fn t15_a_mark_chain_of_somebody_else_is_used_if_named() {
    let config = one(json!({ "externalSetMarkChain": "PLZ-SET-MARK" }));
    check(
        &own(&config, "10.0.0.2/24").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -s 10.0.0.2/24 -j PLZ-SET-MARK
        CHAIN -p tcp --dport 8080 -s 127.0.0.1 -j PLZ-SET-MARK
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
    "#]],
    );
    assert_eq!(Shared::of(&config).mark, None);
}

#[test]
fn masquerading_all_leaves_no_room_for_more() {
    let config = one(json!({ "masqAll": true }));
    check(
        &own(&config, "10.0.0.2/24").rules,
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -s 0.0.0.0/0 -j CNI-HOSTPORT-SETMARK
        CHAIN -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
    "#]],
    );
    check(
        &own(&config, "2001:db8::2/64").rules[..1],
        &expect![[r#"
        CHAIN -p tcp --dport 8080 -s ::/0 -j CNI-HOSTPORT-SETMARK
    "#]],
    );
}

#[test]
fn t16_the_entries_are_reached_last_and_for_local_destinations_only() {
    changes(
        &Shared { mark: None }.missing(&Saved::default()),
        &expect![[r#"
        -N CNI-HOSTPORT-DNAT
        -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
    "#]],
    );
}

#[test]
fn t17_the_marking_bit() {
    let shared = Shared::of(&one(json!({ "markMasqBit": 5 })));
    changes(
        &shared.missing(&Saved::default()),
        &expect![[r#"
        -N CNI-HOSTPORT-SETMARK
        -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x20/0x20
        -N CNI-HOSTPORT-MASQ
        -A CNI-HOSTPORT-MASQ -m mark --mark 0x20/0x20 -j MASQUERADE
        -I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
        -N CNI-HOSTPORT-DNAT
        -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
    "#]],
    );
    let complete = apply(&Saved::default(), &shared.missing(&Saved::default()));
    assert_eq!(shared.missing(&complete), []);
    // Another bit is one more rule in each chain, as the reference has it.
    changes(
        &Shared { mark: Some(0x40) }.missing(&complete),
        &expect![[r#"
        -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x40/0x40
        -A CNI-HOSTPORT-MASQ -m mark --mark 0x40/0x40 -j MASQUERADE
    "#]],
    );
}

#[test]
fn a_second_add_replaces_what_has_changed() {
    let config = one(json!({}));
    let first = attached(&Saved::default(), &config, "c1", "10.0.0.2/24");
    assert_eq!(attached(&first, &config, "c1", "10.0.0.2/24"), first);
    let own = |container: &str| Own::new(&OWNER, &config, container.parse().unwrap());
    changes(
        &attach(&first, &Shared::of(&config), &own("10.0.0.3/24")),
        &expect![[r#"
        -F CNI-DN-68f1f1eeb62cad3d0bdd5
        -A CNI-DN-68f1f1eeb62cad3d0bdd5 -p tcp --dport 8080 -s 10.0.0.3/24 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-68f1f1eeb62cad3d0bdd5 -p tcp --dport 8080 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
        -A CNI-DN-68f1f1eeb62cad3d0bdd5 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.3:80
    "#]],
    );
    let second = attached(&first, &config, "c1", "10.0.0.3/24");
    let before = present(&first, &OWNER.chain());
    let restored = apply(&second, &restore(&second, &OWNER.chain(), before.as_ref()));
    assert!(same_list(
        &restored.rules_of(&OWNER.chain()).collect::<Vec<_>>(),
        &own("10.0.0.2/24").rules
    ));
    let gone = apply(&second, &restore(&second, &OWNER.chain(), None));
    assert!(!gone.has_chain(&OWNER.chain()) && gone.rules_of(DNAT).next().is_none());
}

// K11
#[test]
fn k11_a_new_entry_is_last_unless_it_is_for_the_very_same_port() {
    let (web, dns) = (
        one(json!({})),
        one(json!({ "runtimeConfig": { "portMappings": [
        { "hostPort": 53, "containerPort": 53, "protocol": "udp" },
    ] } })),
    );
    let mut saved = attached(&Saved::default(), &web, "old", "10.0.0.2/24");
    saved = attached(&saved, &dns, "dns", "10.0.0.3/24");
    assert_eq!(entries(&saved), ["old", "dns"]);
    saved = attached(&saved, &web, "new", "10.0.0.4/24");
    assert_eq!(entries(&saved), ["new", "old", "dns"]);
    // It stays where it is.
    assert_eq!(attached(&saved, &web, "new", "10.0.0.4/24"), saved);
}

// K11
#[test]
fn k11_a_rule_for_one_address_is_not_overtaken_by_one_for_all() {
    let at = |ip: &str| {
        let mapping =
            json!({ "hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": ip });
        one(json!({ "runtimeConfig": { "portMappings": [mapping] } }))
    };
    let check = |first: &str, second: &str, expected: [&str; 2]| {
        let saved = attached(&Saved::default(), &at(first), "first", "10.0.0.2/24");
        let saved = attached(&saved, &at(second), "second", "10.0.0.3/24");
        assert_eq!(entries(&saved), expected, "{first} then {second}");
    };
    check("", "", ["second", "first"]);
    check("192.0.2.1", "192.0.2.1", ["second", "first"]);
    check("", "192.0.2.1", ["second", "first"]);
    check("192.0.2.1", "", ["first", "second"]);
    check("192.0.2.1", "192.0.2.2", ["first", "second"]);
}

// K11
#[test]
fn k11_rules_to_an_address_that_is_somebody_elses_now_go() {
    let config = one(json!({}));
    let mut saved = attached(&Saved::default(), &config, "dead", "10.0.0.2/24");
    saved = attached(&saved, &config, "alive", "10.0.0.3/24");
    saved = attached(&saved, &config, "new", "10.0.0.2/24");
    assert_eq!(entries(&saved), ["new", "alive"]);
    assert!(
        !saved.has_chain(
            &Owner {
                network: "cbr0",
                container_id: "dead"
            }
            .chain()
        )
    );
}

#[test]
fn del_finds_its_own_chain_under_any_name_of_the_network() {
    let config = one(json!({}));
    let saved = attached(&Saved::default(), &config, "c1", "10.0.0.2/24");
    let saved = attached(&saved, &config, "c2", "10.0.0.3/24");
    let chain = OWNER.chain();
    let left = |network, container_id, is_its_own: bool| {
        let owner = Owner {
            network,
            container_id,
        };
        left_by(&saved, &owner, |ip| {
            assert_eq!(ip.to_string(), "10.0.0.2");
            is_its_own
        })
    };
    assert_eq!(left("cbr0", "c1", false), [&chain]);
    assert_eq!(left("renamed", "c1", true), [&chain]);
    assert_eq!(
        left("renamed", "c1", false),
        [""; 0],
        "it belongs to another interface"
    );
    assert_eq!(left("cbr0", "c3", true), [""; 0]);
    changes(
        &detach(&saved, &[&chain]),
        &expect![[r#"
        -D CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"cbr0\" id: \"c1\"" -m multiport -p tcp --destination-ports 8080 -j CNI-DN-68f1f1eeb62cad3d0bdd5
        -F CNI-DN-68f1f1eeb62cad3d0bdd5
        -X CNI-DN-68f1f1eeb62cad3d0bdd5
    "#]],
    );
}

#[test]
fn gc_takes_what_nobody_valid_owns_and_other_networks_not() {
    let config = one(json!({}));
    let mut saved = Saved::default();
    for (id, ip) in [("c1", "10.0.0.2/24"), ("c2", "10.0.0.3/24")] {
        saved = attached(&saved, &config, id, ip);
    }
    let other = Owner {
        network: "cbr1",
        container_id: "c3",
    };
    let own = Own::new(&other, &config, "10.1.0.2/24".parse().unwrap());
    saved = apply(&saved, &attach(&saved, &Shared::of(&config), &own));
    let chain = |id| {
        Owner {
            network: "cbr0",
            container_id: id,
        }
        .chain()
    };
    assert_eq!(unowned(&saved, "cbr0", &[chain("c2")]), [&chain("c1")]);
    assert_eq!(
        unowned(&saved, "cbr0", &[chain("c1"), chain("c2")]),
        [""; 0]
    );
    assert_eq!(unowned(&saved, "cbr1", &[]), [&other.chain()]);
}

#[test]
fn what_led_udp_away_is_known_from_the_rules() {
    let saved = attached(
        &Saved::default(),
        &config(eight(json!({}))),
        "c1",
        "10.0.0.2/24",
    );
    let to = "10.0.0.2".parse().unwrap();
    assert_eq!(
        udp_redirects(&saved, &[&OWNER.chain()]),
        [(8080, to), (8082, to)]
    );
}

#[test]
fn check_tells_what_is_missing() {
    let config = one(json!({}));
    let own = Own::new(&OWNER, &config, "10.0.0.2/24".parse().unwrap());
    let saved = attached(&Saved::default(), &config, "c1", "10.0.0.2/24");
    let look = |saved: &Saved| check::compare(saved, &own, |_| false).map_err(|it| it.to_string());
    assert_eq!(look(&saved), Ok(()));
    let without = |which: &dyn Fn(&Rule) -> bool| {
        let mut saved = saved.clone();
        saved.rules.retain(|rule| !which(rule));
        look(&saved).unwrap_err()
    };
    assert_eq!(
        look(&Saved::default()).unwrap_err(),
        "chain CNI-DN-68f1f1eeb62cad3d0bdd5 not found in iptables table nat"
    );
    assert_eq!(
        without(&|rule| rule.value("-j") == Some("DNAT")),
        "rule [[-p tcp --dport 8080 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK] [-p tcp --dport 8080 -s 127.0.0.1 -j \
         CNI-HOSTPORT-SETMARK] [-p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80]] in chain \
         CNI-DN-68f1f1eeb62cad3d0bdd5 not found in table nat"
    );
    assert_eq!(
        without(&|rule| rule.chain == DNAT),
        "rule [[-m comment --comment dnat name: \"cbr0\" id: \"c1\" -m multiport -p tcp --destination-ports 8080]] in \
         chain CNI-HOSTPORT-DNAT not found in table nat"
    );
    assert_eq!(
        without(&|rule| rule.chain == "OUTPUT"),
        "rule [[-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT]] in chain OUTPUT not found in table nat"
    );
    assert!(check::compare(&saved, &own, |_| true).is_ok());
}
