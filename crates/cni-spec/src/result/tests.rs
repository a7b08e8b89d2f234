use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn every_field() -> Success {
    let ip = |text: &str| text.parse().unwrap();
    Success {
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: "00:11:22:33:44:55".into(),
            mtu: 1500,
            sandbox: "/proc/3553/ns/net".into(),
            socket_path: "/path/to/vhost/fd".into(),
            pci_id: "8086:9a01".into(),
        }],
        ips: vec![
            Ip {
                address: address::parse_cidr("1.2.3.30/24").unwrap(),
                gateway: Some(ip("1.2.3.1")),
                interface: Some(0),
            },
            Ip {
                address: address::parse_cidr("abcd:1234:ffff::cdde/64").unwrap(),
                gateway: Some(ip("abcd:1234:ffff::1")),
                interface: None,
            },
        ],
        routes: vec![
            Route {
                mtu: 1400,
                advmss: 1340,
                priority: 100,
                table: Some(50),
                scope: Some(0),
                ..Route::new(
                    address::parse_cidr("15.5.6.0/24").unwrap(),
                    Some(ip("15.5.6.8")),
                )
            },
            Route::new(
                address::parse_cidr("1111:dddd::/80").unwrap(),
                Some(ip("1111:dddd::aaaa")),
            ),
        ],
        dns: Dns {
            nameservers: vec!["1.2.3.4".into()],
            domain: "acompany.com".into(),
            search: vec!["somedomain.com".into()],
            options: vec!["foo".into()],
        },
    }
}

fn check(success: &Success, version: Version, expected: Expect) {
    let text = json::to_compact(&success.encode(version).unwrap());
    expected.assert_eq(&String::from_utf8(text).unwrap());
}

// P15
#[test]
fn p15_every_field_of_1_1_0() {
    check(
        &every_field(),
        Version::V1_1_0,
        expect![[
            r#"{"cniVersion":"1.1.0","dns":{"domain":"acompany.com","nameservers":["1.2.3.4"],"options":["foo"],"search":["somedomain.com"]},"interfaces":[{"mac":"00:11:22:33:44:55","mtu":1500,"name":"eth0","pciID":"8086:9a01","sandbox":"/proc/3553/ns/net","socketPath":"/path/to/vhost/fd"}],"ips":[{"address":"1.2.3.30/24","gateway":"1.2.3.1","interface":0},{"address":"abcd:1234:ffff::cdde/64","gateway":"abcd:1234:ffff::1"}],"routes":[{"advmss":1340,"dst":"15.5.6.0/24","gw":"15.5.6.8","mtu":1400,"priority":100,"scope":0,"table":50},{"dst":"1111:dddd::/80","gw":"1111:dddd::aaaa"}]}"#
        ]],
    );
    for through in [Version::V1_0_0, Version::V1_1_0] {
        let encoded = every_field().encode(through).unwrap();
        assert_eq!(
            Success::decode(&encoded, "").unwrap(),
            (every_field(), through)
        );
    }
}

// P16
#[test]
fn p16_down_to_0_4_0() {
    check(
        &every_field(),
        Version::V0_4_0,
        expect![[
            r#"{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","mac":"00:11:22:33:44:55","sandbox":"/proc/3553/ns/net"}],"ips":[{"version":"4","interface":0,"address":"1.2.3.30/24","gateway":"1.2.3.1"},{"version":"6","address":"abcd:1234:ffff::cdde/64","gateway":"abcd:1234:ffff::1"}],"routes":[{"dst":"15.5.6.0/24","gw":"15.5.6.8","mtu":1400,"advmss":1340,"priority":100,"table":50,"scope":0},{"dst":"1111:dddd::/80","gw":"1111:dddd::aaaa"}],"dns":{"nameservers":["1.2.3.4"],"domain":"acompany.com","search":["somedomain.com"],"options":["foo"]}}"#
        ]],
    );
}

