//! What the demo prints.

use std::io;
use std::time::Duration;

use weft_lab::Lab;

use crate::output::Printer;

/// Lines of a log that are shown when something failed.
const LAST_LINES: usize = 15;

/// Prints what happens and counts what did not hold.
pub(super) struct Transcript<'a> {
    out: &'a mut Printer,
    sections: u32,
    held: u32,
    failures: u32,
}

impl<'a> Transcript<'a> {
    pub(super) fn new(out: &'a mut Printer) -> Self {
        Self {
            out,
            sections: 0,
            held: 0,
            failures: 0,
        }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.line(text)?;
        self.out.flush()
    }

    /// A sentence for the reader.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.line(text)
    }

    /// The heading of a step.
    pub(super) fn section(&mut self, title: &str) -> io::Result<()> {
        self.sections += 1;
        self.line(&format!("\n== {}. {title}", self.sections))
    }

    /// A command, as it could be typed on that machine.
    pub(super) fn command(&mut self, place: &str, words: &[&str]) -> io::Result<()> {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        self.line(&format!("{place}$ {}", words.join(" ")))
    }

    /// What a command printed.
    pub(super) fn output(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            self.line(line)?;
        }
        Ok(())
    }

    /// The verdict on a claim.
    pub(super) fn check<T>(
        &mut self,
        claim: &str,
        took: Duration,
        result: anyhow::Result<T>,
    ) -> io::Result<Option<T>> {
        match result {
            Ok(value) => {
                self.held += 1;
                self.line(&format!("✓ {claim} ({})", seconds(took)))?;
                Ok(Some(value))
            }
            Err(error) => {
                self.failures += 1;
                self.line(&format!("✗ {claim} ({}): {error:#}", seconds(took)))?;
                Ok(None)
            }
        }
    }

    /// Something that ended the walk.
    pub(super) fn failed(&mut self, text: &str) -> io::Result<()> {
        self.failures += 1;
        self.line(&format!("✗ {text}"))
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The end of every node's log.
    pub(super) fn last_words(&mut self, lab: &Lab) -> io::Result<()> {
        for machine in lab.status() {
            let text = std::fs::read_to_string(&machine.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                continue;
            }
            self.line(&format!("\nThe end of the log of {}:", machine.name))?;
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                self.line(&format!("  {line}"))?;
            }
        }
        Ok(())
    }

    /// The last line.
    pub(super) fn summary(&mut self, took: Duration, stopped: bool) -> io::Result<()> {
        let text = if stopped {
            format!(
                "\nStopped on request after {}; everything was cleaned up.",
                seconds(took)
            )
        } else if self.failures == 0 {
            format!("\nAll {} checks held, in {}.", self.held, seconds(took))
        } else {
            format!(
                "\n{} of {} checks FAILED, in {}.",
                self.failures,
                self.held + self.failures,
                seconds(took)
            )
        };
        self.line(&text)
    }
}

/// `1.2 s` or `34 ms`.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("8000:80"), "8000:80");
        assert_eq!(quoted("{{.ID}}"), "'{{.ID}}'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
