//! Repository chores. `cargo xtask check` proves the rules that no compiler proves:
//!
//! - arrows between crates point inward ([`arrows`]), those between files form no circle ([`circles`]);
//! - ARCHITECTURE.md has the crates and rings that there are ([`parts`]);
//! - pure crates pull in no I/O crate, the packet path no async runtime ([`purity`]);
//! - pure crates use no clock, no chance and no order of hashes ([`pure_code`], [`hash_order`]);
//! - dependencies are named by the code that they are for ([`dependencies`]);
//! - every member takes the workspace's lints ([`lints`]);
//! - files stay readable and `unsafe` stays in `sys` ([`sources`]);
//! - structs with several locks say in which order they are taken ([`locks`]);
//! - sections of RFCs that pure crates cite are in the names of tests ([`citations`]);
//! - words of GLOSSARY.md are in use, with one meaning each ([`glossary`]);
//! - links and names of files in the texts lead somewhere ([`texts`]);
//! - references in `docs/` are what the code says ([`mod@reference`]);
//! - the tutorial of CONTRIBUTING.md still applies ([`tutorial`]).
//!
//! `cargo xtask demo` and `cargo xtask test [--all]` run the demo and the tests, with `--all` also
//! those of the second tier ([`tiers`]), and install what they need before ([`programs`]), but for a
//! compiler: `x` does that.
//! `cargo xtask circles` lists the arrows of each circle, `cargo xtask citations` the sections of
//! RFCs without a test.
//! `cargo xtask tutorial [--all]` makes the first change of CONTRIBUTING.md in a copy ([`tutorial`]).
//! `cargo xtask docs` writes the references anew ([`mod@reference`]).
//! `cargo xtask bpf [--check]` compiles the programs of the fast path, or compares them ([`bpf`]).
//! `cargo xtask kernels` tries the programs of the fast path on kernels that are booted for it
//! ([`kernels`]).
//! `cargo xtask deny` holds the dependencies against `deny.toml` ([`deny`]).

#![forbid(unsafe_code)]

mod arrows;
mod bpf;
mod circles;
mod citations;
mod deny;
mod dependencies;
mod glossary;
mod hash_order;
mod kernels;
mod lints;
mod locks;
mod modules;
mod parts;
mod paths;
mod programs;
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
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

use crate::kernels::Kernel;
use crate::programs::Consent;
use crate::report::Report;

const USAGE: &str = "\
usage: cargo xtask demo [--yes|--no-install] [OPTIONS OF weft demo]
       cargo xtask test [--yes|--no-install] [--all]
       cargo xtask bpf [--check]
       cargo xtask kernels [--yes|--no-install] [--kernel VMLINUZ --modules DIR]…
       cargo xtask check|circles|citations|deny|docs|tutorial [--all]";

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = std::io::stdout().lock();
    let report = match words[..] {
        ["demo", ref rest @ ..] => return demo(rest, &mut out),
        ["test", ref rest @ ..] => {
            let (consent, rest) = Consent::take(rest);
            match rest[..] {
                [] => return test(false, consent, &mut out),
                ["--all"] => return test(true, consent, &mut out),
                _ => return usage(&mut out),
            }
        }
        ["bpf"] => {
            bpf::write(&members()?)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["bpf", "--check"] => compiled()?,
        ["kernels", ref rest @ ..] => {
            let (consent, rest) = Consent::take(rest);
            let Some(asked) = kernels::asked(&rest) else {
                return usage(&mut out);
            };
            booted(asked, consent, &mut out)?
        }
        ["check"] => check()?,
        ["circles"] => {
            write!(out, "{}", circles::list(&members()?)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["citations"] => {
            write!(out, "{}", citations::list(&members()?)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["deny"] => denied()?,
        ["docs"] => {
            let root = members()?.workspace_root;
            return Ok(outcome(reference::write(root.as_std_path())?));
        }
        ["tutorial"] => return Ok(outcome(tutorial::run(&members()?, false)?)),
        ["tutorial", "--all"] => return Ok(outcome(tutorial::run(&members()?, true)?)),
        _ => return usage(&mut out),
    };
    write!(out, "{report}")?;
    Ok(outcome(!report.failed()))
}

fn usage(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    writeln!(out, "{USAGE}")?;
    Ok(ExitCode::from(64))
}

/// Turns into the demo, so that Ctrl-C is the demo's alone, which cleans up.
fn demo(words: &[&str], out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (consent, rest) = Consent::take(words);
    let needed = if rest.contains(&"--stack") {
        programs::STACK_DEMO
    } else {
        programs::DEMO
    };
    let path = programs::provide(needed, consent, out)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let error = Command::new(cargo)
        .args(["run", "--release", "-p", "weft", "--", "demo"])
        .args(rest)
        .env("PATH", path)
        .exec();
    Err(error).context("cannot run cargo")
}

fn test(all: bool, consent: Consent, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let path = programs::provide(programs::TESTS, consent, out)?;
    let metadata = members()?;
    let passed = tiers::run(metadata.workspace_root.as_std_path(), all, &path)?
        && (!all || tutorial::run(&metadata, true)?);
    Ok(outcome(passed))
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

fn compiled() -> anyhow::Result<Report> {
    let mut report = Report::default();
    bpf::check(&members()?, &mut report)?;
    Ok(report)
}

fn booted(asked: Vec<Kernel>, consent: Consent, out: &mut impl Write) -> anyhow::Result<Report> {
    let path = programs::provide(programs::KERNELS, consent, out)?;
    let mut report = Report::default();
    kernels::check(&members()?, asked, &path, &mut report)?;
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
    citations::check(&metadata, &mut report)?;
    purity::check(root, &mut report)?;
    dependencies::check(&metadata, &mut report)?;
    lints::check(&metadata, &mut report)?;
    sources::check(root, &mut report)?;
    locks::check(root, &mut report)?;
    glossary::check(root, &mut report)?;
    texts::check(root, &mut report)?;
    reference::check(root, &mut report)?;
    tutorial::check(root, &mut report)?;
    Ok(report)
}
