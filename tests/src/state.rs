//! All that a node and its pods hold, as lines of text that two nodes can be compared by.
//!
//! A line says where, what and how: `host link bridge0 mtu: 1400`, `one route: dst=default gateway=10.1.2.1 …`,
//! `host sysctl net/ipv4/ip_forward: 1`, `store networks/net/10.1.2.2 0600: "one\r\neth0"`. What is random or belongs
//! to the machine (names of cables, MACs, paths) is replaced by what it stands for; what comes and goes by itself
//! (timers, link-local addresses, the state of a bridge without ports) is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::ip::text;
use crate::names::Names;
use crate::node::{Namespace, Node, Pod};

/// What is compared, each once.
pub type Lines = BTreeSet<String>;

/// Keys of a link that are numbers of this machine, or move by themselves.
const VOLATILE: [&str; 13] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "link",
    "ifname",
    "addr_info",
    "bridge_id",
    "root_id",
    "id",
    "no",
    "designated_port",
    "topology_change",
    "topology_change_detected",
];

/// Flags by which a bridge tells, when it finds the time, that ports came or went.
const LATE: [&str; 3] = ["LOWER_UP", "NO-CARRIER", "RUNNING"];

/// Settings of a link that the plugins write, and their neighbours that they must not.
const OF_A_LINK: [(&str, &[&str]); 2] = [
    (
        "ipv4",
        &[
            "arp_accept",
            "arp_announce",
            "arp_ignore",
            "arp_notify",
            "forwarding",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
        ],
    ),
    (
        "ipv6",
        &[
            "accept_dad",
            "accept_ra",
            "addr_gen_mode",
            "autoconf",
            "disable_ipv6",
            "enhanced_dad",
            "forwarding",
            "keep_addr_on_down",
            "ndisc_notify",
            "proxy_ndp",
        ],
    ),
];

/// The state of the kernel and of `/var/lib/cni`, with the names by which the lines call what is random.
pub struct State {
    /// What to call things.
    pub names: Names,
    /// What there is.
    pub lines: Lines,
}

impl State {
    /// The whole of `node` and of `pods`, which the lines call by their ids.
    #[track_caller]
    pub fn of(node: &Node, pods: &[&Pod]) -> State {
        let mut spaces = vec![("host", Seen::of(node))];
        spaces.extend(pods.iter().map(|it| (it.id.as_str(), Seen::of(it))));
        let links = spaces
            .iter()
            .map(|(place, it)| (*place, it.links.as_slice()));
        let names = Names::of(node, pods, &links.collect::<Vec<_>>());
        let mut lines = Lines::new();
        for (place, seen) in &spaces {
            seen.tell(place, &names, &mut lines);
        }
        lines.extend(firewall(node).iter().map(|it| names.plain(it)));
        lines.extend(store(node).iter().map(|it| names.plain(it)));
        State { names, lines }
    }

    /// The store alone, for a plugin that never touches the kernel.
    pub fn of_store(node: &Node, pods: &[&Pod]) -> State {
        let names = Names::of(node, pods, &[]);
        let lines = store(node).iter().map(|it| names.plain(it)).collect();
        State { names, lines }
    }
}

/// What the kernel says of one namespace.
struct Seen {
    links: Vec<Value>,
    routes: Vec<Value>,
    /// Forwarding tables and VLANs of its bridges' ports.
    ports: Vec<Value>,
    sysctls: Vec<(String, String)>,
}

impl Seen {
    #[track_caller]
    fn of(space: &Namespace) -> Seen {
        let mut answers = space.batch("ip", "addr show\nroute show table all\n");
        let routes = answers.pop().unwrap();
        let links = answers.pop().unwrap();
        let bridges = links
            .iter()
            .filter(|it| it["linkinfo"]["info_kind"] == "bridge");
        let filters = |it: &Value| it["linkinfo"]["info_data"]["vlan_filtering"] == 1;
        let ports = match (bridges.clone().count(), bridges.clone().any(filters)) {
            (0, _) => Vec::new(),
            (_, false) => space.batch("bridge", "fdb show\n").concat(),
            (_, true) => space.batch("bridge", "fdb show\nvlan show\n").concat(),
        };
        let names = links.iter().map(|it| text(it, "ifname"));
        let names = names.filter(|it| it != "lo").collect();
        Seen {
            sysctls: sysctls(space, names),
            links,
            routes,
            ports,
        }
    }

