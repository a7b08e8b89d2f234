//! The specification's versions and what each allows.

use crate::quote;
use crate::{Code, Failure};

/// A published version of the CNI specification. Wire: `cniVersion`; missing or empty means 0.1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: ADD and DEL; results of `ip4` and `ip6`.
    V0_1_0,
    /// 0.2.0: VERSION.
    V0_2_0,
    /// 0.3.0: results of `interfaces`, `ips` and `routes`; lists of plugins.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: addresses without `version`.
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    V1_1_0,
}

/// The three layouts that results have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 0.1.0 and 0.2.0.
    Ip4Ip6,
    /// 0.3.0 to 0.4.0.
    VersionedIps,
    /// 1.0.0 and 1.1.0.
    Current,
}

/// What all plugins here support, oldest first.
pub const SUPPORTED: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];

    /// The version whose text this is exactly; empty means 0.1.0.
    pub fn parse(text: &str) -> Option<Version> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        Version::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The layout of this version's results.
    pub fn family(self) -> Family {
        match self {
            Version::V0_1_0 | Version::V0_2_0 => Family::Ip4Ip6,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Family::VersionedIps,
            Version::V1_0_0 | Version::V1_1_0 => Family::Current,
        }
    }
}

impl Family {
    /// The versions with this layout as the reference lists them (its list of the oldest starts with an empty one).
    pub fn listed(self) -> &'static str {
        match self {
            Family::Ip4Ip6 => "[ 0.1.0 0.2.0]",
            Family::VersionedIps => "[0.3.0 0.3.1 0.4.0]",
            Family::Current => "[1.0.0 1.1.0]",
        }
    }
}

/// A version that is not `major[.minor[.micro]]`. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// A part is no number.
    #[error("failed to convert {place} version part {part}: strconv.Atoi: parsing {part}: invalid syntax", part = quote::quoted(.part))]
    Part {
        /// `major`, `minor` or `micro`.
        place: &'static str,
        /// The part's text.
        part: String,
    },
    /// More than three parts.
    #[error("invalid version {}: too many parts", quote::quoted(.0))]
    TooManyParts(String),
}

/// The numbers of a version for comparing; missing parts are 0, empty text is 0.1.0.
pub fn numbers(text: &str) -> Result<[i64; 3], VersionError> {
    if text.is_empty() {
        return Ok([0, 1, 0]);
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 3 {
        return Err(VersionError::TooManyParts(text.to_owned()));
    }
    let mut numbers = [0; 3];
    for ((number, part), place) in numbers
        .iter_mut()
        .zip(parts)
        .zip(["major", "minor", "micro"])
    {
        *number = part.parse().map_err(|_| VersionError::Part {
            place,
            part: part.to_owned(),
        })?;
    }
    Ok(numbers)
}

/// Code 1 if `config` is not one of `supported`, text for text.
pub fn require_supported(config: &str, supported: &[&str]) -> Result<(), Failure> {
    let config = if config.is_empty() { "0.1.0" } else { config };
    if supported.contains(&config) {
        return Ok(());
    }
    Err(
        Failure::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(
            format!(
                "config is {}, plugin supports {}",
                quote::quoted(config),
                quote::quoted_list(supported)
            ),
        ),
    )
}

/// Code 1 if the configuration, or every version that the plugin supports, is older than `verb` is.
pub fn require_at_least(
    minimum: Version,
    verb: &str,
    config: &str,
    supported: &[&str],
) -> Result<(), Failure> {
    let decoding = |error: VersionError| Failure::new(Code::DECODING, error.to_string());
    let wanted = numbers(config).map_err(decoding)?;
    if wanted < numbers(minimum.as_str()).map_err(decoding)? {
        return Err(Failure::new(
            Code::INCOMPATIBLE_VERSION,
            format!("config version does not allow {verb}"),
        ));
    }
    for version in supported {
        if numbers(version).map_err(decoding)? >= wanted {
            return require_supported(config, supported);
        }
    }
    Err(Failure::new(
        Code::INCOMPATIBLE_VERSION,
        format!("plugin version does not allow {verb}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    // P27
    #[test]
    fn p27_version_numbers() {
        assert_eq!(numbers("1.2.3"), Ok([1, 2, 3]));
        assert_eq!(numbers("1"), Ok([1, 0, 0]));
        assert_eq!(numbers("1.2"), Ok([1, 2, 0]));
        assert_eq!(numbers(""), Ok([0, 1, 0]));
        assert_eq!(
            numbers("a").unwrap_err().to_string(),
            "failed to convert major version part \"a\": strconv.Atoi: parsing \"a\": invalid syntax"
        );
        assert_eq!(
            numbers("1.2.3.4").unwrap_err().to_string(),
            "invalid version \"1.2.3.4\": too many parts"
        );
        assert!(numbers("1.").is_err());
        assert!(numbers("0.4.0").unwrap() >= numbers("0.4.0").unwrap());
        assert!(numbers("0.10.0").unwrap() > numbers("0.9.0").unwrap());
    }

    // P06
    #[test]
    fn p06_unsupported_versions_are_listed() {
        assert!(require_supported("", &SUPPORTED).is_ok());
        let failure = require_supported("", &["0.3.0", "0.4.0"]).unwrap_err();
        assert_eq!(failure.code.0, 1);
        assert_eq!(failure.msg, "incompatible CNI versions");
        assert_eq!(
            failure.details,
            r#"config is "0.1.0", plugin supports ["0.3.0" "0.4.0"]"#
        );
        assert!(require_supported("1.1", &SUPPORTED).is_err());
    }

    // P07
    #[test]
    fn p07_check_needs_a_new_enough_config_and_plugin() {
        let check = |config, supported: &[&str]| {
            require_at_least(Version::V0_4_0, "CHECK", config, supported)
        };
        assert!(check("0.4.0", &SUPPORTED).is_ok());
        assert_eq!(
            check("0.3.0", &SUPPORTED).unwrap_err().msg,
            "config version does not allow CHECK"
        );
        assert_eq!(
            check("0.4.0", &["0.3.1"]).unwrap_err().msg,
            "plugin version does not allow CHECK"
        );
        assert_eq!(check("adsfsadf", &SUPPORTED).unwrap_err().code.0, 6);
        assert_eq!(check("0.4.0", &["adsfasdf"]).unwrap_err().code.0, 6);
    }

    // P08
    #[test]
    fn p08_gc_and_status_came_with_1_1_0() {
        let gc =
            |config, supported: &[&str]| require_at_least(Version::V1_1_0, "GC", config, supported);
        assert!(gc("1.1.0", &SUPPORTED).is_ok());
        assert_eq!(
            gc("1.0.0", &SUPPORTED).unwrap_err().msg,
            "config version does not allow GC"
        );
        assert_eq!(
            gc("1.1.0", &["1.0.0"]).unwrap_err().msg,
            "plugin version does not allow GC"
        );
        assert_eq!(gc("x.1.0", &SUPPORTED).unwrap_err().code.0, 6);
        assert_eq!(gc("1.1.0", &["x"]).unwrap_err().code.0, 6);
    }
}
