use cni_net::firewall::iptables::Family;
use cni_spec::{Code, Coded};
use serde_json::json;

use super::*;
use crate::container;
use crate::error::Error;

const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

fn with_iptables(conf: &Value) -> Result<Config, ConfigError> {
    Config::read(conf, || Backend::Iptables)
}

/// A configuration with one mapping and these keys.
fn conf(keys: Value) -> Value {
    let mut conf = json!({ "name": "test", "cniVersion": "1.0.0" });
    conf["runtimeConfig"]["portMappings"] =
        json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

fn refused(keys: Value) -> String {
    with_iptables(&conf(keys)).unwrap_err().to_string()
}

fn mapping(mapping: Value) -> Result<Mapping, ConfigError> {
    let conf = conf(json!({ "runtimeConfig": { "portMappings": [mapping] } }));
    with_iptables(&conf).map(|config| config.mappings[0].clone())
}

#[test]
fn t01_add_reads_its_configuration_and_picks_the_containers_addresses() {
    for version in VERSIONS {
        let text = format!(
            r#"{{
                "name": "test", "type": "portmap", "cniVersion": "{version}", "snat": false,
                "runtimeConfig": {{ "portMappings": [
                    {{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }},
                    {{ "hostPort": 8081, "containerPort": 81, "protocol": "udp" }}
                ] }},
                "conditionsV4": ["-s", "1.2.3.4"], "conditionsV6": ["!", "-s", "12::34"],
                "prevResult": {{
                    "interfaces": [{{ "name": "host" }}, {{ "name": "container", "sandbox": "netns" }}],
                    "ips": [
                        {{ "version": "4", "address": "10.0.0.1/24", "gateway": "10.0.0.1", "interface": 0 }},
                        {{ "version": "6", "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "interface": 1 }},
                        {{ "version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1 }}
                    ]
                }}
            }}"#
        );
        let config = with_iptables(&json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(config.masquerade, None);
        assert_eq!(config.conditions(Family::Ipv4), ["-s", "1.2.3.4"]);
        assert_eq!(config.conditions(Family::Ipv6), ["!", "-s", "12::34"]);
        let [tcp, udp] = config.mappings.as_slice() else {
            panic!("{config:?}")
        };
        assert_eq!(
            (tcp.host_port, tcp.container_port, tcp.protocol),
            (8080, 80, Protocol::Tcp)
        );
        assert_eq!(
            (udp.host_port, udp.container_port, udp.protocol),
            (8081, 81, Protocol::Udp)
        );
        let addresses = container::addresses(&config.prev_result.unwrap(), "container");
        let addresses: Vec<String> = addresses.iter().map(|it| it.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.2/24", "2001:db8:1::2/64"], "{version}");
    }
}

#[test]
fn t02_del_does_without_mappings_and_previous_result() {
    for version in VERSIONS {
        let conf = json!({ "name": "test", "type": "portmap", "cniVersion": version });
        check_readable(&conf).unwrap();
        let config = Config::read(&conf, || panic!("nobody asked for a backend")).unwrap();
        assert_eq!((config.mappings.len(), config.prev_result), (0, None));
    }
}

#[test]
fn t03_a_port_that_is_none_is_refused() {
    for version in VERSIONS {
        let mut conf = conf(json!({ "cniVersion": version }));
        conf["runtimeConfig"]["portMappings"][0]["hostPort"] = 0.into();
        let error = with_iptables(&conf).unwrap_err();
        assert_eq!(error.to_string(), "Invalid host port number: 0");
        // DEL must get through to the plugins before this one.
        check_readable(&conf).unwrap();
    }
    let text = |it: Value| mapping(it).unwrap_err().to_string();
    assert_eq!(text(json!({})), "Invalid container port number: 0");
    assert_eq!(
        text(json!({ "containerPort": 80 })),
        "Invalid host port number: 0"
    );
    assert_eq!(
        text(json!({ "containerPort": 80, "hostPort": -1 })),
        "Invalid host port number: -1"
    );
    assert_eq!(
        text(json!({ "containerPort": 80, "hostPort": 65536 })),
        "Invalid host port number: 65536"
    );
    assert_eq!(
        text(json!({ "containerPort": 70000, "hostPort": 0 })),
        "Invalid container port number: 70000"
    );
    assert!(
        mapping(json!({ "containerPort": 65535, "hostPort": 65535, "protocol": "tcp" })).is_ok()
    );
}

#[test]
fn t04_without_a_backend_what_works_here_is_taken() {
    for version in VERSIONS {
        let conf = conf(json!({ "cniVersion": version }));
        assert_eq!(with_iptables(&conf).unwrap().backend, Backend::Iptables);
        let found = Config::read(&conf, || Backend::Nftables).unwrap();
        assert_eq!(found.backend, Backend::Nftables);
    }
}

#[test]
fn t05_the_nftables_backend_can_be_asked_for() {
    for version in VERSIONS {
        let conf = conf(json!({ "cniVersion": version, "backend": "nftables" }));
        assert_eq!(with_iptables(&conf).unwrap().backend, Backend::Nftables);
    }
    assert_eq!(
        refused(json!({ "backend": "foo" })),
        "unrecognized backend \"foo\""
    );
    assert_eq!(
        refused(json!({ "backend": "" })),
        "unrecognized backend \"\""
    );
}

#[test]
fn t06_nftables_conditions_go_with_the_nftables_backend() {
    for version in VERSIONS {
        let keys = json!({
            "cniVersion": version, "backend": "nftables",
            "conditionsV4": ["ip saddr 1.2.3.4"], "conditionsV6": ["ip6 saddr != 12::34"],
        });
        let config = with_iptables(&conf(keys)).unwrap();
        assert_eq!(config.conditions(Family::Ipv4), ["ip saddr 1.2.3.4"]);
    }
    // No first word, no conditions.
    let config = with_iptables(&conf(
        json!({ "conditionsV4": ["", "ip"], "conditionsV6": [] }),
    ));
    assert_eq!(config.unwrap().conditions_v4, [""; 0]);
}

#[test]
fn t07_nftables_conditions_are_refused_with_the_iptables_backend() {
    let text = "iptables backend was requested but configuration contains nftables-specific options \
                [conditionsV4 conditionsV6]";
    for version in VERSIONS {
        let mut keys = json!({
            "cniVersion": version, "backend": "iptables",
            "conditionsV4": ["ip", "saddr", "1.2.3.4"], "conditionsV6": ["ip6", "saddr", "12::34"],
        });
        assert_eq!(refused(keys.clone()), text);
        // What is found out counts like what is asked for, also without mappings.
        keys["backend"] = Value::Null;
        keys["runtimeConfig"] = Value::Null;
        assert_eq!(refused(keys), text);
    }
}

#[test]
fn t08_what_belongs_to_iptables_is_refused_with_the_nftables_backend() {
    for version in VERSIONS {
        let mut keys = json!({
            "cniVersion": version, "backend": "nftables", "externalSetMarkChain": "KUBE-MARK-MASQ",
            "conditionsV4": ["-s", "1.2.3.4"], "conditionsV6": ["!", "-s", "12::34"],
        });
        assert_eq!(
            refused(keys.clone()),
            "nftables backend was requested but configuration contains iptables-specific options \
             [externalSetMarkChain conditionsV4 conditionsV6]"
        );
        keys["backend"] = "foo".into();
        keys["conditionsV4"] = Value::Null;
        assert_eq!(
            refused(keys),
            "foo backend was requested but configuration contains iptables-specific options \
             [externalSetMarkChain conditionsV6]"
        );
    }
}

#[test]
fn marks_that_contradict_each_other_or_do_not_exist_are_refused() {
    assert_eq!(
        refused(json!({ "externalSetMarkChain": "KUBE-MARK-MASQ", "markMasqBit": 5 })),
        "Cannot specify externalSetMarkChain and markMasqBit"
    );
    for bit in [-1, 32, i64::MAX] {
        let text = refused(json!({ "markMasqBit": bit }));
        assert_eq!(text, "MasqMarkBit must be between 0 and 31");
    }
    let mark = |keys| with_iptables(&conf(keys)).unwrap().masquerade.unwrap().mark;
    assert_eq!(mark(json!({})), Mark::Own(0x2000));
    assert_eq!(mark(json!({ "markMasqBit": 0 })), Mark::Own(1));
    assert_eq!(mark(json!({ "markMasqBit": 31 })), Mark::Own(0x8000_0000));
    assert_eq!(
        mark(json!({ "externalSetMarkChain": "X" })),
        Mark::External("X".to_owned())
    );
    assert!(refused(json!({ "externalSetMarkChain": "" })).contains("`externalSetMarkChain`"));
}

#[test]
fn the_order_of_complaints_is_the_references() {
    let everything = json!({
        "externalSetMarkChain": "X", "markMasqBit": 99, "backend": "foo",
        "conditionsV4": ["-s", "x"], "runtimeConfig": { "portMappings": [{}] },
    });
    let mut conf = conf(everything);
    let mut next = |key: &str, value: Value| {
        let text = with_iptables(&conf).unwrap_err().to_string();
        conf[key] = value;
        text
    };
    assert!(next("externalSetMarkChain", Value::Null).starts_with("Cannot specify"));
    assert!(next("markMasqBit", Value::Null).starts_with("MasqMarkBit"));
    assert!(next("conditionsV4", Value::Null).starts_with("foo backend was requested"));
    assert!(next("backend", Value::Null).starts_with("unrecognized backend"));
    assert!(next("runtimeConfig", Value::Null).starts_with("Invalid container port"));
    assert!(with_iptables(&conf).is_ok());
}

#[test]
fn containerds_spelling_is_understood() {
    let theirs = json!({ "HostPort": 53, "ContainerPort": 5353, "Protocol": "UDP", "HostIP": "::ffff:192.0.2.1" });
    let wanted = Mapping {
        host_port: 53,
        container_port: 5353,
        protocol: Protocol::Udp,
        host_ip: HostIp::One("192.0.2.1".parse().unwrap()),
    };
    assert_eq!(mapping(theirs).unwrap(), wanted);
    let at = |host_ip: &str| {
        let mapping = mapping(json!({
            "hostPort": 1, "containerPort": 1, "protocol": "sctp", "hostIP": host_ip
        }));
        mapping.unwrap().host_ip
    };
    assert_eq!(at(""), HostIp::Any);
    assert_eq!(at("0.0.0.0"), HostIp::AnyOf(Family::Ipv4));
    assert_eq!(at("::"), HostIp::AnyOf(Family::Ipv6));
}

#[test]
fn an_error_names_the_mapping_and_its_field() {
    let good = json!({ "hostPort": 1, "containerPort": 1, "protocol": "tcp" });
    let check = |key: &str, value: Value, msg: &str| {
        let mut bad = good.clone();
        bad[key] = value;
        let keys = json!({ "runtimeConfig": { "portMappings": [good, bad] } });
        let error = Error::Parse(with_iptables(&conf(keys)).unwrap_err());
        assert_eq!(error.to_string(), format!("failed to parse config: {msg}"));
        assert_eq!(error.code(), Code::INVALID_CONFIG);
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("portMappings[1].{key}`")), "{hint}");
    };
    check("hostPort", 70000.into(), "Invalid host port number: 70000");
    check(
        "containerPort",
        0.into(),
        "Invalid container port number: 0",
    );
    check("protocol", "icmp".into(), "Invalid protocol: \"icmp\"");
    check("protocol", "".into(), "Invalid protocol: \"\"");
    check("hostIP", "nowhere".into(), "Invalid host IP: \"nowhere\"");
    check(
        "hostIP",
        "10.0.0.1/24".into(),
        "Invalid host IP: \"10.0.0.1/24\"",
    );
}

#[test]
fn values_of_the_wrong_type_are_refused_by_every_verb() {
    for (key, value) in [
        ("snat", json!("yes")),
        ("masqAll", json!(1)),
        ("markMasqBit", json!("13")),
        ("markMasqBit", json!(1.5)),
        ("externalSetMarkChain", json!(5)),
        ("conditionsV4", json!("-s")),
        ("conditionsV6", json!([1])),
        ("backend", json!(["iptables"])),
        ("runtimeConfig", json!([])),
        ("runtimeConfig", json!({ "portMappings": {} })),
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": "80" }] }),
        ),
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "protocol": 6 }] }),
        ),
        ("prevResult", json!("none")),
    ] {
        let mut keys = json!({});
        keys[key] = value;
        let conf = conf(keys);
        let error = with_iptables(&conf).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("failed to parse network configuration: json: cannot unmarshal"),
            "{text}"
        );
        assert!(text.contains(key), "{key}: {text}");
        let told = if key == "prevResult" {
            Ok(Some(error))
        } else {
            Err(error)
        };
        assert_eq!(check_readable(&conf), told);
    }
}