    fn tell(&self, place: &str, names: &Names, lines: &mut Lines) {
        let mut say = |line: String| lines.insert(names.plain(&format!("{place} {line}")));
        for link in self.links.iter() {
            let name = text(link, "ifname");
            say(format!("link {name} is there"));
            let mut facts = Vec::new();
            flatten("", link, &mut facts);
            for (key, value) in facts.iter().filter(|it| !is_volatile(&it.0, link)) {
                say(format!("link {name} {key}: {value}"));
            }
            for address in link["addr_info"].as_array().into_iter().flatten() {
                if !is_link_local(&text(address, "local")) {
                    say(format!("addr {name}: {}", inline(address)));
                }
            }
        }
        for route in self
            .routes
            .iter()
            .filter(|it| !is_late(it) && !is_link_local(&text(it, "dst")))
        {
            say(format!("route: {}", inline(route)));
        }
        for port in self.ports.iter().filter(|it| is_kept(it)) {
            say(format!("port: {}", inline(port)));
        }
        for (path, value) in &self.sysctls {
            say(format!("sysctl {path}: {value}"));
        }
    }
}

/// `lines` without what they say about links that are only in one place: that these are there says it all.
pub fn without_details<'l>(lines: &[&'l str]) -> Vec<&'l str> {
    let whole: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|it| it.strip_suffix(" is there")?.split_once(" link "))
        .collect();
    let is_detail = |line: &str| {
        !line.ends_with(" is there")
            && whole
                .iter()
                .any(|(place, link)| line.starts_with(place) && mentions(line, link))
    };
    let kept = lines.iter().copied().filter(|it| !is_detail(it));
    kept.collect()
}

fn mentions(line: &str, link: &str) -> bool {
    let mut words = line.split([' ', '=', '/', ':']);
    words.any(|it| it == link)
}

/// `value` as paths and leaves, lists of words as one leaf.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else JSON may have is a leaf"
)]
pub fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    if let Some(map) = value.as_object().filter(|it| !it.is_empty()) {
        for (key, value) in map {
            let dot = if path.is_empty() { "" } else { "." };
            flatten(&format!("{path}{dot}{key}"), value, leaves);
        }
    } else if let Some(list) = value
        .as_array()
        .filter(|it| !it.iter().all(Value::is_string))
    {
        for (index, value) in list.iter().enumerate() {
            flatten(&format!("{path}[{index}]"), value, leaves);
        }
    } else {
        leaves.push((path.to_owned(), value.to_string()));
    }
}

/// The leaves of `value` in one line, by key.
fn inline(value: &Value) -> String {
    let mut leaves = Vec::new();
    flatten("", value, &mut leaves);
    leaves.sort();
    let fit = leaves
        .iter()
        .filter(|it| it.0 != "flags" && !it.0.ends_with("life_time"));
    let facts: Vec<String> = fit
        .map(|(key, value)| format!("{key}={}", value.trim_matches('"')))
        .collect();
    facts.join(" ")
}

fn is_volatile(path: &str, link: &Value) -> bool {
    let key = path.rsplit('.').next().unwrap_or_default();
    let key = key.split('[').next().unwrap_or_default();
    let is_bridge = link["linkinfo"]["info_kind"] == "bridge";
    let late = is_bridge && key == "operstate";
    late || VOLATILE.contains(&key) || key.ends_with("_timer") || path.starts_with("addr_info")
}

/// An entry of a forwarding table that somebody meant: not one that was learnt, and no group that the kernel joined.
fn is_kept(port: &Value) -> bool {
    let group = ["33:33:", "01:00:5e:"]
        .iter()
        .any(|it| text(port, "mac").starts_with(it));
    !group && port.get("mac").is_none_or(|_| port["state"] == "permanent")
}

/// What the kernel derives from an IPv6 address, when it finds the time.
fn is_late(route: &Value) -> bool {
    route["table"] == "local" && text(route, "dst").contains(':')
}

fn is_link_local(address: &str) -> bool {
    address.starts_with("fe80:") || address.starts_with("ff00::")
}

fn sysctls(space: &Namespace, mut links: Vec<String>) -> Vec<(String, String)> {
    let mut paths: Vec<String> = vec!["net/ipv4/ip_forward".into()];
    links.push("all".into());
    for link in links {
        for (family, keys) in OF_A_LINK {
            paths.extend(
                keys.iter()
                    .map(|it| format!("net/{family}/conf/{link}/{it}")),
            );
        }
    }
    space.enter(|| {
        let values = paths.into_iter().map(|path| {
            let value = parameter(&format!("/proc/sys/{path}")).unwrap_or_default();
            (path, value)
        });
        values.collect()
    })
}

