//! The little JSON that is written here: strings.

/// `text` as a JSON string, quotes included.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_does_not_allow_is_escaped() {
        assert_eq!(quote(r#"/a "b"\ü"#), r#""/a \"b\"\\ü""#);
        assert_eq!(quote("\n\u{1b}"), r#""\u000a\u001b""#);
    }
}
