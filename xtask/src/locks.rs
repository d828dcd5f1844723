//! A struct with several locks says in which order they are taken, or that no two are held at once:
//! two threads that take two of them in different orders wait for each other for ever.

use std::path::Path;

use anyhow::Context;

use crate::paths::text;
use crate::report::Report;
use crate::rust_text::{Token, code_only, has_word, tokens, without_tests};
use crate::sources;

/// Types that are locks.
const LOCKS: &[&str] = &["Mutex", "RwLock"];

/// The word that its documentation has.
const WORD: &str = "locks";

/// Reports structs with several locks that say nothing of them.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut count = 0;
    for path in sources::files(root, &["rs"])? {
        let source = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        count += check_file(path.strip_prefix(root).unwrap_or(&path), &source, report);
    }
    report.checked(format!("locks: {count} structs with several"));
    Ok(())
}

/// Returns how many structs of `source` have several locks.
fn check_file(path: &Path, source: &str, report: &mut Report) -> usize {
    let code = without_tests(&code_only(source));
    let tokens = tokens(&code);
    let lines: Vec<&str> = source.lines().collect();
    let mut count = 0;
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "struct" || locks(&tokens, at) < 2 {
            continue;
        }
        count += 1;
        let above = lines.get(..token.line - 1).unwrap_or_default();
        if !documentation(above).any(|line| has_word(line, WORD)) {
            report.fail(format!(
                "{}:{}: {} has several locks: say above it in which order its {WORD} are taken, \
                 or that no two of its {WORD} are held at once",
                path.display(),
                token.line,
                text(&tokens, at + 1)
            ));
        }
    }
    count
}

/// Locks among the fields of the struct that begins at `at`.
fn locks(tokens: &[Token<'_>], at: usize) -> usize {
    let Some(open) = (at..tokens.len()).find(|at| matches!(text(tokens, *at), "{" | "(" | ";"))
    else {
        return 0;
    };
    let mut depth = 0_usize;
    let mut count = 0;
    for at in open..tokens.len() {
        match text(tokens, at) {
            "{" | "(" => depth += 1,
            "}" | ")" => depth = depth.saturating_sub(1),
            word if LOCKS.contains(&word) && text(tokens, at + 1) == "<" => count += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    count
}

/// The documentation at the end of `above`, attributes left out.
fn documentation<'a>(above: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let lines = above.iter().rev().map(|line| line.trim_start());
    lines
        .take_while(|line| line.starts_with("///") || line.starts_with("#["))
        .filter(|line| line.starts_with("///"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many there are, and what is wrong with them.
    fn found(source: &str) -> (usize, Vec<String>) {
        let mut report = Report::default();
        let count = check_file(Path::new("a.rs"), source, &mut report);
        (count, report.failures().to_vec())
    }

    #[test]
    fn several_locks_have_an_order() {
        let fields = "{\n    a: Mutex<u8>,\n    b: Arc<RwLock<(u8, u8)>>,\n}\n";
        let (count, failures) = found(&format!("/// Blocks.\n#[derive(Debug)]\nstruct A {fields}"));
        assert_eq!((count, failures.len()), (1, 1));
        assert!(
            failures[0].starts_with("a.rs:3: A has several"),
            "{failures:?}"
        );
        let told = format!(
            "/// Its locks are taken in this order: `a`, `b`.\n/// More.\n#[derive(Debug)]\n\
             pub struct A {fields}"
        );
        assert_eq!(found(&told), (1, Vec::new()));
        let other = format!("/// Its locks.\nstruct B;\nstruct A<T> {fields}");
        assert_eq!(found(&other).1.len(), 1, "of another struct");
    }

    #[test]
    fn one_lock_and_guards_have_none() {
        for source in [
            "struct A { a: Mutex<u8>, b: u8 }\nstruct B { a: Mutex<u8> }",
            "struct A { a: MutexGuard<'static, u8>, b: Mutex<u8> }",
            "struct A(Mutex<u8>);\nfn f(a: Mutex<u8>, b: Mutex<u8>) {}",
            "struct A;\nstruct B { a: Mutex<u8> } // Mutex<u8>",
            "#[cfg(test)]\nmod tests {\n    struct A { a: Mutex<u8>, b: Mutex<u8> }\n}\n",
        ] {
            assert_eq!(found(source), (0, Vec::new()), "{source}");
        }
    }
}
