//! The paths that a file names: what it imports, and what it reaches by more than one word.

use crate::rust_text::{Token, is_word};

/// A path with more than one word, or an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `crate`, `self` and `super` stay as they are; `*` is the last of a glob.
    pub(crate) segments: Vec<String>,
    /// Counted from 1.
    pub(crate) line: usize,
    /// How the file calls it from there on, where it is imported.
    pub(crate) import: Option<Import>,
}

/// A name that an import brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) alias: String,
    /// Handed on, to whomever.
    pub(crate) exported: bool,
}

/// Every path in `tokens`, trees of imports leaf by leaf.
pub(crate) fn named(tokens: &[Token<'_>]) -> Vec<Named> {
    let mut reader = Reader {
        tokens,
        exported: false,
        found: Vec::new(),
    };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at = if token.text == "use" && reader.text(at + 1) != "<" {
            reader.exported = is_exported(&tokens[..at]);
            reader.tree(at + 1, &[])
        } else if starts_a_path(tokens, at) {
            reader.path(at)
        } else {
            at + 1
        };
    }
    reader.found
}

/// The text of token `at`; nothing behind the last one.
pub(crate) fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
    exported: bool,
    found: Vec<Named>,
}

impl<'a> Reader<'_, 'a> {
    fn text(&self, at: usize) -> &'a str {
        text(self.tokens, at)
    }

    fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    /// Reads the tree of imports at `at`, below `prefix`; returns where it ends.
    fn tree(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let line = self.line(at);
        let mut segments = prefix.to_vec();
        let mut alias = None;
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => return self.branches(at + 1, &segments),
                "as" => {
                    alias = Some(self.text(at + 1).to_owned());
                    at += 2;
                }
                word if word == "*" || is_word(word) => {
                    segments.push(word.to_owned());
                    at += 1;
                }
                _ => break,
            }
        }
        let found = segments.len() > prefix.len();
        // `a::{self}` is `a`.
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        if found && let Some(last) = segments.last() {
            let alias = alias.unwrap_or_else(|| last.clone());
            self.push(line, segments, alias);
        }
        at
    }

    fn branches(&mut self, mut at: usize, prefix: &[String]) -> usize {
        while at < self.tokens.len() {
            at = match self.text(at) {
                "}" => return at + 1,
                "," => at + 1,
                // A tree that is none has no length.
                _ => self.tree(at, prefix).max(at + 1),
            };
        }
        at
    }

    fn push(&mut self, line: usize, segments: Vec<String>, alias: String) {
        let exported = self.exported;
        self.found.push(Named {
            segments,
            line,
            import: Some(Import { alias, exported }),
        });
    }

    /// Reads the path at `at`; returns where it ends.
    fn path(&mut self, mut at: usize) -> usize {
        let line = self.line(at);
        let mut segments = vec![self.text(at).to_owned()];
        while self.text(at + 1) == "::" && is_word(self.text(at + 2)) {
            segments.push(self.text(at + 2).to_owned());
            at += 2;
        }
        self.found.push(Named {
            segments,
            line,
            import: None,
        });
        at + 1
    }
}

fn starts_a_path(tokens: &[Token<'_>], at: usize) -> bool {
    if !is_word(text(tokens, at)) || text(tokens, at + 1) != "::" {
        return false;
    }
    let before = |back: usize| at.checked_sub(back).map_or("", |at| text(tokens, at));
    // `x.collect::<T>()` is a method, `<T>::A::B` begins with a type, `pub(in crate::a)` is no use.
    let visibility = before(1) == "in" && before(2) == "(" && before(3) == "pub";
    !visibility && before(1) != "." && before(1) != "::"
}

/// True when what follows `before` is handed on: `pub`, `pub(crate)`, `pub(in crate::a)`.
fn is_exported(before: &[Token<'_>]) -> bool {
    match before.split_last() {
        Some((last, _)) if last.text == "pub" => true,
        Some((last, rest)) if last.text == ")" => {
            let open = rest.iter().rposition(|token| token.text == "(");
            let word = open.and_then(|open| open.checked_sub(1));
            word.is_some_and(|word| text(rest, word) == "pub")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rust_text::tokens;

    /// Each path, imports with ` as NAME`, exported ones with ` for all`.
    fn paths(code: &str) -> Vec<String> {
        let shown = |named: Named| {
            let mut text = named.segments.join("::");
            if let Some(import) = named.import {
                text = format!("{text} as {}", import.alias);
                if import.exported {
                    text.push_str(" for all");
                }
            }
            text
        };
        named(&tokens(code)).into_iter().map(shown).collect()
    }

    #[test]
    fn trees_of_imports_are_read_leaf_by_leaf() {
        assert_eq!(
            paths("use crate::{a::B, c::{self, D as E, f::*}};\nuse super::g;\nfn h() {}"),
            [
                "crate::a::B as B",
                "crate::c as c",
                "crate::c::D as E",
                "crate::c::f::* as *",
                "super::g as g",
            ]
        );
        assert_eq!(paths("use a as b; use ::c::d;"), ["a as b", "c::d as d"]);
    }

    #[test]
    fn what_is_handed_on_is_known() {
        assert_eq!(
            paths(
                "pub use a::A;\npub(crate) use b::B;\npub(in crate::c) use c::C;\nf(); use d::D;"
            ),
            [
                "a::A as A for all",
                "b::B as B for all",
                "c::C as C for all",
                "d::D as D",
            ]
        );
    }

    #[test]
    fn paths_in_expressions_and_types_are_read() {
        assert_eq!(
            paths("let x: super::T = crate::a::f::<u8>(std::fs::read(y)?.collect::<V>());"),
            ["super::T", "crate::a::f", "std::fs::read"]
        );
        assert_eq!(
            paths("<T as A::B>::C::d(for_x in crate::e())"),
            ["A::B", "crate::e"]
        );
        assert!(paths("fn f() -> impl A + use<'_> {}").is_empty());
    }

    #[test]
    fn broken_code_ends() {
        for code in [
            "use",
            "use a::",
            "use {",
            "use {#",
            "use a::{b",
            "use a as",
            "a::",
        ] {
            let _found = paths(code);
        }
    }
}
