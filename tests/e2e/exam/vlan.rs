//! `bridge` with VLANs on the ports of the node: what is refused on any kernel, the rest where VLANs are filtered.

use serde_json::{Value, json};
use tests::cni::with;

use super::bridge::{OF_ITS_OWN, l2, l3};
use super::case::Case;

const V4: &str = "10.1.2.0/24";
const V6: &str = "2001:db8:1::/64";

pub(super) fn cases() -> Vec<Case> {
    [refused(), ports(), gateways()].concat()
}

/// Trunks that make no sense.
fn refused() -> Vec<Case> {
    let trunks = [
        ("no maxID", json!([{ "minID": 10 }])),
        ("no minID", json!([{ "maxID": 10 }])),
        ("a minID below zero", json!([{ "minID": -1, "maxID": 10 }])),
        ("a minID of zero", json!([{ "minID": 0, "maxID": 10 }])),
        (
            "a minID too high",
            json!([{ "minID": 4095, "maxID": 4096 }]),
        ),
        ("a maxID too high", json!([{ "minID": 1, "maxID": 4095 }])),
        ("a maxID of zero", json!([{ "minID": 1, "maxID": 0 }])),
        ("a range upside down", json!([{ "minID": 9, "maxID": 8 }])),
        ("an id too high", json!([{ "id": 4095 }])),
        ("an id below zero", json!([{ "id": -1 }])),
        ("an id of zero", json!([{ "id": 5 }, { "id": 0 }])),
        (
            "a range and an id that is none",
            json!([{ "minID": 5, "maxID": 6, "id": 5000 }]),
        ),
        ("a trunk that is a number", json!(5)),
        ("an id that is a text", json!([{ "id": "5" }])),
    ];
    let cases = trunks.into_iter().map(|(name, trunk)| {
        let conf = with(&l2(), "vlanTrunk", trunk);
        Case::new(&format!("trunk, {name}"), "bridge", conf)
            .brief()
            .newer()
    });
    cases.collect()
}

fn ports() -> Vec<Case> {
    let trunk = json!([{ "id": 101 }, { "minID": 200, "maxID": 203 }]);
    let shuffled = json!([{ "id": 300 }, { "minID": 7, "maxID": 9, "id": 8 }, { "minID": 8, "maxID": 10 }, { "id": 7 }, {}]);
    let kept = |conf: &Value| with(conf, "preserveDefaultVlan", true.into());
    let vlan = |id: u16| with(&l2(), "vlan", id.into());
    let trunk = |conf: &Value| with(conf, "vlanTrunk", trunk.clone());
    let filtering = "ip link add br1 address 02:00:00:00:00:99 type bridge vlan_filtering 1 vlan_default_pvid 0";
    let tuned = json!({ "hairpinMode": true, "portIsolation": true, "macspoofchk": true });
    let tuned = tuned.as_object().unwrap().iter();
    let tuned = tuned.fold(trunk(&vlan(100)), |conf, (key, value)| {
        with(&conf, key, value.clone())
    });
    let cases = vec![
        on_a_new_bridge("a VLAN", &vlan(100)).newer(),
        on_a_new_bridge("a VLAN and the default one", &kept(&vlan(4094))),
        on_a_new_bridge("the default VLAN", &vlan(1)).newer(),
        on_a_new_bridge("a trunk", &trunk(&l2())).newer(),
        on_a_new_bridge("a trunk and the default VLAN", &kept(&trunk(&l2()))).newer(),
        on_a_new_bridge("a trunk in disorder", &with(&l2(), "vlanTrunk", shuffled)).newer(),
        on_a_new_bridge("an empty trunk", &with(&l2(), "vlanTrunk", json!([]))).newer(),
        on_a_new_bridge("a VLAN and a trunk", &trunk(&vlan(202))).newer(),
        on_a_new_bridge(
            "a VLAN, a trunk and the default VLAN",
            &kept(&trunk(&vlan(100))),
        )
        .newer(),
        on_a_new_bridge("a VLAN, a trunk and all else", &tuned).newer(),
        Case::new("vlan, a bridge that filters", "bridge", vlan(100))
            .before(filtering)
            .newer(),
        Case::new("vlan, a bridge that does not filter", "bridge", vlan(100))
            .before(OF_ITS_OWN)
            .newer(),
    ];
    cases.into_iter().map(|it| it.brief().vlans()).collect()
}

/// The gateway of a VLAN has a device of its own. The bridge, to which no address comes then, has a MAC of its own.
fn gateways() -> Vec<Case> {
    let conf = with(&l3(&[V4, V6]), "isDefaultGateway", true.into());
    let conf = with(&conf, "vlan", 100.into());
    let mut masqueraded = with(&conf, "ipMasq", true.into());
    masqueraded["ipMasqBackend"] = "nftables".into();
    let trunk = with(&conf, "vlanTrunk", json!([{ "minID": 200, "maxID": 203 }]));
    let cases = [
        Case::new("vlan, a gateway", "bridge", conf),
        Case::new("vlan, a gateway, and masquerade", "bridge", masqueraded).brief(),
        Case::new("vlan, a gateway, and a trunk", "bridge", trunk).brief(),
    ];
    let cases = cases.map(|it| it.before(OF_ITS_OWN).newer().vlans());
    cases.to_vec()
}

fn on_a_new_bridge(name: &str, conf: &Value) -> Case {
    Case::new(&format!("vlan, {name}"), "bridge", conf.clone())
}
