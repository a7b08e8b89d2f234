//! Ports of a node that lead to a pod: real traffic, through `bridge`, `host-local` and `portmap` as one list.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cni;
use tests::node::Namespace;
use tests::{List, Node, Pod};

const PATIENCE: Duration = Duration::from_secs(3);

/// The address of the node that a client outside sees.
const NODE: &str = "192.0.2.1";
const NODE_IPV6: &str = "2001:db8:2::1";

fn node() -> Option<Node> {
    Node::with(&["bridge", "host-local", "portmap"])
}

/// Backends that the plugins under exam have.
fn backends() -> &'static [&'static str] {
    match cni::examines_reference() {
        true => &["iptables"],
        false => &["iptables", "nftables"],
    }
}

/// A network of both families, its ports by `backend`.
fn list<'n>(node: &'n Node, version: &str, backend: &str) -> List<'n> {
    let ranges = json!([[{ "subnet": "10.1.2.0/24" }], [{ "subnet": "2001:db8:1::/64" }]]);
    let ipam =
        json!({ "type": "host-local", "dataDir": node.dir().join("ipam"), "ranges": ranges });
    let bridge = json!({ "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipam": ipam });
    let mut portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    if !cni::examines_reference() {
        portmap["backend"] = backend.into();
    }
    List::new(
        node,
        json!({ "cniVersion": version, "name": "net", "plugins": [bridge, portmap] }),
    )
}

pub(crate) fn mapping(protocol: &str, host: u16, container: u16) -> Value {
    json!({ "protocol": protocol, "hostPort": host, "containerPort": container })
}

/// A client beyond the node, that knows no way to pods.
pub(crate) fn outside(node: &Node) -> Pod {
    let client = node.pod();
    node.run(
        "ip",
        &["link", "add", "wan", "type", "veth", "peer", "eth0"],
    );
    node.run("ip", &["link", "set", "eth0", "netns", &client.path()]);
    for address in [format!("{NODE}/24"), format!("{NODE_IPV6}/64")] {
        node.run(
            "ip",
            &[
                "addr",
                "add",
                &address,
                "dev",
                "wan",
                if address.contains(':') {
                    "nodad"
                } else {
                    "noprefixroute"
                },
            ],
        );
    }
    node.run("ip", &["link", "set", "wan", "up"]);
    node.run("ip", &["route", "add", "192.0.2.0/24", "dev", "wan"]);
    client.run("ip", &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
    client.run(
        "ip",
        &["addr", "add", "2001:db8:2::2/64", "dev", "eth0", "nodad"],
    );
    client.run("ip", &["link", "set", "eth0", "up"]);
    client
}

/// A pod's server: whoever connects is told by which address it is seen.
fn serve(pod: &Pod, port: u16) {
    let listener = pod.enter(|| TcpListener::bind(("::", port))).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// By which address the server sees the client; none if it cannot be reached.
fn seen_as(client: &Namespace, ip: &str, port: u16) -> Option<IpAddr> {
    let ip: IpAddr = ip.parse().unwrap();
    client.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.parse().ok()
    })
}

