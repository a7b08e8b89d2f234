//! `bridge` with what only newer releases know: masquerade by nftables, isolated ports, a disabled interface, and all of
//! it together with older keys.

use serde_json::{Value, json};
use tests::cni::with;

use super::bridge::{OF_ITS_OWN, l2, l3};
use super::case::{Case, of};

const V4: &str = "10.1.2.0/24";
const V6: &str = "2001:db8:1::/64";

pub(super) fn cases() -> Vec<Case> {
    let cases = [masquerade(), interfaces(), combinations()].concat();
    cases.into_iter().map(Case::newer).collect()
}

fn masquerade() -> Vec<Case> {
    let others = "nft add table inet other; nft add chain inet other natural; \
                  nft add table inet cni_plugins_masquerade; nft add chain inet cni_plugins_masquerade masq_checks; \
                  nft add rule inet cni_plugins_masquerade masq_checks \
                  ip saddr 10.9.0.7 ip daddr != 10.9.0.0/24 masquerade comment other";
    let by_iptables = "iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE";
    let dual = masqueraded(&[V4, V6]);
    vec![
        case("IPv4", &masqueraded(&[V4])).brief(),
        case("IPv6", &masqueraded(&[V6])).brief(),
        case("dual stack", &dual),
        case("dual stack", &of("0.4.0", &dual)).brief(),
        case("dual stack", &of("0.2.0", &dual)).brief(),
        case("dual stack and verbs of lists", &of("1.1.0", &dual)).managed(),
        case("two sets of a family", &masqueraded(&[V4, "10.1.3.0/24"])),
        case("rules of others", &dual).before(others).brief(),
        case("rules of others by iptables", &dual)
            .before(by_iptables)
            .brief(),
        case("another interface", &dual)
            .env("CNI_IFNAME", "net-1_x")
            .brief(),
        case(
            "a network of a long name",
            &with(&dual, "name", "n".repeat(120).into()),
        )
        .brief(),
        case(
            "a result before it",
            &with(&dual, "prevResult", json!({ "cniVersion": "1.0.0" })),
        )
        .brief(),
        case(
            "layer 2",
            &with(
                &with(&l2(), "ipMasq", true.into()),
                "ipMasqBackend",
                "nftables".into(),
            ),
        )
        .brief(),
        case("no masquerade", &with(&dual, "ipMasq", false.into())).brief(),
        case(
            "an unknown backend",
            &with(&dual, "ipMasqBackend", "ebtables".into()),
        )
        .brief(),
        case("an empty backend", &with(&dual, "ipMasqBackend", "".into())).brief(),
        case(
            "a backend that is none",
            &with(&dual, "ipMasqBackend", 5.into()),
        )
        .brief(),
        case("spoof check", &with(&dual, "macspoofchk", true.into())),
    ]
}

fn interfaces() -> Vec<Case> {
    let disabled = with(&l2(), "disableContainerInterface", true.into());
    let mut tuned = with(&disabled, "mtu", 1400.into());
    tuned["hairpinMode"] = true.into();
    tuned["macspoofchk"] = true.into();
    tuned["args"] = json!({ "cni": { "mac": "02:00:00:00:00:02" } });
    vec![
        case(
            "isolated, layer 2",
            &with(&l2(), "portIsolation", true.into()),
        ),
        case(
            "isolated, layer 3",
            &with(&l3(&[V4]), "portIsolation", true.into()),
        )
        .brief(),
        case("disabled", &disabled),
        case("disabled, with all that goes with it", &tuned),
        case(
            "disabled, in vain",
            &with(&l3(&[V4]), "disableContainerInterface", true.into()),
        )
        .brief(),
    ]
}

/// Each pair of seven keys in each of its four combinations.
fn combinations() -> Vec<Case> {
    let keys: [(&str, Value); 7] = [
        ("isDefaultGateway", true.into()),
        ("ipMasq", true.into()),
        ("macspoofchk", true.into()),
        ("portIsolation", true.into()),
        ("hairpinMode", true.into()),
        ("mtu", 1400.into()),
        ("runtimeConfig", json!({ "mac": "02:00:00:00:00:03" })),
    ];
    let rows = 0usize..8;
    rows.map(|row| {
        let mut conf = with(&l3(&[V4, V6]), "ipMasqBackend", "nftables".into());
        let chosen = keys
            .iter()
            .zip(1usize..)
            .filter(|(_, column)| (row & column).count_ones() % 2 == 1);
        for ((key, value), _) in chosen {
            conf[*key] = value.clone();
        }
        case(&format!("combination {row}"), &conf).brief()
    })
    .collect()
}

/// The bridge has a MAC of its own, which CHECK would miss if it were the lowest among its ports'.
fn case(name: &str, conf: &Value) -> Case {
    Case::new(&format!("nftables, {name}"), "bridge", conf.clone()).before(OF_ITS_OWN)
}

fn masqueraded(subnets: &[&str]) -> Value {
    let conf = with(&l3(subnets), "ipMasq", true.into());
    with(&conf, "ipMasqBackend", "nftables".into())
}
