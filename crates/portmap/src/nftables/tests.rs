use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::config::Backend;
use crate::iptables::tests::eight;

const OWNER: Owner<'static> = Owner {
    network: "cbr0",
    container_id: "icee6giejonei6so",
};

fn config(mut conf: Value) -> Config {
    conf["backend"] = "nftables".into();
    Config::read(&conf, || Backend::Nftables).unwrap()
}

fn nothing() -> Seen {
    let family = |family| SeenFamily {
        family,
        chains: Vec::new(),
        prerouting: Vec::new(),
        output: Vec::new(),
        hostports_all: Vec::new(),
        hostports: Vec::new(),
        hostip_hostports: Vec::new(),
        masquerading: Vec::new(),
    };
    Seen {
        families: [family(Family::Ipv4), family(Family::Ipv6)],
        owners: Vec::new(),
    }
}

fn statements(seen: &Seen, config: &Config, addresses: &[&str]) -> Vec<String> {
    let addresses: Vec<IpNetwork> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    attach(seen, &OWNER, config, &addresses, true)
}

fn check(lines: &[String], expected: &Expect) {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    expected.assert_eq(&lines.concat());
}

fn masquerading_lines(config: &Config, address: &str) -> Vec<String> {
    let lines = statements(&nothing(), config, &[address]);
    lines
        .into_iter()
        .filter(|line| line.starts_with("add rule") && line.contains(" masquerading "))
        .collect()
}