#[test]
fn a_previous_result_of_another_family_of_versions_is_refused() {
    let conf = conf(json!({ "prevResult": { "cniVersion": "0.4.0" } }));
    let text = "could not parse prevResult: could not parse prevResult: result type supports [1.0.0 1.1.0] but \
                unmarshalled CNIVersion is \"0.4.0\"";
    assert_eq!(with_iptables(&conf).unwrap_err().to_string(), text);
    // DEL needs none of it, whoever spells it how.
    let unused = check_readable(&conf).unwrap().unwrap();
    assert_eq!(unused.to_string(), text);
    let spelled = json!({ "name": "test", "cniVersion": "1.0.0", "PREVRESULT": 5 });
    assert!(check_readable(&spelled).unwrap().is_some());
}

#[test]
fn a_condition_cannot_become_a_statement() {
    let keys =
        json!({ "backend": "nftables", "conditionsV4": ["ip saddr 1.2.3.4; flush ruleset"] });
    assert_eq!(
        refused(keys),
        r#"`conditionsV4` holds "ip saddr 1.2.3.4; flush ruleset", which would end the rule"#
    );
    let keys = json!({ "backend": "iptables", "conditionsV6": ["-s", "::1\nCOMMIT"] });
    assert!(refused(keys).starts_with("`conditionsV6` holds"));
}

