//! Every member takes the workspace's lints, and every crate but `sys` forbids `unsafe`.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{Metadata, TargetKind};

use crate::report::Report;
use crate::rust_text;

/// Crates that may hold `unsafe`: the kernel's interface, and the counting allocator of the
/// benchmarks.
const MAY_BE_UNSAFE: &[&str] = &["weft-sys", "weft-benches"];

/// Reports members without `[lints] workspace = true` and crate roots without
/// `#![forbid(unsafe_code)]`.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let packages = metadata.workspace_packages();
    for package in &packages {
        let manifest = package.manifest_path.as_std_path();
        if !takes_workspace_lints(&read(manifest)?)
            .with_context(|| format!("{}", manifest.display()))?
        {
            report.fail(format!(
                "{}: add\n    [lints]\n    workspace = true",
                package.manifest_path
            ));
        }
        if MAY_BE_UNSAFE.contains(&package.name.as_str()) {
            continue;
        }
        let roots = package.targets.iter().filter(|target| {
            target
                .kind
                .iter()
                .any(|kind| matches!(kind, TargetKind::Lib | TargetKind::Bin))
        });
        for target in roots {
            if !forbids_unsafe(&read(target.src_path.as_std_path())?) {
                report.fail(format!(
                    "{}: add #![forbid(unsafe_code)]; unsafe code belongs into sys/",
                    target.src_path
                ));
            }
        }
    }
    report.checked(format!(
        "lints: {} manifests and their roots",
        packages.len()
    ));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn takes_workspace_lints(manifest: &str) -> anyhow::Result<bool> {
    let table: toml::Table = manifest.parse()?;
    let wanted = table.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(wanted.and_then(toml::Value::as_bool) == Some(true))
}

fn forbids_unsafe(root: &str) -> bool {
    rust_text::code_only(root).contains("#![forbid(unsafe_code)]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_lints_must_be_taken_as_a_whole() {
        assert!(takes_workspace_lints("[lints]\nworkspace = true").unwrap());
        for manifest in [
            "[package]\nname = \"x\"",
            "[lints]\nworkspace = false",
            "[lints.rust]\nunsafe_code = \"deny\"",
        ] {
            assert!(!takes_workspace_lints(manifest).unwrap(), "{manifest}");
        }
        assert!(takes_workspace_lints("[lints").is_err());
    }

    #[test]
    fn a_comment_forbids_nothing() {
        assert!(forbids_unsafe("//! Doc.\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("// #![forbid(unsafe_code)]\n"));
    }
}
