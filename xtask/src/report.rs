//! What the checks found.

use std::fmt;

/// Findings of all checks, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Report {
    failures: Vec<String>,
    warnings: Vec<String>,
    passed: Vec<String>,
}

impl Report {
    /// A broken rule.
    pub(crate) fn fail(&mut self, message: impl Into<String>) {
        self.failures.push(message.into());
    }

    /// Something that should change, but need not yet.
    pub(crate) fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }

    /// A rule that was looked at, with how much was looked at.
    pub(crate) fn checked(&mut self, message: impl Into<String>) {
        self.passed.push(message.into());
    }

    /// True when a rule is broken.
    pub(crate) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The broken rules, for tests.
    #[cfg(test)]
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The warnings, for tests.
    #[cfg(test)]
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, lines) in [
            ("checked", &self.passed),
            ("warning", &self.warnings),
            ("error", &self.failures),
        ] {
            for line in lines {
                writeln!(f, "{kind}: {line}")?;
            }
        }
        if self.failed() {
            writeln!(f, "{} rule(s) broken", self.failures.len())
        } else {
            writeln!(f, "every rule holds")
        }
    }
}
