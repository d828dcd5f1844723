//! What `weft` says to a command that it does not have. The parser looks for the most similar name,
//! and finds `rm` for `remove`, or a command that is nobody's business: a tip that misleads is
//! worse than none.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of docker that weft does not have yet, by the word that is missing and the one before it.
const NOT_YET: [(&str, &str); 2] = [("network", "prune"), ("weft", "container")];

/// Letters that two names may differ in, and still be one mistyped.
const TYPOS: usize = 2;

/// A text for a command of docker's that is not in this version; otherwise the error, without tips
/// that mislead.
pub(crate) fn mend(error: &mut clap::Error, hidden: &[String]) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let word = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => word.clone(),
        _ => return None,
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let before = usage.as_deref().map(command_of).unwrap_or_default();
    let parent = before.split(' ').next_back().unwrap_or_default();
    if NOT_YET.contains(&(parent, word.as_str())) {
        return Some(format!(
            "`{before} {word}` is not in this version of weft; `{before} --help` lists what is"
        ));
    }
    let similar = |name: &str| !hidden.iter().any(|h| h == name) && typos(&word, name) <= TYPOS;
    let kept = match error.remove(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(name)) if similar(&name) => Some(ContextValue::String(name)),
        Some(ContextValue::Strings(mut names)) => {
            names.retain(|name| similar(name));
            (!names.is_empty()).then_some(ContextValue::Strings(names))
        }
        _ => None,
    };
    if let Some(kept) = kept {
        error.insert(ContextKind::SuggestedSubcommand, kept);
    }
    // It says how to pass a word that looks like a mistyped command, which no command here takes.
    drop(error.remove(ContextKind::Suggested));
    None
}

/// `weft node` of `Usage: weft node [OPTIONS] <COMMAND>`.
fn command_of(usage: &str) -> String {
    let words = usage.trim_start_matches("Usage:").split_whitespace();
    let names = words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    names.collect::<Vec<_>>().join(" ")
}

/// Letters to change, add, or take away to make one word of the other (Levenshtein).
fn typos(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::Cli;
    use crate::hidden_commands;

    fn said(words: &[&str]) -> String {
        let mut error = Cli::try_parse_from(words).expect_err("no such command");
        mend(&mut error, &hidden_commands(&Cli::command())).unwrap_or_else(|| error.to_string())
    }

    #[test]
    fn tips_are_for_typos_only() {
        let missing = said(&["weft", "network", "prune", "X"]);
        assert!(
            missing.contains("`weft network prune` is not in this version"),
            "{missing}"
        );
        for (words, tip) in [
            (["weft", "servce", "ls"], Some("'service'")),
            (["weft", "mam", "x"], None),
            (["weft", "node", "rmx"], Some("'rm'")),
            (["weft", "network", "remove"], None),
        ] {
            let text = said(&words);
            assert!(text.starts_with("error: unrecognized subcommand"), "{text}");
            match tip {
                Some(tip) => assert!(text.contains(tip), "{words:?}: {text}"),
                None => assert!(!text.contains("tip:"), "{words:?}: {text}"),
            }
        }
    }

    #[test]
    fn distances() {
        for (a, b, n) in [
            ("", "", 0),
            ("ab", "ab", 0),
            ("servce", "service", 1),
            ("rm", "remove", 4),
        ] {
            assert_eq!(typos(a, b), n, "{a} {b}");
        }
    }
}
