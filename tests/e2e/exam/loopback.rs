//! `loopback`, whose result is laid out anew in later releases: what matters is the link.

use serde_json::{Value, json};
use tests::VERSIONS;
use tests::cni::with;

use super::case::{Case, of};

pub(super) fn cases() -> Vec<Case> {
    let conf = json!({ "name": "lo", "type": "loopback" });
    let chained = with(
        &of("1.0.0", &conf),
        "prevResult",
        json!({
            "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0", "sandbox": "/x" }],
            "ips": [{ "address": "10.5.5.5/24", "interface": 0 }], "routes": [{ "dst": "0.0.0.0/0" }],
        }),
    );
    let versions = VERSIONS.into_iter().chain([""]);
    let mut cases: Vec<Case> = versions
        .map(|it| case("up and down", &of(it, &conf)))
        .collect();
    cases.extend([
        case("a result before it", &chained),
        case("verbs of lists", &of("1.1.0", &conf))
            .managed()
            .newer(),
        case("arguments", &of("0.4.0", &conf)).args("none"),
    ]);
    cases
}

fn case(name: &str, conf: &Value) -> Case {
    Case::new(name, "loopback", conf.clone()).env("CNI_IFNAME", "lo")
}
