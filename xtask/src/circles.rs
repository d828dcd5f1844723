//! Files of a crate form no circle: what two of them need from each other belongs into a third one,
//! or comes in as an argument.
//!
//! A file points at the files that its imports and paths lead to: `crate::…` and `super::…`, through
//! what modules hand on. A module is made of its own children, so that is no arrow, and neither is
//! handing a name on. Circles from before this rule have limits, which may only fall.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cargo_metadata::Metadata;
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use crate::modules::{self, Modules};
use crate::report::Report;

/// Circles that are there: a crate, the files of its largest circle, the files of all its circles.
/// Other crates have none. A figure above what is there is an error, so that none rises again.
const LIMITS: &[(&str, usize, usize)] = &[];

/// A file that needs another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrow {
    from: PathBuf,
    to: PathBuf,
    /// Where it says so first.
    line: usize,
}

/// Reports circles larger than their crate's limit, and limits larger than the circles.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let root = metadata.workspace_root.as_std_path();
    let packages = metadata.workspace_packages();
    let mut count = 0;
    for package in &packages {
        let arrows = arrows_of(&modules::of(package, root)?);
        let name = package.name.as_str();
        count += compare(name, &circles(&arrows), limit(name), report);
    }
    for (krate, ..) in LIMITS {
        if !packages
            .iter()
            .any(|package| package.name.as_str() == *krate)
        {
            report.fail(format!(
                "{krate}: is no member; remove its line from LIMITS in xtask/src/circles.rs"
            ));
        }
    }
    report.checked(format!(
        "circles: {count} files in those of {} crates",
        packages.len()
    ));
    Ok(())
}

/// Every circle with the arrows that make it, for whoever wants to open one.
pub(crate) fn list(metadata: &Metadata) -> anyhow::Result<String> {
    let root = metadata.workspace_root.as_std_path();
    let mut out = String::new();
    for package in metadata.workspace_packages() {
        let arrows = arrows_of(&modules::of(package, root)?);
        for files in circles(&arrows) {
            writeln!(out, "{}: a circle of {} files", package.name, files.len())?;
            let inside = |file: &PathBuf| files.contains(&file.as_path());
            for Arrow { from, to, line } in &arrows {
                if inside(from) && inside(to) {
                    writeln!(out, "    {}:{line} -> {}", from.display(), to.display())?;
                }
            }
        }
    }
    Ok(out)
}

/// Largest circle and files in all circles of `krate`, as far as they are allowed.
fn limit(krate: &str) -> (usize, usize) {
    LIMITS
        .iter()
        .find(|(name, ..)| *name == krate)
        .map_or((0, 0), |(_, largest, files)| (*largest, *files))
}

/// Compares `circles` with the limits of the crate; returns how many files they have.
fn compare(
    krate: &str,
    circles: &[Vec<&Path>],
    limit: (usize, usize),
    report: &mut Report,
) -> usize {
    let largest = circles.first().map_or(0, Vec::len);
    let files: usize = circles.iter().map(Vec::len).sum();
    let figures = [
        ("files in the largest circle", largest, limit.0),
        ("files in circles", files, limit.1),
    ];
    for (what, found, limit) in figures {
        if found > limit {
            let lists: Vec<String> = circles.iter().map(|files| shown(files)).collect();
            report.fail(format!(
                "{krate}: {found} {what}, at most {limit}: move what both sides need to a file of \
                 its own, or pass it in (`cargo xtask circles` lists the arrows): {}",
                lists.join("; ")
            ));
        } else if found < limit {
            report.fail(format!(
                "{krate}: {found} {what}, LIMITS in xtask/src/circles.rs still has {limit}: lower \
                 it, it never rises again"
            ));
        }
    }
    files
}

fn shown(files: &[&Path]) -> String {
    let names: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    names.join(" ")
}

/// The arrows between files of a package, one for each pair.
fn arrows_of(targets: &[Modules]) -> Vec<Arrow> {
    let mut found = BTreeMap::new();
    for modules in targets {
        for (path, module) in modules {
            for named in &module.named {
                if named.import.as_ref().is_some_and(|import| import.exported) {
                    continue;
                }
                let to = target(modules, path, &named.segments, 0);
                // Itself, or a child.
                let Some(to) = to.filter(|to| !to.starts_with(path)) else {
                    continue;
                };
                let pair = (module.file.clone(), modules[&to].file.clone());
                found.entry(pair).or_insert(named.line);
            }
        }
    }
    let arrows = found.into_iter();
    arrows
        .map(|((from, to), line)| Arrow { from, to, line })
        .collect()
}

/// Names that are handed on lead from module to module; more often than this they go in circles.
const MAX_HANDS: usize = 8;

