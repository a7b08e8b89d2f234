//! `bridge` over `host-local`, and alone.

use serde_json::{Value, json};
use tests::VERSIONS;
use tests::cni::with;

use super::case::{Case, of};

const V4: &str = "10.1.2.0/24";
const V6: &str = "2001:db8:1::/64";

/// A bridge that does not take the lowest MAC among its ports', which CHECK would then miss as pods come and go.
pub(super) const OF_ITS_OWN: &str = "ip link add br1 address 02:00:00:00:00:99 type bridge";

pub(super) fn cases() -> Vec<Case> {
    [
        versions(),
        gateways(),
        addresses(),
        links(),
        macs(),
        masquerade(),
        meetings(),
        results(),
    ]
    .concat()
}

/// Every version, in each family and both.
fn versions() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS.into_iter().chain([""]) {
        let conf = with(&l3(&[V4, V6]), "isDefaultGateway", true.into());
        let case = case("dual stack", &of(version, &conf));
        let whole = ["0.2.0", "1.1.0"].contains(&version);
        cases.push(if whole { case } else { case.brief() });
    }
    for version in ["0.2.0", "0.4.0", "1.1.0"] {
        let conf = with(&l3(&[V4]), "isDefaultGateway", true.into());
        cases.push(case("IPv4", &of(version, &conf)).brief());
        let conf = with(&l3(&[V6]), "isDefaultGateway", true.into());
        cases.push(case("IPv6", &of(version, &conf)).brief());
    }
    cases.push(case("layer 2", &of("0.1.0", &l2())).brief());
    cases.push(case("layer 2", &of("0.3.1", &l2())).brief());
    cases.push(case("layer 2", &l2()));
    cases
}

fn gateways() -> Vec<Case> {
    let routes = json!([
        { "dst": "0.0.0.0/0" }, { "dst": "::/0" }, { "dst": "10.96.0.0/12", "gw": "10.1.2.254" },
        { "dst": "2001:db8:2::/48" },
    ]);
    let mut routed = l3(&[V4, V6]);
    routed["ipam"]["routes"] = routes;
    let mut own = l3(&[]);
    own["ipam"]["ranges"] = json!([[{ "subnet": V4, "gateway": "10.1.2.254" }], [{ "subnet": V6, "gateway": "2001:db8:1::ff" }]]);
    let mut by_ipam = with(&l3(&[V4, V6]), "isDefaultGateway", true.into());
    by_ipam["ipam"]["routes"] =
        json!([{ "dst": "0.0.0.0/0", "gw": "10.1.2.9" }, { "dst": "::/0", "gw": "2001:db8:1::9" }]);
    let two_sets = with(
        &l3(&[V4, "10.1.3.0/24", V6]),
        "isDefaultGateway",
        true.into(),
    );
    vec![
        case("routes without a gateway on the bridge", &routed).brief(),
        case(
            "routes and a gateway on the bridge",
            &with(&routed, "isGateway", true.into()),
        ),
        case(
            "gateways of the user's choice",
            &with(&own, "isGateway", true.into()),
        ),
        case("default routes of IPAM's", &by_ipam),
        case("two IPv4 gateways", &two_sets).brief(),
        case(
            "two IPv4 gateways by force",
            &with(&two_sets, "forceAddress", true.into()),
        ),
        case(
            "three sets without gateway",
            &l3(&[V4, "10.1.3.0/24", V6, "2001:db8:2::/64"]),
        ),
    ]
}

/// What is on the bridge before.
fn addresses() -> Vec<Case> {
    let conf = with(&l3(&[V4, V6]), "isGateway", true.into());
    let force = with(&conf, "forceAddress", true.into());
    let same =
        "ip link add br1 type bridge; ip addr add 10.1.2.1/24 brd + dev br1; ip link set br1 up";
    let other = "ip link add br1 type bridge; ip addr add 10.9.9.1/16 dev br1; ip link set br1 up";
    let overlapping = "ip link add br1 up type bridge; ip addr add 2001:db8:1::77/48 nodad dev br1";
    let disjoint = "ip link add br1 up type bridge; ip addr add 2001:db8:9::1/64 nodad dev br1";
    vec![
        case("the gateway is there", &conf).before(same).brief(),
        case("another address", &conf).before(other).brief(),
        case("another address by force", &force).before(other).brief(),
        case("an overlapping address", &conf).before(overlapping).brief(),
        case("an overlapping address by force", &force).before(overlapping).brief(),
        case("an address of its own", &conf).before(disjoint).brief(),
        case("forwarding is on", &conf)
            .before("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"),
        case("no bridge", &conf).before("ip link add br1 type veth peer name br2").brief(),
        case("a bridge of another size", &with(&conf, "mtu", 1400.into()))
            .before("ip link add br1 mtu 1300 type bridge"),
    ]
}