/// A parameter, read at once: there are hundreds, and asking for their size as well would take most of the exam's time.
fn parameter(path: &str) -> Option<String> {
    let mut value = [0; 64];
    let length = File::open(path).and_then(|mut it| it.read(&mut value));
    let text = String::from_utf8_lossy(&value[..length.ok()?]);
    Some(text.trim().to_owned())
}

/// Tables that are `iptables`' own, in the families `ip` and `ip6`.
const OF_IPTABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// Rules and chains of `iptables`, and all other tables of `nft`; each rule with its place in the chain.
#[track_caller]
fn firewall(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    let ruleset = node.run("nft", &["-j", "list", "ruleset"]);
    let ruleset: Value = serde_json::from_str(&ruleset).unwrap();
    let mut of_iptables = false;
    let mut places: BTreeMap<[String; 3], usize> = BTreeMap::new();
    for object in ruleset["nftables"].as_array().unwrap() {
        let (kind, what) = object.as_object().unwrap().iter().next().unwrap();
        if kind == "metainfo" {
            continue;
        }
        if is_of_iptables(what) {
            of_iptables = true;
        } else {
            let mut what = what.clone();
            what.as_object_mut().unwrap().remove("handle");
            if kind == "rule" {
                let of = ["family", "table", "chain"].map(|key| text(&what, key));
                let place = places.entry(of).or_default();
                *place += 1;
                lines.push(format!("host nft rule {place}: {what}"));
            } else {
                lines.push(format!("host nft {kind}: {what}"));
            }
        }
    }
    if of_iptables {
        for tool in ["iptables-save", "ip6tables-save"] {
            lines.extend(rules(tool, &node.run(tool, &[])));
        }
    }
    lines
}

fn is_of_iptables(what: &Value) -> bool {
    let table = what["table"].as_str().or(what["name"].as_str());
    let of_ip = what["family"] == "ip" || what["family"] == "ip6";
    of_ip && table.is_some_and(|it| OF_IPTABLES.contains(&it))
}

/// The chains and rules among what `tool` printed; policies of chains that are always there say nothing.
fn rules(tool: &str, saved: &str) -> Vec<String> {
    let (mut table, mut chain, mut place) = (String::new(), String::new(), 0);
    let mut lines = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(declared) = line.strip_prefix(':') {
            let declared = declared.split('[').next().unwrap_or_default().trim();
            if !declared.ends_with(" ACCEPT") {
                lines.push(format!("host {tool} {table}: chain {declared}"));
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let of = rule.split(' ').next().unwrap_or_default();
            place = if of == chain { place + 1 } else { 1 };
            of.clone_into(&mut chain);
            lines.push(format!("host {tool} {table}: {place} {rule}"));
        }
    }
    lines
}

/// Every file and folder below `/var/lib/cni`, with mode and content.
pub fn store(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    let root = node.file("/var/lib/cni");
    walk(&root, &root, &mut lines);
    lines
}

fn walk(dir: &Path, root: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let kept = fs::symlink_metadata(&path).unwrap();
        let mode = kept.permissions().mode() & 0o7777;
        if let Ok(to) = fs::read_link(&path) {
            lines.push(format!("store {name} -> {}", to.display()));
        } else if kept.is_dir() {
            lines.push(format!("store {name}/ {mode:04o}"));
            walk(&path, root, lines);
        } else {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            lines.push(format!("store {name} {mode:04o}: {content:?}"));
        }
    }
}

impl Namespace {
    /// What `program -d -j` answers to each of `commands`, one a line.
    #[track_caller]
    fn batch(&self, program: &str, commands: &str) -> Vec<Vec<Value>> {
        let out = self.feed(program, &["-d", "-j", "-batch", "-"], commands);
        let answers = serde_json::Deserializer::from_str(&out).into_iter::<Vec<Value>>();
        let mut answers: Vec<_> = answers.map(|it| it.unwrap()).collect();
        answers.resize(commands.lines().count(), Vec::new()); // nothing to list is not always said
        for object in answers.iter_mut().flatten() {
            if object["linkinfo"]["info_kind"] == "bridge" {
                drop_late(object);
            }
            // What is below it the kernel looks up by its number in the wrong namespace: one or the other by chance.
            if object["operstate"] == "LOWERLAYERDOWN" {
                object["operstate"] = "DOWN".into();
            }
        }
        answers
    }
}

fn drop_late(bridge: &mut Value) {
    if let Some(flags) = bridge["flags"].as_array_mut() {
        flags.retain(|it| !LATE.iter().any(|late| it == late));
    }
}
