//! The table of parts in ARCHITECTURE.md has every crate with its folder and its ring, that of rooms
//! every folder and file of the agent.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use cargo_metadata::Metadata;

use crate::arrows;
use crate::report::Report;

const FILE: &str = "ARCHITECTURE.md";
/// How the table begins.
const HEAD: &str = "| folder | package | ring |";
/// How that of rooms does, and where they are.
const ROOMS: &str = "| room | what it does |";
const AGENT: &str = "agent/src";

/// A crate, as the table or the workspace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    package: String,
    /// Below the root of the repository.
    folder: String,
    ring: Option<u8>,
}

/// Compares the table in ARCHITECTURE.md with the workspace and its rings.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let root = metadata.workspace_root.as_std_path();
    let text = std::fs::read_to_string(root.join(FILE)).context("cannot read ARCHITECTURE.md")?;
    let members: Vec<Part> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| Part {
            package: package.name.to_string(),
            folder: folder(package.manifest_path.as_std_path(), root),
            ring: arrows::ring(package.name.as_str()),
        })
        .collect();
    compare(&table(&text), &members, report);
    compare_rooms(&rooms(&text), &entries(&root.join(AGENT))?, report);
    Ok(())
}

/// Files and folders in `folder`, as the table writes them, but the root of the crate.
fn entries(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let listed = std::fs::read_dir(folder);
    let listed = listed.with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = BTreeSet::new();
    for entry in listed {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.insert(name + "/");
        } else if name != "lib.rs" {
            found.insert(name);
        }
    }
    Ok(found)
}

/// What the first cells of the table of rooms name.
fn rooms(text: &str) -> BTreeSet<String> {
    let rows = text.lines().skip_while(|line| !line.starts_with(ROOMS));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

fn compare_rooms(rows: &BTreeSet<String>, there: &BTreeSet<String>, report: &mut Report) {
    for room in there.difference(rows) {
        report.fail(format!(
            "{FILE}: the table of rooms does not name {AGENT}/{room}"
        ));
    }
    for room in rows.difference(there) {
        report.fail(format!(
            "{FILE}: the table of rooms names {room}, which is not in {AGENT}"
        ));
    }
    report.checked(format!("rooms: {} in the table of {FILE}", rows.len()));
}

/// The folder of a manifest; that of the root package is where its code is.
fn folder(manifest: &Path, root: &Path) -> String {
    let folder = manifest.parent().and_then(|f| f.strip_prefix(root).ok());
    match folder.map(|folder| folder.display().to_string()) {
        Some(folder) if !folder.is_empty() => folder,
        _ => "src".to_owned(),
    }
}

/// Rows that name a package.
fn table(text: &str) -> Vec<Part> {
    let rows = text.lines().skip_while(|line| !line.starts_with(HEAD));
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let (folder, package, ring) = (cells.next()?, cells.next()?, cells.next()?);
            let package = package.strip_prefix('`')?.strip_suffix('`')?;
            Some(Part {
                package: package.to_owned(),
                folder: folder.trim_matches('`').trim_end_matches('/').to_owned(),
                ring: ring.split(' ').next().and_then(|word| word.parse().ok()),
            })
        })
        .collect()
}

fn compare(rows: &[Part], members: &[Part], report: &mut Report) {
    for member in members {
        let name = &member.package;
        match rows.iter().find(|row| row.package == *name) {
            None => report.fail(format!("{FILE}: the table of parts has no row of {name}")),
            Some(row) if row != member => report.fail(format!(
                "{FILE}: the table of parts has {name} in {}/ with ring {}, it is in {}/ with ring \
                 {} (RINGS in xtask/src/arrows.rs)",
                row.folder,
                shown(row.ring),
                member.folder,
                shown(member.ring)
            )),
            Some(_) => {}
        }
    }
    for row in rows {
        let rows = rows.iter().filter(|other| other.package == row.package);
        if rows.count() > 1 || !members.iter().any(|m| m.package == row.package) {
            report.fail(format!(
                "{FILE}: the table of parts has a row too many of {}",
                row.package
            ));
        }
    }
    report.checked(format!("parts: {} rows of {FILE}", rows.len()));
}

fn shown(ring: Option<u8>) -> String {
    ring.map_or_else(|| "none".to_owned(), |ring| ring.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Parts

| folder | package | ring | what lives there |
|---|---|---|---|
| `wire/` | `weft-wire` | 0 pure | bytes |
| `fuzz/` | | | a workspace of its own |
| `src/` | `weft` | 4 | two programs |

| folder | package | ring | another table |
| `x/` | `weft-x` | 1 |
";

    fn part(package: &str, folder: &str, ring: u8) -> Part {
        Part {
            package: package.to_owned(),
            folder: folder.to_owned(),
            ring: Some(ring),
        }
    }

    fn failures(members: &[Part]) -> Vec<String> {
        let mut report = Report::default();
        compare(&table(TEXT), members, &mut report);
        report.failures().to_vec()
    }

    #[test]
    fn rows_that_name_a_package_are_read() {
        assert_eq!(
            table(TEXT),
            [part("weft-wire", "wire", 0), part("weft", "src", 4)]
        );
    }

    #[test]
    fn rows_are_those_of_the_workspace() {
        let (wire, root) = (part("weft-wire", "wire", 0), part("weft", "src", 4));
        assert!(failures(&[wire.clone(), root.clone()]).is_empty());
        for (members, word) in [
            (
                vec![wire.clone(), root.clone(), part("weft-dns", "dns", 1)],
                "no row of weft-dns",
            ),
            (vec![part("weft-wire", "wire", 1), root.clone()], "ring 0"),
            (vec![part("weft-wire", "bytes", 0), root], "bytes/"),
            (vec![wire], "too many of weft"),
        ] {
            let found = failures(&members);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(word), "{found:?}");
        }
    }

    #[test]
    fn rooms_are_those_of_the_agent() {
        let text = "| room | what it does | main types |\n|---|---|---|\n\
             | `daemon.rs`, `node/` | one `weftd` | `Node` |\n| `gone/` | nothing | |\n\n| `x/` |\n";
        let dir = tempfile::tempdir().unwrap();
        for folder in ["node", "new"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in ["lib.rs", "daemon.rs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let mut report = Report::default();
        compare_rooms(&rooms(text), &entries(dir.path()).unwrap(), &mut report);
        let found = report.failures();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("does not name agent/src/new/"));
        assert!(found[1].contains("names gone/"));
    }

    #[test]
    fn folders_are_below_the_root() {
        let root = Path::new("/repo");
        assert_eq!(folder(Path::new("/repo/wire/Cargo.toml"), root), "wire");
        assert_eq!(folder(Path::new("/repo/Cargo.toml"), root), "src");
    }
}