fn links() -> Vec<Case> {
    let conf = with(&l3(&[V4]), "isGateway", true.into());
    let mut tuned = with(&conf, "mtu", 1400.into());
    tuned["hairpinMode"] = true.into();
    let promiscuous = with(&conf, "promiscMode", true.into());
    let mut flat = with(&of("0.3.1", &l2()), "mtu", 1280.into());
    flat["promiscMode"] = true.into();
    vec![
        case("size and hairpin", &tuned),
        case("promiscuous", &promiscuous).brief(),
        Case::new("layer 2, size and promiscuous", "bridge", flat),
        case(
            "isolated ports, said not to be",
            &with(&tuned, "portIsolation", false.into()),
        ),
        case("a size that says nothing", &with(&conf, "mtu", (-1).into())).brief(),
        case("the default bridge", &with(&conf, "bridge", Value::Null)).brief(),
        case(
            "detection of duplicates",
            &with(&l3(&[V6]), "enabledad", true.into()),
        )
        .patient(),
        case("a pod that looks for duplicates", &l3(&[V4, V6])).patient(),
        case("another interface name", &l3(&[V4])).env("CNI_IFNAME", "net-1_x"),
        case("keys in any case", &keys_in_any_case()).brief(),
        case("every key as if it were not there", &silent_keys()).brief(),
    ]
}

fn keys_in_any_case() -> Value {
    json!({
        "CNIVersion": "0.4.0", "NAME": "net", "Type": "bridge", "BRIDGE": "br1", "isgateway": true, "MTU": 1400,
        "HairpinMode": true, "IPAM": { "Type": "host-local", "RANGES": [[{ "Subnet": V4, "rangestart": "10.1.2.50" }]] },
    })
}

fn silent_keys() -> Value {
    json!({
        "cniVersion": "0.4.0", "name": "net", "type": "bridge", "bridge": "br1", "isGateway": false,
        "isDefaultGateway": false, "forceAddress": false, "ipMasq": false, "ipMasqBackend": null, "mtu": 0,
        "hairpinMode": false, "promiscMode": false, "vlan": 0, "vlanTrunk": [], "preserveDefaultVlan": true,
        "macspoofchk": false, "enabledad": false, "disableContainerInterface": false, "portIsolation": false,
        "args": { "cni": { "mac": "", "ips": [] } }, "runtimeConfig": { "mac": "", "ips": [], "ipRanges": [] },
        "capabilities": { "mac": false }, "dns": {}, "prevResult": null, "unknown": { "keys": ["are ignored"] },
        "ipam": {
            "type": "host-local", "dataDir": "", "resolvConf": "", "routes": [], "gateway": "10.9.9.9",
            "rangeStart": "10.9.9.1", "ranges": [[{ "subnet": V4, "rangeStart": "", "rangeEnd": "", "gateway": "" }]],
        },
    })
}

/// Where the pod's MAC comes from.
fn macs() -> Vec<Case> {
    let conf = l3(&[V4]);
    let args = with(
        &conf,
        "args",
        json!({ "cni": { "mac": "02:00:00:00:00:02" } }),
    );
    let runtime = with(
        &args,
        "runtimeConfig",
        json!({ "mac": "02-00-00-00-00-03" }),
    );
    let capability = with(
        &runtime,
        "capabilities",
        json!({ "mac": true, "ips": true }),
    );
    let ignoring = "IgnoreUnknown=1;MAC=02:00:00:00:00:01;K8S_POD_NAME=pod";
    vec![
        case("MAC by CNI_ARGS", &conf).args(ignoring).brief(),
        case("MAC by args", &args).args(ignoring).brief(),
        case("MAC by the runtime", &capability)
            .args(ignoring)
            .brief(),
        case("layer 2, MAC by CNI_ARGS", &l2())
            .args("MAC=0200.0000.0004")
            .brief(),
    ]
}

