//! What `deny.toml` says of licences, banned crates and sources, proved from what cargo itself knows:
//! `cargo deny` is a program of its own that a fresh machine would have to fetch and build. Where it
//! is installed, `.ci/run` asks it as well, and it knows more: advisories, texts of licences.
//!
//! The file is that program's, and read by its rules. A setting that is not known here is an error,
//! so that nobody believes in one that has no effect.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand, Package, PackageId};
use serde::Deserialize;

use crate::purity::cargo_tree;
use crate::report::Report;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
    /// Needs a database, and so `cargo deny`.
    #[serde(default, rename = "advisories")]
    _advisories: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
    #[serde(default)]
    private: Private,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Private {
    ignore: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Level,
    wildcards: Level,
    #[serde(default)]
    allow_wildcard_paths: bool,
    #[serde(default)]
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Allow,
    Warn,
    Deny,
}

impl Level {
    fn tell(self, report: &mut Report, message: String) {
        match self {
            Self::Allow => {}
            Self::Warn => report.warn(message),
            Self::Deny => report.fail(message),
        }
    }
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Path,
    CratesIo,
    Registry(String),
    Git(String),
}

/// What is asked of a package.
#[derive(Debug, Clone)]
struct Krate {
    name: String,
    version: String,
    source: Source,
    licence: Option<String>,
    /// Published nowhere.
    private: bool,
    /// Dependencies without a version, and whether each has a path.
    wildcards: Vec<(String, bool)>,
    /// Who asks for it.
    parents: BTreeSet<String>,
}

/// Reports what `deny.toml` in `root` forbids.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let config: Config = toml::from_str(&text).context(
        "deny.toml: a setting that xtask/src/deny.rs does not know; teach it there, or leave it out",
    )?;
    let mut krates = BTreeMap::new();
    for target in &config.graph.targets {
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .other_options(["--locked", "--filter-platform", target].map(String::from))
            .exec()
            .with_context(|| format!("cargo metadata for {target}"))?;
        let words = ["--workspace", "--target", target, "-e", "normal,build,dev"];
        let tree = cargo_tree(root, &[&words[..], &["--prefix", "none"]].concat())?;
        collect(&metadata, &built(&tree), &mut krates)?;
    }
    let krates: Vec<Krate> = krates.into_values().collect();
    licences(&config.licenses, &krates, report);
    bans(&config.bans, &krates, report);
    sources(&config.sources, &krates, report);
    Ok(())
}

/// Names and versions in what `cargo tree --prefix none` prints.
fn built(tree: &str) -> BTreeSet<(String, String)> {
    let lines = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((name.to_owned(), version.to_owned()))
    });
    lines.collect()
}

/// Adds what is `built`. Metadata alone also names crates of optional features that nobody turns on.
fn collect(
    metadata: &Metadata,
    built: &BTreeSet<(String, String)>,
    into: &mut BTreeMap<PackageId, Krate>,
) -> anyhow::Result<()> {
    let resolve = metadata.resolve.as_ref();
    let nodes = &resolve.context("cargo metadata resolved nothing")?.nodes;
    let is_built = |id: &PackageId| {
        let package = &metadata[id];
        built.contains(&(package.name.to_string(), package.version.to_string()))
    };
    let nodes: Vec<_> = nodes.iter().filter(|node| is_built(&node.id)).collect();
    for node in &nodes {
        into.entry(node.id.clone())
            .or_insert_with(|| krate(&metadata[&node.id]));
    }
    for node in &nodes {
        let parent = &metadata[&node.id];
        for dependency in &node.dependencies {
            if let Some(krate) = into.get_mut(dependency) {
                krate.parents.insert(parent.name.to_string());
            }
        }
    }
    Ok(())
}

