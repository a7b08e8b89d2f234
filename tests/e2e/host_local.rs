//! `host-local` on its store: which address, which file, which byte.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::cni::{self, with};
use tests::{Node, Outcome};

use crate::bridge::old;
use crate::leased;

// H01, H05
#[test]
fn h01_two_sets_are_two_addresses_and_two_files() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let mut conf = store.conf(
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
        let added = store.add("one", "eth0", &conf);
        let result = added.result();
        let routes = json!([
            { "dst": "0.0.0.0/0" },
            { "dst": "::/0" },
            { "dst": "192.168.0.0/16", "gw": "1.1.1.1" },
            { "dst": "2001:db8:2::/64", "gw": "2001:db8:3::1" },
        ]);
        if old(version) {
            assert_eq!(result["ip4"]["ip"], "10.1.2.2/24");
            assert_eq!(result["ip4"]["gateway"], "10.1.2.1");
            assert_eq!(result["ip6"]["ip"], "2001:db8:1::2/64");
            assert_eq!(result["ip6"]["gateway"], "2001:db8:1::1");
            let split = [&result["ip4"]["routes"], &result["ip6"]["routes"]];
            assert_eq!(
                split,
                [
                    &json!([routes[0], routes[2]]),
                    &json!([routes[1], routes[3]])
                ]
            );
        } else {
            let mut ips = json!([
                { "address": "10.1.2.2/24", "gateway": "10.1.2.1" },
                { "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1" },
            ]);
            if version.starts_with('0') {
                ips[0]["version"] = "4".into();
                ips[1]["version"] = "6".into();
            }
            assert_eq!(result["ips"], ips);
            assert_eq!(result["routes"], routes);
        }
        assert_eq!(result["cniVersion"], *version);

        assert_eq!(store.read("10.1.2.2"), "one\r\neth0");
        assert_eq!(store.read("2001:db8:1::2"), "one\r\neth0");
        assert_eq!(store.read("last_reserved_ip.0"), "10.1.2.2");
        assert_eq!(store.read("last_reserved_ip.1"), "2001:db8:1::2");
        assert_eq!(store.read("lock"), "");
        assert_eq!(
            store.visible(),
            [
                "10.1.2.2",
                "2001:db8:1::2",
                "last_reserved_ip.0",
                "last_reserved_ip.1",
                "lock",
            ]
        );
        let private = if cni::examines_reference() {
            0o644
        } else {
            0o600
        }; // since 1.2
        for (name, mode) in [
            ("10.1.2.2", private),
            ("last_reserved_ip.0", private),
            ("lock", 0o750),
            (".", 0o755),
        ] {
            assert_eq!(store.mode(name), mode, "mode of {name}");
        }

        store.del("one", "eth0", &conf).silent();
        assert!(store.leases().is_empty());
        assert_eq!(
            store.read("last_reserved_ip.0"),
            "10.1.2.2",
            "the cursor stays"
        );
        store.del("one", "eth0", &conf).silent(); // H05
        store.del("never", "eth0", &conf).silent();
    }
}

#[test]
fn h02_networks_and_interfaces_are_told_apart() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let first = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        let mut second = store.conf(version, json!([[{ "subnet": "10.2.2.0/24" }]]));
        second["name"] = "second".into();
        store.add("one", "eth0", &first).result();
        store.add("one", "eth1", &second).result();
        store.del("one", "eth0", &first).silent();
        assert!(store.leases().is_empty());
        assert_eq!(leased(&store.dir("second")), ["10.2.2.2"]);
        store.del("one", "eth0", &second).silent();
        assert_eq!(
            leased(&store.dir("second")),
            ["10.2.2.2"],
            "another interface's lease was freed"
        );
        store.del("one", "eth1", &second).silent();
        assert!(leased(&store.dir("second")).is_empty());
    }
}

