//! Texts of others on the way to a terminal: nodes, tasks and users of other machines wrote them.
//! What a terminal would obey, and what reads otherwise than it is, is shown as `\u{1b}`.

use std::borrow::Cow;

use weft_model::text::{escaped, is_unsafe};

/// A text of several lines and columns: line ends and tabs are ours.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, &['\n', '\t'])
}

/// A text that is one value: line ends and tabs are not ours either.
#[must_use]
pub(crate) fn value(text: &str) -> Cow<'_, str> {
    escaped(text, &[])
}

/// JSON that means the same: it escapes some control characters by itself, and others not.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    let bad = |c: char| is_unsafe(c) && c != '\n';
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            // RFC 8259 section 7: beyond the basic plane, a surrogate pair.
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(lines("a\tb\nc\u{1b}[0m"), "a\tb\nc\\u{1b}[0m");
        assert_eq!(value("a\tb\nc\u{1b}[0m"), "a\\u{9}b\\u{a}c\\u{1b}[0m");
        assert_eq!(value("\u{202e}txt"), "\\u{202e}txt");
    }

    #[test]
    fn json_stays_json() {
        let hostile = serde_json::json!({ "a\u{9b}": "x\u{1b}\u{7f}\u{202e}\u{e0041}\n" });
        let plain = serde_json::to_string_pretty(&hostile).unwrap();
        let shown = json(&plain);
        assert!(!shown.contains(|c| is_unsafe(c) && c != '\n'), "{shown}");
        let back: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(back, hostile);
    }
}
