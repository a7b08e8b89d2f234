//! The verbs, as a runtime calls them, on a store of each test's own.

mod history;
pub(crate) mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cni_spec::Version;
use cni_spec::version::{Family, SUPPORTED};
use serde_json::json;

use machine::{Machine, addresses, failure, msg, result, silent};

/// Has this version the verb CHECK?
fn checks(version: &str) -> bool {
    Version::parse(version).unwrap() >= Version::V0_4_0
}

// H01, H05
#[test]
fn h01_h05_two_sets_are_two_addresses_and_two_files() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let mut conf = machine.conf(
            version,
            json!([
                [{ "subnet": "10.1.2.0/24" }, { "subnet": "10.2.2.0/24" }],
                [{ "subnet": "2001:db8:1::0/64" }],
            ]),
        );
        conf["ipam"]["routes"] = json!([
            { "dst": "0.0.0.0/0" },
            { "dst": "::/0" },
            { "dst": "192.168.0.0/16", "gw": "1.1.1.1" },
            { "dst": "2001:db8:2::0/64", "gw": "2001:db8:3::1" },
        ]);
        let added = machine.add("one", &conf);
        assert_eq!(addresses(&added), ["10.1.2.2/24", "2001:db8:1::2/64"]);
        let (result, routes) = (
            result(&added),
            json!([
                { "dst": "0.0.0.0/0" },
                { "dst": "::/0" },
                { "dst": "192.168.0.0/16", "gw": "1.1.1.1" },
                { "dst": "2001:db8:2::/64", "gw": "2001:db8:3::1" },
            ]),
        );
        match Version::parse(version).unwrap().family() {
            Family::Ip4Ip6 => {
                let gateways = [&result["ip4"]["gateway"], &result["ip6"]["gateway"]];
                assert_eq!(gateways, ["10.1.2.1", "2001:db8:1::1"]);
                assert_eq!(result["ip4"]["routes"], json!([routes[0], routes[2]]));
                assert_eq!(result["ip6"]["routes"], json!([routes[1], routes[3]]));
            }
            Family::VersionedIps | Family::Current => {
                let gateways = [&result["ips"][0]["gateway"], &result["ips"][1]["gateway"]];
                assert_eq!(gateways, ["10.1.2.1", "2001:db8:1::1"]);
                assert_eq!(result["routes"], routes);
                assert!(result["ips"][0].get("interface").is_none());
            }
        }

        let file = |name: &str, content: &str| (name.to_owned(), content.as_bytes().to_vec());
        let cursors = [
            file("last_reserved_ip.0", "10.1.2.2"),
            file("last_reserved_ip.1", "2001:db8:1::2"),
        ];
        let mut files = [
            file("10.1.2.2", "one\r\neth0"),
            file("2001:db8:1::2", "one\r\neth0"),
        ]
        .to_vec();
        files.extend(cursors.clone());
        assert_eq!(machine.files(), files.into_iter().collect());
        for (name, mode) in [
            ("10.1.2.2", 0o600),
            ("last_reserved_ip.1", 0o600),
            ("lock", 0o750),
            (".", 0o755),
        ] {
            let found = fs::metadata(machine.folder().join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777;
            assert_eq!(found, mode, "{name}");
        }

        silent(&machine.del("never", &conf));
        assert_eq!(machine.leases().len(), 2);
        silent(&machine.del("one", &conf));
        assert_eq!(machine.files(), cursors.into_iter().collect());
        silent(&machine.del("one", &conf));
    }
}

#[test]
fn h02_networks_and_interfaces_are_told_apart() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let first = machine.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        let mut second = machine.conf(version, json!([[{ "subnet": "10.2.2.0/24" }]]));
        second["name"] = "second".into();
        let lease_of_second = machine.data_dir().join("second/10.2.2.2");
        result(&machine.call("ADD", ("one", "eth0"), "", &first));
        result(&machine.call("ADD", ("one", "eth1"), "", &second));
        silent(&machine.call("DEL", ("one", "eth0"), "", &first));
        silent(&machine.call("DEL", ("one", "eth0"), "", &second));
        assert!(machine.leases().is_empty());
        assert_eq!(fs::read_to_string(&lease_of_second).unwrap(), "one\r\neth1");
        silent(&machine.call("DEL", ("one", "eth1"), "", &second));
        assert!(!lease_of_second.exists());
    }
}

