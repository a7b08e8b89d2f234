use serde_json::json;

use super::*;

fn read(conf: Value) -> Config {
    Config::read(&conf).unwrap()
}

// F07
#[test]
fn f07_explicit_paths_are_honoured() {
    let conf = read(json!({
        "name": "cni-flannel", "type": "flannel",
        "subnetFile": "/tmp/subnet.env", "dataDir": "/tmp/flannel",
    }));
    assert_eq!(conf.name, "cni-flannel");
    assert_eq!(
        (conf.subnet_file.as_str(), conf.data_dir.as_str()),
        ("/tmp/subnet.env", "/tmp/flannel")
    );
    let empty = read(json!({ "subnetFile": "", "dataDir": "" }));
    assert_eq!(
        (empty.subnet_file.as_str(), empty.data_dir.as_str()),
        ("", "")
    );
}

// F08
#[test]
fn f08_default_paths() {
    for conf in [
        json!({ "name": "cni-flannel" }),
        json!({ "subnetFile": null, "dataDir": null }),
    ] {
        let conf = read(conf);
        assert_eq!(conf.subnet_file, "/run/flannel/subnet.env");
        assert_eq!(conf.data_dir, "/var/lib/cni/flannel");
    }
}

#[test]
fn keys_match_without_case_but_free_forms_are_kept() {
    let conf = read(json!({
        "SubnetFile": "/a", "DELEGATE": { "MTU": 1, "mtu": 2 }, "runtimeconfig": { "ipRanges": [ { "Subnet": "x" } ] },
    }));
    assert_eq!(conf.subnet_file, "/a");
    assert_eq!(Value::from(conf.delegate), json!({ "MTU": 1, "mtu": 2 }));
    assert_eq!(
        conf.runtime_config.map(Value::from),
        Some(json!({ "ipRanges": [ { "Subnet": "x" } ] }))
    );
}

#[test]
fn null_is_absent_and_empty_is_not() {
    assert_eq!(
        read(json!({ "delegate": null, "ipam": null, "runtimeConfig": null })).runtime_config,
        None
    );
    assert_eq!(
        read(json!({ "runtimeConfig": {} })).runtime_config,
        Some(Map::new())
    );
}

#[test]
fn a_wrong_type_names_its_key() {
    let check = |conf: Value, text: &str| {
        let error = Config::read(&conf).unwrap_err().to_string();
        let expected =
            "failed to load flannel netconf file: failed to load netconf: json: cannot unmarshal ";
        assert_eq!(error, format!("{expected}{text}"));
    };
    check(
        json!({ "subnetFile": 5 }),
        "number into Go struct field NetConf.subnetFile of type string",
    );
    check(
        json!({ "dataDir": ["/"] }),
        "array into Go struct field NetConf.dataDir of type string",
    );
    check(
        json!({ "delegate": [] }),
        "array into Go struct field NetConf.delegate of type map",
    );
    check(
        json!({ "ipam": "host-local" }),
        "string into Go struct field NetConf.ipam of type map",
    );
    check(
        json!({ "capabilities": { "a": 1 } }),
        "number 1 into Go struct field NetConf.capabilities.a of type bool",
    );
}