fn krate(package: &Package) -> Krate {
    let source = match &package.source {
        None => Source::Path,
        Some(source) if source.is_crates_io() => Source::CratesIo,
        Some(source) if source.repr.starts_with("git+") => Source::Git(source.repr.clone()),
        Some(source) => Source::Registry(source.repr.clone()),
    };
    let wildcards = package.dependencies.iter();
    Krate {
        name: package.name.to_string(),
        version: package.version.to_string(),
        source,
        licence: package.license.clone(),
        private: package.publish.as_ref().is_some_and(Vec::is_empty),
        wildcards: wildcards
            .filter(|d| d.req == cargo_metadata::semver::VersionReq::STAR)
            .map(|d| (d.name.clone(), d.path.is_some()))
            .collect(),
        parents: BTreeSet::new(),
    }
}

fn licences(config: &Licenses, krates: &[Krate], report: &mut Report) {
    let mut used = BTreeSet::new();
    let mut excepted = BTreeSet::new();
    let mut count = 0;
    for krate in krates {
        if krate.private && config.private.ignore {
            continue;
        }
        count += 1;
        let at = format!("{} {}", krate.name, krate.version);
        let Some(text) = &krate.licence else {
            report.fail(format!(
                "{at}: names no licence (`license` in its manifest)"
            ));
            continue;
        };
        let exception = config.exceptions.iter().find(|e| e.name == krate.name);
        let mut allowed = |id: &str| {
            if config.allow.iter().any(|a| a == id) {
                used.insert(id.to_owned());
                return true;
            }
            let by_exception = exception.is_some_and(|e| e.allow.iter().any(|a| a == id));
            if by_exception {
                excepted.insert(krate.name.clone());
            }
            by_exception
        };
        match licence::satisfied(text, &mut allowed) {
            Ok(true) => {}
            Ok(false) => report.fail(format!(
                "{at}: licence {text:?} is not allowed in deny.toml; asked for by {}",
                parents(krate)
            )),
            Err(error) => report.fail(format!("{at}: licence {text:?} cannot be read: {error}")),
        }
    }
    for id in config.allow.iter().filter(|id| !used.contains(*id)) {
        report.warn(format!("deny.toml allows {id}, which no crate needs"));
    }
    for e in &config.exceptions {
        if !excepted.contains(&e.name) {
            report.warn(format!(
                "deny.toml has an exception for {}, which needs none",
                e.name
            ));
        }
    }
    report.checked(format!("licences: of {count} crates"));
}

fn bans(config: &Bans, krates: &[Krate], report: &mut Report) {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for krate in krates {
        versions
            .entry(&krate.name)
            .or_default()
            .push(&krate.version);
        if let Some(ban) = config.deny.iter().find(|ban| ban.name == krate.name) {
            report.fail(format!(
                "{} {}: banned in deny.toml ({}); asked for by {}",
                krate.name,
                krate.version,
                ban.reason,
                parents(krate)
            ));
        }
        for (dependency, has_path) in &krate.wildcards {
            if !(*has_path && krate.private && config.allow_wildcard_paths) {
                let message = format!("{}: any version of {dependency} will do", krate.name);
                config.wildcards.tell(report, message);
            }
        }
    }
    let several: Vec<String> = versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name} {}", versions.join(" and ")))
        .collect();
    if !several.is_empty() {
        let message = format!("several versions of one crate: {}", several.join(", "));
        config.multiple_versions.tell(report, message);
    }
    report.checked(format!(
        "bans: {} of them, {} crates",
        config.deny.len(),
        krates.len()
    ));
}

fn sources(config: &Sources, krates: &[Krate], report: &mut Report) {
    for krate in krates {
        let (level, source) = match &krate.source {
            Source::Path | Source::CratesIo => continue,
            Source::Registry(source) => (config.unknown_registry, source),
            Source::Git(source) => (config.unknown_git, source),
        };
        let message = format!(
            "{} {}: comes from {source}, which deny.toml does not know",
            krate.name, krate.version
        );
        level.tell(report, message);
    }
    report.checked(format!("sources: of {} crates", krates.len()));
}

fn parents(krate: &Krate) -> String {
    let names: Vec<&str> = krate.parents.iter().map(String::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
