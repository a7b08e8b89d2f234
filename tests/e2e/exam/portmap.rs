//! `portmap`, behind whatever gave the pod its addresses.

use serde_json::{Value, json};
use tests::VERSIONS;
use tests::cni::with;

use super::case::{Case, of};

/// A link to the pods, for `route_localnet`.
const LINK: &str = "ip link add br1 up address 02:00:00:00:00:99 type bridge; \
                    ip addr add 10.1.2.1/24 dev br1; ip addr add 2001:db8:1::1/64 dev br1 nodad";

const V4: &str = "10.1.2.@/24";
const V6: &str = "2001:db8:1::@/64";

pub(super) fn cases() -> Vec<Case> {
    [
        versions(),
        families(),
        masquerade(),
        conditions(),
        mappings(),
        addresses(),
        meetings(),
        refused(),
    ]
    .concat()
}

fn versions() -> Vec<Case> {
    let versions = VERSIONS.into_iter().chain([""]);
    let cases = versions.map(|it| case("each version", &conf(it, &[V4, V6])).brief());
    cases.collect()
}

/// Either backend, in each family and both.
fn families() -> Vec<Case> {
    let mut cases = Vec::new();
    for addresses in [&[V4] as &[&str], &[V6], &[V4, V6]] {
        let conf = conf("1.0.0", addresses);
        cases.push(case("families", &conf).moving());
        cases.push(case("families", &nftables(&conf)).newer().moving());
    }
    cases
}

/// Who is masqueraded, and by which mark.
fn masquerade() -> Vec<Case> {
    const CHAIN: &str = "KUBE-MARK-MASQ";
    let made = "for it in iptables ip6tables; do $it -t nat -N KUBE-MARK-MASQ; done";
    // A process for each rule and family: in both, the reference takes long.
    let one = |name: &str, keys: Value| case(name, &merged(&conf("1.0.0", &[V4]), keys)).brief();
    let two = |name: &str, keys: Value| case(name, &merged(&both(), keys)).brief();
    let by_nft = |name: &str, keys: Value| {
        let conf = merged(&nftables(&both()), keys);
        case(name, &conf).brief().newer()
    };
    vec![
        two("nobody", json!({ "snat": false })),
        two("everybody", json!({ "masqAll": true })).newer(),
        one(
            "nobody and everybody",
            json!({ "snat": false, "masqAll": true }),
        ),
        one("the lowest bit", json!({ "markMasqBit": 0 })),
        one("the highest bit", json!({ "markMasqBit": 31 })),
        one(
            "a bit and nobody",
            json!({ "markMasqBit": 5, "snat": false }),
        ),
        one(
            "a bit and everybody",
            json!({ "markMasqBit": 5, "masqAll": true }),
        )
        .newer(),
        one(
            "a chain of others",
            json!({ "externalSetMarkChain": CHAIN }),
        )
        .before(made),
        one(
            "a chain of others and everybody",
            json!({ "externalSetMarkChain": CHAIN, "masqAll": true }),
        )
        .before(made)
        .newer(),
        one(
            "a chain of others and nobody",
            json!({ "externalSetMarkChain": CHAIN, "snat": false }),
        ),
        one(
            "a chain of others that is missing",
            json!({ "externalSetMarkChain": CHAIN }),
        ),
        by_nft("nobody", json!({ "snat": false })),
        by_nft("everybody", json!({ "masqAll": true })),
        by_nft(
            "nobody and everybody",
            json!({ "snat": false, "masqAll": true }),
        ),
        by_nft("a bit, which says nothing", json!({ "markMasqBit": 5 })),
    ]
}

fn conditions() -> Vec<Case> {
    let four = json!(["!", "-s", "192.0.2.0/24"]);
    let six = json!(["-s", "2001:db8:9::/64", "!", "-d", "2001:db8:8::1"]);
    let each = merged(
        &both(),
        json!({ "conditionsV4": four, "conditionsV6": six }),
    );
    let all = json!({ "masqAll": true, "markMasqBit": 7 });
    let none = json!({ "conditionsV4": [], "conditionsV6": null });
    let by_nft = json!({
        "conditionsV4": ["ip", "saddr", "!=", "192.0.2.0/24"], "conditionsV6": ["ip6 saddr 2001:db8:9::/64"],
    });
    let cases = [
        case("conditions in IPv4", &with(&both(), "conditionsV4", four)),
        case("conditions in each", &each),
        case(
            "conditions in each, and not",
            &with(&each, "snat", false.into()),
        ),
        case("conditions in each, and all", &merged(&each, all)).newer(),
        case("conditions that are none", &merged(&both(), none)),
        case("conditions", &merged(&nftables(&both()), by_nft)).newer(),
    ];
    cases.map(Case::brief).to_vec()
}

