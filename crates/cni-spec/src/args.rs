//! `CNI_ARGS`: `KEY=VALUE` pairs separated by semicolons.

use crate::quote;

/// Text of `CNI_ARGS` that cannot be used. `Display` is the reference's sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A piece without exactly one `=`.
    #[error("ARGS: invalid pair {}", quote::quoted(.0))]
    InvalidPair(String),
    /// A value that its key does not take.
    #[error("ARGS: error parsing value of pair {}: {reason}", quote::quoted(.pair))]
    InvalidValue {
        /// `KEY=VALUE`.
        pair: String,
        /// The parser's sentence.
        reason: String,
    },
    /// Keys that nobody knows, without `IgnoreUnknown`.
    #[error("ARGS: unknown args {}", quote::quoted_list(.0))]
    Unknown(Vec<String>),
}

/// The values of the keys in `known`, in that order; the last of several wins.
///
/// Keys are case-sensitive. Keys in `tolerated` are passed over: a chain hands the same text to every plugin, so one
/// plugin's `MAC` must not be another's error. Any other unknown key is an error unless `IgnoreUnknown` is true.
///
/// Source: CNI conventions, "CNI_ARGS"; the reference parser.
pub fn parse<const N: usize>(
    text: &str,
    known: [&str; N],
    tolerated: &[&str],
) -> Result<[Option<String>; N], ArgsError> {
    let mut values = [const { None }; N];
    if text.is_empty() {
        return Ok(values);
    }
    let (mut unknown, mut ignore_unknown) = (Vec::new(), false);
    for pair in text.split(';') {
        let parts: Vec<&str> = pair.split('=').collect();
        let &[key, value] = parts.as_slice() else {
            return Err(ArgsError::InvalidPair(pair.to_owned()));
        };
        if key == "IgnoreUnknown" {
            ignore_unknown = boolean(value).map_err(|reason| ArgsError::InvalidValue {
                pair: pair.to_owned(),
                reason,
            })?;
        } else if let Some(at) = known.iter().position(|it| *it == key) {
            values[at] = Some(value.to_owned());
        } else if !tolerated.contains(&key) {
            unknown.push(pair.to_owned());
        }
    }
    if unknown.is_empty() || ignore_unknown {
        Ok(values)
    } else {
        Err(ArgsError::Unknown(unknown))
    }
}

/// `1`, `true`, `0`, `false` in any case.
fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(format!("boolean unmarshal error: invalid input {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P25
    #[test]
    fn p25_pairs_and_unknown_keys() {
        let mac = |text: &str| {
            parse(text, ["MAC"], &["IP"])
                .map(|[mac]| mac)
                .map_err(|error| error.to_string())
        };
        assert_eq!(mac(""), Ok(None));
        assert_eq!(mac("MAC=a"), Ok(Some("a".to_owned())));
        assert_eq!(mac("MAC=a;IP=b"), Ok(Some("a".to_owned())));
        assert_eq!(
            mac("A=b;C=d"),
            Err(r#"ARGS: unknown args ["A=b" "C=d"]"#.to_owned())
        );
        assert_eq!(mac("A=b;IgnoreUnknown=1;C=d"), Ok(None));
        assert_eq!(
            mac("mac=a"),
            Err(r#"ARGS: unknown args ["mac=a"]"#.to_owned())
        );
        for bad in ["MAC", "MAC=a=b", "MAC=a;"] {
            assert!(
                mac(bad).unwrap_err().starts_with("ARGS: invalid pair "),
                "{bad}"
            );
        }
        for (text, ignored) in [
            ("True", true),
            ("true", true),
            ("1", true),
            ("False", false),
            ("false", false),
            ("0", false),
        ] {
            assert_eq!(
                mac(&format!("A=b;IgnoreUnknown={text}")).is_ok(),
                ignored,
                "{text}"
            );
        }
        assert_eq!(
            mac("IgnoreUnknown=Maybe"),
            Err("ARGS: error parsing value of pair \"IgnoreUnknown=Maybe\": boolean unmarshal error: invalid input maybe".to_owned())
        );
    }
}