/// The module that has what `segments` name in the module at `from`; nothing for other crates.
fn target(
    modules: &Modules,
    from: &[String],
    segments: &[String],
    hands: usize,
) -> Option<Vec<String>> {
    let mut segments = segments.iter().map(String::as_str).peekable();
    let mut at = match segments.peek().copied()? {
        "crate" => Vec::new(),
        "self" | "super" => from.to_vec(),
        child if modules[from].children.contains(child) => from.to_vec(),
        _ => return None,
    };
    while let Some(word) = segments.next_if(|word| matches!(*word, "crate" | "self" | "super")) {
        if word == "super" {
            at.pop();
        }
    }
    while let Some(word) = segments.next() {
        if modules[&at].children.contains(word) {
            at.push(word.to_owned());
            continue;
        }
        let rest: Vec<String> = segments.map(str::to_owned).collect();
        let handed = modules[&at].named.iter().find_map(|named| {
            let import = named.import.as_ref()?;
            if import.alias != word || word == "*" || at == from || hands == MAX_HANDS {
                return None;
            }
            let further = [named.segments.as_slice(), rest.as_slice()].concat();
            target(modules, &at, &further, hands + 1)
        });
        return Some(handed.unwrap_or(at));
    }
    Some(at)
}

/// Files that reach each other, the largest circle first.
fn circles(arrows: &[Arrow]) -> Vec<Vec<&Path>> {
    let mut graph = DiGraph::<&Path, ()>::new();
    let mut nodes = BTreeMap::new();
    for arrow in arrows {
        let [from, to] = [arrow.from.as_path(), arrow.to.as_path()]
            .map(|file| *nodes.entry(file).or_insert_with(|| graph.add_node(file)));
        graph.add_edge(from, to, ());
    }
    let mut found: Vec<Vec<&Path>> = tarjan_scc(&graph)
        .into_iter()
        .filter(|circle| circle.len() > 1)
        .map(|circle| {
            let files: BTreeSet<&Path> = circle.into_iter().map(|node| graph[node]).collect();
            files.into_iter().collect()
        })
        .collect();
    found.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::from_texts;

    /// Files of the circles in a crate of `files`, the root's folder left out.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let arrows = arrows_of(&[from_texts(files)]);
        circles(&arrows).iter().map(|files| shown(files)).collect()
    }

    #[test]
    fn files_that_need_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "fn f() { super::c::g() }"),
            ("c.rs", "use crate::{std_only, a::{self, A}};"),
            ("d.rs", "use crate::a::A; use std::fs; use other::b::C;"),
        ];
        assert_eq!(found(&files), ["a.rs b.rs c.rs"]);
        let no_circle = [
            files[0],
            files[1],
            files[2],
            ("c.rs", "// use crate::a;"),
            files[4],
        ];
        assert!(found(&no_circle).is_empty());
    }

    #[test]
    fn the_largest_comes_first() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::A;"),
            ("c.rs", "use crate::d::D;"),
            ("d.rs", "use crate::e::E;"),
            ("e.rs", "use crate::c::C;"),
        ];
        assert_eq!(found(&files), ["c.rs d.rs e.rs", "a.rs b.rs"]);
    }

    #[test]
    fn names_that_are_handed_on_lead_to_their_file() {
        let files = [
            (
                "lib.rs",
                "mod a; mod b; pub use b::B as Known; pub use outside::Other;",
            ),
            ("a.rs", "use crate::{Known, Other}; pub struct A;"),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ];
        assert_eq!(found(&files), ["a.rs b.rs"]);
        // Handing on alone is no need.
        let root = ("lib.rs", "mod a; pub use a::A; pub const SIZE: u8 = 1;");
        assert!(found(&[root, ("a.rs", "use crate::SIZE; pub struct A;")]).is_empty());
    }

    #[test]
    fn names_in_circles_end() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "pub use super::b::X;"),
            ("b.rs", "pub use super::a::X;"),
            ("c.rs", "use super::a::X;"),
        ];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_module_is_made_of_its_children() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; use b::B; use crate::a::b::C; pub struct A;"),
            ("a/b.rs", "use super::A; use super::super::a::A as Same;"),
        ];
        assert!(found(&files).is_empty());
        // Children of it that need each other are a circle like any other.
        let children = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; mod c; use c::C;"),
            ("a/b.rs", "use super::C;"),
            ("a/c.rs", "use super::b::B;"),
        ];
        assert_eq!(found(&children), ["a/b.rs a/c.rs"]);
    }

    #[test]
    fn tests_are_no_part_of_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B;"),
            (
                "b.rs",
                "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
            ),
        ];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn limits_hold_and_only_fall() {
        let failures = |sizes: &[usize], limit| {
            let files = |size: &usize| vec![Path::new("a.rs"); *size];
            let circles: Vec<_> = sizes.iter().map(files).collect();
            let mut report = Report::default();
            compare("weft-mesh", &circles, limit, &mut report);
            report.failures().to_vec()
        };
        assert!(failures(&[3, 2], (3, 5)).is_empty());
        assert!(failures(&[], (0, 0)).is_empty());
        let larger = failures(&[4], (3, 4));
        assert_eq!(larger.len(), 1);
        assert!(
            larger[0].contains("4 files in the largest circle, at most 3"),
            "{larger:?}"
        );
        let more = failures(&[3, 2], (3, 3));
        assert!(
            more[0].contains("5 files in circles, at most 3"),
            "{more:?}"
        );
        let fewer = failures(&[], (2, 2));
        assert_eq!(fewer.len(), 2);
        assert!(fewer[0].contains("lower"), "{fewer:?}");
    }
}
