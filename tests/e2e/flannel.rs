//! `flannel`: what it reads, what it hands on, what it remembers.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::cni::with;
use tests::{Node, Outcome, Pod};

use crate::leased;

pub(crate) const V4: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

const V6: &str = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

const DUAL: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
    FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";
const TWO_NETWORKS: &str = "FLANNEL_NETWORK=10.1.0.0/16,192.168.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
    FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

// F01, F02, F03, F04, F05, F06, F08: the default places, bridge and host-local behind it
#[test]
fn f01_a_pod_gets_what_subnet_env_says() {
    let cases: [(&str, &str, &str, &[&str]); 5] = [
        (
            V4,
            r#"[[{"subnet":"10.1.17.0/24"}]]"#,
            r#"[{"dst":"10.1.0.0/16"}]"#,
            &["ip4"],
        ),
        (
            TWO_NETWORKS,
            r#"[[{"subnet":"10.1.17.0/24"}]]"#,
            r#"[{"dst":"10.1.0.0/16"},{"dst":"192.168.0.0/16"}]"#,
            &["ip4"],
        ),
        (
            V6,
            r#"[[{"subnet":"fc00::/64"}]]"#,
            r#"[{"dst":"fc00::/48"}]"#,
            &["ip6"],
        ),
        (
            DUAL,
            r#"[[{"subnet":"10.1.17.0/24"}],[{"subnet":"fc00::/64"}]]"#,
            r#"[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}]"#,
            &["ip4", "ip6"],
        ),
        (
            &format!("\n{V4}"),
            r#"[[{"subnet":"10.1.17.0/24"}]]"#,
            r#"[{"dst":"10.1.0.0/16"}]"#,
            &["ip4"],
        ), // F06
    ];
    for (env, ranges, routes, families) in cases {
        let Some(on) = On::node(env) else { return };
        let pod = on.pod();
        let result = on.add("flannel", &pod, &bare()).result();
        let given: Vec<&str> = ["ip4", "ip6"]
            .into_iter()
            .filter(|it| result.get(it).is_some())
            .collect();
        assert_eq!(given, families);
        let state = format!(
            r#"{{"ipMasq":false,"ipam":{{"ranges":{ranges},"routes":{routes},"type":"host-local"}},"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}}"#
        );
        assert_eq!(on.state(&pod).unwrap(), state);
        assert_eq!(on.mode("/var/lib/cni/flannel/container-1"), 0o600);
        assert_eq!(on.mode("/var/lib/cni/flannel"), 0o700);
        assert_eq!(on.leases().len(), families.len());
        assert_eq!(pod.link("eth0").unwrap()["mtu"], 1472);

        on.del("flannel", &pod, &bare()).silent(); // F02
        assert!(on.state(&pod).is_none());
        assert!(pod.links().is_empty() && on.leases().is_empty());
        on.del("flannel", &pod, &bare()).silent();
    }
}

#[test]
fn f07_other_places_are_honoured() {
    for env in [V4, V6, DUAL] {
        let Some(on) = On::node("") else { return };
        let (file, dir) = (on.dir().join("flannel.env"), on.dir().join("states"));
        fs::write(&file, env).unwrap();
        let conf = with(&bare(), "subnetFile", file.to_str().unwrap().into());
        let conf = with(&conf, "dataDir", dir.to_str().unwrap().into());
        let pod = on.pod();
        on.add("flannel", &pod, &conf).result();
        assert!(dir.join(&pod.id).is_file());
        assert!(on.state(&pod).is_none());
        on.del("flannel", &pod, &conf).silent();
        assert!(!dir.join(&pod.id).exists());
    }
}

