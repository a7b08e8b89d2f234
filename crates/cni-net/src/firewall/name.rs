//! Names that follow from a network and a container, byte for byte the reference's.

use sha2::{Digest, Sha512};

/// How long a chain's name is: the most that `iptables` takes (`XT_EXTENSION_MAXNAMELEN`, less the closing zero).
pub const CHAIN_LENGTH: usize = 28;

/// The first `digits` hex digits, lower case, of the text's SHA-512.
///
/// # Panics
/// If `digits` is 0 or more than the 128 that there are: it is a constant of the caller's.
pub fn hash(digits: usize, text: &str) -> String {
    assert!(
        (1..=128).contains(&digits),
        "a SHA-512 has 1 to 128 hex digits, not {digits}"
    );
    let digest = Sha512::digest(text);
    let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    halves
        .filter_map(|half| char::from_digit(half.into(), 16))
        .take(digits)
        .collect()
}

/// The chain of a container on a network: `prefix`, then as many digits as make 28 characters.
///
/// The interface is left out, as in the reference: two interfaces of a container on one network share the chain.
///
/// # Panics
/// If the prefix leaves no room for digits: it is a constant of the caller's.
pub fn chain(prefix: &str, network: &str, container_id: &str) -> String {
    let digits = CHAIN_LENGTH.saturating_sub(prefix.len());
    format!(
        "{prefix}{}",
        hash(digits, &format!("{network}{container_id}"))
    )
}

/// The comment by which a person, or GC, finds the owner of an `iptables` rule.
pub fn comment(network: &str, container_id: &str) -> String {
    format!("name: \"{network}\" id: \"{container_id}\"")
}

/// The container id in a comment of this network's; `None` in any other comment.
pub fn owner_in_comment<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    comment
        .strip_prefix(&format!("name: \"{network}\" id: \""))?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::catch_unwind;

    use super::*;

    // M08
    #[test]
    fn m08_chain_names() {
        assert_eq!(
            chain("CNI-", "test", "1234"),
            "CNI-2bbe0c48b91a7d1b8a6753a8"
        );
        assert_eq!(
            chain("CNI-", "testalongnamethatdoesnotmakesense", "1234"),
            "CNI-374f33fe84ab0ed84dcdebe3"
        );
        assert_eq!(
            chain("CNI-", "masq", "ctr1"),
            "CNI-9e3bc059eb9dacbe44332f71"
        );
        assert_eq!(
            chain("CNI-PREFIX-", "test", "1234"),
            "CNI-PREFIX-2bbe0c48b91a7d1b8"
        );
        assert_eq!(
            chain("CNI-DN-", "cbr0", "c1"),
            "CNI-DN-68f1f1eeb62cad3d0bdd5"
        );
        assert_eq!(
            chain("CNI-DN-", "testNetName", "icee6giejonei6so"),
            "CNI-DN-51b71743a65c4681a1e18"
        );
        for (network, id) in [("a", "b"), ("a", &"b".repeat(500)), (&"a".repeat(500), "b")] {
            assert_eq!(chain("CNI-", network, id).len(), 28);
            assert_eq!(chain("CNI-", network, id), chain("CNI-", network, id));
        }
        assert_ne!(chain("CNI-", "test", "1234"), chain("CNI-", "test", "1235"));
        assert_ne!(chain("CNI-", "test", "1234"), chain("CNI-", "tesu", "1234"));
    }

    // M09
    #[test]
    fn m09_hashes_have_the_length_asked_for() {
        for digits in 1..=128 {
            assert_eq!(hash(digits, "text").len(), digits);
            assert!(hash(128, "text").starts_with(&hash(digits, "text")));
        }
        let hashes: BTreeSet<String> = (0..1000)
            .map(|number| hash(8, &number.to_string()))
            .collect();
        assert_eq!(hashes.len(), 1000);
        for digits in [0, 129] {
            assert!(
                catch_unwind(|| hash(digits, "text")).is_err(),
                "{digits} digits"
            );
        }
        assert!(catch_unwind(|| chain("CNI-A-PREFIX-WITHOUT-ANY-ROOM", "a", "b")).is_err());
    }

    #[test]
    fn the_owner_is_found_in_the_comment() {
        assert_eq!(comment("net", "id"), r#"name: "net" id: "id""#);
        assert_eq!(owner_in_comment(&comment("net", "id"), "net"), Some("id"));
        assert_eq!(owner_in_comment(&comment("net2", "id"), "net"), None);
        assert_eq!(
            owner_in_comment("dnat name: \"net\" id: \"id\"", "net"),
            None
        );
    }
}
