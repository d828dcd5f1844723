//! What the texts point at is there: links between pages and to their headings, and files that are
//! named by a path.
//!
//! A file is named by as much of its path as tells it from others, `src` may be left out:
//! `mesh/claims.rs` is `mesh/src/claims.rs`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use crate::report::Report;
use crate::sources;

/// Endings of names that are taken for files of the repository.
const ENDINGS: &[&str] = &["rs", "md"];

/// Reports links and names of files that lead nowhere.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut files = Vec::new();
    let mut pages = BTreeMap::new();
    for path in sources::files(root, ENDINGS)? {
        let file = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        if file.extension().is_some_and(|ending| ending == "md") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            pages.insert(file.clone(), prose(&text));
        }
        files.push(file);
    }
    let mut count = 0;
    for page in pages.keys() {
        count += check_page(
            page,
            &pages,
            &files,
            |path| root.join(path).exists(),
            report,
        );
    }
    report.checked(format!(
        "texts: {count} links and names of files on {} pages",
        pages.len()
    ));
    Ok(())
}

/// Returns how much was looked at.
fn check_page(
    page: &Path,
    pages: &BTreeMap<PathBuf, String>,
    files: &[PathBuf],
    exists: impl Fn(&Path) -> bool,
    report: &mut Report,
) -> usize {
    let mut count = 0;
    let text = pages.get(page).map_or("", String::as_str);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", page.display(), number + 1);
        let (words, rest) = spans(line);
        for word in words.into_iter().filter(|word| is_file(word)) {
            count += 1;
            if !files.iter().any(|file| is_named(file, word)) {
                report.fail(format!(
                    "{place}: there is no file {word}; name it as it is called now"
                ));
            }
        }
        for target in links(&rest) {
            count += 1;
            if !leads(page, target, pages, &exists) {
                report.fail(format!("{place}: the link {target} leads nowhere"));
            }
        }
    }
    count
}

/// `text` without blocks of code; lines stay lines.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_block = false;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        if !fence && !in_block {
            out.push_str(line);
        }
        in_block ^= fence;
        out.push('\n');
    }
    out
}

/// What stands between backticks, and the line without it.
fn spans(line: &str) -> (Vec<&str>, String) {
    let mut words = Vec::new();
    let mut rest = String::with_capacity(line.len());
    for (at, piece) in line.split('`').enumerate() {
        if at.is_multiple_of(2) {
            rest.push_str(piece);
        } else {
            words.push(piece);
        }
    }
    (words, rest)
}

/// True for a name such as `wire/src/frame.rs`: no pattern, no place holder, nothing outside.
fn is_file(word: &str) -> bool {
    let Some((name, ending)) = word.rsplit_once('.') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
    let page = |c: char| c.is_ascii_uppercase() && ending == "md";
    ENDINGS.contains(&ending)
        && !name.is_empty()
        && !name.starts_with(['/', '.'])
        && name.chars().all(|c| plain(c) || page(c))
}

fn is_named(file: &Path, word: &str) -> bool {
    let parts = |path: &Path| -> Vec<String> {
        let names = path.components().map(Component::as_os_str);
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name != "src").collect()
    };
    file.ends_with(word) || parts(file).ends_with(&parts(Path::new(word)))
}

/// Targets of links in a line without code.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1);
    targets.filter_map(|after| after.split_once(')').map(|(target, _)| target))
}

fn leads(
    page: &Path,
    target: &str,
    pages: &BTreeMap<PathBuf, String>,
    exists: impl Fn(&Path) -> bool,
) -> bool {
    if target.contains("://") {
        return true;
    }
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (target, None),
    };
    let to = if path.is_empty() {
        page.to_path_buf()
    } else {
        resolved(page, path)
    };
    match heading {
        None => exists(&to),
        Some(heading) => pages.get(&to).is_some_and(|text| {
            let headings = text.lines().filter(|line| line.starts_with('#'));
            headings.map(anchor).any(|anchor| anchor == heading)
        }),
    }
}

/// A path below the root, for one that is relative to a page.
fn resolved(page: &Path, path: &str) -> PathBuf {
    let mut to = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                to.pop();
            }
            Component::CurDir => {}
            other => to.push(other),
        }
    }
    to
}

/// The name under which a heading is linked to, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(page: &str, text: &str) -> Vec<String> {
        let pages: BTreeMap<PathBuf, String> = [
            (page, text),
            ("docs/other.md", "# Other\n\n## What `it` is\n"),
        ]
        .map(|(path, text)| (PathBuf::from(path), prose(text)))
        .into();
        let files = ["mesh/src/claims.rs", "src/main.rs", "docs/other.md"].map(PathBuf::from);
        let mut report = Report::default();
        let exists = |path: &Path| path == Path::new("docs/other.md");
        check_page(Path::new(page), &pages, &files, exists, &mut report);
        report.failures().to_vec()
    }

    #[test]
    fn what_is_there_is_found() {
        for text in [
            "`mesh/src/claims.rs`, `mesh/claims.rs` and `claims.rs`",
            "`src/main.rs`, `other.md`, `docs/other.md`",
            "[it](docs/other.md), [`it`](docs/other.md#what-it-is), [web](https://a.example/b)",
            "# A page\n\n[above](#a-page)",
            "```\n`gone.rs` [gone](gone.md)\n```",
            "`targets/NAME.rs`, `/etc/a.rs`, `*.rs`, `.rs`, `a b.rs`, `libc::x`",
        ] {
            let found = failures("README.md", text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
        assert!(failures("docs/a.md", "[it](other.md) [up](../docs/other.md)").is_empty());
    }

    #[test]
    fn what_is_gone_is_reported_with_its_line() {
        for (text, word) in [
            ("a\n\n`mesh/gone.rs`", "README.md:3: there is no file"),
            ("`esh/claims.rs`", "README.md:1: there is no file"),
            ("`GONE.md`", "no file GONE.md"),
            ("[it](docs/gone.md)", "the link docs/gone.md"),
            ("[it](docs/other.md#gone)", "#gone leads nowhere"),
            ("```\n# A page\n```\n[above](#a-page)", "README.md:4"),
        ] {
            let found = failures("README.md", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(word), "{text}: {found:?}");
        }
    }
}
