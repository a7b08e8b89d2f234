//! Which address is next, and which configurations of ranges make sense.

use serde_json::json;
use tests::cni::{self, with};

use crate::host_local::{Store, address};

// A01, A02, A06
#[test]
fn a01_addresses_go_round() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/29" }]]));
    let mut given = Vec::new();
    for _ in 0..7 {
        given.push(address(&store.add("one", "eth0", &conf)));
        store.del("one", "eth0", &conf).silent();
    }
    let round = [2, 3, 4, 5, 6, 2, 3].map(|it| format!("10.1.2.{it}/29"));
    assert_eq!(given, round);
}

#[test]
fn a02_the_first_address_is_after_the_gateway() {
    for (subnet, first, second) in [
        ("10.1.2.0/29", "10.1.2.2/29", "10.1.2.3/29"),
        ("2001:db8:1::/64", "2001:db8:1::2/64", "2001:db8:1::3/64"),
    ] {
        let Some(store) = Store::new() else { return };
        let conf = store.conf("1.0.0", json!([[{ "subnet": subnet }]]));
        assert_eq!(address(&store.add("one", "eth0", &conf)), first);
        assert_eq!(address(&store.add("two", "eth0", &conf)), second);
    }
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/30" }]]));
    assert_eq!(address(&store.add("one", "eth0", &conf)), "10.1.2.2/30");
}

#[test]
fn a03_the_search_goes_on_after_the_last_address() {
    let cases: [(&str, &[u8], u8); 6] = [
        ("10.0.0.5", &[], 6),
        ("10.0.0.3", &[4, 5], 6),
        ("10.0.0.5", &[6], 2),
        ("128.0.0.9", &[], 2),
        ("garbage", &[], 2),
        ("10.0.0.5", &[2, 3, 4, 6], 5),
    ];
    for (last, busy, expected) in cases {
        let Some(store) = Store::new() else { return };
        for host in busy {
            store.write(&format!("10.0.0.{host}"), "other\r\neth0");
        }
        store.write("last_reserved_ip.0", last);
        let conf = store.conf("1.0.0", json!([[{ "subnet": "10.0.0.0/29" }]]));
        assert_eq!(
            address(&store.add("one", "eth0", &conf)),
            format!("10.0.0.{expected}/29"),
            "after {last}"
        );
    }
}

// A04, A09
#[test]
fn a04_ranges_of_a_set_follow_each_other() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.0.0",
        json!([[{ "subnet": "10.0.0.0/30" }, { "subnet": "10.0.1.0/30" }]]),
    );
    let given = ["one", "two"].map(|id| address(&store.add(id, "eth0", &conf)));
    assert_eq!(given, ["10.0.0.2/30", "10.0.1.2/30"]);
    let full = store.add("three", "eth0", &conf).failure(); // A08
    let msg = "failed to allocate for range 0: \
               no IP addresses available in range set: 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2";
    assert_eq!(full.msg, msg);
    store.del("one", "eth0", &conf).silent();
    assert_eq!(address(&store.add("three", "eth0", &conf)), "10.0.0.2/30");

    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.0.0",
        json!([[
            { "subnet": "192.168.1.0/30", "rangeStart": "192.168.1.0", "rangeEnd": "192.168.1.3" },
            { "subnet": "192.168.1.4/30", "rangeStart": "192.168.1.4", "rangeEnd": "192.168.1.7" },
        ]]),
    );
    let given = ["a", "b", "c", "d"].map(|id| address(&store.add(id, "eth0", &conf)));
    assert_eq!(
        given,
        [
            "192.168.1.0/30",
            "192.168.1.2/30",
            "192.168.1.3/30",
            "192.168.1.4/30"
        ]
    );
}