fn mappings() -> Vec<Case> {
    let at = |ip: &str| with(&mapping("tcp", 8080, 80), "hostIP", ip.into());
    let everywhere = ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::", ""];
    let everywhere: Vec<Value> = (8080u16..)
        .zip(everywhere)
        .map(|(port, ip)| with(&at(ip), "hostPort", port.into()))
        .collect();
    let lists = [
        (
            "an address of the node",
            json!([at("192.0.2.1"), mapping("tcp", 8081, 81)]),
        ),
        (
            "an IPv6 address of the node",
            json!([at("2001:db8::1"), mapping("tcp", 8081, 81)]),
        ),
        (
            "any IPv4 address",
            json!([at("0.0.0.0"), mapping("udp", 8080, 81)]),
        ),
        (
            "any IPv6 address",
            json!([at("::"), mapping("sctp", 8080, 81)]),
        ),
        ("addresses of all kinds", everywhere.into()),
        (
            "a port of each protocol",
            ["udp", "sctp", "tcp"]
                .map(|it| mapping(it, 53, 53))
                .to_vec()
                .into(),
        ),
        (
            "the same twice, and elsewhere",
            json!([
                mapping("tcp", 80, 80),
                mapping("tcp", 80, 81),
                mapping("tcp", 80, 80)
            ]),
        ),
    ];
    let mut cases = Vec::new();
    for (name, list) in lists {
        let conf = mapped(list);
        cases.push(case(name, &conf).brief());
        cases.push(case(name, &nftables(&conf)).newer().brief());
    }
    // A process for each rule and family: the reference takes long.
    let mut many = with(&conf("1.0.0", &[V4]), "snat", false.into());
    many["runtimeConfig"]["portMappings"] = (1..=16).map(|it| mapping("tcp", it, 80)).collect();
    let spelled =
        json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }]);
    cases.extend([
        case(
            "protocols in capitals",
            &mapped(json!([mapping("TCP", 8080, 80), mapping("Udp", 53, 53)])),
        )
        .brief(),
        case("more ports than go into a rule", &many).brief(),
        case("more ports than go into a rule", &nftables(&many))
            .newer()
            .brief(),
        case("as containerd spells it", &mapped(spelled)).brief(),
        case("no mappings", &mapped(json!([]))).brief(),
        case("no mappings", &mapped(Value::Null)).brief(),
        case(
            "no mappings, whatever else is said",
            &with(&nftables(&mapped(json!([]))), "snat", false.into()),
        )
        .brief(),
    ]);
    cases
}

