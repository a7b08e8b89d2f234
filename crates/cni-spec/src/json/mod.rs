//! JSON as the protocol uses it: keys of typed objects match without regard to case, `null` means absent, and text
//! comes out with the escapes and number formats of Go's encoder.
//!
//! * [`parse`] turns bytes into a [`Value`], with the reference's sentences for bad syntax.
//! * [`read`] turns a [`Value`] into a typed configuration.
//! * [`to_pretty`] and [`to_compact`] print.

mod read;
mod write;

use serde_json::Value;
use serde_json::error::Category;

pub use read::{TypeError, read};
pub use write::{sorted, to_compact, to_pretty};

/// Text that is not one JSON document. `Display` is the sentence of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

/// Parses exactly one JSON document; anything behind it but white space is an error.
///
/// Nesting deeper than 128 levels is refused, so that no input can exhaust the stack.
pub fn parse(text: &[u8]) -> Result<Value, SyntaxError> {
    serde_json::from_slice(text).map_err(|error| SyntaxError(sentence(text, &error)))
}

/// The sentence that Go's decoder has for an error that serde_json found.
fn sentence(text: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == Category::Eof {
        return "unexpected end of JSON input".to_owned();
    }
    let found = error.to_string();
    let place = [
        ("expected value", "looking for beginning of value"),
        ("trailing characters", "after top-level value"),
        ("trailing comma", "looking for beginning of value"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        (
            "key must be a string",
            "looking for beginning of object key string",
        ),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
        ("expected ident", "in literal"),
        ("invalid number", "in numeric literal"),
    ]
    .into_iter()
    .find_map(|(ours, theirs)| found.starts_with(ours).then_some(theirs));
    match (place, character_at(text, error.line(), error.column())) {
        (Some(place), Some(character)) => format!("invalid character {character} {place}"),
        (Some(_) | None, Some(_) | None) => found,
    }
}

/// The character at a line and column (both from 1) as Go quotes it: `'x'`.
fn character_at(text: &[u8], line: usize, column: usize) -> Option<String> {
    let line = text
        .split(|&byte| byte == b'\n')
        .nth(line.checked_sub(1)?)?;
    match *line.get(column.saturating_sub(1)).or(line.last())? {
        b'\'' => Some("'\\''".to_owned()),
        b'"' => Some("'\"'".to_owned()),
        byte if byte.is_ascii_graphic() || byte == b' ' => Some(format!("'{}'", byte as char)),
        b'\n' => Some("'\\n'".to_owned()),
        b'\r' => Some("'\\r'".to_owned()),
        b'\t' => Some("'\\t'".to_owned()),
        byte if byte < 0x80 => Some(format!("'\\x{byte:02x}'")),
        byte => Some(format!("'{}'", byte as char)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, sentence: &str) {
        assert_eq!(
            parse(text.as_bytes()).unwrap_err().to_string(),
            sentence,
            "for {text}"
        );
    }

    #[test]
    fn syntax_errors_read_as_in_the_reference() {
        check("", "unexpected end of JSON input");
        check("{", "unexpected end of JSON input");
        check("{\"a\":", "unexpected end of JSON input");
        check(
            "\u{feff}{}",
            "invalid character 'ï' looking for beginning of value",
        );
        check("{} x", "invalid character 'x' after top-level value");
        check("nope", "invalid character 'o' in literal");
        check(
            "{\"a\":1 \"b\"}",
            "invalid character '\"' after object key:value pair",
        );
        check("[1 2]", "invalid character '2' after array element");
        check("{\"a\" 1}", "invalid character '1' after object key");
        check(
            "{a:1}",
            "invalid character 'a' looking for beginning of object key string",
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(10_000_000);
        assert!(
            parse(deep.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("recursion limit")
        );
    }
}