#[test]
fn a_condition_cannot_swallow_the_rest_of_the_rule() {
    let nft = |words: &[&str]| {
        with_iptables(&conf(
            json!({ "backend": "nftables", "conditionsV6": words }),
        ))
        .map(|config| config.conditions_v6)
    };
    for bad in [
        "ip6 saddr ::1 # ",
        "ip6 saddr ::1 \\",
        "iifname \"eth0",
        "ip6 saddr\r::1",
        "ip6 saddr\u{1b}::1",
        "ip6 saddr\u{85}::1",
    ] {
        let error = nft(&["ip6 saddr ::2", bad]).unwrap_err();
        let condition = ConfigError::Condition {
            key: "conditionsV6",
            word: bad.to_owned(),
        };
        assert_eq!(error, condition);
        assert_eq!(Error::Parse(error).code(), Code::INVALID_CONFIG);
    }
    for good in [
        &["iifname", "\"eth0\""][..],
        &["log prefix \"two", "words\""],
        &["ip6\tsaddr ::1"],
    ] {
        assert_eq!(nft(good).unwrap(), good);
    }
    // Each word of iptables' stands in quotes of its own.
    let theirs = ["-m", "comment", "--comment", "a \"b # \\ ;"];
    let config = with_iptables(&conf(json!({ "conditionsV4": theirs }))).unwrap();
    assert_eq!(config.conditions_v4, theirs);
    assert!(refused(json!({ "conditionsV4": ["-s", "1.2.3.4\r"] })).contains("end the rule"));
}