// F09, F10, F11
#[test]
fn f09_subnet_env_is_read_by_its_grammar() {
    let Some(on) = On::recording(V4) else { return };
    let ranges = |env: &str| {
        on.write_env(env);
        let conf = on.delegated(&with(&bare(), "cniVersion", "1.0.0".into()));
        (
            conf["ipam"]["ranges"].clone(),
            conf["mtu"].clone(),
            conf["ipMasq"].clone(),
        )
    };
    let four = json!([[{ "subnet": "10.1.17.0/24" }]]);
    let six = json!([[{ "subnet": "fc00::/64" }]]);
    let both = json!([[{ "subnet": "10.1.17.0/24" }], [{ "subnet": "fc00::/64" }]]);
    assert_eq!(ranges(V4), (four.clone(), json!(1472), json!(false)));
    assert_eq!(ranges(V6), (six, json!(1472), json!(false)));
    assert_eq!(ranges(DUAL), (both, json!(1472), json!(false)));
    assert_eq!(
        ranges(&V4.replace('\n', "\r\n")),
        (four.clone(), json!(1472), json!(false))
    );
    for other in ["TRUE", "1", "", "false", "true "] {
        let env = V4.replace("IPMASQ=true", &format!("IPMASQ={other}"));
        assert_eq!(
            ranges(&env),
            (four.clone(), json!(1472), json!(true)),
            "IPMASQ={other}"
        );
    }
    let noise =
        format!("# comment\nexport FLANNEL_MTU=1\n FLANNEL_MTU=2\nother\nFLANNEL_MTU=9\n{V4}");
    assert_eq!(
        ranges(&noise),
        (four, json!(1472), json!(false)),
        "the last one wins, others are ignored"
    );
}

#[test]
fn f12_what_subnet_env_lacks_is_named() {
    let Some(on) = On::node("") else { return };
    let path = "/run/flannel/subnet.env";
    let all = "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ";
    let cases = [
        ("foo=bar\n".to_owned(), format!("{path} is missing {all}")),
        (String::new(), format!("{path} is missing {all}")),
        (
            V4.replace("FLANNEL_MTU", "MTU"),
            format!("{path} is missing FLANNEL_MTU"),
        ),
        (
            V6.replace("FLANNEL_IPMASQ", "X"),
            format!("{path} is missing FLANNEL_IPMASQ"),
        ),
        (
            V4.replace("10.1.17.1/24", "10.1.17.1"),
            "invalid CIDR address: 10.1.17.1".into(),
        ),
        (
            V4.replace("10.1.17.1/24", ""),
            "invalid CIDR address: ".into(),
        ),
        (
            V4.replace("1472", "1472 "),
            r#"strconv.ParseUint: parsing "1472 ": invalid syntax"#.into(),
        ),
        (
            V4.replace("1472", "4294967296"),
            r#"strconv.ParseUint: parsing "4294967296": value out of range"#.into(),
        ),
    ];
    for (env, cause) in cases {
        on.write_env(&env);
        let msg = format!(
            "failed to load flannel 'subnet.env' file: {cause}. Check the flannel pod log for this node."
        );
        on.add("flannel", &on.pod(), &bare()).fails(&msg);
    }
    on.write_env(&V4.replace("FLANNEL_MTU=1472", "FLANNEL_MTU"));
    on.add("flannel", &on.pod(), &bare()).failure(); // the reference crashes
    fs::remove_file(on.file(path)).unwrap();
    let msg = format!(
        "failed to load flannel 'subnet.env' file: open {path}: no such file or directory. \
         Check the flannel pod log for this node."
    );
    let failure = on.add("flannel", &on.pod(), &bare()).fails(&msg);
    assert_eq!(
        failure.code, 11,
        "flanneld may write it yet: try again later"
    );
    assert!(failure.details.contains("flannel"), "no hint: {failure:?}");
    assert!(on.links().is_empty());
}

