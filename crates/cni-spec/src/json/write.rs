//! Printing with the escapes, the indentation and the number formats of Go's encoder.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Indented by four spaces, keys in the order they have, no newline at the end: results and errors.
pub fn to_pretty(value: &Value) -> Vec<u8> {
    print(value, PrettyFormatter::with_indent(b"    "))
}

/// On one line, keys in the order they have: what a delegate gets on standard input.
pub fn to_compact(value: &Value) -> Vec<u8> {
    print(value, CompactFormatter)
}

/// The same value with the keys of every object in byte order, as Go prints its maps.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn print(value: &Value, layout: impl Formatter) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    // Writing into memory cannot fail, and a `Value` has only string keys.
    let _ = value.serialize(&mut Serializer::with_formatter(
        &mut out,
        GoFormatter(layout),
    ));
    out
}

/// Whole numbers beyond this are not exact in the 64-bit floats that Go's free-form maps hold.
const EXACT: u64 = 1 << 53;

/// Go's text for strings and numbers around another formatter's layout.
struct GoFormatter<L>(L);

impl<L: Formatter> Formatter for GoFormatter<L> {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        out.write_all(float(value).as_bytes())
    }

    fn write_u64<W: ?Sized + Write>(&mut self, out: &mut W, value: u64) -> io::Result<()> {
        if value > EXACT {
            self.write_f64(out, value as f64)
        } else {
            self.0.write_u64(out, value)
        }
    }

    fn write_i64<W: ?Sized + Write>(&mut self, out: &mut W, value: i64) -> io::Result<()> {
        if value.unsigned_abs() > EXACT {
            self.write_f64(out, value as f64)
        } else {
            self.0.write_i64(out, value)
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}', '\u{7f}']) {
            let (plain, special) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let Some(letter) = special.chars().next() else {
                break;
            };
            match letter {
                '\u{7f}' => out.write_all(b"\x7f")?,
                letter => write!(out, "\\u{:04x}", letter as u32)?,
            }
            rest = &special[letter.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

/// A float as Go's encoder prints it: shortest digits, an exponent only below 1e-6 and from 1e21 on.
fn float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                format!("{digits}e+{exponent}")
            }
            Some(_) | None => text,
        };
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compact(text: &str) -> String {
        String::from_utf8(to_compact(&serde_json::from_str(text).unwrap())).unwrap()
    }

    #[test]
    fn numbers_come_out_as_go_prints_its_floats() {
        assert_eq!(
            compact("[1.50, 12345678901234567890, 1e21, 1e-7, 100, -5, 0.5, 3.0]"),
            "[1.5,12345678901234567000,1e+21,1e-7,100,-5,0.5,3]"
        );
    }

    #[test]
    fn strings_are_safe_in_html() {
        assert_eq!(
            String::from_utf8(to_compact(&json!(
                "<a>&\u{2028}\u{8}\u{c}\n\u{1}\u{7f}ä\"\\/"
            )))
            .unwrap(),
            "\"\\u003ca\\u003e\\u0026\\u2028\\b\\f\\n\\u0001\u{7f}ä\\\"\\\\/\""
        );
    }

    #[test]
    fn pretty_is_indented_by_four() {
        let text = String::from_utf8(to_pretty(&json!({ "b": [1, {}], "a": [] }))).unwrap();
        assert_eq!(
            text,
            "{\n    \"b\": [\n        1,\n        {}\n    ],\n    \"a\": []\n}"
        );
    }

    #[test]
    fn sorting_is_by_bytes_at_every_level() {
        assert_eq!(
            to_compact(&sorted(
                json!({ "b": { "z": 1, "A": 2 }, "B": [ { "d": 1, "c": 2 } ] })
            )),
            br#"{"B":[{"c":2,"d":1}],"b":{"A":2,"z":1}}"#
        );
    }
}
