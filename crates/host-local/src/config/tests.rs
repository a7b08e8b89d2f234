use cni_spec::{Failure, json};
use serde_json::{Value, json};

use super::*;

fn read(conf: Value, args: &str) -> Result<Config, ConfigError> {
    let version = conf["cniVersion"].as_str().unwrap_or_default().to_owned();
    json::read::<Wire>(&conf)?.mean(Version::parse(&version).unwrap(), args)
}

/// A configuration of version 1.0.0.
fn conf(ipam: Value) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "net", "ipam": ipam })
}

fn sets(config: &Config) -> Vec<String> {
    config.sets.iter().map(RangeSet::to_string).collect()
}

/// The sentence and the details of what comes of a configuration that cannot be used.
fn refusal(conf: Value, args: &str) -> (u32, String, String) {
    let failure = Failure::of(&read(conf, args).unwrap_err());
    (failure.code.0, failure.msg, failure.details)
}

#[test]
fn c01_old_and_new_ranges_in_order() {
    let old = json!({ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.20", "gateway": "10.1.2.30" });
    let config = read(conf(old.clone()), "").unwrap();
    assert_eq!(sets(&config), ["10.1.2.9-10.1.2.20"]);
    assert_eq!(
        config.sets[0].at(0).unwrap().0.gateway.to_string(),
        "10.1.2.30"
    );
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/cni/networks"));

    let new = json!({
        "ranges": [[{ "subnet": "10.3.0.0/24" }, { "subnet": "10.4.0.0/24" }], [{ "subnet": "fd00::/64" }]],
        "dataDir": "../x", "resolvConf": "/r", "routes": [{ "dst": "10.0.0.5/8", "gw": "10.3.0.1", "mtu": 9 }],
    });
    let config = read(conf(new), "").unwrap();
    assert_eq!(
        sets(&config),
        [
            "10.3.0.1-10.3.0.254,10.4.0.1-10.4.0.254",
            "fd00::1-fd00::ffff:ffff:ffff:ffff"
        ]
    );
    assert_eq!(
        (config.data_dir, config.resolv_conf),
        ("../x".into(), Some("/r".into()))
    );
    assert_eq!(
        (
            config.routes[0].dst.to_string().as_str(),
            config.routes[0].mtu
        ),
        ("10.0.0.5/8", 9)
    );

    let mut mixed = conf(old);
    mixed["ipam"]["ranges"] = json!([[{ "subnet": "10.3.0.0/24" }]]);
    mixed["RuntimeConfig"] =
        json!({ "ipranges": [[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "10.8.0.0/24" }]] });
    let config = read(mixed, "").unwrap();
    assert_eq!(
        sets(&config),
        [
            "10.9.0.1-10.9.0.254",
            "10.8.0.1-10.8.0.254",
            "10.1.2.9-10.1.2.20",
            "10.3.0.1-10.3.0.254"
        ]
    );

    let without_subnet = json!({ "rangeStart": "10.1.2.9", "gateway": "10.1.2.3", "ranges": [[{ "subnet": "10.3.0.0/24" }]] });
    assert_eq!(
        sets(&read(conf(without_subnet), "").unwrap()),
        ["10.3.0.1-10.3.0.254"]
    );
}

#[test]
fn c02_requests_in_order() {
    let mut conf = conf(json!({ "subnet": "10.1.2.0/24" }));
    let requested = |conf: &Value, args: &str| {
        let requested = read(conf.clone(), args).unwrap().requested;
        requested.iter().map(IpAddr::to_string).collect::<Vec<_>>()
    };
    assert_eq!(requested(&conf, "IP=10.1.2.10"), ["10.1.2.10"]);
    assert_eq!(
        requested(&conf, "IP=10.1.2.10/8;MAC=00:11:22:33:44:55"),
        ["10.1.2.10"]
    );
    assert!(requested(&conf, "IP=").is_empty());
    conf["args"] = json!({ "cni": { "ips": ["10.1.2.11/24", "fd00::1"] } });
    assert_eq!(requested(&conf, ""), ["10.1.2.11", "fd00::1"]);
    conf["runtimeConfig"] = json!({ "ips": ["10.1.2.12", "::ffff:10.1.2.13", "10.1.2.11"] });
    assert_eq!(
        requested(&conf, "IP=10.1.2.10"),
        [
            "10.1.2.10",
            "10.1.2.11",
            "fd00::1",
            "10.1.2.12",
            "10.1.2.13"
        ]
    );
}

// C03, H09
#[test]
fn c03_h09_what_cannot_be_used_is_named() {
    let sets_hint = "range sets count from 0 through `runtimeConfig.ipRanges`, the range of `ipam` itself, `ipam.ranges`";
    let ranges = |ranges: Value| conf(json!({ "ranges": ranges }));
    for (conf, args, msg, details) in [
        (
            json!({ "cniVersion": "1.0.0" }),
            "",
            "IPAM config missing 'ipam' key",
            "",
        ),
        (
            json!({ "cniVersion": "1.0.0", "ipam": null }),
            "",
            "IPAM config missing 'ipam' key",
            "",
        ),
        (
            ranges(json!([])),
            "",
            "no IP ranges specified",
            "set `ipam.ranges` or `ipam.subnet`, or have the runtime pass `ipRanges`",
        ),
        (
            ranges(json!([[]])),
            "",
            "invalid range set 0: empty range set",
            sets_hint,
        ),
        (
            ranges(json!([[{}]])),
            "",
            "invalid range set 0: IP <nil> not v4 nor v6",
            sets_hint,
        ),
        (
            ranges(json!([[{ "subnet": "10.1.2.0" }]])),
            "",
            "invalid CIDR address: 10.1.2.0",
            "in `ipam.ranges[0][0].subnet`",
        ),
        (
            conf(json!({ "subnet": "" })),
            "",
            "invalid CIDR address: ",
            "in `ipam.subnet`",
        ),
        (
            conf(json!({ "gateway": "zz" })),
            "",
            "invalid IP address: zz",
            "in `ipam.gateway`",
        ),
        (
            conf(json!({ "rangeEnd": "010.1.2.3" })),
            "",
            "invalid IP address: 010.1.2.3",
            "in `ipam.rangeEnd`",
        ),
        (
            conf(
                json!({ "subnet": "10.0.0.0/8", "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "x" }] }),
            ),
            "",
            "invalid CIDR address: x",
            "in `ipam.routes[1]`",
        ),
        (
            conf(json!({ "subnet": "10.0.0.0/8" })),
            "IP=x",
            r#"ARGS: error parsing value of pair "IP=x": invalid IP address x"#,
            "in `CNI_ARGS`",
        ),
        (
            conf(json!({ "subnet": "10.0.0.0/8" })),
            "A=b",
            r#"ARGS: unknown args ["A=b"]"#,
            "in `CNI_ARGS`",
        ),
        (
            json!({ "cniVersion": "1.0.0", "ipam": {}, "args": { "cni": { "ips": ["foo"] } } }),
            "",
            "invalid IP address foo",
            "in `args.cni.ips[0]`",
        ),
        (
            json!({ "cniVersion": "1.0.0", "ipam": {}, "runtimeConfig": { "ips": ["10.0.0.1", ""] } }),
            "",
            "cannot understand ip: IP <nil> not v4 nor v6",
            "in `runtimeConfig.ips[1]`",
        ),
        (
            ranges(json!([[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "10.1.2.0/24" }]])),
            "",
            "range set 0 overlaps with 1",
            sets_hint,
        ),
        (
            ranges(
                json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00::/64" }], [{ "subnet": "fd00::/60" }]]),
            ),
            "",
            "range set 1 overlaps with 2",
            sets_hint,
        ),
        (
            ranges(json!([[{ "subnet": "10.1.0.0/16" }, { "subnet": "10.1.2.0/24" }]])),
            "",
            "invalid range set 0: subnets 10.1.0.1-10.1.255.254 and 10.1.2.1-10.1.2.254 overlap",
            sets_hint,
        ),
        (
            ranges(
                json!([[{ "subnet": "10.1.0.0/16" }], [{ "subnet": "10.2.0.0/16" }, { "subnet": "fd00::/64" }]]),
            ),
            "",
            "invalid range set 1: mixed address families",
            sets_hint,
        ),
        (
            conf(json!({ "subnet": 5 })),
            "",
            "json: cannot unmarshal number into Go struct field IPAMConfig.ipam.subnet of type string",
            "",
        ),
    ] {
        let code = if msg.starts_with("ARGS") { 4 } else { 7 };
        assert_eq!(
            refusal(conf.clone(), args),
            (code, msg.to_owned(), details.to_owned()),
            "{conf}"
        );
    }
}

#[test]
fn c03_the_oldest_versions_hold_an_address_of_each_family() {
    let with = |version: &str, ranges: &Value| json!({ "cniVersion": version, "ipam": { "ranges": ranges } });
    let of_each = json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00::/64" }]]);
    let two_of_v4 = json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.2.0.0/24" }]]);
    let two_of_v6 = json!([[{ "subnet": "fd01::/64" }], [{ "subnet": "fd00::/64" }]]);
    for version in ["", "0.1.0", "0.2.0"] {
        assert_eq!(read(with(version, &of_each), "").unwrap().sets.len(), 2);
        for two in [&two_of_v4, &two_of_v6] {
            let msg =
                format!("CNI version {version} does not support more than 1 address per family");
            assert_eq!(refusal(with(version, two), "").1, msg);
        }
    }
    for version in ["0.3.0", "0.4.0", "1.1.0"] {
        assert_eq!(read(with(version, &two_of_v4), "").unwrap().sets.len(), 2);
    }
}
