//! Repository chores. `cargo xtask check` proves the rules that no compiler proves:
//!
//! - arrows between crates point inward ([`arrows`]);
//! - pure crates pull in no I/O crate, the packet path no async runtime ([`purity`]);
//! - every member takes the workspace's lints ([`lints`]);
//! - files stay readable and `unsafe` stays in `sys` ([`sources`]).

#![forbid(unsafe_code)]

mod arrows;
mod lints;
mod purity;
mod report;
mod rust_text;
mod sources;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use cargo_metadata::MetadataCommand;

use crate::report::Report;

const USAGE: &str = "usage: cargo xtask check";

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mut out = std::io::stdout().lock();
    match (args.next().as_deref(), args.next()) {
        (Some("check"), None) => {
            let report = check()?;
            write!(out, "{report}")?;
            Ok(if report.failed() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        _ => {
            writeln!(out, "{USAGE}")?;
            Ok(ExitCode::from(64))
        }
    }
}

fn check() -> anyhow::Result<Report> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let root = metadata.workspace_root.as_std_path();
    let mut report = Report::default();
    arrows::check(&arrows::members(&metadata), &mut report);
    purity::check(root, &mut report)?;
    lints::check(&metadata, &mut report)?;
    sources::check(root, &mut report)?;
    Ok(report)
}
