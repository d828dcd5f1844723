//! References in `docs/` that are written from the code: `cargo xtask docs` writes them, `cargo xtask
//! check` says when they have fallen behind.
//!
//! What a person wrote on such a page stays; the code's part stands between two marks. The series
//! of `/metrics` are known to the agent alone, so a test of its own compares and writes their page.

mod drop_reasons;
mod node_api;
mod types;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::report::Report;

/// Before the part of a page that is written from the code. The agent's test has it too.
const BEGIN: &str = "<!-- from the code, by cargo xtask docs -->";
const END: &str = "<!-- until here -->";

/// Has the agent's test write its page instead of comparing it.
const WRITE: &str = "WEFT_WRITE_DOCS";
const AGENT_TEST: &str = "observe::counters::reference";

/// A page, and what writes the code's part of it.
type Page = (&'static str, fn(&Path) -> anyhow::Result<String>);

const PAGES: &[Page] = &[
    ("docs/drop-reasons.md", drop_reasons::write),
    ("docs/node-api.md", node_api::write),
];

/// Reports pages that are not what the code says, and calls of the node API that no table has.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    for (page, write) in PAGES {
        let text = read(root, page)?;
        if renewed(&text, &write(root)?).with_context(|| format!("{page}: marks"))? != text {
            report.fail(format!(
                "{page}: the code says something else by now; `cargo xtask docs` writes it anew"
            ));
        }
    }
    node_api::check_routes(root, report)?;
    report.checked(format!("references: {} pages", PAGES.len()));
    Ok(())
}

/// Writes every page anew; true when all went well.
pub(crate) fn write(root: &Path) -> anyhow::Result<bool> {
    for (page, write) in PAGES {
        let text = renewed(&read(root, page)?, &write(root)?)?;
        std::fs::write(root.join(page), text).with_context(|| format!("cannot write {page}"))?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["test", "--locked", "-p", "weft-agent", "--lib", "--"])
        .arg(AGENT_TEST)
        .env(WRITE, "1")
        .status()
        .context("cannot run cargo test")?;
    Ok(status.success())
}

fn read(root: &Path, file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

/// `page` with `part` between its marks.
fn renewed(page: &str, part: &str) -> anyhow::Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("no line that begins the code's part")?;
    let (_, after) = rest
        .split_once(END)
        .context("no line that ends the code's part")?;
    ensure!(!after.contains(BEGIN), "more than one part");
    Ok(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        part.trim()
    ))
}

/// A text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_the_codes() {
        let page = format!("# A\n\nBy hand.\n\n{BEGIN}\nold\n{END}\n\nMore.\n");
        let new = renewed(&page, "| a |\n").unwrap();
        assert_eq!(
            new,
            format!("# A\n\nBy hand.\n\n{BEGIN}\n\n| a |\n\n{END}\n\nMore.\n")
        );
        assert_eq!(renewed(&new, "| a |").unwrap(), new);
        for broken in ["", BEGIN, END] {
            assert!(renewed(broken, "").is_err());
        }
        assert!(renewed(&page.repeat(2), "").is_err());
    }
}