fn masquerade() -> Vec<Case> {
    let conf = with(&l3(&[V4]), "ipMasq", true.into());
    let dual = with(
        &with(&l3(&[V4, V6]), "ipMasq", true.into()),
        "isDefaultGateway",
        true.into(),
    );
    let foreign = "iptables -t nat -N OURS; iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j OURS; \
                   ip6tables -t nat -A POSTROUTING -s 2001:db8::/32 -j ACCEPT";
    vec![
        case("masqueraded IPv4", &conf),
        case("masqueraded dual stack", &dual),
        case("masqueraded dual stack", &of("1.1.0", &dual)),
        case("masqueraded beside the rules of others", &dual).before(foreign),
        case(
            "masqueraded by iptables",
            &with(&dual, "ipMasqBackend", "iptables".into()),
        ),
        case(
            "masqueraded two sets",
            &with(&l3(&[V4, "10.1.3.0/24"]), "ipMasq", true.into()),
        )
        .brief(),
        case(
            "layer 2 has nothing to masquerade",
            &with(&l2(), "ipMasq", true.into()),
        ),
        case(
            "a network of a long name",
            &with(&conf, "name", "n".repeat(120).into()),
        ),
        case("spoof check", &with(&dual, "macspoofchk", true.into())),
        case(
            "spoof check, layer 2",
            &with(&l2(), "macspoofchk", true.into()),
        ),
    ]
}

/// Failures that the node or the pool brings about.
fn meetings() -> Vec<Case> {
    let small = l3(&["10.1.2.0/30"]);
    let mut unreachable = l3(&[V4]);
    unreachable["ipam"]["routes"] = json!([{ "dst": "10.7.0.0/16", "gw": "172.16.0.1" }]);
    vec![
        case(
            "a pool of one address",
            &with(&small, "ipMasq", true.into()),
        ),
        case("a route that leads nowhere", &unreachable).brief(),
        case(
            "no IPAM plugin of that name",
            &with(&l2(), "ipam", json!({ "type": "nope" })),
        )
        .brief(),
        case(
            "an IPAM plugin with a path",
            &with(&l2(), "ipam", json!({ "type": "../host-local" })),
        )
        .brief(),
        case("IPAM without ranges", &l3(&[])).brief(),
        case(
            "vlan, which this kernel may lack",
            &with(&l3(&[V4]), "vlan", 100.into()),
        )
        .brief(),
    ]
}

fn results() -> Vec<Case> {
    let mut named = l3(&[V4, V6]);
    named["dns"] = json!({ "nameservers": ["10.1.2.1"], "domain": "a.example", "search": ["b.example"], "options": ["ndots:<5>"] });
    let mut resolved = l3(&[V4]);
    resolved["ipam"]["resolvConf"] = "/run/resolv.conf".into();
    let resolver =
        "printf 'nameserver 10.9.9.9\\nsearch x.example y.example\\n' > /run/resolv.conf";
    let both = with(&resolved, "dns", json!({ "nameservers": [] }));
    let mut full = with(&l3(&[V4]), "isGateway", true.into());
    full["ipam"]["routes"] = json!([
        { "dst": "10.7.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 100, "scope": 0 },
        { "dst": "10.8.0.0/16", "gw": "10.1.2.3" }, { "dst": "10.8.0.0/16", "gw": "10.1.2.4" },
    ]);
    let cases = [
        case("name servers", &of("0.4.0", &named)),
        case("name servers", &of("0.2.0", &named)),
        case("name servers of the node", &of("0.3.1", &resolved)).before(resolver),
        case("an empty list of name servers", &both).before(resolver),
        case("every field of a route", &of("1.1.0", &full)),
        case(
            "a result before it",
            &with(
                &l3(&[V4]),
                "prevResult",
                json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.5.5.5/24" }] }),
            ),
        ),
    ];
    cases.map(Case::brief).to_vec()
}

/// Where no gateway pins the bridge's MAC, the bridge is there before.
fn case(name: &str, conf: &Value) -> Case {
    let case = Case::new(name, "bridge", conf.clone());
    let pinned = [&conf["isGateway"], &conf["isDefaultGateway"]].contains(&&Value::Bool(true));
    if pinned || conf["bridge"] != "br1" {
        return case;
    }
    case.before(OF_ITS_OWN)
}

/// A set for each subnet, of version 1.0.0 if nothing else is said.
pub(super) fn l3(subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|it| json!([{ "subnet": it }])).collect();
    with(
        &l2(),
        "ipam",
        json!({ "type": "host-local", "ranges": ranges }),
    )
}

pub(super) fn l2() -> Value {
    json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br1" })
}
