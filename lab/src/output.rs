//! Words of the lab's own processes: to standard error, which is the log of the machine, or what who
//! called a tool reads.

use std::io::Write;

/// Writes a line; when the log is gone there is nobody left to tell.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "lab: {text}"));
}

/// Says why the program ends.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "weft: {text}"));
}