#[test]
fn h03_an_attachment_gets_one_address_of_a_set() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let conf = machine.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        assert_eq!(addresses(&machine.add("one", &conf)), ["10.1.2.2/24"]);
        let again = "failed to allocate for range 0: \
                     10.1.2.2 has been allocated to one, duplicate allocation is not allowed";
        let (code, msg, details) = failure(&machine.add("one", &conf));
        assert_eq!((code, msg.as_str()), (100, again));
        let file = machine.folder().join("10.1.2.2").display().to_string();
        assert_eq!(
            details,
            format!("`{file}` is the lease; DEL of this container and interface frees it")
        );
        assert_eq!(addresses(&machine.add("two", &conf)), ["10.1.2.3/24"]);
        assert_eq!(failure(&machine.add("one", &conf)).1, again);
        assert_eq!(machine.leases(), ["10.1.2.2", "10.1.2.3"]);
        assert_eq!(machine.read("last_reserved_ip.0"), "10.1.2.3");
    }
}

// H04, H06
#[test]
fn h04_h06_leases_of_long_ago_and_with_spaces_are_understood() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let conf = machine.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        machine.write("10.1.2.2", "one");
        machine.write("10.1.2.3", " two\r\neth0\n");
        machine.write("10.1.2.4", "three\r\neth0");
        machine.write("10.1.2.5", "three");
        for (id, held) in [
            ("one", "10.1.2.2"),
            ("two", "10.1.2.3"),
            ("three", "10.1.2.4"),
        ] {
            let msg = msg(&machine.add(id, &conf));
            assert!(
                msg.contains(&format!("{held} has been allocated to {id}, ")),
                "{msg}"
            );
            if checks(version) {
                silent(&machine.check(id, &conf));
            }
        }
        silent(&machine.del("one", &conf));
        silent(&machine.del("two", &conf));
        silent(&machine.del("three", &conf));
        assert_eq!(
            machine.leases(),
            ["10.1.2.5"],
            "a lease without interface stays while one with it is found"
        );
        silent(&machine.del("three", &conf));
        assert!(machine.leases().is_empty());
    }
}

#[test]
fn h07_a_new_network_is_nothing_to_talk_about() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let conf = machine.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        assert_eq!(machine.add("one", &conf).stderr, b"");
        // That a cursor cannot be read is.
        fs::remove_file(machine.folder().join("last_reserved_ip.0")).unwrap();
        fs::create_dir(machine.folder().join("last_reserved_ip.0")).unwrap();
        let outcome = machine.add("two", &conf);
        assert_eq!(
            String::from_utf8_lossy(&outcome.stderr),
            "Error retrieving last reserved ip: is a directory\n"
        );
        assert_eq!(failure(&outcome).0, 5);
        assert_eq!(
            machine.leases(),
            ["10.1.2.2"],
            "a failed ADD kept its address"
        );
    }
}

#[test]
fn h08_a_requested_address_is_given() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let mut conf = machine.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88"] } });
        let added = machine.add("one", &conf);
        assert_eq!(addresses(&added), ["10.1.2.88/24"]);
        let has_version = String::from_utf8_lossy(&added.stdout).contains("\"version\":");
        assert_eq!(has_version, ["0.3.0", "0.3.1", "0.4.0"].contains(&version));
        assert_eq!(machine.read("10.1.2.88"), "one\r\neth0");
        assert_eq!(machine.read("last_reserved_ip.0"), "10.1.2.88");
        // The attachment may ask for more than one: nothing is a duplicate here.
        conf["args"]["cni"]["ips"] = json!(["10.1.2.99"]);
        assert_eq!(addresses(&machine.add("one", &conf)), ["10.1.2.99/24"]);
        silent(&machine.del("one", &conf));
        assert!(machine.leases().is_empty());
    }
}

