//! Repository chores. `cargo xtask check` proves the rules that no compiler proves:
//!
//! - arrows between crates point inward ([`arrows`]), those between files form no circle ([`circles`]);
//! - ARCHITECTURE.md has the crates, rings and rooms that there are ([`parts`]);
//! - pure crates pull in no I/O crate, the packet path no async runtime ([`purity`]);
//! - pure crates use no clock, no chance and no order of hashes ([`pure_code`], [`hash_order`]);
//! - every member takes the workspace's lints ([`lints`]);
//! - files stay readable and `unsafe` stays in `sys` ([`sources`]);
//! - words of GLOSSARY.md are in use, with one meaning each ([`glossary`]);
//! - links and names of files in the texts lead somewhere ([`texts`]);
//! - references in `docs/` are what the code says ([`reference`]);
//! - the tutorial of CONTRIBUTING.md still applies ([`tutorial`]).
//!
//! `cargo xtask circles` lists the arrows of each circle.
//! `cargo xtask test [--all]` runs the tests, with `--all` also those of the second tier ([`tiers`]).
//! `cargo xtask tutorial [--all]` makes the first change of CONTRIBUTING.md in a copy ([`tutorial`]).
//! `cargo xtask docs` writes the references anew ([`reference`]).
//! `cargo xtask deny` holds the dependencies against `deny.toml` ([`deny`]).

#![forbid(unsafe_code)]

mod arrows;
mod circles;
mod deny;
mod glossary;
mod hash_order;
mod lints;
mod modules;
mod parts;
mod paths;
mod pure_code;
mod purity;
mod reference;
mod report;
mod rust_text;
mod sources;
mod texts;
mod tiers;
mod tutorial;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

use crate::report::Report;

const USAGE: &str = "usage: cargo xtask check|circles|deny|docs|test [--all]|tutorial [--all]";

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let mut out = std::io::stdout().lock();
    let report = match (args.next().as_deref(), args.next().as_deref(), args.next()) {
        (Some("check"), None, None) => check()?,
        (Some("circles"), None, None) => {
            write!(out, "{}", circles::list(&members()?)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some("deny"), None, None) => denied()?,
        (Some("docs"), None, None) => {
            return Ok(outcome(reference::write(
                members()?.workspace_root.as_std_path(),
            )?));
        }
        (Some("test"), all @ (None | Some("--all")), None) => {
            let metadata = members()?;
            let root = metadata.workspace_root.as_std_path();
            let passed = tiers::run(root, all.is_some())?
                && (all.is_none() || tutorial::run(&metadata, true)?);
            return Ok(outcome(passed));
        }
        (Some("tutorial"), all @ (None | Some("--all")), None) => {
            return Ok(outcome(tutorial::run(&members()?, all.is_some())?));
        }
        _ => {
            writeln!(out, "{USAGE}")?;
            return Ok(ExitCode::from(64));
        }
    };
    write!(out, "{report}")?;
    Ok(outcome(!report.failed()))
}

fn outcome(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn members() -> anyhow::Result<Metadata> {
    MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata")
}

fn denied() -> anyhow::Result<Report> {
    let mut report = Report::default();
    deny::check(members()?.workspace_root.as_std_path(), &mut report)?;
    Ok(report)
}

fn check() -> anyhow::Result<Report> {
    let metadata = members()?;
    let root = metadata.workspace_root.as_std_path();
    let mut report = Report::default();
    let members = arrows::members(&metadata);
    arrows::check(&members, &mut report);
    arrows::check_rings(&members, &mut report);
    parts::check(&metadata, &mut report)?;
    circles::check(&metadata, &mut report)?;
    pure_code::check(&metadata, &mut report)?;
    purity::check(root, &mut report)?;
    lints::check(&metadata, &mut report)?;
    sources::check(root, &mut report)?;
    glossary::check(root, &mut report)?;
    texts::check(root, &mut report)?;
    reference::check(root, &mut report)?;
    tutorial::check(root, &mut report)?;
    Ok(report)
}
