//! Names that follow from a network and a container, byte for byte the reference's.

use sha2::{Digest, Sha512};

/// The first `digits` hex digits, lower case, of the text's SHA-512. At most 128.
pub fn hash(digits: usize, text: &str) -> String {
    let mut hex: String = Sha512::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    hex.truncate(digits);
    hex
}
