//! What is wrong in a file, where, and how it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Problems that are told one by one; of the rest their number.
const SHOWN: usize = 100;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file, as its reader was told its name.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            file: Arc::from(""),
            line: 1,
            column: 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// Keys from the top, with dots between; empty where the whole file is meant.
    pub path: String,
    /// What is wrong, to be read behind the path.
    pub what: String,
    /// The next step; may be empty.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What the command line says is in no file.
        if !self.at.file.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.what)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

/// All that is wrong, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", told(.0))]
pub struct Problems(pub Vec<Problem>);

fn told(problems: &[Problem]) -> String {
    let shown = problems.iter().take(SHOWN).map(Problem::to_string);
    let mut lines: Vec<String> = shown.collect();
    if problems.len() > SHOWN {
        lines.push(format!("and {} more", problems.len() - SHOWN));
    }
    lines.join("\n")
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// Keys that do nothing here, told in one line as docker does.
    pub(crate) unsupported: BTreeSet<&'static str>,
    /// The same, each with its reason.
    pub(crate) deprecated: BTreeMap<&'static str, &'static str>,
    /// Ports of all services so far.
    pub(crate) ports: usize,
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        at: &Position,
        path: &str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.errors.push(problem(at, path, what, mend));
    }

    pub(crate) fn warn(
        &mut self,
        at: &Position,
        path: &str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.warnings.push(problem(at, path, what, mend));
    }

    /// What people are to be told though the file is fine: docker's lines first.
    pub(crate) fn told(mut self) -> Vec<String> {
        let mut told = Vec::new();
        if !self.unsupported.is_empty() {
            let keys: Vec<&str> = self.unsupported.iter().copied().collect();
            told.push(format!("Ignoring unsupported options: {}", keys.join(", ")));
        }
        if !self.deprecated.is_empty() {
            let lines = self.deprecated.iter();
            let lines: Vec<String> = lines.map(|(key, why)| format!("{key}: {why}")).collect();
            told.push(format!(
                "Ignoring deprecated options:\n\n{}",
                lines.join("\n")
            ));
        }
        self.warnings.sort();
        self.warnings.dedup();
        let more = self.warnings.len().saturating_sub(SHOWN);
        told.extend(self.warnings.iter().take(SHOWN).map(Problem::to_string));
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }
}

pub(crate) fn problem(
    at: &Position,
    path: &str,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Problem {
    Problem {
        at: at.clone(),
        path: path.to_owned(),
        what: what.into(),
        mend: mend.into(),
    }
}

/// A path with one key more.
pub(crate) fn below(path: &str, key: impl fmt::Display) -> String {
    if path.is_empty() {
        key.to_string()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_problems_are_counted() {
        let at = Position {
            file: Arc::from("a.yml"),
            line: 3,
            column: 7,
        };
        let one = problem(&at, "services.web", "must be a mapping", "write `image: …`");
        assert_eq!(
            one.to_string(),
            "a.yml:3:7: services.web must be a mapping; write `image: …`"
        );
        let told = Problems(vec![one; 103]).to_string();
        assert_eq!(told.lines().count(), 101);
        assert!(told.ends_with("and 3 more"), "{told}");
    }
}
