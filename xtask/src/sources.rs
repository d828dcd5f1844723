//! Files stay readable, no test is left out without its tier, and `unsafe` stays where it belongs.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::report::Report;
use crate::rust_text;
use crate::tiers;

/// More lines than this start a conversation.
const LINES_WARN: usize = 600;
/// More lines than this fail.
const LINES_MAX: usize = 1000;

/// How files begin that a program wrote: nobody splits them.
const GENERATED: &str = "// This file is @generated";

/// Folders whose files may hold `unsafe`: the kernel's interface, and the counting allocator of
/// the benchmarks.
const MAY_BE_UNSAFE: &[&str] = &["sys", "benches"];

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", "corpus", "artifacts"];

/// Walks all Rust files under `root`.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let files = files(root, &["rs"])?;
    for path in &files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        check_file(path.strip_prefix(root).unwrap_or(path), &text, report);
    }
    report.checked(format!("sources: {} files", files.len()));
    Ok(())
}

fn check_file(path: &Path, text: &str, report: &mut Report) {
    let shown = path.display();
    if !text.starts_with(GENERATED) {
        check_length(path, text, report);
    }
    tiers::check_file(path, text, report);
    let first = path
        .components()
        .next()
        .and_then(|c| c.as_os_str().to_str());
    if first.is_some_and(|folder| MAY_BE_UNSAFE.contains(&folder)) {
        return;
    }
    for (number, line) in rust_text::code_only(text).lines().enumerate() {
        if rust_text::has_word(line, "unsafe") {
            report.fail(format!(
                "{shown}:{}: unsafe code belongs into sys/",
                number + 1
            ));
        }
    }
}

fn check_length(path: &Path, text: &str, report: &mut Report) {
    let lines = text.lines().count();
    let shown = path.display();
    if lines > LINES_MAX {
        report.fail(format!(
            "{shown}: {lines} lines, at most {LINES_MAX}: split it by type"
        ));
    } else if lines > LINES_WARN {
        report.warn(format!("{shown}: {lines} lines; think of splitting it"));
    }
}

/// Files of ours under `root` whose names end with one of `extensions`, in order.
pub(crate) fn files(root: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(root, extensions, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_ref()) {
            collect(&entry.path(), extensions, found)?;
        } else if kind.is_file()
            && let Some((_, extension)) = name.rsplit_once('.')
            && extensions.contains(&extension)
        {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(path: &str, text: &str) -> Report {
        let mut report = Report::default();
        check_file(Path::new(path), text, &mut report);
        report
    }

    #[test]
    fn long_files_warn_and_then_fail() {
        assert!(
            report("wire/src/a.rs", &"\n".repeat(600))
                .warnings()
                .is_empty()
        );
        assert_eq!(
            report("wire/src/a.rs", &"\n".repeat(601)).warnings().len(),
            1
        );
        assert!(
            report("wire/src/a.rs", &"\n".repeat(1000))
                .failures()
                .is_empty()
        );
        assert_eq!(
            report("wire/src/a.rs", &"\n".repeat(1001)).failures().len(),
            1
        );
    }

    #[test]
    fn what_a_program_wrote_may_be_long_and_not_unsafe() {
        let text = format!("{GENERATED} by prost-build.\n{}", "\n".repeat(1000));
        let found = report("swarm/proto/a.rs", &text);
        assert!(found.failures().is_empty() && found.warnings().is_empty());
        assert!(report("swarm/proto/a.rs", &(text + "unsafe {}\n")).failed());
    }

    #[test]
    fn unsafe_is_reported_with_its_line_outside_sys() {
        let text = "//! unsafe in words\nfn f() {\n    unsafe { g() }\n}\n";
        let found = report("agent/src/a.rs", text);
        assert_eq!(
            found.failures(),
            ["agent/src/a.rs:3: unsafe code belongs into sys/"]
        );
        assert!(!report("sys/src/a.rs", text).failed());
        assert!(!report("benches/benches/a.rs", text).failed());
    }

    #[test]
    fn the_walk_skips_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/src/x.rs", "target/debug/y.rs", ".git/z.rs", "a/notes.md"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "fn f() {}\n").unwrap();
        }
        let found = files(dir.path(), &["rs"]).unwrap();
        assert_eq!(found, [dir.path().join("a/src/x.rs")]);
        let found = files(dir.path(), &["rs", "md"]).unwrap();
        assert_eq!(found.len(), 2);
    }
}