#[test]
fn conditions_have_room_in_the_line_that_iptables_restore_reads() {
    let conditions = |letter: &str, count: usize| {
        let words = ["-m", "comment", "--comment", &letter.repeat(count)];
        with_iptables(&conf(json!({ "conditionsV4": words })))
    };
    // Four words with 3 bytes each around them, three of which have 2, 7 and 9 bytes.
    let room = 8192 - 4 * 3 - 18;
    assert!(conditions("a", room).is_ok());
    assert!(conditions("\"", room / 2).is_ok());
    let error = conditions("a", room + 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`conditionsV4` is too long: 8193 bytes of 8192 at most"
    );
    assert!(conditions("\\", room / 2 + 1).is_err());
}

#[test]
fn a_chain_that_cannot_be_is_told_of_at_once() {
    let external = |name: &str| with_iptables(&conf(json!({ "externalSetMarkChain": name })));
    for bad in [
        "-j",
        "!X",
        "A B",
        "A\tB",
        "A\nCOMMIT",
        "A\u{a0}B",
        "12345678901234567890123456789",
    ] {
        let error = external(bad).unwrap_err();
        assert_eq!(error, ConfigError::ExternalChain(bad.to_owned()));
        assert!(
            Error::Parse(error).hint().unwrap().contains("28 bytes"),
            "{bad}"
        );
    }
    for good in ["KUBE-MARK-MASQ", "1234567890123456789012345678", "a.b:c"] {
        assert!(external(good).is_ok(), "{good}");
    }
}