#[test]
fn h09_two_sets_of_a_family_need_0_3() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let mut conf = machine.conf(
            version,
            json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.3.0/24" }]]),
        );
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.3.77"] } });
        if ["0.1.0", "0.2.0"].contains(&version) {
            let too_many =
                format!("CNI version {version} does not support more than 1 address per family");
            for outcome in [machine.add("one", &conf), machine.del("one", &conf)] {
                assert_eq!(
                    failure(&outcome),
                    (
                        7,
                        too_many.clone(),
                        "set `cniVersion` to 0.3.0 or newer".to_owned()
                    )
                );
            }
            assert!(!machine.folder().exists());
            continue;
        }
        assert_eq!(
            addresses(&machine.add("one", &conf)),
            ["10.1.2.88/24", "10.1.3.77/24"]
        );
        assert_eq!(machine.leases(), ["10.1.2.88", "10.1.3.77"]);
    }
}

#[test]
fn h10_requested_addresses_find_their_range() {
    for version in SUPPORTED {
        let machine = Machine::new();
        let mut conf = machine.conf(
            version,
            json!([
                [{ "subnet": "172.16.1.0/24" }, { "subnet": "10.1.2.0/24" }],
                [{ "subnet": "2001:db8:1::/48" }],
            ]),
        );
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "2001:db8:1::999"] } });
        assert_eq!(
            addresses(&machine.add("one", &conf)),
            ["10.1.2.88/24", "2001:db8:1::999/48"]
        );
        assert_eq!(machine.leases(), ["10.1.2.88", "2001:db8:1::999"]);
    }
}

#[test]
fn h11_a_request_that_fits_nowhere_takes_nothing() {
    let machine = Machine::new();
    let mut conf = machine.conf(
        "1.0.0",
        json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.1.3.0/24" }]]),
    );
    conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.2.77", "10.9.9.9"] } });
    let (code, msg, _) = failure(&machine.add("one", &conf));
    assert_eq!(
        (code, msg.as_str()),
        (
            100,
            "failed to allocate all requested IPs: 10.1.2.77 10.9.9.9"
        )
    );
    assert!(machine.leases().is_empty());
}

#[test]
fn h12_the_resolver_s_file_becomes_dns() {
    let machine = Machine::new();
    let file = machine.data_dir().with_file_name("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.1\nsearch a b\n").unwrap();
    let mut conf = machine.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    conf["ipam"]["resolvConf"] = file.to_str().unwrap().into();
    let dns = json!({ "nameservers": ["192.0.2.1"], "search": ["a", "b"] });
    assert_eq!(result(&machine.add("one", &conf))["dns"], dns);
    conf["ipam"]["resolvConf"] = "/nowhere/resolv.conf".into();
    let (code, msg, _) = failure(&machine.add("two", &conf));
    assert_eq!(
        (code, msg.as_str()),
        (5, "open /nowhere/resolv.conf: no such file or directory")
    );
    assert_eq!(machine.leases(), ["10.1.2.2"]);
}

#[test]
fn a05_the_broadcast_address_is_never_given() {
    let machine = Machine::new();
    let conf = machine.conf("1.0.0", json!([[{ "subnet": "192.168.1.0/29" }]]));
    for host in 2..=6 {
        assert_eq!(
            addresses(&machine.add(&format!("pod-{host}"), &conf)),
            [format!("192.168.1.{host}/29")]
        );
    }
    let (code, msg, details) = failure(&machine.add("late", &conf));
    let exhausted = "failed to allocate for range 0: \
                     no IP addresses available in range set: 192.168.1.1-192.168.1.6";
    assert_eq!((code, msg.as_str()), (100, exhausted));
    let folder = machine.folder().display().to_string();
    assert!(
        details.starts_with(&format!("`{folder}` holds 5 leases of these ranges; ")),
        "{details}"
    );
}

