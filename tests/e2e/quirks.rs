//! What the reference is known to do badly, and ours does better without being another plugin. In order:
//!
//! 1. Every verb reads every lease: here.
//! 2. An empty lease file blocks its address: `host_local::a_crash_s_empty_file_does_not_block_an_address_for_ever`.
//! 3. Leases and rules leak with the namespace: `chain::del_cleans_up_whatever_became_of_the_namespace`.
//! 4. Two interfaces of a container share a masquerade chain: here.
//! 5. CHECK fails on layer 2, with interfaces of others, and with a /32: here.
//! 6. A default route that IPAM has already stops ADD: here.
//! 7. The plugin's own namespace is noticed too late: `hostile::a_plugin_leaves_its_own_namespace_alone`.
//! 8. No GC: `chain::gc_and_status_run_through_the_chain`, `host_local::gc_frees_what_no_valid_attachment_owns`.
//! 9. A delegate that cannot be run has succeeded: here.
//! 10. Nobody tells IPAM that its ADD failed: here, why that stays so.
//! 11. A failed ADD leaves its cable: `failure::a_step_the_kernel_refuses_is_undone` and its neighbours.
//! 12. `MAC=` and `IP=` in `CNI_ARGS` break the other plugin: here.
//! 13. `mtu` and `advmss` of a route are lost: `attachment::l09_a_route_keeps_every_field`.
//!
//! What flannel's own page adds is in `flannel_state`, and in the tests beside its source.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};
use tests::Node;
use tests::cni::{differs, with};
use tests::ip::text;

use crate::bridge::{l2, l3, networks, node};
use crate::leases;

#[test]
fn q01_a_verb_opens_no_lease_of_others() {
    const PODS: usize = 20;
    if differs("it reads every lease") {
        return;
    }
    let Some(node) = node() else { return };
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let call = |verb: &str, id: &str| {
        let call = node.call("host-local", verb).env("CNI_CONTAINERID", id);
        let call = call.env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/x");
        call.conf(&conf).run()
    };
    for pod in 0..PODS {
        call("ADD", &format!("other-{pod}")).result();
    }
    let opened = Opened::below(&node, "net");
    call("ADD", "one").result();
    call("CHECK", "one").silent();
    call("DEL", "one").silent();
    call("DEL", "one").silent();
    let others = leases(&node, "net");
    assert_eq!(others.len(), PODS);
    let opened = opened.names();
    assert!(opened.contains(&"lock".to_owned()), "{opened:?}");
    let read: Vec<_> = opened.iter().filter(|it| others.contains(it)).collect();
    assert!(read.is_empty(), "{read:?}");
}

#[test]
fn q04_two_interfaces_of_a_container_go_one_by_one() {
    if differs("DEL of the first fails, its chain being busy") {
        return;
    }
    let Some(node) = node() else { return };
    let conf = with(
        &l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]),
        "ipMasq",
        true.into(),
    );
    let conf = with(&conf, "isDefaultGateway", false.into());
    let mut pod = node.pod();
    node.add("bridge", &pod, &conf).result();
    node.add("bridge", pod.interface("net1"), &conf).result();
    // The second DEL finds no interface whose addresses it could look up.
    for _ in 0..2 {
        node.del("bridge", pod.interface("eth0"), &conf).silent();
        let nat = node.nat().join("\n");
        assert!(
            !nat.contains("-s 10.1.2.2/32") && nat.contains("-s 10.1.2.3/32"),
            "{nat}"
        );
        assert!(nat.contains("-j MASQUERADE"), "{nat}");
    }
    node.del("bridge", pod.interface("net1"), &conf).silent();
    assert_eq!(node.nat(), [""; 0]);
}

#[test]
fn q05_check_accepts_a_layer_2_attachment_and_misses_it_when_it_is_gone() {
    if differs("it asks for an IPAM plugin that is not configured") {
        return;
    }
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let Some(node) = node() else { return };
        let pod = node.pod();
        let conf = l2(version);
        let result = node.add("bridge", &pod, &conf).result();
        node.check("bridge", &pod, &conf, &result).silent();
        pod.run("ip", &["link", "del", "eth0"]);
        node.check("bridge", &pod, &conf, &result).failure();
    }
}

/// Without a gateway nothing pins the bridge's MAC: it is the lowest of its ports', and changes as they come and go.
#[test]
fn q05_check_accepts_a_pod_of_layer_2_whatever_ports_come_and_go() {
    if differs("it asks for an IPAM plugin that is not configured") {
        return;
    }
    const LOWEST: &str = "ip link add port address 02:00:00:00:00:01 type veth peer name other; \
                          ip link set port master bridge0";
    let Some(node) = node() else { return };
    let pod = node.pod();
    let conf = l2("1.0.0");
    let result = node.add("bridge", &pod, &conf).result();
    node.run("sh", &["-ec", LOWEST]);
    assert_eq!(
        node.link("bridge0").unwrap()["address"],
        "02:00:00:00:00:01"
    );
    node.check("bridge", &pod, &conf, &result).silent();
}

