//! Configurations and environments that nothing comes of: the texts are the reference's.

use serde_json::{Value, json};
use tests::cni::with;

use super::case::Case;

pub(super) fn cases() -> Vec<Case> {
    let cases = [environment(), networks(), ranges(), links()].concat();
    cases.into_iter().map(Case::brief).collect()
}

fn environment() -> Vec<Case> {
    let conf = bridge();
    let host_local = ipam(&json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }]] }));
    vec![
        Case::new("an id with other letters", "bridge", conf.clone()).env("CNI_CONTAINERID", "a%b"),
        Case::new("a name with a slash", "bridge", conf.clone()).env("CNI_IFNAME", "a/b"),
        Case::new("a name too long", "host-local", host_local.clone())
            .env("CNI_IFNAME", "sixteen-letters-"),
        Case::new("no id, no name", "bridge", conf.clone())
            .env("CNI_CONTAINERID", "")
            .env("CNI_IFNAME", ""),
        Case::new("no namespace", "bridge", conf.clone()).env("CNI_NETNS", "/nowhere/at/all"),
        Case::new("no plugins", "bridge", conf.clone()).env("CNI_PATH", "/nowhere"),
        Case::new("arguments that are no pairs", "bridge", conf.clone()).args("a;b"),
        Case::new("unknown arguments", "bridge", conf.clone()).args("K8S_POD=x"),
        Case::new("arguments of the other plugin", "bridge", conf.clone()).args("IP=10.1.2.9"),
        Case::new("an address that is none", "host-local", host_local.clone()).args("IP=zz"),
        Case::new("a boolean that is none", "host-local", host_local).args("IgnoreUnknown=maybe"),
    ]
}

fn networks() -> Vec<Case> {
    let conf = bridge();
    let named = |name: Value| with(&conf, "name", name);
    vec![
        Case::new("no network name", "bridge", named(Value::Null)),
        Case::new(
            "a network name with a slash",
            "bridge",
            named("../net".into()),
        ),
        Case::new("a name that is a number", "bridge", named(5.into())),
        Case::new(
            "an unknown version",
            "bridge",
            with(&conf, "cniVersion", "1.2.0".into()),
        ),
        Case::new(
            "half a version",
            "bridge",
            with(&conf, "cniVersion", "0.4".into()),
        ),
    ]
}

fn ranges() -> Vec<Case> {
    let sets = [
        ("no IPAM", Value::Null),
        ("no sets", json!([])),
        ("an empty set", json!([[]])),
        (
            "a range without subnet",
            json!([[{ "rangeStart": "10.1.2.3" }]]),
        ),
        ("host bits", json!([[{ "subnet": "10.1.2.7/24" }]])),
        (
            "a network too small",
            json!([[{ "subnet": "10.1.2.0/31" }]]),
        ),
        ("no network", json!([[{ "subnet": "10.1.2.0" }]])),
        (
            "a start outside",
            json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1" }]]),
        ),
        (
            "an end outside",
            json!([[{ "subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.1" }]]),
        ),
        (
            "an end before the start",
            json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.3" }]]),
        ),
        (
            "a start that is no address",
            json!([[{ "subnet": "10.1.2.0/24", "rangeStart": "zz" }]]),
        ),
        (
            "two families in a set",
            json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "2001:db8::/64" }]]),
        ),
        (
            "overlapping ranges",
            json!([[{ "subnet": "10.1.0.0/16" }, { "subnet": "10.1.2.0/24" }]]),
        ),
        (
            "overlapping sets",
            json!([[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "10.1.2.0/24" }]]),
        ),
        (
            "a mapped network",
            json!([[{ "subnet": "::ffff:10.0.0.0/120" }]]),
        ),
    ];
    let mut cases: Vec<Case> = sets
        .into_iter()
        .map(|(name, sets)| {
            let ipam = if sets.is_null() {
                json!({})
            } else {
                ipam(&json!({ "ranges": sets }))
            };
            let conf = with(
                &with(&ipam, "cniVersion", "1.0.0".into()),
                "name",
                "net".into(),
            );
            Case::new(name, "host-local", conf)
        })
        .collect();
    let two =
        ipam(&json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.2.2.0/24" }]] }));
    let route = ipam(
        &json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }]], "routes": [{ "dst": "10.1.2.0" }] }),
    );
    cases.extend([
        Case::new(
            "two sets of a family",
            "host-local",
            with(&two, "cniVersion", "0.2.0".into()),
        ),
        Case::new("a route to no network", "host-local", route),
        Case::new(
            "through the bridge",
            "bridge",
            with(&bridge(), "ipam", two["ipam"].clone()),
        )
        .before("ip link add br1 type dummy 2>/dev/null || true"),
    ]);
    cases
}

fn links() -> Vec<Case> {
    let conf = bridge();
    let both = with(
        &with(&conf, "hairpinMode", true.into()),
        "promiscMode",
        true.into(),
    );
    let mac = |mac: &str| with(&conf, "runtimeConfig", json!({ "mac": mac }));
    vec![
        Case::new("hairpin and promiscuous", "bridge", both),
        Case::new("no bridge name", "bridge", with(&conf, "bridge", "".into())),
        Case::new(
            "a bridge name too long",
            "bridge",
            with(&conf, "bridge", "a-bridge-of-a-long-name".into()),
        ),
        Case::new("a MAC that is none", "bridge", mac("zz")),
        Case::new("a MAC of a group", "bridge", mac("01:00:5e:00:00:01")),
        Case::new(
            "a vlan too high",
            "bridge",
            with(&conf, "vlan", 5000.into()),
        ),
        Case::new(
            "a vlan below zero",
            "bridge",
            with(&conf, "vlan", (-1).into()),
        ),
        Case::new("a size too small", "bridge", with(&conf, "mtu", 20.into())),
        Case::new(
            "a size too large",
            "bridge",
            with(&conf, "mtu", 70000.into()),
        ),
        Case::new(
            "a size that is a text",
            "bridge",
            with(&conf, "mtu", "1500".into()),
        ),
        Case::new(
            "a flag that is a number",
            "bridge",
            with(&conf, "isGateway", 1.into()),
        ),
        Case::new(
            "IPAM that is a list",
            "bridge",
            with(&conf, "ipam", json!([])),
        ),
    ]
}

fn bridge() -> Value {
    let mut conf = ipam(&json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }]] }));
    conf["type"] = "bridge".into();
    conf["bridge"] = "br1".into();
    conf
}

fn ipam(ipam: &Value) -> Value {
    let ipam = with(ipam, "type", "host-local".into());
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "any", "ipam": ipam })
}