#[test]
fn a06_a_freed_address_is_not_the_next_one() {
    let machine = Machine::new();
    let conf = machine.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/29" }]]));
    let mut given = Vec::new();
    for _ in 0..7 {
        given.extend(addresses(&machine.add("one", &conf)));
        silent(&machine.del("one", &conf));
    }
    assert_eq!(
        given,
        [2, 3, 4, 5, 6, 2, 3].map(|host| format!("10.1.2.{host}/29"))
    );
}

#[test]
fn a07_a_requested_address_that_cannot_be_had() {
    let machine = Machine::new();
    let window =
        json!([[{ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.10", "rangeEnd": "10.0.0.20" }]]);
    let conf = machine.conf("1.0.0", window);
    let request =
        |id: &str, ip: &str| machine.call("ADD", (id, "eth0"), &format!("IP={ip}"), &conf);
    for outside in ["10.0.0.9", "10.0.0.21"] {
        assert_eq!(
            msg(&request("one", outside)),
            format!("failed to allocate all requested IPs: {outside}")
        );
    }
    assert_eq!(addresses(&request("one", "10.0.0.15/8")), ["10.0.0.15/24"]);
    let (code, msg, details) = failure(&request("two", "10.0.0.15"));
    let taken = "failed to allocate for range 0: \
                 requested IP address 10.0.0.15 is not available in range set 10.0.0.10-10.0.0.20";
    assert_eq!((code, msg.as_str()), (100, taken));
    let file = machine.folder().join("10.0.0.15").display().to_string();
    assert_eq!(
        details,
        format!("`{file}` is held by container one, interface eth0")
    );

    let mut conf = machine.conf("1.0.0", json!([[{ "subnet": "10.9.0.0/24" }]]));
    conf["runtimeConfig"] = json!({ "ips": ["10.9.0.1"] });
    let gateway = "failed to allocate for range 0: requested ip 10.9.0.1 is subnet's gateway";
    assert_eq!(machine::msg(&machine.add("two", &conf)), gateway);
    assert_eq!(machine.leases(), ["10.0.0.15"]);
}

#[test]
fn a08_exhausted_sets_are_told_by_their_windows() {
    for (ranges, text) in [
        (json!([{ "subnet": "10.0.0.0/29" }]), "10.0.0.1-10.0.0.6"),
        (json!([{ "subnet": "10.0.0.0/30" }]), "10.0.0.1-10.0.0.2"),
        (
            json!([{ "subnet": "10.0.0.0/30" }, { "subnet": "10.0.1.0/30" }]),
            "10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2",
        ),
    ] {
        let machine = Machine::new();
        let conf = machine.conf("1.0.0", json!([ranges]));
        let mut pods = 0;
        let refused = loop {
            let added = machine.add(&format!("pod-{pods}"), &conf);
            if added.failed {
                break msg(&added);
            }
            pods += 1;
        };
        let expected = format!(
            "failed to allocate for range 0: no IP addresses available in range set: {text}"
        );
        assert_eq!(refused, expected);
        assert_eq!(machine.leases().len(), pods);
        silent(&machine.del("pod-0", &conf));
        assert_eq!(addresses(&machine.add("late", &conf)).len(), 1);
    }
}

#[test]
fn a_failed_add_gives_back_what_it_took_and_nothing_else() {
    let machine = Machine::new();
    let small = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.2.2.0/30" }]]);
    let conf = machine.conf("1.0.0", small);
    result(&machine.add("one", &conf));
    let full =
        "failed to allocate for range 1: no IP addresses available in range set: 10.2.2.1-10.2.2.2";
    assert_eq!(msg(&machine.add("two", &conf)), full);
    assert_eq!(machine.leases(), ["10.1.2.2", "10.2.2.2"]);
    // A request in the first set is granted before the second set finds a duplicate; the first attachment stands.
    let again = machine.call("ADD", ("one", "eth0"), "IP=10.1.2.77", &conf);
    assert!(
        msg(&again)
            .starts_with("failed to allocate for range 1: 10.2.2.2 has been allocated to one")
    );
    assert_eq!(machine.leases(), ["10.1.2.2", "10.2.2.2"]);
    silent(&machine.del("one", &conf));
    assert!(machine.leases().is_empty());
}

#[test]
fn check_asks_whether_there_is_a_lease() {
    let machine = Machine::new();
    let conf = machine.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    let (code, msg, details) = failure(&machine.check("one", &conf));
    assert_eq!(
        (code, msg.as_str()),
        (
            102,
            "host-local: Failed to find address added by container one"
        )
    );
    assert_eq!(
        details,
        format!("no file in `{}` names it", machine.folder().display())
    );
    result(&machine.add("one", &conf));
    silent(&machine.check("one", &conf));
    fs::remove_file(machine.folder().join("10.1.2.2")).unwrap();
    assert!(machine.check("one", &conf).failed);
}

#[test]
fn gc_frees_what_no_valid_attachment_owns() {
    let machine = Machine::new();
    let mut conf = machine.conf(
        "1.1.0",
        json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "fd00::/64" }]]),
    );
    let mut other = conf.clone();
    other["name"] = "second".into();
    machine.write("10.1.2.200", "two");
    machine.write("10.1.2.201", "three");
    machine.write("10.1.2.202", "the printer");
    for owner in [("one", "eth0"), ("one", "eth1"), ("two", "eth1")] {
        result(&machine.call(
            "ADD",
            owner,
            "",
            if owner.0 == "two" { &other } else { &conf },
        ));
    }
    conf["cni.dev/valid-attachments"] = json!([
        { "containerID": " one ", "ifname": "eth1" },
        { "containerID": "two", "ifname": "eth7" },
    ]);
    silent(&machine.call("GC", ("", ""), "", &conf));
    assert_eq!(
        machine.leases(),
        ["10.1.2.200", "10.1.2.202", "10.1.2.3", "fd00::3"]
    );
    assert!(
        machine.data_dir().join("second/10.1.2.2").exists(),
        "another network's lease was freed"
    );
    assert_eq!(
        addresses(&machine.add("one", &conf)),
        ["10.1.2.4/24", "fd00::4/64"]
    );
    conf["cni.dev/valid-attachments"] = json!([]);
    silent(&machine.call("GC", ("", ""), "", &conf));
    assert_eq!(machine.leases(), ["10.1.2.202"]);
}

