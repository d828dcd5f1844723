//! Every dependency is named by the code that it is there for. One that nothing names costs its time
//! to build and to be looked at; one that only tests name is built for everybody.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, Package};

use crate::modules;
use crate::report::Report;
use crate::rust_text::{code_only, has_word};
use crate::sources;

/// Folders of a package with code that developers run.
const DEVELOPMENT: &[&str] = &["src", "tests", "benches", "examples"];

/// Dependencies that no code names, each with the reason why it is there. One that is named, or gone, is
/// an error.
const UNNAMED: &[(&str, &str, &str)] = &[(
    "weft-dns",
    "idna_adapter",
    "its version is all that is wanted of it: it says which tables hickory-proto's `idna` uses",
)];

/// The code of a package, by which of its dependencies it may use.
#[derive(Debug, Default)]
struct Code {
    /// Libraries and programs, without their tests.
    product: Vec<String>,
    /// All of it.
    development: Vec<String>,
    /// What runs before it is compiled.
    build: Vec<String>,
}

/// Reports dependencies that nothing names, or that are not for those who name them.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let root = metadata.workspace_root.as_std_path();
    let packages = metadata.workspace_packages();
    let mut count = 0;
    let mut used = vec![false; UNNAMED.len()];
    for package in &packages {
        let code = Code::of(package, root)?;
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
            count += 1;
            let Some(problem) = code.problem(name, dependency.kind) else {
                continue;
            };
            let entry = UNNAMED.iter().position(|(krate, held, _)| {
                *krate == package.name.as_str() && *held == name.as_str()
            });
            match entry.and_then(|entry| used.get_mut(entry)) {
                Some(used) => *used = true,
                None => report.fail(format!("{}: {problem}", package.manifest_path)),
            }
        }
    }
    for ((krate, name, _), _) in UNNAMED.iter().zip(&used).filter(|(_, used)| !**used) {
        report.fail(format!(
            "{krate}: {name} needs no entry in xtask/src/dependencies.rs: remove it"
        ));
    }
    report.checked(format!(
        "dependencies: {count} of {} crates are named by their code",
        packages.len()
    ));
    Ok(())
}

impl Code {
    fn of(package: &Package, root: &Path) -> anyhow::Result<Self> {
        let manifest = package.manifest_path.as_std_path();
        let folder = manifest.parent().context("a manifest in no folder")?;
        let product = modules::of(package, root)?.into_iter();
        let mut code = Self {
            product: product
                .flat_map(|modules| modules.into_values().map(|module| module.code))
                .collect(),
            ..Self::default()
        };
        for part in DEVELOPMENT {
            let part = folder.join(part);
            if part.is_dir() {
                for file in sources::files(&part, &["rs"])? {
                    code.development.push(read(&file)?);
                }
            }
        }
        let build = folder.join("build.rs");
        if build.is_file() {
            code.build.push(read(&build)?);
        }
        Ok(code)
    }

    /// What is wrong with a dependency of this kind, which the manifest calls `name`.
    fn problem(&self, name: &str, kind: DependencyKind) -> Option<String> {
        let word = name.replace('-', "_");
        let named = |code: &[String]| code.iter().any(|text| has_word(text, &word));
        let place = match kind {
            DependencyKind::Development => &self.development,
            DependencyKind::Build => &self.build,
            _ => &self.product,
        };
        if named(place) {
            return None;
        }
        Some(if named(&self.development) {
            format!("only tests name {name}: it belongs under [dev-dependencies]")
        } else {
            format!("nothing names {name}: remove it")
        })
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(code_only(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_named_where_it_is_for() {
        use DependencyKind::{Build, Development, Normal};
        let texts = |text: &str| vec![code_only(text)];
        let code = Code {
            product: texts("use a_b::C; // d"),
            development: texts("use a_b::C; use tested::T;"),
            build: texts("fn main() { made::make(); }"),
        };
        for (name, kind) in [
            ("a-b", Normal),
            ("a-b", Development),
            ("tested", Development),
            ("made", Build),
        ] {
            assert_eq!(code.problem(name, kind), None, "{name}");
        }
        for (name, kind, problem) in [
            ("d", Normal, "nothing names d"),
            ("a", Development, "nothing names a:"),
            ("made", Normal, "nothing names made"),
            ("tested", Normal, "belongs under [dev-dependencies]"),
        ] {
            let found = code.problem(name, kind).unwrap();
            assert!(found.contains(problem), "{found}");
        }
    }
}
