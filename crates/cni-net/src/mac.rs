//! Hardware addresses.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The bytes of a hardware address of 6, 8 or 20 bytes, written as `02:00:5e:10:00:00`, `02-00-5e-10-00-00` or
/// `0200.5e10.0000`; `None` for any other text.
pub fn parse_mac(text: &str) -> Option<Vec<u8>> {
    let (separator, digits) = match text.get(2..3)? {
        ":" => (':', 2),
        "-" => ('-', 2),
        _ => ('.', 4),
    };
    let mut bytes = Vec::new();
    for part in text.split(separator) {
        if part.len() != digits || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for pair in part.as_bytes().chunks(2) {
            bytes.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
        }
    }
    matches!(bytes.len(), 6 | 8 | 20).then_some(bytes)
}

/// A random hardware address: of one station, locally administered. The hasher's keys come from the system's random
/// numbers.
pub fn random_mac() -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a & !1 | 2, b, c, d, e, f]
}

/// A hardware address in lower-case hex with colons.
pub fn mac_text(mac: &[u8]) -> String {
    mac.iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        let bytes = vec![0x02, 0x00, 0x5e, 0x10, 0x00, 0xff];
        for text in ["02:00:5e:10:00:ff", "02-00-5E-10-00-FF", "0200.5e10.00ff"] {
            assert_eq!(parse_mac(text), Some(bytes.clone()), "{text}");
        }
        assert_eq!(mac_text(&bytes), "02:00:5e:10:00:ff");
        assert_eq!(
            parse_mac("02:00:5e:10:00:00:00:01").map(|mac| mac.len()),
            Some(8)
        );
        for bad in [
            "",
            "zz",
            "02:00:5e:10:00",
            "02:00:5e:10:00:0",
            "02:00-5e:10:00:00",
            "02:00:5e:10:00:+1",
            "ä:ä:ä",
            "0200:5e10:0000",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_addresses_are_of_one_local_station() {
        assert!((0..100).all(|_| random_mac()[0] & 3 == 2));
        assert_ne!(random_mac(), random_mac());
    }
}