#[test]
fn status_says_no_only_where_nothing_can_be_written() {
    let machine = Machine::new();
    let mut conf = machine.conf("1.1.0", json!([[{ "subnet": "10.1.2.0/30" }]]));
    silent(&machine.call("STATUS", ("", ""), "", &conf));
    result(&machine.add("one", &conf));
    assert!(machine.add("two", &conf).failed);
    silent(&machine.call("STATUS", ("", ""), "", &conf));
    conf["ipam"]["dataDir"] = "/proc/nowhere".into();
    let (code, msg, _) = failure(&machine.call("STATUS", ("", ""), "", &conf));
    assert_eq!(
        (code, msg.as_str()),
        (
            50,
            "leases cannot be written: mkdir /proc/nowhere/net: no such file or directory"
        )
    );
    conf["ipam"]["ranges"] = json!([]);
    assert_eq!(failure(&machine.call("STATUS", ("", ""), "", &conf)).0, 7);
}

#[test]
fn a_data_dir_may_be_spelled_in_any_way() {
    let machine = Machine::new();
    let mut conf = machine.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    result(&machine.add("one", &conf));
    conf["ipam"]["dataDir"] = machine
        .data_dir()
        .join("../networks/./net/..")
        .to_str()
        .unwrap()
        .into();
    assert_eq!(addresses(&machine.add("two", &conf)), ["10.1.2.3/24"]);
    silent(&machine.del("one", &conf));
    assert_eq!(machine.leases(), ["10.1.2.3"]);
}

#[test]
fn the_about_line_names_the_plugin() {
    use cni_plugin::Plugin;
    let about = concat!("CNI host-local plugin v", env!("CARGO_PKG_VERSION"));
    assert_eq!(crate::HostLocal.about(), about);
}
