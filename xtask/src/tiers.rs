//! Tests have two tiers. The first is what `cargo test --workspace` runs. What is slower is ignored
//! there, with the reason [`SECOND`], and `cargo xtask test --all` runs both: before a change that
//! it is about, and before a release.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::report::Report;
use crate::rust_text;

/// How the reason of an ignored test begins: a test is never left out for another one.
pub(crate) const SECOND: &str = "second tier: ";

/// Runs the first tier, or both, with the search path `path`; true when all passed.
pub(crate) fn run(root: &Path, all: bool, path: &OsStr) -> anyhow::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .env("PATH", path)
        .args(["test", "--workspace", "--locked"]);
    if all {
        command.args(["--", "--include-ignored"]);
    }
    let status = command.status().context("cannot run cargo test")?;
    Ok(status.success())
}

/// Reports tests of `text` that are ignored and not of the second tier.
pub(crate) fn check_file(path: &Path, text: &str, report: &mut Report) {
    // The attribute has to be code, its reason is a literal.
    let code = rust_text::code_only(text);
    for (number, (code, line)) in code.lines().zip(text.lines()).enumerate() {
        if code.trim_start().starts_with("#[ignore") && !line.contains(SECOND) {
            report.fail(format!(
                "{}:{}: a test that is ignored needs a reason: #[ignore = \"{SECOND}…\"]",
                path.display(),
                number + 1
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_ignored_for_being_slow_only() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"broken\"]\nfn b() {}\n\
             #[ignore = \"second tier: takes minutes\"]\nfn c() {}\n// #[ignore]\n";
        let mut report = Report::default();
        check_file(Path::new("a.rs"), text, &mut report);
        let lines: Vec<&str> = report
            .failures()
            .iter()
            .filter_map(|failure| failure.split(": ").next())
            .collect();
        assert_eq!(lines, ["a.rs:2", "a.rs:4"]);
    }
}
