//! Values inside messages as Go's `%q` and `%v` print them, since messages are matched on.

/// A double-quoted string with escapes, as `%q`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            control if (control as u32) < 0x20 || control as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", control as u32));
            }
            letter if letter.is_control() => out.push_str(&format!("\\u{:04x}", letter as u32)),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A list of plain strings, as `%v`: `[/opt/cni/bin /usr/lib/cni]`.
pub fn list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|it| it.as_ref().to_owned()).collect();
    format!("[{}]", items.join(" "))
}

/// A list of quoted strings, as `%q`: `["0.1.0" "0.2.0"]`.
pub fn quoted_list<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    list(items.into_iter().map(|it| quoted(it.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\u{1}\u{7f}"), r#""a\"b\\c\n\x01\x7f""#);
    }

    #[test]
    fn lists() {
        assert_eq!(list(["a", "b"]), "[a b]");
        assert_eq!(quoted_list(["a", "b"]), r#"["a" "b"]"#);
        assert_eq!(list::<&str>([]), "[]");
    }
}