// A05, A08
#[test]
fn a05_the_broadcast_address_is_never_given() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.0.0", json!([[{ "subnet": "192.168.1.0/29" }]]));
    for host in 2..=6 {
        let id = format!("pod-{host}");
        assert_eq!(
            address(&store.add(&id, "eth0", &conf)),
            format!("192.168.1.{host}/29")
        );
    }
    let failure = store.add("late", "eth0", &conf).failure();
    let msg = "failed to allocate for range 0: \
               no IP addresses available in range set: 192.168.1.1-192.168.1.6";
    assert_eq!(failure.msg, msg);
    if !cni::examines_reference() {
        assert_eq!(failure.code, 100);
    }
}

#[test]
fn a07_a_request_outside_the_window_is_refused() {
    let Some(store) = Store::new() else { return };
    let range =
        json!([[{ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.20" }]]);
    let conf = store.conf("1.0.0", range);
    let request = |id: &str, ip: &str| {
        store.add(
            id,
            "eth0",
            &with(&conf, "runtimeConfig", json!({ "ips": [ip] })),
        )
    };
    for outside in ["10.0.0.9", "10.0.0.21"] {
        let msg = format!("failed to allocate all requested IPs: {outside}");
        request("one", outside).fails(&msg);
    }
    assert_eq!(address(&request("one", "10.0.0.15/8")), "10.0.0.15/24");
    request("two", "10.0.0.15").fails(
        "failed to allocate for range 0: requested IP address 10.0.0.15 is not available in range set \
         10.0.0.10-10.0.0.20",
    );
    let gateway = store.conf("1.0.0", json!([[{ "subnet": "10.9.0.0/24" }]]));
    let gateway = with(&gateway, "runtimeConfig", json!({ "ips": ["10.9.0.1"] }));
    store
        .add("two", "eth0", &gateway)
        .fails("failed to allocate for range 0: requested ip 10.9.0.1 is subnet's gateway");
    assert_eq!(store.leases(), ["10.0.0.15"]);
}

// G02, G03, G05, G06, C03
#[test]
fn g02_ranges_that_make_no_sense_are_named() {
    let Some(store) = Store::new() else { return };
    let host_bits = "Network has host bits set. For a subnet mask of length";
    let cases = [
        (
            json!([[{ "subnet": "192.0.2.1/24" }]]),
            format!("{host_bits} 24 the network address is 192.0.2.0"),
        ),
        (
            json!([[{ "subnet": "192.0.3.0/23" }]]),
            format!("{host_bits} 23 the network address is 192.0.2.0"),
        ),
        (
            json!([[{ "subnet": "2001:db8:1::1/64" }]]),
            format!("{host_bits} 64 the network address is 2001:db8:1::"),
        ),
        (
            json!([[{ "subnet": "2001:db8:1:1::/63" }]]),
            format!("{host_bits} 63 the network address is 2001:db8:1::"),
        ),
        (
            json!([[{ "subnet": "192.0.2.0/31" }]]),
            "Network 192.0.2.0/31 too small to allocate from".into(),
        ),
        (
            json!([[{ "subnet": "192.0.2.0/24", "rangeStart": "192.0.3.0" }]]),
            "RangeStart 192.0.3.0 not in network 192.0.2.0/24".into(),
        ),
        (
            json!([[{ "subnet": "192.0.2.0/24", "rangeEnd": "192.0.4.0" }]]),
            "RangeEnd 192.0.4.0 not in network 192.0.2.0/24".into(),
        ),
        (
            json!([[{ "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.50", "rangeEnd": "192.0.2.40" }]]),
            "RangeStart 192.0.2.50 not in network 192.0.2.0/24".into(),
        ),
        (json!([[]]), "empty range set".into()),
        (json!([[{}]]), "IP <nil> not v4 nor v6".into()),
        (
            json!([[{ "subnet": "10.0.0.0/24" }, { "subnet": "fd00::/64" }]]),
            "mixed address families".into(),
        ),
        (
            json!([[{ "subnet": "10.0.0.0/24" }, { "subnet": "10.0.0.0/25" }]]),
            "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap".into(),
        ),
    ];
    for (ranges, msg) in cases {
        let conf = store.conf("1.0.0", ranges);
        let msg = format!("invalid range set 0: {msg}");
        store.add("one", "eth0", &conf).fails(&msg);
        store.del("one", "eth0", &conf).fails(&msg);
    }
    let overlap = json!([[{ "subnet": "10.0.0.0/20" }], [{ "subnet": "10.0.10.0/24" }]]);
    store
        .add("one", "eth0", &store.conf("1.0.0", overlap))
        .fails("range set 0 overlaps with 1");
    store
        .add("one", "eth0", &store.conf("1.0.0", json!([])))
        .fails("no IP ranges specified");
    let bare = json!({ "cniVersion": "1.0.0", "name": "net" });
    store
        .add("one", "eth0", &bare)
        .fails("IPAM config missing 'ipam' key");
    assert!(
        !store.dir("net").exists(),
        "a refused configuration made a directory"
    );
}

#[test]
fn g05_windows_that_only_touch_are_disjoint() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.0.0",
        json!([
            [{ "subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.20" }],
            [{ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.21" }],
        ]),
    );
    store.add("one", "eth0", &conf).result();
    assert_eq!(store.leases(), ["10.0.0.2", "10.0.0.21"]);
}

// C01
#[test]
fn c01_old_and_new_ranges_come_in_order() {
    let Some(store) = Store::new() else { return };
    let mut conf = store.conf("1.0.0", json!([[{ "subnet": "10.3.0.0/24" }]]));
    conf["ipam"]["subnet"] = "10.2.0.0/24".into();
    conf["ipam"]["rangeStart"] = "10.2.0.9".into();
    conf["ipam"]["rangeEnd"] = "10.2.0.11".into();
    conf["ipam"]["gateway"] = "10.2.0.30".into();
    conf["runtimeConfig"] = json!({ "ipRanges": [[{ "subnet": "10.1.0.0/24" }]] });
    let result = store.add("one", "eth0", &conf).result();
    assert_eq!(
        result["ips"],
        json!([
            { "address": "10.1.0.2/24", "gateway": "10.1.0.1" },
            { "address": "10.2.0.9/24", "gateway": "10.2.0.30" },
            { "address": "10.3.0.2/24", "gateway": "10.3.0.1" },
        ])
    );
    assert_eq!(store.read("last_reserved_ip.1"), "10.2.0.9");
}

// C02
#[test]
fn c02_requests_come_from_three_places() {
    let Some(store) = Store::new() else { return };
    let mut conf = store.conf("1.0.0", json!([
        [{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.2.0.0/24" }], [{ "subnet": "10.3.0.0/24" }],
    ]));
    conf["args"] = json!({ "cni": { "ips": ["10.2.0.20/24"] } });
    conf["runtimeConfig"] = json!({ "ips": ["10.3.0.30"] });
    store
        .call("ADD", "one", "eth0")
        .args("IP=10.1.0.10")
        .conf(&conf)
        .run()
        .result();
    assert_eq!(store.leases(), ["10.1.0.10", "10.2.0.20", "10.3.0.30"]);
    store
        .call("DEL", "one", "eth0")
        .args("IP=10.1.0.10")
        .conf(&conf)
        .run()
        .silent();
    assert!(store.leases().is_empty());
    let bad = store
        .call("ADD", "one", "eth0")
        .args("IP=x")
        .conf(&conf)
        .run()
        .failure();
    assert_eq!(
        bad.msg,
        r#"ARGS: error parsing value of pair "IP=x": invalid IP address x"#
    );
}

#[test]
fn c03_the_oldest_versions_hold_a_set_of_each_family() {
    let Some(store) = Store::new() else { return };
    let two = json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00::/64" }]]);
    let result = store.add("one", "eth0", &store.conf("0.2.0", two)).result();
    assert_eq!(
        (&result["ip4"]["ip"], &result["ip6"]["ip"]),
        (&json!("10.1.0.2/24"), &json!("fd00::2/64"))
    );
}
