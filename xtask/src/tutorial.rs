//! The first change of CONTRIBUTING.md as a patch, so that the page keeps its word: the patch applies,
//! and what the page tells to run passes with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use cargo_metadata::Metadata;

use crate::report::Report;

const PAGE: &str = "CONTRIBUTING.md";
const PATCH: &str = "xtask/tutorial.patch";
/// Folder of the copy, below cargo's for what it builds.
const COPY: &str = "tutorial";

/// What the page tells to run; the second takes root and minutes.
const TESTS: &[&str] = &[
    "cargo test -p weft-wire",
    "cargo test -p weft-dataplane --test namespaces hostile",
];

/// Version of the crates in the copy. Cargo tells crates apart by name, version and place below the
/// workspace: with a version of its own, the copy shares what is built of others, and nothing else.
const VERSION: &str = "0.0.0-tutorial";

/// Reports a patch that no longer applies, and what the page leaves out of it.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let [page, patch] = [PAGE, PATCH].map(|file| std::fs::read_to_string(root.join(file)));
    let page = page.context("cannot read CONTRIBUTING.md")?;
    let patch = patch.context("cannot read xtask/tutorial.patch")?;
    compare(&page, &patch, report);
    let output = apply(root, &root.join(PATCH), &["--check"])?;
    if !output.status.success() {
        report.fail(format!(
            "{PATCH} no longer applies. In a tree with the tutorial's change that is as it should \
             be; else mend the patch (make the change, `git diff -U1 -- FILES`) and section 2 of \
             {PAGE}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    report.checked(format!("tutorial: {} files", files(&patch).count()));
    Ok(())
}

/// Applies the patch to a copy of the repository and runs there what the page tells to run, with
/// `all` also what takes long; true when all passed.
pub(crate) fn run(metadata: &Metadata, all: bool) -> anyhow::Result<bool> {
    let root = metadata.workspace_root.as_std_path();
    let built = metadata.target_directory.as_std_path();
    let copy = built.join(COPY);
    remove(&copy)?;
    copy_folder(root, &copy, built)?;
    let output = apply(&copy, &root.join(PATCH), &[])?;
    ensure!(
        output.status.success(),
        "{PATCH} does not apply: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let manifest = copy.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).context("cannot read Cargo.toml")?;
    std::fs::write(&manifest, with_version(&text)?).context("cannot write Cargo.toml")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for words in &TESTS[..if all { TESTS.len() } else { 1 }] {
        let status = Command::new(&cargo)
            .args(words.split(' ').skip(1))
            .current_dir(&copy)
            .env("CARGO_TARGET_DIR", built)
            .status()
            .context("cannot run cargo test")?;
        if !status.success() {
            // The copy stays, to be looked at.
            return Ok(false);
        }
    }
    remove(&copy)?;
    Ok(true)
}

fn compare(page: &str, patch: &str, report: &mut Report) {
    for words in TESTS {
        if !page.contains(words) {
            report.fail(format!(
                "{PAGE}: the tutorial does not tell to run `{words}`"
            ));
        }
    }
    for file in files(patch) {
        if !page.contains(file) {
            report.fail(format!(
                "{PAGE}: the tutorial does not name {file}, which {PATCH} changes"
            ));
        }
    }
}

/// Files that a patch changes.
fn files(patch: &str) -> impl Iterator<Item = &str> {
    patch.lines().filter_map(|line| line.strip_prefix("+++ b/"))
}

/// Runs `git apply` in `folder`, as if that were no part of a repository: git leaves out what lies
/// elsewhere in one, and says nothing.
fn apply(folder: &Path, patch: &Path, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    if let Some(above) = folder.parent() {
        command.env("GIT_CEILING_DIRECTORIES", above);
    }
    command
        .current_dir(folder)
        .arg("apply")
        .args(words)
        .arg(patch)
        .output()
        .context("cannot run git, which applies the tutorial's patch")
}

fn with_version(manifest: &str) -> anyhow::Result<String> {
    let mut manifest: toml::Table = manifest.parse()?;
    let version = manifest
        .get_mut("workspace")
        .and_then(|workspace| workspace.get_mut("package"))
        .and_then(|package| package.get_mut("version"))
        .context("Cargo.toml: workspace.package has no version")?;
    *version = VERSION.into();
    Ok(toml::to_string(&manifest)?)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Copies files and folders but hidden ones, and what cargo has built. Copies are new: cargo goes by
/// the times of files.
fn copy_folder(from: &Path, to: &Path, built: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries =
        std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let to: PathBuf = to.join(&name);
        let name = name.to_string_lossy();
        if name.starts_with('.') || name == "target" || path == built {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&path, &to, built)?;
        } else if kind.is_file() {
            std::fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "\
diff --git a/a.rs b/a.rs
--- a/a.rs
+++ b/a.rs
@@ -1,2 +1,2 @@
 one
-two
+three
";

    #[test]
    fn the_page_names_files_and_commands() {
        let failures = |page: &str| {
            let mut report = Report::default();
            compare(page, DIFF, &mut report);
            report.failures().to_vec()
        };
        let page = format!("Change `a.rs`, then `{}`.", TESTS.join("`, `"));
        assert!(failures(&page).is_empty());
        assert_eq!(failures("").len(), TESTS.len() + 1);
        assert!(failures(&page.replace("a.rs", "b.rs"))[0].contains("does not name a.rs"));
    }

    #[test]
    fn a_patch_applies_to_the_folder_that_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, patch) = (dir.path().join("in/copy"), dir.path().join("diff"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&patch, DIFF).unwrap();
        std::fs::write(folder.join("a.rs"), "one\ntwo\n").unwrap();
        assert!(
            apply(&folder, &patch, &["--check"])
                .unwrap()
                .status
                .success()
        );
        assert!(apply(&folder, &patch, &[]).unwrap().status.success());
        let text = std::fs::read_to_string(folder.join("a.rs")).unwrap();
        assert_eq!(text, "one\nthree\n");
        assert!(
            !apply(&folder, &patch, &["--check"])
                .unwrap()
                .status
                .success()
        );
    }

    #[test]
    fn the_copy_has_a_version_of_its_own() {
        let text = "[workspace.package]\nversion = \"0.1.0\"\n\n[package]\nname = \"weft\"\n";
        let changed: toml::Table = with_version(text).unwrap().parse().unwrap();
        assert_eq!(
            changed["workspace"]["package"]["version"].as_str(),
            Some(VERSION)
        );
        assert_eq!(changed["package"]["name"].as_str(), Some("weft"));
        assert!(with_version("[workspace]\n").is_err());
    }

    #[test]
    fn the_copy_leaves_out_what_cargo_built() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "a/src/x.rs",
            "fuzz/target/y.rs",
            ".git/z.rs",
            "built/tutorial/w.rs",
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "fn f() {}\n").unwrap();
        }
        let built = dir.path().join("built");
        let copy = built.join(COPY);
        remove(&copy).unwrap();
        copy_folder(dir.path(), &copy, &built).unwrap();
        assert!(copy.join("a/src/x.rs").exists());
        for left_out in ["fuzz/target", ".git", "built"] {
            assert!(!copy.join(left_out).exists(), "{left_out}");
        }
    }
}