/// What the plugin before says.
fn addresses() -> Vec<Case> {
    let result = |interfaces: Value, ips: Value| {
        let result = json!({ "cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips });
        with(&both(), "prevResult", result)
    };
    let interfaces = json!([
        { "name": "br1", "mac": "02:00:00:00:00:99" }, { "name": "eth0", "sandbox": "/run/netns/pod" },
        { "name": "eth0" }, { "name": "net1", "sandbox": "/run/netns/pod" },
    ]);
    let ips: Vec<Value> = [0, 3, 2, 1, 1]
        .into_iter()
        .zip(5..)
        .map(|(interface, end)| json!({ "interface": interface, "address": format!("10.1.2.{end}/24") }))
        .collect();
    vec![
        case(
            "addresses of other interfaces",
            &result(interfaces.clone(), ips.into()),
        ),
        case(
            "an interface that is not there",
            &result(
                interfaces,
                json!([{ "interface": 9, "address": "10.1.2.9/16" }]),
            ),
        ),
        case("no addresses", &result(json!([]), json!([]))),
        case(
            "a network of one address",
            &result(
                json!([]),
                json!([{ "address": "10.1.2.9/32" }, { "address": "2001:db8:1::9/128" }]),
            ),
        ),
        case(
            "nobody before it",
            &with(&both(), "prevResult", Value::Null),
        ),
    ]
    .into_iter()
    .map(Case::brief)
    .collect()
}

/// What is there before, and how things are called.
fn meetings() -> Vec<Case> {
    let others = "for it in iptables ip6tables; do \
                      $it -t nat -N KUBE-SERVICES; $it -t nat -A PREROUTING -j KUBE-SERVICES; \
                      $it -t nat -A OUTPUT -j KUBE-SERVICES; $it -t nat -A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE; \
                  done";
    let tables = "nft add table ip cni_hostport; nft add chain ip cni_hostport hostports; \
                  nft add rule ip cni_hostport hostports tcp dport 9 dnat to 10.1.2.9:9 comment other";
    let long = "n".repeat(200);
    vec![
        case("rules of others", &both()).before(others).brief(),
        case("rules of others", &nftables(&both()))
            .before(tables)
            .newer(),
        case("a long name", &with(&both(), "name", long.clone().into())).brief(),
        case(
            "a long name",
            &nftables(&with(&both(), "name", long.into())),
        )
        .brief()
        .newer(),
        case(
            "the backend by name",
            &with(&both(), "backend", "iptables".into()),
        )
        .brief(),
        case("verbs of lists", &conf("1.1.0", &[V4]))
            .managed()
            .newer(),
        case("verbs of lists", &nftables(&conf("1.1.0", &[V4, V6])))
            .managed()
            .newer(),
        case(
            "no link to the pod",
            &with(&conf("1.0.0", &["10.77.0.@/24"]), "masqAll", false.into()),
        )
        .brief(),
    ]
}

/// Configurations that nothing comes of.
fn refused() -> Vec<Case> {
    let key = |key: &str, value: Value| with(&both(), key, value);
    let external = key("externalSetMarkChain", "KUBE-MARK-MASQ".into());
    let by_nft = json!(["ip", "saddr", "10.0.0.0/8"]);
    let by_iptables = with(&external, "conditionsV4", json!(["-s", "10.0.0.0/8"]));
    let by_iptables = with(&by_iptables, "conditionsV6", json!(["!", "-s", "::1"]));
    let port = |key: &str, port: i64| {
        mapped(json!([
            mapping("tcp", 8080, 80),
            with(&mapping("tcp", 8081, 81), key, port.into())
        ]))
    };
    let entry =
        |key: &str, value: Value| mapped(json!([with(&mapping("tcp", 8080, 80), key, value)]));
    let mut cases = vec![
        case(
            "a chain and a bit",
            &with(&external, "markMasqBit", 5.into()),
        ),
        case("a bit too high", &key("markMasqBit", 32.into())),
        case("a bit below zero", &key("markMasqBit", (-1).into())),
        case("container port 0", &port("containerPort", 0)),
        case("host port 0", &port("hostPort", 0)),
        case("a host port below zero", &port("hostPort", -5)),
        case("a mapping that says nothing", &mapped(json!([{}]))),
        case("a list that is none", &mapped(json!({ "hostPort": 80 }))),
        case("a port that is a text", &entry("hostPort", "80".into())),
        case("a flag that is a text", &key("snat", "yes".into())),
        case(
            "a result that is none",
            &key(
                "prevResult",
                json!({ "cniVersion": "1.0.0", "ips": "none" }),
            ),
        ),
        case(
            "a result of no version",
            &key("prevResult", json!({ "cniVersion": "9.9", "ips": [] })),
        ),
        // What no tool takes.
        case(
            "a protocol without ports",
            &entry("protocol", "icmp".into()),
        ),
        case("no protocol", &entry("protocol", "".into())),
        case("a host port too high", &entry("hostPort", 65536.into())),
        case(
            "a container port too high",
            &entry("containerPort", 70000.into()),
        ),
        case(
            "a host address that is none",
            &entry("hostIP", "192.0.2".into()),
        ),
    ];
    cases.extend([
        case("an unknown backend", &key("backend", "ebtables".into())).newer(),
        case(
            "conditions of the other",
            &with(
                &key("backend", "iptables".into()),
                "conditionsV4",
                by_nft.clone(),
            ),
        )
        .newer(),
        case(
            "conditions of the other, by nobody's choice",
            &key("conditionsV6", by_nft),
        )
        .newer(),
        case("keys of the other", &nftables(&by_iptables)).newer(),
        case(
            "keys of the other",
            &with(&by_iptables, "backend", "ebtables".into()),
        )
        .newer(),
        case(
            "a host port too high",
            &nftables(&entry("hostPort", 65536.into())),
        )
        .newer(),
    ]);
    cases.into_iter().map(Case::brief).collect()
}

fn case(name: &str, conf: &Value) -> Case {
    let backend = conf["backend"].as_str().unwrap_or("no backend");
    Case::new(&format!("{name}, {backend}"), "portmap", conf.clone()).before(LINK)
}

fn merged(conf: &Value, keys: Value) -> Value {
    let keys = keys.as_object().unwrap().iter();
    keys.fold(conf.clone(), |conf, (key, value)| {
        with(&conf, key, value.clone())
    })
}

fn nftables(conf: &Value) -> Value {
    with(conf, "backend", "nftables".into())
}

fn both() -> Value {
    conf("1.0.0", &[V4, V6])
}

fn mapped(mappings: Value) -> Value {
    with(
        &both(),
        "runtimeConfig",
        json!({ "portMappings": mappings }),
    )
}

fn mapping(protocol: &str, host: u16, container: u16) -> Value {
    json!({ "protocol": protocol, "hostPort": host, "containerPort": container })
}

/// Two mappings, for a pod of these addresses in the layout of a `version`.
fn conf(version: &str, addresses: &[&str]) -> Value {
    let of_both = ["", "0.1.0", "0.2.0"].contains(&version);
    let mut result = json!({});
    for address in addresses {
        let six = address.contains(':');
        if of_both {
            result[if six { "ip6" } else { "ip4" }] = json!({ "ip": address });
        } else {
            let mut ip = json!({ "address": address });
            if version.starts_with("0.") {
                ip["version"] = if six { "6" } else { "4" }.into();
            }
            let ips = result
                .as_object_mut()
                .unwrap()
                .entry("ips")
                .or_insert_with(|| json!([]));
            ips.as_array_mut().unwrap().push(ip);
        }
    }
    let conf = json!({
        "name": "net", "type": "portmap",
        "runtimeConfig": { "portMappings": [mapping("tcp", 8080, 80), mapping("udp", 53, 53)] },
        "prevResult": of(version, &result),
    });
    of(version, &conf)
}
