use expect_test::{Expect, expect};

use super::*;

/// Lines of `subnet.env` as they stand in a table: without `FLANNEL_`, separated by spaces.
fn env(lines: &str) -> SubnetEnv {
    let content: String = lines
        .split(' ')
        .map(|line| format!("FLANNEL_{line}\n"))
        .collect();
    SubnetEnv::parse(content.as_bytes()).unwrap()
}

fn rewrite(conf: &str, lines: &str) -> Result<String, String> {
    let conf = Config::read(&serde_json::from_str(conf).unwrap()).unwrap();
    match delegate(&conf, &env(lines)) {
        Ok(delegate) => Ok(String::from_utf8(delegate.bytes).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

fn check(conf: &str, lines: &str, expected: Expect) {
    expected.assert_eq(&rewrite(conf, lines).unwrap());
}

const V4: &str = "NETWORK=10.1.0.0/16 SUBNET=10.1.17.1/24 MTU=1472 IPMASQ=true";
const V6: &str = "IPV6_NETWORK=fc00::/48 IPV6_SUBNET=fc00::1/64 MTU=1472 IPMASQ=true";
const DUAL: &str = "NETWORK=10.1.0.0/16 SUBNET=10.1.17.1/24 IPV6_NETWORK=fc00::/48 IPV6_SUBNET=fc00::1/64 MTU=1472 IPMASQ=true";

// Example A of the reference page: what kube-flannel ships.
#[test]
fn stock_kube_flannel() {
    let conf = r#"{"cniVersion":"0.3.1","delegate":{"hairpinMode":true,"isDefaultGateway":true},"name":"cbr0","type":"flannel"}"#;
    let lines = "NETWORK=10.244.0.0/16 SUBNET=10.244.3.1/24 MTU=1450 IPMASQ=true";
    check(
        conf,
        lines,
        expect![[
            r#"{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#
        ]],
    );
    assert_eq!(rewrite(conf, lines).unwrap().len(), 242);
}

// Example B.
#[test]
fn k3s_dual_stack() {
    let conf = r#"{"cniVersion":"1.0.0","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true},"name":"cbr0","type":"flannel"}"#;
    let lines = "NETWORK=10.42.0.0/16 SUBNET=10.42.0.1/24 IPV6_NETWORK=2001:cafe:42::/56 IPV6_SUBNET=2001:cafe:42::1/64 MTU=1450 IPMASQ=true";
    check(
        conf,
        lines,
        expect![[
            r#"{"cniVersion":"1.0.0","forceAddress":true,"hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.42.0.0/24"}],[{"subnet":"2001:cafe:42::/64"}]],"routes":[{"dst":"10.42.0.0/16"},{"dst":"2001:cafe:42::/56"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#
        ]],
    );
    assert_eq!(rewrite(conf, lines).unwrap().len(), 321);
}

// Example C.
#[test]
fn another_delegate_with_user_ipam_and_runtime_config() {
    let conf = r#"{"cniVersion":"1.1.0","name":"podnet","type":"flannel","runtimeConfig":{"ips":["10.5.72.9/26"]},"ipam":{"dataDir":"/run/cni/leases","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.96.0.0/12","gw":"10.5.72.1","mtu":1400}]},"delegate":{"type":"macvlan","master":"ens3","mtu":1500}}"#;
    let lines = "NETWORK=10.5.0.0/16,172.20.0.0/16 SUBNET=10.5.72.1/26 MTU=8951 IPMASQ=false";
    check(
        conf,
        lines,
        expect![[
            r#"{"cniVersion":"1.1.0","ipMasq":true,"ipam":{"dataDir":"/run/cni/leases","ranges":[[{"subnet":"10.5.72.0/26"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.96.0.0/12","gw":"10.5.72.1","mtu":1400},{"dst":"10.5.0.0/16"},{"dst":"172.20.0.0/16"}],"type":"host-local"},"master":"ens3","mtu":1500,"name":"podnet","runtimeConfig":{"ips":["10.5.72.9/26"]},"type":"macvlan"}"#
        ]],
    );
}

// Example D.
#[test]
fn ipv6_with_every_default_overridden() {
    let conf = r#"{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true,"ipMasq":true,"mtu":1280,"isGateway":false}}"#;
    let lines = "IPV6_NETWORK=fd00:10::/56 IPV6_SUBNET=fd00:10:0:3::1/64 MTU=1430 IPMASQ=true";
    check(
        conf,
        lines,
        expect![[
            r#"{"cniVersion":"1.0.0","ipMasq":true,"ipam":{"ranges":[[{"subnet":"fd00:10:0:3::/64"}]],"routes":[{"dst":"fd00:10::/56"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":false,"mtu":1280,"name":"cbr0","type":"bridge"}"#
        ]],
    );
}

// Example E.
#[test]
fn no_version_anywhere() {
    let lines = "NETWORK=10.244.0.0/16 SUBNET=10.244.3.1/24 MTU=1450 IPMASQ=true";
    check(
        r#"{"name":"cbr0","type":"flannel"}"#,
        lines,
        expect![[
            r#"{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#
        ]],
    );
    let own = r#"{"name":"n","cniVersion":"","delegate":{"cniVersion":"0.4.0"}}"#;
    assert!(
        rewrite(own, lines)
            .unwrap()
            .starts_with(r#"{"cniVersion":"0.4.0","#)
    );
    let both = r#"{"name":"n","cniVersion":"1.0.0","delegate":{"cniVersion":"0.4.0"}}"#;
    assert!(
        rewrite(both, lines)
            .unwrap()
            .starts_with(r#"{"cniVersion":"1.0.0","#)
    );
}

/// The `ipam` of the delegate's configuration.
fn ipam_of(ipam: Value, lines: &str) -> Value {
    let conf = json!({ "name": "n", "ipam": ipam }).to_string();
    serde_json::from_str::<Value>(&rewrite(&conf, lines).unwrap()).unwrap()["ipam"].take()
}

fn my_ipam() -> Value {
    json!({
        "type": "my-ipam", "unknown-param": "kept",
        "routes": [ { "dst": "192.168.0.0/16", "gw": "10.1.17.20" }, { "dst": "172.16.0.0/12" } ],
    })
}

fn my_ipam_with(routes: &[&str], ranges: &[&str]) -> Value {
    let mut all = my_ipam()["routes"].as_array().unwrap().clone();
    all.extend(routes.iter().map(|dst| json!({ "dst": dst })));
    let ranges: Vec<Value> = ranges
        .iter()
        .map(|subnet| json!([{ "subnet": subnet }]))
        .collect();
    json!({ "type": "my-ipam", "unknown-param": "kept", "routes": all, "ranges": ranges })
}

// F13
#[test]
fn f13_user_ipam_with_ipv4() {
    assert_eq!(
        ipam_of(my_ipam(), V4),
        my_ipam_with(&["10.1.0.0/16"], &["10.1.17.0/24"])
    );
}

// F14
#[test]
fn f14_user_ipam_with_ipv6() {
    assert_eq!(
        ipam_of(my_ipam(), V6),
        my_ipam_with(&["fc00::/48"], &["fc00::/64"])
    );
}

// F15
#[test]
fn f15_user_ipam_with_both_families() {
    let expected = my_ipam_with(
        &["10.1.0.0/16", "fc00::/48"],
        &["10.1.17.0/24", "fc00::/64"],
    );
    assert_eq!(ipam_of(my_ipam(), DUAL), expected);
}

// F16
#[test]
fn f16_two_networks_are_two_routes_and_one_range() {
    let lines = "NETWORK=10.1.0.0/16,192.168.0.0/16 SUBNET=10.1.17.1/24 MTU=1472 IPMASQ=true";
    let expected = json!({
        "type": "host-local",
        "routes": [ { "dst": "10.1.0.0/16" }, { "dst": "192.168.0.0/16" } ],
        "ranges": [ [ { "subnet": "10.1.17.0/24" } ] ],
    });
    assert_eq!(ipam_of(Value::Null, lines), expected);
}

fn host_local_by_default(lines: &str) {
    let ipam = ipam_of(json!({ "unknown-param": "kept" }), lines);
    assert_eq!(
        (&ipam["type"], &ipam["unknown-param"]),
        (&json!("host-local"), &json!("kept"))
    );
}

// F17
#[test]
fn f17_ipam_without_type_with_ipv4() {
    host_local_by_default(V4);
}

// F18
#[test]
fn f18_ipam_without_type_with_ipv6() {
    host_local_by_default(V6);
}

// F19
#[test]
fn f19_ipam_without_type_with_both_families() {
    host_local_by_default(DUAL);
}

#[test]
fn null_is_the_users_word_but_for_what_flannel_sets() {
    let conf = r#"{"name":"n","delegate":{"mtu":null,"ipMasq":null,"isGateway":null,"runtimeConfig":{"a":1}},"ipam":{"type":null,"ranges":5,"routes":null}}"#;
    check(
        conf,
        V4,
        expect![[
            r#"{"ipMasq":null,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":null},"isGateway":null,"mtu":null,"name":"n","runtimeConfig":{"a":1},"type":"bridge"}"#
        ]],
    );
}

#[test]
fn runtime_config_replaces_the_delegates() {
    let conf = r#"{"name":"n","runtimeConfig":{},"delegate":{"type":"x","runtimeConfig":{"a":1}}}"#;
    check(
        conf,
        V4,
        expect![[
            r#"{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"mtu":1472,"name":"n","runtimeConfig":{},"type":"x"}"#
        ]],
    );
}

#[test]
fn what_else_stands_at_the_top_goes_nowhere() {
    let conf = r#"{"name":"n","mtu":9,"dns":{"domain":"x"},"args":{"cni":{}},"capabilities":{"portMappings":true},"prevResult":{"ips":[]},"dataDir":"/x"}"#;
    assert_eq!(rewrite(conf, V4), rewrite(r#"{"name":"n"}"#, V4));
}

#[test]
fn free_forms_are_printed_as_the_reference_prints_them() {
    let conf = r#"{"name":"n","delegate":{"type":"x","z":{"b":1.50,"A":12345678901234567890,"a":[1e21,{"d":1,"c":2}]},"html":"<&>"}}"#;
    check(
        conf,
        V4,
        expect![[
            r#"{"html":"\u003c\u0026\u003e","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"mtu":1472,"name":"n","type":"x","z":{"A":12345678901234567000,"a":[1e+21,{"c":2,"d":1}],"b":1.5}}"#
        ]],
    );
}

#[test]
fn routes_keep_their_own_order_of_keys() {
    let conf = r#"{"name":"n","ipam":{"routes":[{"scope":0,"table":5,"priority":7,"advmss":1,"mtu":9,"gw":"FC00::1","DST":"FC00:0::7/12","x":1},{"dst":"10.96.3.1/12","mtu":0}]}}"#;
    let out = rewrite(conf, V4).unwrap();
    let routes = r#""routes":[{"dst":"fc00::7/12","gw":"fc00::1","mtu":9,"advmss":1,"priority":7,"table":5,"scope":0},{"dst":"10.96.3.1/12"},{"dst":"10.1.0.0/16"}],"#;
    assert!(out.contains(routes), "{out}");
}

#[test]
fn a_route_that_is_there_already_is_added_again() {
    let routes = &ipam_of(json!({ "routes": [ { "dst": "10.1.0.0/16" } ] }), V4)["routes"];
    assert_eq!(
        routes,
        &json!([ { "dst": "10.1.0.0/16" }, { "dst": "10.1.0.0/16" } ])
    );
}

#[test]
fn what_is_not_the_users_to_set_is_refused() {
    let check = |delegate: &str, sentence: &str| {
        assert_eq!(
            rewrite(&format!(r#"{{"name":"n","delegate":{delegate}}}"#), V4),
            Err(sentence.to_owned())
        );
    };
    for bad in [r#"{"type":5,"name":"x"}"#, r#"{"type":null}"#] {
        check(
            bad,
            "'delegate' dictionary, if present, must have (string) 'type' field",
        );
    }
    for bad in [r#"{"ipam":{},"name":"x"}"#, r#"{"name":null}"#] {
        check(
            bad,
            "'delegate' dictionary must not have 'name' field, it'll be set by flannel",
        );
    }
    check(
        r#"{"ipam":null}"#,
        "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel",
    );
}

#[test]
fn routes_that_are_none_are_refused() {
    let check = |routes: &str, sentence: &str| {
        let start = "failed to assemble Delegate IPAM: failed to read IPAM routes: failed to parse ipam.routes:";
        let out = rewrite(
            &format!(r#"{{"name":"n","ipam":{{"routes":{routes}}}}}"#),
            V4,
        );
        assert_eq!(out, Err(format!("{start} {sentence}")));
    };
    check(
        "{}",
        "json: cannot unmarshal object into Go value of type []types.Route",
    );
    check(
        "\"x\"",
        "json: cannot unmarshal string into Go value of type []types.Route",
    );
    check(r#"[{"dst":"foo"}]"#, "invalid CIDR address: foo");
    check(r#"[{"dst":""}]"#, "invalid CIDR address: ");
    check(
        r#"[{"dst":"10.0.0.0/8","gw":"x"}]"#,
        "invalid IP address: x",
    );
    check(
        r#"[{"dst":"10.0.0.0/8"},{"gw":"10.0.0.1"}]"#,
        "a route has no `dst`",
    );
    check(r#"[{"dst":null}]"#, "a route has no `dst`");
    check("[null]", "a route has no `dst`");
}
