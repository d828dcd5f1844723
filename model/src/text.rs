//! Texts that somebody else wrote: how long they may be, and what must not be in them.
//!
//! A node's words come to every other node with its orders, and to the terminals of people. So a
//! manager takes none that is long, and none that a terminal would obey or that reads otherwise
//! than it is: control characters, and Unicode's marks that turn or hide text.

use std::borrow::Cow;

/// Longest name that a node gives itself, in bytes: the longest host name of Linux.
pub const MAX_HOSTNAME: usize = 64;

/// Longest version that a node says it runs, in bytes.
pub const MAX_VERSION: usize = 64;

/// Longest message or error of a task, in bytes.
pub const MAX_STATUS: usize = 1024;

/// True for a character that changes what a terminal shows around it, or is not seen itself.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Soft hyphen; marks and overrides of direction (Unicode TR 36, section 2.2); zero
            // width; line and paragraph separators; byte order mark; annotations; tags.
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// True for a text of 1 to `max_bytes` bytes that reads as it is.
#[must_use]
pub fn is_plain(text: &str, max_bytes: usize) -> bool {
    !text.is_empty() && text.len() <= max_bytes && !text.contains(is_unsafe)
}

/// The text with each unsafe character written as `\u{1b}`, but for those in `keep`.
#[must_use]
pub fn escaped<'a>(text: &'a str, keep: &[char]) -> Cow<'a, str> {
    let bad = |c: char| is_unsafe(c) && !keep.contains(&c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A text of somebody else as it is kept: line ends and tabs become spaces, other unsafe characters
/// are written as `\u{1b}`, and what is beyond `max_bytes` is cut off and shown to be (`…`).
#[must_use]
pub fn cleaned(text: &str, max_bytes: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let before = out.len();
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        if out.len() > max_bytes {
            out.truncate(before);
            while out.len() + '…'.len_utf8() > max_bytes && out.pop().is_some() {}
            if max_bytes >= '…'.len_utf8() {
                out.push('…');
            }
            return out;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_not_plain() {
        for text in [
            "\u{1b}[2J",
            "a\nb",
            "a\rb",
            "a\tb",
            "\u{7f}",
            "\u{9b}31m",
            "\u{202e}gnp.exe",
            "\u{2066}x",
            "no\u{200b}de",
            "\u{feff}node",
            "\u{e0041}",
            "",
        ] {
            assert!(!is_plain(text, 64), "{text:?}");
        }
        for text in ["node1", "Rechner-ä", "ノード", &"n".repeat(64)] {
            assert!(is_plain(text, 64), "{text:?}");
        }
        assert!(!is_plain(&"n".repeat(65), 64));
    }

    #[test]
    fn unsafe_characters_are_shown_and_not_sent() {
        assert_eq!(escaped("plain ä", &[]), "plain ä");
        assert_eq!(escaped("a\u{1b}]0;x\u{7}b", &[]), "a\\u{1b}]0;x\\u{7}b");
        assert_eq!(escaped("a\nb\u{9b}", &['\n']), "a\nb\\u{9b}");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(cleaned("exit 1", 1024), "exit 1");
        assert_eq!(cleaned("one\ntwo\u{1b}[0m", 1024), "one two\\u{1b}[0m");
        assert_eq!(cleaned(&"x".repeat(20), 10), "xxxxxxx…");
        assert_eq!(cleaned("ääääää", 6), "ä…");
        assert_eq!(cleaned("aaaaaaaa", 2), "");
    }

    proptest! {
        #[test]
        fn a_cleaned_text_is_plain_and_short(text in any::<String>(), max in 0_usize..200) {
            let clean = cleaned(&text, max);
            prop_assert!(clean.len() <= max);
            prop_assert!(!clean.contains(is_unsafe));
            prop_assert_eq!(cleaned(&clean, max), clean);
        }

        #[test]
        fn nothing_unsafe_is_left_and_plain_text_stays(text in any::<String>()) {
            let shown = escaped(&text, &[]);
            prop_assert!(!shown.contains(is_unsafe));
            prop_assert_eq!(shown == text, !text.contains(is_unsafe));
        }
    }
}
