//! Rust source with comments and literals blanked out, so that words can be looked for.
//!
//! No parser: enough is known of the language to tell words of code from words in texts, and what
//! only tests compile from the rest. Files are formatted, the compiler has seen them.

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
            blank(&mut out, chars[at..end].iter().copied());
            at = end;
        }
    }
    out
}

/// `code`, as [`code_only`] gives it, without what only tests compile: items below `#[cfg(test)]`
/// become spaces; line breaks stay.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (attribute, after) = from.split_at(attribute_end(from));
        if is_for_tests(attribute) {
            let (item, after) = from.split_at(item_end(from));
            blank(&mut out, item.chars());
            rest = after;
        } else {
            out.push_str(attribute);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// A word, a `::`, or any other character that is no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// The tokens of `code`, as [`code_only`] gives it.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let length = if in_word(c) {
                rest.find(|c: char| !in_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                c.len_utf8()
            };
            let (text, after) = rest.split_at(length);
            if !c.is_whitespace() {
                let line = number + 1;
                found.push(Token { text, line });
            }
            rest = after;
        }
    }
    found
}

/// True when a token is a word: a name, a keyword or a number.
pub(crate) fn is_word(token: &str) -> bool {
    token.starts_with(in_word)
}

/// True when `word` stands in `code` as a whole word.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !in_word(c)).any(|found| found == word)
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank(out: &mut String, chars: impl Iterator<Item = char>) {
    out.extend(chars.map(|c| if c == '\n' { '\n' } else { ' ' }));
}

/// `#[cfg(all(test, unix))]` is for tests, `#[cfg(not(test))]` is not.
fn is_for_tests(attribute: &str) -> bool {
    has_word(attribute, "test") && !has_word(attribute, "not") && !has_word(attribute, "any")
}

/// Length of the attribute that `text` begins with.
fn attribute_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth <= 1 => return at + 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the item that `text` begins with, attributes included: it ends with the first `;` or
/// block, or where what it stands in ends.
fn item_end(text: &str) -> usize {
    let mut from = 0;
    let mut rest = text;
    while rest.trim_start().starts_with("#[") {
        let space = rest.len() - rest.trim_start().len();
        from += space + attribute_end(rest.trim_start());
        rest = text.split_at(from).1;
    }
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return from + at,
            '}' if depth == 1 => return from + at + 1,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    text.len()
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
    fn what_only_tests_compile_is_left_out() {
        for hidden in [
            "#[cfg(test)]\nmod tests {\n    use hidden::X;\n}\n",
            "#[cfg(test)]\n#[derive(Debug)]\nstruct A(hidden);\n",
            "#[cfg(all(test, unix))]\nuse hidden::{A, B};\n",
            "#[cfg(test)]\nmod hidden;\n",
            "impl A {\n    #[cfg(test)]\n    fn f(a: [u8; 2]) -> X<A, B> {\n        hidden(a)\n    }\n}\n",
            "struct A {\n    #[cfg(test)]\n    hidden: u8,\n}\n",
        ] {
            let source = format!("fn before() {{}}\n{hidden}fn after() {{}}\n");
            let left = without_tests(&code_only(&source));
            assert!(!has_word(&left, "hidden"), "{left}");
            assert!(
                has_word(&left, "before") && has_word(&left, "after"),
                "{left}"
            );
            assert_eq!(left.lines().count(), source.lines().count());
        }
        for open in [
            "#[cfg(not(test))]\nuse shown::A;\n",
            "#[cfg(target_os = \"linux\")]\nfn shown() {}\n",
            "#[cfg(any(test, unix))]\nmod shown;\n",
        ] {
            assert!(
                has_word(&without_tests(&code_only(open)), "shown"),
                "{open}"
            );
        }
    }

    #[test]
    fn tokens_have_their_line() {
        let found = tokens("use a::b;\n\nf(&x_1)");
        let texts: Vec<_> = found.iter().map(|token| token.text).collect();
        assert_eq!(
            texts,
            ["use", "a", "::", "b", ";", "f", "(", "&", "x_1", ")"]
        );
        assert_eq!((found[4].line, found[5].line), (1, 3));
        assert!(is_word("x_1") && !is_word("::") && !is_word(""));
    }

    #[test]
    fn lines_stay_lines() {
        let source = "a\n/* b\n c */\n\"d\n e\"\n";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
        assert_eq!(code_only("\"open"), "     ");
        assert_eq!(code_only("/* open"), "       ");
    }
}