#[test]
fn q05_check_does_not_mind_interfaces_of_other_plugins() {
    if differs("it looks for them on the host") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let mut result = node.add("bridge", &pod, &conf).result();
    let foreign = json!({ "name": "ifb-bandwidth", "mac": "02:00:00:00:00:07" });
    let inner = json!({ "name": "wg0", "sandbox": pod.path() });
    let interfaces = result["interfaces"].as_array_mut().unwrap();
    interfaces.extend([foreign, inner]);
    node.check("bridge", &pod, &conf, &result).silent();
}

#[test]
fn q05_check_accepts_a_pod_that_is_alone_in_its_network() {
    if differs("it looks for a route that the kernel does not make") {
        return;
    }
    let Some(node) = node() else { return };
    node.script(
        "alone",
        "[ $CNI_COMMAND = ADD ] && echo '{ \"cniVersion\": \"1.0.0\", \"ips\": [{ \"address\": \"10.1.2.2/32\" }] }' || true",
    );
    let conf = with(&l2("1.0.0"), "ipam", json!({ "type": "alone" }));
    let pod = node.pod();
    let call = |verb: &str, conf: &Value| {
        node.call("bridge", verb)
            .pod(&pod)
            .scripts()
            .conf(conf)
            .run()
    };
    let result = call("ADD", &conf).result();
    assert_eq!(pod.addresses("eth0"), networks(&["10.1.2.2/32"]));
    call("CHECK", &with(&conf, "prevResult", result)).silent();
}

#[test]
fn q06_a_default_route_of_ipam_s_is_not_added_twice() {
    if differs("ADD fails: file exists") {
        return;
    }
    let Some(node) = node() else { return };
    let pod = node.pod();
    let mut conf = l3(&node, "1.0.0", &["10.1.2.0/24", "2001:db8::/64"]);
    conf["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    let result = node.add("bridge", &pod, &conf).result();
    let mut routes = pod.routes();
    routes.sort();
    assert_eq!(
        routes,
        [
            "default via 10.1.2.1 dev eth0",
            "default via 2001:db8::1 dev eth0"
        ]
    );
    node.check("bridge", &pod, &conf, &result).silent();
}

#[test]
fn q09_a_delegate_that_stays_busy_is_a_failure_of_every_verb() {
    if differs("it gives up with success on DEL and CHECK") {
        return;
    }
    let Some(node) = Node::with(&["bridge"]) else {
        return;
    };
    node.script("ipam", "exit 0");
    let _writing = File::options()
        .append(true)
        .open(node.scripts().join("ipam"))
        .unwrap();
    let conf = with(&l2("1.0.0"), "ipam", json!({ "type": "ipam" }));
    let pod = node.pod();
    std::thread::scope(|scope| {
        for verb in ["ADD", "CHECK", "DEL"] {
            let call = || {
                node.call("bridge", verb)
                    .pod(&pod)
                    .scripts()
                    .conf(&conf)
                    .run()
            };
            scope.spawn(move || {
                let failure = call().failure();
                assert_eq!(failure.code, 11, "{verb}: {failure:?}");
            });
        }
    });
    assert!(node.links().is_empty());
}

/// DEL after every failed ADD would also free what an earlier ADD of the same container took.
#[test]
fn q10_a_second_add_that_ipam_refuses_leaves_the_first_lease() {
    let Some(node) = node() else { return };
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let pod = node.pod();
    node.add("bridge", &pod, &conf).result();
    pod.run("ip", &["link", "del", "eth0"]);
    let msg = format!(
        "failed to allocate for range 0: 10.1.2.2 has been allocated to {}, duplicate allocation is not allowed",
        pod.id
    );
    node.add("bridge", &pod, &conf).fails(&msg);
    assert_eq!(leases(&node, "net"), ["10.1.2.2"]);
}

#[test]
fn q12_arguments_for_one_plugin_do_not_stop_the_other() {
    if differs("it refuses them unless IgnoreUnknown is set") {
        return;
    }
    let Some(node) = node() else { return };
    let conf = l3(&node, "1.0.0", &["10.1.2.0/24"]);
    let pod = node.pod();
    let call = |verb: &str, args: &str| {
        let call = node.call("bridge", verb).pod(&pod).conf(&conf);
        call.args(args).run()
    };
    let args = "MAC=c2:11:22:33:44:55;IP=10.1.2.77";
    let result = call("ADD", args).result();
    assert_eq!(text(&result["interfaces"][2], "mac"), "c2:11:22:33:44:55");
    assert_eq!(text(&result["ips"][0], "address"), "10.1.2.77/24");
    call("DEL", args).silent();
    call("ADD", "MAD=c2:11:22:33:44:55").fails("ARGS: unknown args [\"MAD=c2:11:22:33:44:55\"]");
}

/// Files of a network's folder that anybody opens.
struct Opened {
    watch: Inotify,
}

impl Opened {
    fn below(node: &Node, network: &str) -> Opened {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let dir = node.dir().join("ipam").join(network);
        assert!(fs::metadata(&dir).unwrap().is_dir());
        watch.add_watch(&dir, AddWatchFlags::IN_OPEN).unwrap();
        Opened { watch }
    }

    /// Their names, until now.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(events) = self.watch.read_events() {
            let named = events.into_iter().filter_map(|it| it.name);
            names.extend(named.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()));
        }
        names
    }
}
