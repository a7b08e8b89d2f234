//! Names that a runtime hands over: checked once, then trusted.

use std::fmt;

use crate::quote;
use crate::{Code, Failure};

/// A container id: starts with a letter or digit, then letters, digits, `_`, `.`, `-`. Variable: `CNI_CONTAINERID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks the text; code 4 if it has any other character (so no `/`, no white space, no newline).
    pub fn new(text: &str) -> Result<ContainerId, Failure> {
        if text.is_empty() {
            return Err(Failure::new(Code::UNKNOWN_CONTAINER, "missing containerID"));
        }
        if !is_plain(text) {
            return Err(Failure::new(
                Code::INVALID_ENVIRONMENT,
                "invalid characters in containerID",
            )
            .with_details(text));
        }
        Ok(ContainerId(text.to_owned()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An interface name: 1 to 15 bytes, not `.` or `..`, no `/`, `:` or white space. Variable: `CNI_IFNAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IfName(String);

impl IfName {
    /// Checks the text; code 4 with the reference's sentences.
    ///
    /// Source: the kernel's `dev_valid_name` (net/core/dev.c).
    pub fn new(text: &str) -> Result<IfName, Failure> {
        let failure = |msg: &str| Failure::new(Code::INVALID_ENVIRONMENT, msg);
        if text.is_empty() {
            return Err(failure("interface name is empty"));
        }
        if text.len() > 15 {
            return Err(failure("interface name is too long")
                .with_details("interface name should be less than 16 characters"));
        }
        if text == "." || text == ".." {
            return Err(failure("interface name is . or .."));
        }
        if text.contains(|letter: char| {
            letter == '/' || letter == ':' || letter == '\0' || letter.is_whitespace()
        }) {
            return Err(failure(
                "interface name contains / or : or whitespace characters",
            ));
        }
        Ok(IfName(text.to_owned()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network's name: the same characters as a container id. Wire: `name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Checks the text; code 7 if it is empty or has other characters.
    pub fn new(text: &str) -> Result<NetworkName, Failure> {
        if text.is_empty() {
            return Err(Failure::new(Code::INVALID_CONFIG, "missing network name"));
        }
        if !is_plain(text) {
            return Err(Failure::new(
                Code::INVALID_CONFIG,
                "invalid characters found in network name",
            )
            .with_details(text));
        }
        Ok(NetworkName(text.to_owned()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A plugin's name as `type` spells it: not empty, no `/`.
pub fn plugin_type(text: &str) -> Result<&str, Failure> {
    if text.is_empty() {
        return Err(Failure::new(
            Code::INVALID_CONFIG,
            "no plugin name provided",
        ));
    }
    if text.contains(['/', '\0']) || text == "." || text == ".." {
        let shown = if text.contains('\0') {
            quote::quoted(text)
        } else {
            text.to_owned()
        };
        return Err(Failure::new(
            Code::INVALID_CONFIG,
            format!("invalid plugin name: {shown}"),
        ));
    }
    Ok(text)
}

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`
fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    // P04
    #[test]
    fn p04_container_ids_are_plain() {
        assert!(ContainerId::new("a_b.c-9").is_ok());
        let failure = ContainerId::new("some-%%container-id").unwrap_err();
        assert_eq!(
            (
                failure.code.0,
                failure.msg.as_str(),
                failure.details.as_str()
            ),
            (
                4,
                "invalid characters in containerID",
                "some-%%container-id"
            )
        );
        for bad in ["../x", "-a", ".a", "a/b", "a\n", "a b", "a\0", "ä"] {
            assert_eq!(ContainerId::new(bad).unwrap_err().code.0, 4, "{bad:?}");
        }
    }

    // P05
    #[test]
    fn p05_interface_names_are_those_of_the_kernel() {
        let msg = |text: &str| IfName::new(text).unwrap_err().msg;
        assert_eq!(msg("1234567890123456"), "interface name is too long");
        assert_eq!(msg("ääääääää"), "interface name is too long");
        assert_eq!(msg("."), "interface name is . or ..");
        assert_eq!(msg(".."), "interface name is . or ..");
        for bad in ["a/b", "a:b", "a b", "a\tb", "a\u{a0}b", "a\n", "a\0"] {
            assert_eq!(
                msg(bad),
                "interface name contains / or : or whitespace characters",
                "{bad:?}"
            );
        }
        assert!(IfName::new("eth0.100").is_ok());
    }

    // P09
    #[test]
    fn p09_network_names_are_plain() {
        assert_eq!(
            NetworkName::new("").unwrap_err().msg,
            "missing network name"
        );
        let failure = NetworkName::new("te%%st").unwrap_err();
        assert_eq!(
            (failure.code.0, failure.msg.as_str()),
            (7, "invalid characters found in network name")
        );
        assert!(NetworkName::new("..").is_err());
    }
}
