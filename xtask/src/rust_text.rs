//! Rust source with comments and literals blanked out, so that words can be looked for.

/// `source` with every comment, text and character literal replaced by spaces; line breaks stay.
///
/// Knows line and nested block comments, plain, byte and raw strings, and tells lifetimes from
/// characters. One pass, linear.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = match c {
            '/' if chars.get(at + 1) == Some(&'/') => line_comment(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment(&chars, at),
            '"' => quoted(&chars, at, '"'),
            'r' if !continues_a_word(&chars, at) => raw_string(&chars, at).unwrap_or(at),
            '\'' if is_char_literal(&chars, at) => quoted(&chars, at, '\''),
            _ => at,
        };
        if end == at {
            out.push(c);
            at += 1;
        } else {
            blank(&mut out, &chars[at..end]);
            at = end;
        }
    }
    out
}

/// True when `word` stands in `code` as a whole word.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| found == word)
}

fn blank(out: &mut String, chars: &[char]) {
    out.extend(chars.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
}

fn continues_a_word(chars: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|i| chars.get(i));
    // The b of a raw byte string, br"", is part of the literal.
    before.is_some_and(|c| (c.is_alphanumeric() && *c != 'b') || *c == '_')
}

fn line_comment(chars: &[char], from: usize) -> usize {
    let rest = &chars[from..];
    from + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn quoted(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while let Some(&c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of `r"…"` or `r#"…"#`, if one starts here.
fn raw_string(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut at = open + 1;
    while at < chars.len() {
        let closed =
            chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closed {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

/// `'a'` and `'\n'` are literals, `'a` in `&'a str` is not.
fn is_char_literal(chars: &[char], at: usize) -> bool {
    match chars.get(at + 1) {
        Some('\\') => true,
        Some(_) => chars.get(at + 2) == Some(&'\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_comments_and_literals_do_not_count() {
        for hidden in [
            "// unsafe",
            "/* a /* unsafe */ unsafe */",
            "let a = \"unsafe \\\" unsafe\";",
            "let a = r#\"unsafe \" unsafe\"#;",
            "let a = br\"unsafe\";",
            "#![forbid(unsafe_code)]",
            "let a = '\"'; // unsafe",
        ] {
            assert!(!has_word(&code_only(hidden), "unsafe"), "{hidden}");
        }
    }

    #[test]
    fn words_in_code_count() {
        for open in [
            "unsafe { f() }",
            "/* a */ unsafe fn f() {}",
            "let a = '\"'; unsafe {}",
            "fn f<'a>(x: &'a str) { unsafe {} }",
            "let a = \"//\"; unsafe {}",
            "let for_r = 1; let s = \"x\"; unsafe {}",
            "let a = r\"\\\"; unsafe {}",
        ] {
            assert!(has_word(&code_only(open), "unsafe"), "{open}");
        }
    }

    #[test]
    fn lines_stay_lines() {
        let source = "a\n/* b\n c */\n\"d\n e\"\n";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
        assert_eq!(code_only("\"open"), "     ");
        assert_eq!(code_only("/* open"), "       ");
    }
}
