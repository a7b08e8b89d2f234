//! Binaries are swapped under running pods: what the reference left on a node, ours finds and removes, and back again.
//!
//! For `bridge` with masquerade and dual stack see also [`reference`](crate::reference).

mod bridge;
mod ports;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::thread;

use serde_json::{Value, json};
use tests::cni::{Plugins, is_slow};
use tests::node::Pod;
use tests::{Node, Outcome, Release};

use crate::bridge::{l3, node};
use crate::flannel::On;
use crate::{check_no_ports, leased, leases};

/// What flannel writes and hands on for a stock kube-flannel node, and for a dual-stack one of k3s.
const STATES: [(&str, &str); 2] = [
    (
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        r#"{"cniVersion":"1.0.0","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#,
    ),
    (
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.0.1/24\nFLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
         FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
        r#"{"cniVersion":"1.0.0","forceAddress":true,"hairpinMode":true,"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.42.0.0/24"}],[{"subnet":"2001:cafe:42::/64"}]],"routes":[{"dst":"10.42.0.0/16"},{"dst":"2001:cafe:42::/56"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#,
    ),
];

#[test]
fn a_pod_of_the_reference_s_flannel_is_checked_and_stopped_by_ours() {
    for (env, state) in STATES {
        let Some(on) = On::node(env) else { return };
        let Some(reference) = on.reference(Release::V1_1_1) else {
            return;
        };
        let pod = on.pod();
        let added = reference.call("bridge", "ADD").pod(&pod).stdin(state).run();
        let result = added.result();
        let dir = on.file("/var/lib/cni/flannel");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(&pod.id), state).unwrap();
        fs::set_permissions(dir.join(&pod.id), Permissions::from_mode(0o600)).unwrap();
        let conf = conf_of(state);
        on.check("flannel", &pod, &conf, &result).silent();
        on.del("flannel", &pod, &conf).silent();
        check_nothing(&on, &pod);
    }
}

#[test]
fn a_pod_of_our_flannel_is_stopped_by_the_reference_s_bridge_with_the_state_it_left() {
    for (env, state) in STATES {
        let Some(on) = On::node(env) else { return };
        let Some(reference) = on.reference(Release::V1_1_1) else {
            return;
        };
        let pod = on.pod();
        on.add("flannel", &pod, &conf_of(state)).result();
        let left = on.state(&pod).unwrap();
        assert_eq!(left, state);
        let del = reference.call("bridge", "DEL").pod(&pod).stdin(left);
        del.run().silent();
        fs::remove_file(on.file("/var/lib/cni/flannel").join(&pod.id)).unwrap(); // as the reference's flannel does then
        on.del("flannel", &pod, &conf_of(state)).silent(); // the runtime may say it again
        check_nothing(&on, &pod);
    }
}

#[test]
fn all_hammering_one_store_never_give_an_address_twice() {
    const WORKERS: usize = 4;
    let adds = if is_slow() { 25 } else { 250 }; // and as many DELs
    let Some(node) = node() else { return };
    let [Some(older), Some(newer)] = Release::ALL.map(|it| node.reference(it)) else {
        return;
    };
    let ours = node.plugins();
    let store = Store {
        conf: l3(&node, "1.0.0", &["10.1.2.0/26", "2001:db8::/64"]),
        plugins: [&ours, &older, &ours, &newer],
        held: Mutex::default(),
    };
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let store = &store;
            scope.spawn(move || store.work(worker, adds));
        }
    });
    assert!(store.held.lock().unwrap().is_empty());
    assert!(leases(&node, "net").is_empty());
}

/// A store that several threads work on, each with all plugins in turn.
struct Store<'n> {
    conf: Value,
    plugins: [&'n Plugins<'n>; 4],
    /// The addresses that containers have between the end of an ADD and the begin of their DEL.
    held: Mutex<BTreeSet<String>>,
}

impl Store<'_> {
    /// As many ADDs as DELs, by one or another, with some containers alive at any time.
    fn work(&self, worker: usize, adds: usize) {
        const ALIVE: usize = 5;
        let mut alive = VecDeque::new();
        for round in 0..adds {
            let id = format!("container-{worker}-{round}");
            let added = self.call(worker + round, "ADD", &id).result();
            let addresses: Vec<String> = added["ips"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["address"].to_string())
                .collect();
            assert_eq!(addresses.len(), 2, "{added}");
            for address in &addresses {
                let is_new = self.held.lock().unwrap().insert(address.clone());
                assert!(
                    is_new,
                    "{address} was given to {id}, and somebody else has it"
                );
            }
            alive.push_back((id, addresses));
            if alive.len() > ALIVE {
                self.release(alive.pop_front().unwrap(), round);
            }
        }
        for (round, last) in alive.into_iter().enumerate() {
            self.release(last, round);
        }
    }

    fn release(&self, (id, addresses): (String, Vec<String>), round: usize) {
        for address in addresses {
            assert!(self.held.lock().unwrap().remove(&address));
        }
        self.call(round / 2, "DEL", &id).silent();
    }

    fn call(&self, turn: usize, verb: &str, id: &str) -> Outcome {
        let call = self.plugins[turn % 4].call("host-local", verb);
        let call = call.env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
        call.env("CNI_NETNS", "/some/where").conf(&self.conf).run()
    }
}

/// The configuration of flannel that makes this of `subnet.env`.
fn conf_of(state: &str) -> Value {
    let state: Value = serde_json::from_str(state).unwrap();
    let mut delegate = json!({ "hairpinMode": true, "isDefaultGateway": true });
    if state["forceAddress"] == true {
        delegate["forceAddress"] = true.into();
    }
    json!({ "cniVersion": state["cniVersion"], "name": "cbr0", "type": "flannel", "delegate": delegate })
}

#[track_caller]
fn check_nothing(node: &Node, pod: &Pod) {
    assert!(pod.links().is_empty(), "{:?}", pod.links());
    assert_eq!(node.nat(), [""; 0]);
    let left = leased(&node.file("/var/lib/cni/networks/cbr0"));
    assert!(left.is_empty(), "{left:?}");
    let states = crate::files_below(&node.file("/var/lib/cni/flannel"));
    assert!(states.is_empty(), "{states:?}");
    check_no_ports(node);
}