#[test]
fn h03_an_attachment_gets_one_address_of_a_set() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let conf = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        store.add("one", "eth0", &conf).result();
        let msg = "failed to allocate for range 0: \
                   10.1.2.2 has been allocated to one, duplicate allocation is not allowed";
        store.add("one", "eth0", &conf).fails(msg);
        assert_eq!(address(&store.add("two", "eth0", &conf)), "10.1.2.3/24");
        store.add("one", "eth0", &conf).fails(msg);
        assert_eq!(store.leases(), ["10.1.2.2", "10.1.2.3"]);
        assert_eq!(store.read("last_reserved_ip.0"), "10.1.2.3");
    }
}

#[test]
fn h04_a_lease_that_names_only_its_container_is_understood() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let conf = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        store.write("10.1.2.2", "one");
        store.write("10.1.2.9", "two");
        store.add("one", "eth0", &conf).failure();
        if crate::bridge::checks(version) {
            store
                .call("CHECK", "one", "eth0")
                .conf(&conf)
                .run()
                .silent();
        }
        store.del("one", "eth0", &conf).silent();
        assert_eq!(store.leases(), ["10.1.2.9"]);
    }
}

#[test]
fn h06_spaces_around_an_owner_do_not_matter() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let conf = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        store.write("10.1.2.2", " one\r\neth0\n");
        let failure = store.add("one", "eth0", &conf).failure();
        assert!(
            failure.msg.contains("10.1.2.2 has been allocated to one"),
            "{}",
            failure.msg
        );
        store.del("one", "eth0", &conf).silent();
        assert!(store.leases().is_empty());
    }
}

#[test]
fn h07_a_new_network_is_nothing_to_talk_about() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let conf = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        for (id, verb) in [("one", "ADD"), ("two", "ADD"), ("one", "DEL")] {
            let call = store.call(verb, id, "eth0").conf(&conf).run();
            assert!(call.status.success());
            assert_eq!(call.stderr, "");
        }
    }
}

#[test]
fn h08_a_requested_address_is_given() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let mut conf = store.conf(version, json!([[{ "subnet": "10.1.2.0/24" }]]));
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88"] } });
        let added = store.add("one", "eth0", &conf);
        assert_eq!(address(&added), "10.1.2.88/24");
        assert_eq!(store.read("10.1.2.88"), "one\r\neth0");
        assert_eq!(store.read("last_reserved_ip.0"), "10.1.2.88");
        assert_eq!(
            added.stdout.contains("\"version\":"),
            matches!(*version, "0.3.0" | "0.3.1" | "0.4.0")
        );
        store.add("two", "eth0", &conf).fails(
            "failed to allocate for range 0: requested IP address 10.1.2.88 is not available in range set \
             10.1.2.1-10.1.2.254",
        );
        assert_eq!(store.leases(), ["10.1.2.88"]);
    }
}

#[test]
fn h09_two_sets_of_a_family_need_0_3() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let mut conf = store.conf(
            version,
            json!([
                [{ "subnet": "10.1.2.0/24" }],
                [{ "subnet": "10.1.3.0/24" }],
            ]),
        );
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.3.77"] } });
        if old(version) {
            let msg =
                format!("CNI version {version} does not support more than 1 address per family");
            store.add("one", "eth0", &conf).fails(&msg);
            store.del("one", "eth0", &conf).fails(&msg);
            continue;
        }
        let result = store.add("one", "eth0", &conf).result();
        assert_eq!(result["ips"][0]["address"], "10.1.2.88/24");
        assert_eq!(result["ips"][1]["address"], "10.1.3.77/24");
        assert_eq!(store.leases(), ["10.1.2.88", "10.1.3.77"]);
    }
}

#[test]
fn h10_requested_addresses_find_their_range() {
    for version in cni::versions() {
        let Some(store) = Store::new() else { return };
        let mut conf = store.conf(
            version,
            json!([
                [{ "subnet": "172.16.1.0/24" }, { "subnet": "10.1.2.0/24" }],
                [{ "subnet": "2001:db8:1::/24" }],
            ]),
        );
        conf["ipam"]["ranges"][1][0]["subnet"] = "2001:db8:1::/48".into();
        conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "2001:db8:1::999"] } });
        store.add("one", "eth0", &conf).result();
        assert_eq!(store.leases(), ["10.1.2.88", "2001:db8:1::999"]);
    }
}

