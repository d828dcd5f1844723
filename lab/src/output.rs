//! Words of the lab's own processes: to standard error, which is the log of the machine, or what who
//! called a tool reads.

use std::fs;
use std::io::Write;
use std::path::Path;

/// Writes a line; when the log is gone there is nobody left to tell.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "lab: {text}"));
}

/// Says why the program ends.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "weft: {text}"));
}

/// The end of a log, to be put behind a message; empty when there is none.
pub(crate) fn last_words(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    if tail.is_empty() {
        format!("; its log {} is empty", log.display())
    } else {
        format!("; the end of {}:\n  {tail}", log.display())
    }
}