// F13, F14, F15, F16, F17, F18, F19
#[test]
fn f13_ipam_of_the_user_is_kept_and_added_to() {
    let user = json!({
        "type": "my-ipam",
        "unknown-param": "unknown-value",
        "routes": [{ "dst": "192.168.0.0/24" }, { "dst": "10.0.3.0/24", "gw": "192.168.0.1" }],
    });
    let four = r#"[{"subnet":"10.1.17.0/24"}]"#;
    let six = r#"[{"subnet":"fc00::/64"}]"#;
    let own = r#"{"dst":"192.168.0.0/24"},{"dst":"10.0.3.0/24","gw":"192.168.0.1"}"#;
    let (net4, net6) = (r#"{"dst":"10.1.0.0/16"}"#, r#"{"dst":"fc00::/48"}"#);
    let users = |ranges: &str, net: &str| {
        format!(
            r#"{{"ranges":[{ranges}],"routes":[{own},{net}],"type":"my-ipam","unknown-param":"unknown-value"}}"#
        )
    };
    let default = |ranges: &str, net: &str| {
        format!(r#"{{"ranges":[{ranges}],"routes":[{net}],"type":"host-local"}}"#)
    };
    let (both, nets) = (format!("{four},{six}"), format!("{net4},{net6}"));
    let two = r#"{"dst":"10.1.0.0/16"},{"dst":"192.168.0.0/16"}"#;
    let cases = [
        (V4, user.clone(), users(four, net4)),
        (V6, user.clone(), users(six, net6)),            // F14
        (DUAL, user, users(&both, &nets)),               // F15
        (TWO_NETWORKS, Value::Null, default(four, two)), // F16
        (V4, json!({}), default(four, net4)),            // F17
        (V6, json!({}), default(six, net6)),             // F18
        (DUAL, json!({}), default(&both, &nets)),        // F19
    ];
    for (env, ipam, expected) in cases {
        let Some(on) = On::recording(env) else { return };
        let conf = with(&bare(), "ipam", ipam);
        let conf = on.delegated(&with(&conf, "cniVersion", "1.0.0".into()));
        assert_eq!(conf["ipam"].to_string(), expected);
    }
}

#[test]
fn the_delegate_s_configuration_is_the_reference_s_byte_for_byte() {
    let env = |text: &str| text.replace(' ', "\n") + "\n";
    let dual = "FLANNEL_NETWORK=10.42.0.0/16 FLANNEL_SUBNET=10.42.0.1/24 FLANNEL_IPV6_NETWORK=2001:cafe:42::/56 \
                FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64 FLANNEL_MTU=1450 FLANNEL_IPMASQ=true";
    let two = "FLANNEL_NETWORK=10.5.0.0/16,172.20.0.0/16 FLANNEL_SUBNET=10.5.72.1/26 FLANNEL_MTU=8951 FLANNEL_IPMASQ=false";
    let cases = [
        (
            env(dual),
            r#"{"cniVersion":"1.0.0","name":"cbr0","type":"flannel","delegate":{"type":"recorder","forceAddress":true,"hairpinMode":true,"isDefaultGateway":true}}"#,
            r#"{"cniVersion":"1.0.0","forceAddress":true,"hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.42.0.0/24"}],[{"subnet":"2001:cafe:42::/64"}]],"routes":[{"dst":"10.42.0.0/16"},{"dst":"2001:cafe:42::/56"}],"type":"host-local"},"isDefaultGateway":true,"mtu":1450,"name":"cbr0","type":"recorder"}"#,
        ),
        (
            env(two),
            r#"{"cniVersion":"1.1.0","name":"podnet","type":"flannel","runtimeConfig":{"ips":["10.5.72.9/26"]},"ipam":{"dataDir":"/run/cni/leases","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.96.0.0/12","gw":"10.5.72.1","mtu":1400}]},"delegate":{"type":"recorder","master":"ens3","mtu":1500}}"#,
            r#"{"cniVersion":"1.1.0","ipMasq":true,"ipam":{"dataDir":"/run/cni/leases","ranges":[[{"subnet":"10.5.72.0/26"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.96.0.0/12","gw":"10.5.72.1","mtu":1400},{"dst":"10.5.0.0/16"},{"dst":"172.20.0.0/16"}],"type":"host-local"},"master":"ens3","mtu":1500,"name":"podnet","runtimeConfig":{"ips":["10.5.72.9/26"]},"type":"recorder"}"#,
        ),
        (
            V4.to_owned(),
            r#"{"cniVersion":"1.0.0","name":"n","type":"flannel","dns":{},"mtu":9,"delegate":{"type":"recorder","Zed":1.50,"big":1e21,"a":"<&>","mtu":null,"ipMasq":null,"isGateway":false}}"#,
            r#"{"Zed":1.5,"a":"\u003c\u0026\u003e","big":1e+21,"cniVersion":"1.0.0","ipMasq":null,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":false,"mtu":null,"name":"n","type":"recorder"}"#,
        ),
    ];
    for (env, conf, expected) in cases {
        let Some(on) = On::recording(&env) else {
            return;
        };
        let pod = on.pod();
        on.call("flannel", "ADD")
            .pod(&pod)
            .scripts()
            .stdin(conf)
            .run()
            .result();
        assert_eq!(on.state(&pod).unwrap(), expected);
        assert_eq!(
            fs::read_to_string(on.dir().join("recorded")).unwrap(),
            expected
        );
    }
}

#[test]
fn what_flannel_sets_the_delegate_may_not() {
    let Some(on) = On::node(V4) else { return };
    let cases = [
        (
            json!({ "type": 1 }),
            "'delegate' dictionary, if present, must have (string) 'type' field",
        ),
        (
            json!({ "name": null }),
            "'delegate' dictionary must not have 'name' field, it'll be set by flannel",
        ),
        (
            json!({ "ipam": {} }),
            "'delegate' dictionary must not have 'ipam' field, it'll be set by flannel",
        ),
    ];
    for (delegate, msg) in cases {
        let pod = on.pod();
        on.add("flannel", &pod, &with(&bare(), "delegate", delegate))
            .fails(msg);
        assert!(on.state(&pod).is_none());
    }
}

#[test]
fn a_delegate_s_error_is_passed_on_as_it_is() {
    let Some(on) = On::node(V4) else { return };
    on.script(
        "recorder",
        r#"echo '{"code": 117, "msg": "no luck", "details": "at all"}'; exit 1"#,
    );
    let conf = with(&bare(), "delegate", json!({ "type": "recorder" }));
    let failure = on
        .call("flannel", "ADD")
        .pod(&on.pod())
        .scripts()
        .conf(&conf)
        .run()
        .failure();
    assert_eq!(
        (failure.code, failure.msg.as_str(), failure.details.as_str()),
        (117, "no luck", "at all")
    );
    let conf = with(&bare(), "delegate", json!({ "type": "nosuch" }));
    let failure = on.add("flannel", &on.pod(), &conf).failure();
    let head = "failed to delegate add: failed to find plugin \"nosuch\" in path [";
    assert!(failure.msg.starts_with(head), "{}", failure.msg);
}

#[test]
fn success_is_silent_on_stderr() {
    let Some(on) = On::node(V4) else { return };
    let pod = on.pod();
    let conf = with(&bare(), "cniVersion", "1.0.0".into());
    assert_eq!(on.add("flannel", &pod, &conf).stderr, "");
    assert_eq!(on.del("flannel", &pod, &conf).stderr, "");
}

/// A node where flanneld has written a file.
pub(crate) struct On {
    node: Node,
}

impl On {
    pub(crate) fn node(env: &str) -> Option<On> {
        let node = Node::with(&["flannel", "bridge", "host-local"])?;
        fs::create_dir_all(node.file("/run/flannel")).unwrap();
        let on = On { node };
        on.write_env(env);
        Some(on)
    }

    /// Besides, a delegate `recorder` that writes what it is given to `recorded`.
    pub(crate) fn recording(env: &str) -> Option<On> {
        let on = On::node(env)?;
        let file = on.dir().join("recorded");
        let result = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.17.2/24"}]}"#;
        on.script(
            "recorder",
            &format!(
                "cat > {}\n[ $CNI_COMMAND = DEL ] || echo '{result}'",
                file.display()
            ),
        );
        Some(on)
    }

    pub(crate) fn write_env(&self, text: &str) {
        fs::write(self.file("/run/flannel/subnet.env"), text).unwrap();
    }

    /// The state of `pod` in the default place.
    pub(crate) fn state(&self, pod: &Pod) -> Option<String> {
        fs::read_to_string(self.file("/var/lib/cni/flannel").join(&pod.id)).ok()
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        leased(&self.file("/var/lib/cni/networks/cni-flannel"))
    }

    fn mode(&self, path: &str) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        let path: PathBuf = self.file(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// What `recorder` is given for `conf`.
    #[track_caller]
    fn delegated(&self, conf: &Value) -> Value {
        let conf = with(conf, "delegate", json!({ "type": "recorder" }));
        let add: Outcome = self
            .call("flannel", "ADD")
            .pod(&self.pod())
            .scripts()
            .conf(&conf)
            .run();
        add.result();
        let recorded = fs::read_to_string(self.dir().join("recorded")).unwrap();
        serde_json::from_str(&recorded).unwrap()
    }
}

impl Deref for On {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// The least that flannel is configured with.
pub(crate) fn bare() -> Value {
    json!({ "name": "cni-flannel", "type": "flannel", "delegate": {} })
}