#[test]
fn h11_a_request_that_fits_nowhere_takes_nothing() {
    let Some(store) = Store::new() else { return };
    let mut conf = store.conf(
        "1.0.0",
        json!([
            [{ "subnet": "10.1.2.0/24" }],
            [{ "subnet": "10.1.3.0/24" }],
        ]),
    );
    conf["args"] = json!({ "cni": { "ips": ["10.1.2.88", "10.1.2.77"] } });
    let failure = store.add("one", "eth0", &conf).failure();
    assert!(
        failure
            .msg
            .starts_with("failed to allocate all requested IPs: 10.1.2."),
        "{}",
        failure.msg
    );
    assert!(store.leases().is_empty());
}

#[test]
fn h12_resolv_conf_is_read_like_the_resolver_does() {
    let Some(store) = Store::new() else { return };
    let file = store.node.dir().join("resolv.conf");
    let text = "; comment\n# comment\nnameserver 192.0.2.0\nnameserver 192.0.2.1 x\n nameserver\t192.0.2.2\n\
                domain ignored.example\ndomain example.com\nsearch a b\nsearch c\noptions debug\n\
                options ndots:2 foo\nnameserver\nsortlist 1.2.3.4\n";
    fs::write(&file, text).unwrap();
    let mut conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    conf["ipam"]["resolvConf"] = file.to_str().unwrap().into();
    let dns = &store.add("one", "eth0", &conf).result()["dns"];
    let expected = json!({
        "domain": "example.com",
        "nameservers": ["192.0.2.0", "192.0.2.1", "192.0.2.2"],
        "options": ["debug", "ndots:2", "foo"],
        "search": ["a", "b", "c"],
    });
    assert_eq!(*dns, expected);
    conf["ipam"]["resolvConf"] = "/nowhere/resolv.conf".into();
    let failure = store.add("two", "eth0", &conf).failure();
    assert!(
        failure
            .msg
            .starts_with("open /nowhere/resolv.conf: no such file or directory"),
        "{}",
        failure.msg
    );
    assert_eq!(store.leases(), ["10.1.2.2"]);
}

// C04
#[test]
fn c04_the_lock_is_waited_for() {
    use nix::fcntl::{Flock, FlockArg};
    use std::time::{Duration, Instant};
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    store.add("one", "eth0", &conf).result();
    let lock = fs::File::open(store.dir("net").join("lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, err)| err)
        .unwrap();
    let held = Duration::from_millis(300);
    let start = Instant::now();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(held);
        drop(lock);
    });
    assert_eq!(address(&store.add("two", "eth0", &conf)), "10.1.2.3/24");
    assert!(
        start.elapsed() >= held,
        "the store was changed under somebody else's lock"
    );
    holder.join().unwrap();
}

#[test]
fn many_at_once_get_an_address_each() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.0.0",
        json!([[{ "subnet": "10.1.2.0/26" }], [{ "subnet": "fd00::/64" }]]),
    );
    let store = &store;
    let conf = &conf;
    std::thread::scope(|scope| {
        let pods: Vec<_> = (0..24)
            .map(|it| scope.spawn(move || address(&store.add(&format!("pod-{it}"), "eth0", conf))))
            .collect();
        let mut given: Vec<String> = pods.into_iter().map(|it| it.join().unwrap()).collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 24);
    });
    assert_eq!(store.leases().len(), 48);
}

#[test]
fn check_asks_only_whether_there_is_a_lease() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/24" }]]));
    let check = |id: &str| store.call("CHECK", id, "eth0").conf(&conf).run();
    check("one").fails("host-local: Failed to find address added by container one");
    store.add("one", "eth0", &conf).result();
    check("one").silent();
}

// K33
#[test]
fn a_crash_s_empty_file_does_not_block_an_address_for_ever() {
    if cni::differs("an empty file is taken for a lease") {
        return;
    }
    let Some(store) = Store::new() else { return };
    store.write("10.1.2.2", "");
    let conf = store.conf("1.0.0", json!([[{ "subnet": "10.1.2.0/30" }]]));
    assert_eq!(address(&store.add("one", "eth0", &conf)), "10.1.2.2/30");
    assert_eq!(store.read("10.1.2.2"), "one\r\neth0");
}