// P16
#[test]
fn p16_down_to_0_1_0() {
    check(
        &every_field(),
        Version::V0_1_0,
        expect![[
            r#"{"cniVersion":"0.1.0","ip4":{"ip":"1.2.3.30/24","gateway":"1.2.3.1","routes":[{"dst":"15.5.6.0/24","gw":"15.5.6.8"}]},"ip6":{"ip":"abcd:1234:ffff::cdde/64","gateway":"abcd:1234:ffff::1","routes":[{"dst":"1111:dddd::/80","gw":"1111:dddd::aaaa"}]},"dns":{"nameservers":["1.2.3.4"],"domain":"acompany.com","search":["somedomain.com"],"options":["foo"]}}"#
        ]],
    );
}

// P17
#[test]
fn p17_old_results_survive_the_way_up_and_down() {
    for gateway in ["", r#","gw":"15.5.6.8""#] {
        let text = format!(
            r#"{{"cniVersion":"0.2.0","ip4":{{"ip":"1.2.3.30/24","gateway":"1.2.3.1","routes":[{{"dst":"15.5.6.0/24"{gateway}}}]}},"ip6":{{"ip":"abcd::1/64","routes":[{{"dst":"1111:dddd::/80"}}]}},"dns":{{}}}}"#
        );
        let (success, version) =
            Success::decode(&serde_json::from_str(&text).unwrap(), "").unwrap();
        assert_eq!(success.routes.len(), 2);
        let newer = success.encode(Version::V1_1_0).unwrap();
        let (again, _) = Success::decode(&newer, "").unwrap();
        assert_eq!(
            String::from_utf8(json::to_compact(&again.encode(version).unwrap())).unwrap(),
            text
        );
    }
}

// P18
#[test]
fn p18_interface_zero_is_not_none() {
    let encoded = every_field().encode(Version::V0_3_1).unwrap();
    assert_eq!(encoded["ips"][0]["interface"], json!(0));
    assert_eq!(encoded["ips"][1].get("interface"), None);
    let (decoded, _) = Success::decode(&encoded, "").unwrap();
    assert_eq!(
        (decoded.ips[0].interface, decoded.ips[1].interface),
        (Some(0), None)
    );
}

// P19
#[test]
fn p19_no_address_no_old_result() {
    let error = Success::default().encode(Version::V0_2_0).unwrap_err();
    assert_eq!(error.to_string(), "cannot convert: no valid IP addresses");
}

// P20
#[test]
fn p20_results_of_wrong_types_are_refused() {
    let error = Success::decode(&json!({ "cniVersion": "1.0.0", "ips": "x" }), "").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("json: cannot unmarshal string"),
        "{error}"
    );
    assert!(Success::decode(&json!({ "cniVersion": "1.0.0", "ips": [{}] }), "").is_err());
}

// P21
#[test]
fn p21_a_result_without_version_has_the_configs() {
    let result = json!({ "ips": [{ "address": "10.0.0.1/8" }] });
    assert_eq!(
        Success::decode(&result, "1.0.0").unwrap().1,
        Version::V1_0_0
    );
    let empty = json!({ "cniVersion": "", "ip4": { "ip": "10.0.0.1/8" } });
    assert_eq!(Success::decode(&empty, "").unwrap().1, Version::V0_1_0);
    assert_eq!(
        Success::decode(&json!({ "cniVersion": "9.9.9" }), "")
            .unwrap_err()
            .to_string(),
        "unsupported CNI result version \"9.9.9\""
    );
}

// P26
#[test]
fn p26_prev_results_are_of_the_configs_family() {
    let prev = |version: &str| {
        let result = json!({ "cniVersion": version, "ips": [{ "address": "10.0.0.1/8" }] });
        result.as_object().unwrap().clone()
    };
    assert!(Success::decode_prev(&prev("1.1.0"), "1.0.0").is_ok());
    assert!(Success::decode_prev(&prev("0.3.1"), "0.4.0").is_ok());
    assert!(Success::decode_prev(&prev(""), "0.4.0").is_ok());
    assert_eq!(
        Success::decode_prev(&prev("0.4.0"), "1.0.0")
            .unwrap_err()
            .to_string(),
        "result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is \"0.4.0\""
    );
    assert!(Success::decode_prev(&prev("5678"), "1.0.0").is_err());
}

// P28
#[test]
fn p28_prefixes_keep_their_host_bits() {
    let result = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.1.2.3/8" }], "routes": [{ "dst": "10.96.3.1/12" }] });
    let (success, version) = Success::decode(&result, "").unwrap();
    assert_eq!(success.encode(version).unwrap(), result);
}
