//! Words of GLOSSARY.md: each stands there once, with a meaning and a source, and is in use.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

use crate::report::Report;
use crate::sources;

const FILE: &str = "GLOSSARY.md";

/// A row of a table of words.
#[derive(Debug, PartialEq, Eq)]
struct Word<'a> {
    word: &'a str,
    meaning: &'a str,
    source: &'a str,
}

/// Reports words that nobody uses, and rows that are not what they should be.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root.join(FILE)).context("cannot read GLOSSARY.md")?;
    let mut files = sources::files(root, &["rs", "md", "proto"])?;
    files.retain(|file| *file != root.join(FILE));
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        texts.push(text.to_lowercase());
    }
    compare(&words(&text), &texts, report);
    Ok(())
}

/// The rows of all tables, without heads and rules.
fn words(text: &str) -> Vec<Word<'_>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.filter(|row| !row.starts_with("|---") && !row.starts_with("| word |"))
        .map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let mut cell = || cells.next().unwrap_or_default();
            Word {
                word: cell(),
                meaning: cell(),
                source: cell(),
            }
        })
        .collect()
}

/// `texts` are in small letters.
fn compare(words: &[Word<'_>], texts: &[String], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for row in words {
        let word = row.word.to_lowercase();
        if [row.word, row.meaning, row.source].contains(&"") {
            report.fail(format!(
                "{FILE}: {:?} needs a word, a meaning and a source",
                row.word
            ));
        } else if !texts.iter().any(|text| has_phrase(text, &word)) {
            report.fail(format!(
                "{FILE}: nothing says {:?}; remove the row, or use the word",
                row.word
            ));
        }
        if !seen.insert(word) {
            report.fail(format!(
                "{FILE}: {:?} is there twice: one meaning for each word",
                row.word
            ));
        }
    }
    report.checked(format!("glossary: {} words", words.len()));
}

/// True when `phrase` stands in `text` between other characters than those of words; it may be a
/// plural.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric();
    text.match_indices(phrase).any(|(at, found)| {
        let (before, after) = (text.split_at(at).0, text.split_at(at + found.len()).1);
        let after = after.strip_prefix('s').unwrap_or(after);
        !before.ends_with(in_word) && !after.starts_with(in_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(text: &str, used: &str) -> Vec<String> {
        let mut report = Report::default();
        compare(&words(text), &[used.to_lowercase()], &mut report);
        report.failures().to_vec()
    }

    #[test]
    fn words_that_are_used_pass() {
        let text = "# A\n| word | what | source |\n|---|---|---|\n| VTEP | an end | RFC 7348 |\n\
             | drop reason | why | weft |\n";
        assert_eq!(words(text).len(), 2);
        assert!(failures(text, "/// Every drop reason of a vtep.").is_empty());
        assert!(failures(text, "drop reasons, vteps_of").is_empty());
    }

    #[test]
    fn rows_have_a_word_in_use_once_with_its_source() {
        for (text, word) in [
            ("| VTEP | an end | RFC 7348 |", "nothing says \"VTEP\""),
            ("| flow | a connection | |", "needs a word"),
            ("| flow | a connection |", "needs a word"),
            ("| flow | a | b |\n| Flow | c | d |", "twice"),
        ] {
            let found = failures(text, "overflow. Flow, VTEPx");
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(word), "{found:?}");
        }
    }
}