#[test]
fn a_failing_add_frees_what_it_took() {
    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.0.0",
        json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "10.2.2.0/30" }]]),
    );
    store.write("10.2.2.2", "other\r\neth0");
    let msg =
        "failed to allocate for range 1: no IP addresses available in range set: 10.2.2.1-10.2.2.2";
    store.add("one", "eth0", &conf).fails(msg);
    assert_eq!(store.leases(), ["10.2.2.2"]);
}

#[test]
fn gc_frees_what_no_valid_attachment_owns() {
    if cni::differs("it has no GC") {
        return;
    }
    let Some(store) = Store::new() else { return };
    let conf = store.conf(
        "1.1.0",
        json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "fd00::/64" }]]),
    );
    let other = with(&conf, "name", "second".into());
    for (id, ifname) in [("one", "eth0"), ("one", "eth1"), ("two", "eth0")] {
        store.add(id, ifname, &conf).result();
    }
    store.add("two", "eth0", &other).result();
    let valid = json!([{ "containerID": "one", "ifname": "eth1" }]);
    let gc = with(&conf, "cni.dev/valid-attachments", valid);
    store.node.call("host-local", "GC").conf(&gc).run().silent();
    assert_eq!(store.leases(), ["10.1.2.3", "fd00::3"]);
    assert_eq!(
        leased(&store.dir("second")).len(),
        2,
        "another network's leases were freed"
    );
    store.node.status("host-local", &conf).silent();
}

#[test]
fn a_full_pool_is_no_bad_status() {
    if cni::differs("it has no STATUS") {
        return;
    }
    let Some(store) = Store::new() else { return };
    let conf = store.conf("1.1.0", json!([[{ "subnet": "10.1.2.0/30" }]]));
    store.add("one", "eth0", &conf).result();
    store.node.status("host-local", &conf).silent();
}

/// A node and the store on it.
pub(crate) struct Store {
    node: Node,
}

impl Store {
    pub(crate) fn new() -> Option<Store> {
        Node::with(&["host-local"]).map(|node| Store { node })
    }

    /// A configuration of network `net`.
    pub(crate) fn conf(&self, version: &str, ranges: Value) -> Value {
        let ipam = json!({ "type": "host-local", "dataDir": self.node.dir().join("ipam"), "ranges": ranges });
        json!({ "cniVersion": version, "name": "net", "type": "bridge", "ipam": ipam })
    }

    pub(crate) fn call(&self, verb: &str, id: &str, ifname: &str) -> cni::Call<'_> {
        let call = self
            .node
            .call("host-local", verb)
            .env("CNI_CONTAINERID", id);
        call.env("CNI_IFNAME", ifname)
            .env("CNI_NETNS", "/some/where")
    }

    pub(crate) fn add(&self, id: &str, ifname: &str, conf: &Value) -> Outcome {
        self.call("ADD", id, ifname).conf(conf).run()
    }

    pub(crate) fn del(&self, id: &str, ifname: &str, conf: &Value) -> Outcome {
        self.call("DEL", id, ifname).conf(conf).run()
    }

    pub(crate) fn dir(&self, network: &str) -> PathBuf {
        self.node.dir().join("ipam").join(network)
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        leased(&self.dir("net"))
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.dir("net").join(name);
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.dir("net")).unwrap();
        fs::write(self.dir("net").join(name), text).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(self.dir("net").join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }

    /// What an administrator sees in the network's directory.
    fn visible(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir("net"))
            .unwrap()
            .map(|it| it.unwrap().file_name());
        let mut names: Vec<String> = names.map(|it| it.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The one address that an ADD gave.
#[track_caller]
pub(crate) fn address(added: &Outcome) -> String {
    let result = added.result();
    let ip = if result.get("ip4").is_some() {
        &result["ip4"]["ip"]
    } else {
        &result["ips"][0]["address"]
    };
    ip.as_str()
        .unwrap_or_else(|| panic!("{}", added.story()))
        .to_owned()
}
