//! The drop reasons, from the one table of `wire`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};

use super::{cell, read};

const FILE: &str = "wire/src/drop_reason.rs";
/// How the table begins, and how it ends.
const TABLE: &str = "\ndrop_reasons! {\n";
const END: &str = "\n}\n";

pub(super) fn write(root: &Path) -> anyhow::Result<String> {
    table(&read(root, FILE)?)
}

fn table(source: &str) -> anyhow::Result<String> {
    let (_, rest) = source
        .split_once(TABLE)
        .with_context(|| format!("{FILE} has no table"))?;
    let (rows, _) = rest.split_once(END).context("the table has no end")?;
    // A name and a sentence for each reason; neither has quotes in it.
    let literals: Vec<&str> = rows.split('"').skip(1).step_by(2).collect();
    ensure!(
        !literals.is_empty() && literals.len().is_multiple_of(2),
        "{FILE}: a reason without its name or its sentence"
    );
    let mut out = "| reason | what it means |\n|---|---|\n".to_owned();
    for row in literals.chunks_exact(2) {
        writeln!(out, "| `{}` | {} |", row[0], cell(row[1]))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_row() {
        let source = "macro_rules! drop_reasons {\n    () => { \"x\" };\n}\n\ndrop_reasons! {\n    \
             A => \"a\", \"One | two.\";\n    Long =>\n        \"long\", \"Three.\";\n}\n\n\"after\"\n";
        let expected = "| reason | what it means |\n|---|---|\n| `a` | One \\| two. |\n\
             | `long` | Three. |\n";
        assert_eq!(table(source).unwrap(), expected);
        assert!(table("drop_reasons! {").is_err());
        assert!(table(&source.replace(", \"Three.\"", "")).is_err());
    }
}
