//! Results as they are printed, byte for byte but for names and MACs.

use serde_json::json;
use tests::cni;

use crate::bridge::{l3, node};

// B07, P16
#[test]
fn p16_the_result_is_laid_out_as_its_version_says() {
    if cni::differs("1.1.1 keeps the older order of keys") {
        return;
    }
    let newest = r#"{
    "cniVersion": "1.1.0",
    "dns": {
        "nameservers": [
            "10.10.0.1"
        ]
    },
    "interfaces": [
        {
            "mac": "MAC",
            "name": "bridge0"
        },
        {
            "mac": "MAC",
            "name": "HOST"
        },
        {
            "mac": "MAC",
            "name": "eth0",
            "sandbox": "SANDBOX"
        }
    ],
    "ips": [
        {
            "address": "10.10.0.2/24",
            "gateway": "10.10.0.1",
            "interface": 2
        },
        {
            "address": "fd00:10::2/64",
            "gateway": "fd00:10::1",
            "interface": 2
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0"
        }
    ]
}"#;
    let middle = r#"{
    "cniVersion": "0.3.1",
    "interfaces": [
        {
            "name": "bridge0",
            "mac": "MAC"
        },
        {
            "name": "HOST",
            "mac": "MAC"
        },
        {
            "name": "eth0",
            "mac": "MAC",
            "sandbox": "SANDBOX"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 2,
            "address": "10.10.0.2/24",
            "gateway": "10.10.0.1"
        },
        {
            "version": "6",
            "interface": 2,
            "address": "fd00:10::2/64",
            "gateway": "fd00:10::1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0"
        }
    ],
    "dns": {
        "nameservers": [
            "10.10.0.1"
        ]
    }
}"#;
    let oldest = r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.10.0.2/24",
        "gateway": "10.10.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            }
        ]
    },
    "ip6": {
        "ip": "fd00:10::2/64",
        "gateway": "fd00:10::1",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "10.10.0.1"
        ]
    }
}"#;
    for (version, expected) in [("1.1.0", newest), ("0.3.1", middle), ("0.2.0", oldest)] {
        let Some(node) = node() else { return };
        let mut conf = l3(&node, version, &["10.10.0.0/24", "fd00:10::/64"]);
        conf["isDefaultGateway"] = false.into();
        conf["isGateway"] = true.into();
        conf["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
        conf["dns"] = json!({ "nameservers": ["10.10.0.1"] });
        let pod = node.pod();
        let added = node.add("bridge", &pod, &conf);
        let result = added.result();
        let mut text = added.stdout.replace(&pod.path(), "SANDBOX");
        for interface in result["interfaces"].as_array().into_iter().flatten() {
            text = text.replace(interface["mac"].as_str().unwrap(), "MAC");
        }
        if let Some(host) = result["interfaces"][1]["name"].as_str() {
            text = text.replace(host, "HOST");
        }
        assert_eq!(text, expected);
        let routes = [
            "default via 10.10.0.1 dev eth0",
            "default via fd00:10::1 dev eth0",
        ];
        assert_eq!(
            pod.routes(),
            routes,
            "a default route without gateway takes the pod's"
        );
    }
}