fn address(result: &Value, index: usize) -> String {
    let address = result["ips"][index]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

/// Does anything in the packet filter say the pod's id?
fn is_mentioned(node: &Node, pod: &Pod) -> bool {
    let id = format!("{:?}", pod.id);
    node.nft().contains(&id) || node.nat().join("\n").contains(&pod.id)
}

#[test]
fn i01_a_tcp_port_is_reached_from_everywhere() {
    for backend in backends() {
        for version in ["0.3.1", "1.0.0"] {
            let Some(node) = node() else { return };
            let client = outside(&node);
            let mut list = list(&node, version, backend);
            let neighbour = node.pod();
            list.add(&neighbour).result();
            list.capability_args = json!({ "portMappings": [mapping("tcp", 8080, 80)] });
            let pod = node.pod();
            let result = list.add(&pod).result();
            let (four, six) = (address(&result, 0), address(&result, 1));
            serve(&pod, 80);

            let check = |client: &Namespace, who: &str, ip: &str, port: u16| {
                let seen = seen_as(client, ip, port);
                seen.unwrap_or_else(|| {
                    panic!("{backend} {version}: {who} does not reach {ip} port {port}")
                })
            };
            check(&node, "the node", &four, 80);
            check(&node, "the node", &six, 80);
            check(&node, "the node", NODE, 8080);
            check(&node, "the node", NODE_IPV6, 8080);
            check(&node, "the node", "127.0.0.1", 8080);
            for address in ["10.1.2.1", NODE, NODE_IPV6] {
                check(&pod, "the pod itself", address, 8080);
                check(&neighbour, "another pod", address, 8080);
            }
            // From outside the client is seen as it is.
            assert_eq!(
                check(&client, "a client", NODE, 8080).to_string(),
                "192.0.2.2"
            );
            assert_eq!(
                check(&client, "a client", NODE_IPV6, 8080).to_string(),
                "2001:db8:2::2"
            );
            // What only goes through the node is none of its ports.
            assert_eq!(seen_as(&neighbour, "192.0.2.2", 8080), None);

            assert!(is_mentioned(&node, &pod));
            // Debian's 1.1.1 looks for the rules of one family in the other, and fails on its own.
            if version != "0.3.1" && !cni::examines_reference() {
                list.check(&pod, &result).silent();
            }
            list.del(&pod, Some(&result)).silent();
            assert!(!is_mentioned(&node, &pod), "{}", node.nft());
            assert_eq!(seen_as(&client, NODE, 8080), None);
            list.del(&pod, Some(&result)).silent();
            list.capability_args = Value::Null;
            list.del(&neighbour, None).silent();
        }
    }
}

/// A pod's UDP server, which answers with its name.
pub(crate) fn answer(pod: &Pod, port: u16) {
    let socket = pod.enter(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
    let name = pod.id.clone();
    thread::spawn(move || {
        let mut word = [0; 16];
        while let Ok((_, peer)) = socket.recv_from(&mut word) {
            let _ = socket.send_to(name.as_bytes(), peer);
        }
    });
}

/// Who answers, if anybody does soon.
pub(crate) fn ask(socket: &UdpSocket, port: u16) -> Option<String> {
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut word = [0; 64];
    socket.send_to(b"who?", (NODE, port)).ok()?;
    let (length, _) = socket.recv_from(&mut word).ok()?;
    Some(String::from_utf8_lossy(&word[..length]).into_owned())
}

#[test]
fn i02_a_udp_port_serves_the_next_pod_at_once() {
    for backend in backends() {
        let Some(node) = node() else { return };
        let client = outside(&node);
        let mut list = list(&node, "1.0.0", backend);
        list.capability_args = json!({ "portMappings": [mapping("udp", 5300, 53)] });
        // One socket all the time, so one connection in the kernel's eyes.
        let socket = client.enter(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
        assert_eq!(ask(&socket, 5300), None, "nobody is there yet");
        let first = node.pod();
        answer(&first, 53);
        let result = list.add(&first).result();
        assert_eq!(ask(&socket, 5300).as_ref(), Some(&first.id), "{backend}");
        list.del(&first, Some(&result)).silent();
        let second = node.pod();
        answer(&second, 53);
        list.add(&second).result();
        assert_eq!(ask(&socket, 5300).as_ref(), Some(&second.id), "{backend}");
    }
}

// K15
#[test]
fn k15_a_port_without_a_pod_is_the_nodes_own_again() {
    if cni::differs("its DEL lets the kernel remember where packets went") {
        return;
    }
    for backend in backends() {
        let Some(node) = node() else { return };
        let client = outside(&node);
        let mut list = list(&node, "1.0.0", backend);
        list.capability_args = json!({ "portMappings": [mapping("udp", 5300, 53)] });
        let socket = client.enter(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
        let pod = node.pod();
        answer(&pod, 53);
        let result = list.add(&pod).result();
        assert_eq!(ask(&socket, 5300).as_ref(), Some(&pod.id));
        list.del(&pod, Some(&result)).silent();
        // The next one works on the node's own network.
        let own = node.enter(|| UdpSocket::bind((NODE, 5300))).unwrap();
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who?", (NODE, 5300)).unwrap();
        assert!(own.recv_from(&mut [0; 16]).is_ok(), "{backend}");
    }
}

/// A configuration of `portmap` alone, behind whatever gave the pod its addresses.
fn alone() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "portmap",
        "runtimeConfig": { "portMappings": [mapping("tcp", 8080, 80), mapping("udp", 53, 53)] },
        "prevResult": { "cniVersion": "1.0.0", "ips": [
            { "address": "10.1.2.3/24" }, { "address": "2001:db8:1::3/64" },
        ] },
    })
}

#[test]
fn containerds_spelling_of_mappings_is_understood() {
    let Some(node) = node() else { return };
    let mut conf = alone();
    conf["runtimeConfig"] = json!({ "portMappings": [
        { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
    ] });
    let pod = node.pod();
    node.add("portmap", &pod, &conf).result();
    assert!(
        node.nat()
            .iter()
            .any(|it| it.contains("--to-destination 10.1.2.3:80"))
    );
    node.del("portmap", &pod, &conf).silent();
}

#[test]
fn a_malformed_mapping_is_named_and_changes_nothing() {
    let Some(node) = node() else { return };
    let mut conf = alone();
    conf["runtimeConfig"]["portMappings"][1]["hostPort"] = 0.into();
    let pod = node.pod();
    let failure = node
        .add("portmap", &pod, &conf)
        .fails("failed to parse config: Invalid host port number: 0");
    if !cni::examines_reference() {
        assert!(
            failure.details.contains("portMappings[1].hostPort"),
            "{failure:?}"
        );
    }
    assert_eq!(node.nat(), [""; 0]);
}
