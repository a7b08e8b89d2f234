//! `host-local` alone.

use serde_json::{Value, json};
use tests::VERSIONS;
use tests::cni::with;

use super::case::{Case, of};

pub(super) fn cases() -> Vec<Case> {
    [versions(), ranges(), requests(), stores()].concat()
}

fn versions() -> Vec<Case> {
    let mut ipam = json!([[{ "subnet": "10.1.2.0/24" }, { "subnet": "10.2.2.0/24" }], [{ "subnet": "2001:db8:1::/64" }]]);
    ipam = json!({
        "ranges": ipam,
        "routes": [
            { "dst": "0.0.0.0/0" }, { "dst": "192.168.7.9/16", "gw": "10.1.2.7" }, { "dst": "2001:DB8:2::/48" },
            { "dst": "::/0", "gw": "2001:db8:1:0::9" },
        ],
    });
    let versions = VERSIONS.into_iter().chain([""]);
    let conf = conf(&ipam);
    let managed = case("verbs of lists", &of("1.1.0", &conf))
        .managed()
        .newer();
    versions
        .map(|it| case("two families and routes", &of(it, &conf)))
        .chain([managed])
        .collect()
}

fn ranges() -> Vec<Case> {
    let legacy = json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20", "gateway": "10.1.2.10" });
    let mut mixed = legacy.clone();
    mixed["ranges"] = json!([[{ "subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::ffff", "gateway": "2001:db8:1::1:0" }]]);
    let mixed = with(
        &conf(&mixed),
        "runtimeConfig",
        json!({ "ipRanges": [[{ "Subnet": "10.9.0.0/30" }]] }),
    );
    let edges = json!({ "ranges": [[
        { "subnet": "10.1.2.0/30", "rangeStart": "10.1.2.0", "rangeEnd": "10.1.2.0" },
        { "subnet": "10.1.2.4/30", "rangeStart": "10.1.2.6", "rangeEnd": "10.1.2.7", "gateway": "10.3.3.3" },
    ]] });
    let one = json!({ "ranges": [[{ "subnet": "10.1.2.0/30" }]] });
    let windows = json!({ "ranges": [
        [{ "subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.9" }], [{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10" }],
    ] });
    let last = json!({ "ranges": [[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.100", "rangeEnd": "10.1.2.103" }]] });
    vec![
        case("a range by the old keys", &conf(&legacy)),
        case("ranges from three places", &mixed),
        case("first and last address of a network", &conf(&edges)),
        case("one address", &conf(&one)),
        case("two windows of a network", &conf(&windows)),
        case("the search wraps", &conf(&last)).before(
            "mkdir -p /var/lib/cni/networks/net; cd /var/lib/cni/networks/net; \
             printf 10.1.2.102 > last_reserved_ip.0; printf 'other\\r\\neth0' > 10.1.2.103",
        ),
        case("all taken by others", &conf(&last)).before(
            "mkdir -p /var/lib/cni/networks/net; cd /var/lib/cni/networks/net; \
             for it in 100 101 102 103; do printf 'other\\r\\neth0' > 10.1.2.$it; done",
        ),
    ]
}

/// Addresses that are asked for.
fn requests() -> Vec<Case> {
    let ipam = json!({ "ranges": [
        [{ "subnet": "10.1.2.0/24" }, { "subnet": "10.2.2.0/24" }], [{ "subnet": "2001:db8:1::/64" }],
    ] });
    let plain = conf(&ipam);
    let args = with(
        &plain,
        "args",
        json!({ "cni": { "ips": ["10.2.2.7/16", "2001:db8:1::7"] } }),
    );
    let six = with(
        &plain,
        "args",
        json!({ "cni": { "ips": ["2001:db8:1::7"] } }),
    );
    let runtime = with(&plain, "runtimeConfig", json!({ "ips": ["10.2.2.8"] }));
    let nowhere = with(&plain, "runtimeConfig", json!({ "ips": ["10.3.3.3"] }));
    let gateway = with(&plain, "runtimeConfig", json!({ "ips": ["10.1.2.1"] }));
    vec![
        case("an address by CNI_ARGS", &plain).args("IP=10.1.2.77;IgnoreUnknown=true"),
        case("an address by CNI_ARGS, with prefix", &plain).args("IP=10.2.2.77/8"),
        case("no address by CNI_ARGS", &plain).args("IgnoreUnknown=false;IP="),
        case("addresses by args", &of("0.4.0", &args)),
        case("an address by the runtime", &runtime),
        case("addresses from two places", &six).args("IP=10.1.2.77"),
        case("an address of no range", &nowhere),
        case("the gateway's address", &gateway),
        case(
            "no address at all",
            &with(&plain, "runtimeConfig", json!({ "ips": [""] })),
        ),
        case(
            "no address at all",
            &with(&plain, "args", json!({ "cni": { "ips": ["foo"] } })),
        ),
    ]
}

/// What is in the store before, or where it is.
fn stores() -> Vec<Case> {
    let ipam = json!({ "ranges": [[{ "subnet": "10.1.2.0/24" }]] });
    let plain = conf(&ipam);
    let elsewhere = with(&ipam, "dataDir", "/var/lib/cni/else/where".into());
    let resolver = with(&ipam, "resolvConf", "/run/resolv.conf".into());
    let folder = "mkdir -p /var/lib/cni/networks/net; cd /var/lib/cni/networks/net; ";
    let own =
        |files: &str| -> &'static str { Box::leak(format!("{folder}{files}").into_boxed_str()) };
    vec![
        case("another folder", &conf(&elsewhere)),
        case("the default folder by an empty name", &conf(&with(&ipam, "dataDir", "".into()))),
        case("a lease of the old form", &plain).before(own("printf one > 10.1.2.9")),
        case("a lease with spaces around", &plain).before(own("printf ' one\\r\\neth0\\n\\n' > 10.1.2.9")),
        case("a lease of an address of no range", &plain).before(own("printf 'one\\r\\neth0' > 10.77.7.7")),
        case("a lease in a folder below", &plain).before(own("mkdir sub; printf 'one\\r\\neth0' > sub/10.1.2.44")).brief(),
        case("files of others", &plain)
            .before(own("echo hello > README; printf 'two\\r\\neth0' > notes; mkdir 10.1.2.2")),
        case("a cursor that is none", &plain).before(own("umask 077; echo 10.1.2.50 > last_reserved_ip.0")),
        case("a cursor outside", &plain).before(own("printf 10.7.7.7 > last_reserved_ip.0")),
        case("a resolver's file", &conf(&resolver)).before(
            "printf '# c\\n; d\\nnameserver 1.1.1.1\\n nameserver ::1 x\\ndomain a\\ndomain b.example\\nsearch c\\nsearch d e\\noptions f\\nfoo bar\\nsearch\\n' \
             > /run/resolv.conf",
        ),
        case("no resolver's file", &conf(&resolver)),
        case("another interface", &plain).env("CNI_IFNAME", "net1"),
    ]
}

fn case(name: &str, conf: &Value) -> Case {
    Case::new(name, "host-local", conf.clone())
}

fn conf(ipam: &Value) -> Value {
    let ipam = with(ipam, "type", "host-local".into());
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "any", "ipam": ipam })
}