// The reference has the conditions before `fib daddr type local`, for all containers.
#[test]
fn t18_the_rules_of_eight_mappings() {
    let conditions = json!({ "conditionsV4": ["ip", "saddr", "!=", "1.2.3.4"], "conditionsV6": ["ip6 saddr != 12::34"] });
    check(
        &statements(&nothing(), &config(eight(conditions)), &["10.0.0.2/24"]),
        &expect![[r#"
        add table ip cni_hostport { comment "CNI portmap plugin" ; }
        add chain ip cni_hostport hostports
        add chain ip cni_hostport hostip_hostports
        add chain ip cni_hostport hostports_all
        flush chain ip cni_hostport hostports_all
        add rule ip cni_hostport hostports_all jump hostip_hostports
        add rule ip cni_hostport hostports_all jump hostports
        add chain ip cni_hostport prerouting { type nat hook prerouting priority -100 ; }
        flush chain ip cni_hostport prerouting
        add rule ip cni_hostport prerouting fib daddr type local jump hostports_all
        add chain ip cni_hostport output { type nat hook output priority -100 ; }
        flush chain ip cni_hostport output
        add rule ip cni_hostport output fib daddr type local jump hostports_all
        add chain ip cni_hostport masquerading { type nat hook postrouting priority 100 ; }
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 tcp dport 8081 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 udp dport 8080 dnat to 10.0.0.2:81 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 udp dport 8082 dnat to 10.0.0.2:82 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 ip daddr 192.168.0.2 tcp dport 8083 dnat to 10.0.0.2:83 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports ip saddr != 1.2.3.4 tcp dport 8084 dnat to 10.0.0.2:84 comment "icee6giejonei6so"
        add rule ip cni_hostport masquerading ip saddr 10.0.0.2 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so"
        add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so"
        add table inet cni_hostport_owners
        add chain inet cni_hostport_owners attachments
        add rule inet cni_hostport_owners attachments return comment "cb6e746fae1a4d6c-icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t19_ipv6_without_source_translation() {
    let config = config(eight(json!({ "snat": false })));
    check(
        &statements(&nothing(), &config, &["2001:db8::2/64"])[..18],
        &expect![[r#"
        add table ip6 cni_hostport { comment "CNI portmap plugin" ; }
        add chain ip6 cni_hostport hostports
        add chain ip6 cni_hostport hostip_hostports
        add chain ip6 cni_hostport hostports_all
        flush chain ip6 cni_hostport hostports_all
        add rule ip6 cni_hostport hostports_all jump hostip_hostports
        add rule ip6 cni_hostport hostports_all jump hostports
        add chain ip6 cni_hostport prerouting { type nat hook prerouting priority -100 ; }
        flush chain ip6 cni_hostport prerouting
        add rule ip6 cni_hostport prerouting fib daddr type local jump hostports_all
        add chain ip6 cni_hostport output { type nat hook output priority -100 ; }
        flush chain ip6 cni_hostport output
        add rule ip6 cni_hostport output fib daddr type local jump hostports_all
        add rule ip6 cni_hostport hostports tcp dport 8080 dnat to [2001:db8::2]:80 comment "icee6giejonei6so"
        add rule ip6 cni_hostport hostports tcp dport 8081 dnat to [2001:db8::2]:80 comment "icee6giejonei6so"
        add rule ip6 cni_hostport hostports udp dport 8080 dnat to [2001:db8::2]:81 comment "icee6giejonei6so"
        add rule ip6 cni_hostport hostports udp dport 8082 dnat to [2001:db8::2]:82 comment "icee6giejonei6so"
        add rule ip6 cni_hostport hostports ip6 daddr 2001:db8:a::1 tcp dport 8085 dnat to [2001:db8::2]:85 comment "icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t22_masquerading_everything_in_ipv4() {
    let config = config(eight(json!({ "masqAll": true })));
    check(
        &masquerading_lines(&config, "10.0.0.2/24"),
        &expect![[r#"
        add rule ip cni_hostport masquerading ip saddr 0.0.0.0/0 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t23_masquerading_only_what_must_be_in_ipv4() {
    check(
        &masquerading_lines(&config(eight(json!({}))), "10.0.0.2/24"),
        &expect![[r#"
        add rule ip cni_hostport masquerading ip saddr 10.0.0.2 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so"
        add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t24_masquerading_everything_in_ipv6() {
    let config = config(eight(json!({ "masqAll": true })));
    check(
        &masquerading_lines(&config, "2001:db8::2/64"),
        &expect![[r#"
        add rule ip6 cni_hostport masquerading ip6 saddr ::/0 ip6 daddr 2001:db8::2 masquerade comment "icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t25_masquerading_only_what_must_be_in_ipv6() {
    check(
        &masquerading_lines(&config(eight(json!({}))), "2001:db8::2/64"),
        &expect![[r#"
        add rule ip6 cni_hostport masquerading ip6 saddr 2001:db8::2 ip6 daddr 2001:db8::2 masquerade comment "icee6giejonei6so"
    "#]],
    );
}

#[test]
fn t26_as_many_rules_are_expected_as_are_made() {
    for (keys, four, six) in [
        (json!({}), 2, 1),
        (json!({ "masqAll": true }), 1, 1),
        (json!({ "snat": false }), 0, 0),
        (json!({ "snat": false, "masqAll": true }), 0, 0),
    ] {
        let config = config(eight(keys));
        assert_eq!(expected(&config, Family::Ipv4), (6, four));
        assert_eq!(expected(&config, Family::Ipv6), (6, six));
        for (address, count) in [("10.0.0.2/24", four), ("2001:db8::2/64", six)] {
            assert_eq!(masquerading_lines(&config, address).len(), count);
        }
    }
}

#[test]
fn a_note_is_cut_where_a_comment_ends() {
    let id = "c".repeat(200);
    let long = Owner {
        network: "cbr0",
        container_id: &id,
    };
    assert_eq!((note(&long).len(), comment(&id).len()), (128, 128));
    assert!(is_about(&note(&long), &id));
    assert!(is_about(&note(&OWNER), OWNER.container_id) && !is_about(&note(&OWNER), "icee"));
    assert_eq!(parse_note("short"), None);
    assert_eq!(parse_note("ääääääääääääää"), None);
}

fn rule(handle: u64, id: &str) -> PortRule {
    PortRule {
        handle,
        comment: Some(id.to_owned()),
        ..PortRule::default()
    }
}

#[test]
fn gc_needs_a_note_and_spares_who_is_on_another_network() {
    let mut seen = nothing();
    seen.families[0].hostports = vec![
        rule(1, "dead"),
        rule(2, "alive"),
        rule(3, "both"),
        rule(4, "the-reference-s"),
    ];
    seen.families[1].masquerading = vec![rule(5, "dead")];
    let noted = |handle, network, container_id| {
        rule(
            handle,
            &note(&Owner {
                network,
                container_id,
            }),
        )
    };
    seen.owners = vec![
        noted(10, "cbr0", "dead"),
        noted(11, "cbr0", "alive"),
        noted(12, "cbr0", "both"),
        noted(13, "cbr1", "both"),
        noted(14, "cbr1", "other"),
    ];
    check(
        &collect(&seen, "cbr0", &["alive"]),
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 1
        delete rule ip6 cni_hostport masquerading handle 5
        delete rule inet cni_hostport_owners attachments handle 10
        delete rule inet cni_hostport_owners attachments handle 12
    "#]],
    );
    assert_eq!(collect(&seen, "cbr0", &["dead", "alive", "both"]), [""; 0]);
    check(
        &detach(&seen, "both"),
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 3
        delete rule inet cni_hostport_owners attachments handle 12
        delete rule inet cni_hostport_owners attachments handle 13
    "#]],
    );
}

// K11
#[test]
fn k11_the_newest_rule_for_a_port_is_first_and_rules_of_the_dead_go() {
    let mut seen = nothing();
    let leading = |handle, id: &str, port, to: &str| PortRule {
        ports: vec![port],
        protocol: Some(6),
        to: Some((to.parse().unwrap(), Some(80))),
        ..rule(handle, id)
    };
    seen.families[0].hostports = vec![
        leading(1, "older", 8080, "10.0.0.9"),
        leading(2, "dead", 9999, "10.0.0.2"),
        leading(3, "other", 8081, "10.0.0.8"),
    ];
    seen.families[0].masquerading = vec![rule(4, "dead"), rule(5, "older")];
    let mut conf = eight(json!({}));
    conf["runtimeConfig"]["portMappings"] = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8081, "containerPort": 80, "protocol": "udp" },
    ]);
    let lines = statements(&seen, &config(conf), &["10.0.0.2/24"]);
    let lines: Vec<String> = lines
        .into_iter()
        .filter(|it| it.starts_with("delete") || it.contains(" hostports ") && it.contains("dnat"))
        .collect();
    check(
        &lines,
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 2
        delete rule ip cni_hostport masquerading handle 4
        insert rule ip cni_hostport hostports tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
        add rule ip cni_hostport hostports udp dport 8081 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
    "#]],
    );
}

// K21
#[test]
fn k21_conditions_that_others_rely_on_stay() {
    let jump = |expressions| PortRule {
        jump: Some(HOSTPORTS_ALL.to_owned()),
        expressions,
        ..PortRule::default()
    };
    let flushes = |seen: &Seen, keys: Value| {
        let lines = statements(seen, &config(eight(keys)), &["10.0.0.2/24"]);
        lines
            .iter()
            .any(|line| line == "flush chain ip cni_hostport prerouting")
    };
    let ours = || json!({ "conditionsV4": ["ip saddr 1.2.3.4"] });
    let mut seen = nothing();
    seen.families[0].prerouting = vec![jump(5)];
    assert!(flushes(&seen, ours()), "nobody is there to rely on them");
    seen.families[0].hostports = vec![rule(1, "theirs")];
    assert!(!flushes(&seen, ours()));
    assert!(flushes(&seen, json!({})), "they are not wanted any more");
    seen.families[0].prerouting = vec![jump(3)];
    assert!(flushes(&seen, ours()));
}

#[test]
fn ids_of_gc_may_hold_any_letter() {
    // A letter of two bytes where there is room for one.
    for bytes in [ID_LENGTH, COMMENT_LENGTH] {
        let id = format!("{}ä", "c".repeat(bytes - 1));
        assert_eq!(collect(&nothing(), "cbr0", &[&id]), [""; 0]);
        let owner = Owner {
            network: "cbr0",
            container_id: &id,
        };
        assert!(comment(&id).len() <= COMMENT_LENGTH);
        let mut seen = nothing();
        seen.owners = vec![rule(1, &note(&owner)), rule(2, &note(&OWNER))];
        assert!(seen.owners[0].comment.as_ref().unwrap().len() <= COMMENT_LENGTH);
        let lines = collect(&seen, "cbr0", &[&id]);
        let other = "delete rule inet cni_hostport_owners attachments handle 2";
        assert_eq!(lines, [other]);
    }
}

#[test]
fn add_on_another_network_spares_the_rules_of_the_first() {
    let id = OWNER.container_id;
    let redirecting = |handle, port, to: &str| PortRule {
        ports: vec![port],
        protocol: Some(6),
        to: Some((to.parse().unwrap(), Some(80))),
        ..rule(handle, id)
    };
    let masquerading = |handle, to: &str| PortRule {
        destination: Some(to.parse().unwrap()),
        ..rule(handle, id)
    };
    let mut seen = nothing();
    seen.families[0].hostports = vec![
        redirecting(1, 8080, "10.1.0.2"),
        redirecting(2, 8080, "10.0.0.2"),
    ];
    seen.families[0].masquerading = vec![masquerading(3, "10.1.0.2"), masquerading(4, "10.0.0.2")];
    seen.families[1].hostports = vec![redirecting(5, 8080, "2001:db8::2")];
    let changes = |seen: &Seen| -> Vec<String> {
        let mut conf = eight(json!({}));
        conf["runtimeConfig"]["portMappings"] =
            json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
        let lines = statements(seen, &config(conf), &["10.0.0.2/24"]);
        let is_change = |it: &String| it.starts_with("delete") || it.contains("dnat");
        lines.into_iter().filter(is_change).collect()
    };
    seen.owners = vec![rule(
        9,
        &note(&Owner {
            network: "another",
            ..OWNER
        }),
    )];
    check(
        &changes(&seen),
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 2
        delete rule ip cni_hostport masquerading handle 4
        insert rule ip cni_hostport hostports tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
    "#]],
    );
    // Without another network all were its own.
    seen.owners = vec![rule(9, &note(&OWNER))];
    check(
        &changes(&seen),
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 1
        delete rule ip cni_hostport hostports handle 2
        delete rule ip cni_hostport masquerading handle 3
        delete rule ip cni_hostport masquerading handle 4
        add rule ip cni_hostport hostports tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so"
        delete rule ip6 cni_hostport hostports handle 5
    "#]],
    );
}

#[test]
fn only_what_add_has_made_is_taken_back() {
    let id = OWNER.container_id;
    let mut before = nothing();
    before.families[0].hostports = vec![rule(1, id), rule(2, "other")];
    before.owners = vec![rule(9, &note(&OWNER))];
    assert_eq!(undo(&before, &before, id), [""; 0]);
    let mut now = before.clone();
    now.families[0]
        .hostports
        .extend([rule(3, id), rule(4, "other")]);
    now.families[1].masquerading = vec![rule(5, id)];
    let another = Owner {
        network: "another",
        ..OWNER
    };
    now.owners.push(rule(10, &note(&another)));
    check(
        &undo(&before, &now, id),
        &expect![[r#"
        delete rule ip cni_hostport hostports handle 3
        delete rule ip6 cni_hostport masquerading handle 5
        delete rule inet cni_hostport_owners attachments handle 10
    "#]],
    );
}
