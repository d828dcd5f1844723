//! Pure crates pull in no I/O crate, and the packet path no async runtime.
//!
//! The question is what a crate asks for *by itself*. `cargo metadata` resolves features for the
//! whole workspace at once (the agent's `rand` would make every crate's `rand` read the system's
//! entropy), so the closure comes from `cargo tree -p CRATE -e normal`, which resolves one crate.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::arrows;
use crate::report::Report;

/// Crates that do I/O, read a clock or entropy, or run async code. A `*` ends a prefix.
const IO_CRATES: &[&str] = &[
    "tokio*",
    "mio",
    "rustix",
    "libc",
    "nix",
    "socket2",
    "netlink-*",
    "rtnetlink",
    "aws-lc-*",
    "ring",
    "rustls",
    "getrandom",
    "hyper*",
    "h2",
    "axum*",
    "tonic*",
    "async-*",
    "smol",
    "polling",
    "redb",
    "openraft*",
    "tempfile",
    "crossbeam-channel",
];

/// Async runtimes and what they stand on.
const ASYNC_CRATES: &[&str] = &[
    "tokio*",
    "mio",
    "async-*",
    "smol",
    "polling",
    "futures-executor",
];

/// What may not be in the normal closure of a crate of `ring`.
fn banned(ring: u8) -> &'static [&'static str] {
    match ring {
        0 | 1 => IO_CRATES,
        2 => ASYNC_CRATES,
        _ => &[],
    }
}

/// Crates that come along unused, each with the reason why that is harmless. An entry that is no
/// longer needed is an error.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "weft-dns",
        "getrandom",
        "hickory-proto's `std` feature turns on rand's; only `Message::query` and \
         `Name::randomize_label_case` draw, and weft-dns calls neither: ids are arguments",
    ),
    (
        "weft-dns",
        "libc",
        "getrandom's way to the kernel, see there",
    ),
];

/// Reports every banned crate in the closure of a crate, with the way that it came in.
pub(crate) fn check(root: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut used = vec![false; ALLOWED.len()];
    for (member, ring) in arrows::rings() {
        let banned = banned(ring);
        if banned.is_empty() {
            continue;
        }
        let words = [
            "-e", "normal", "--prefix", "depth", "--format", " {p}", "-p", member,
        ];
        let tree = cargo_tree(root, &words)?;
        let count = check_tree(member, &tree, banned, ALLOWED, &mut used, report);
        report.checked(format!("purity: {member} pulls in {count} crates"));
    }
    for ((member, krate, _), _) in ALLOWED.iter().zip(&used).filter(|(_, used)| !**used) {
        report.fail(format!(
            "{member}: {krate} is allowed in xtask/src/purity.rs but no longer pulled in; remove \
             the entry"
        ));
    }
    Ok(())
}

/// What `cargo tree` prints, given those words.
pub(crate) fn cargo_tree(root: &Path, words: &[&str]) -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked"])
        .args(words)
        .current_dir(root)
        .output()
        .context("cannot run cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("cargo tree printed something that is no text")
}

/// Checks one tree as `cargo tree --prefix depth` prints it; returns how many crates it holds.
fn check_tree(
    member: &str,
    tree: &str,
    banned: &[&str],
    allowed: &[(&str, &str, &str)],
    used: &mut [bool],
    report: &mut Report,
) -> usize {
    let mut way: Vec<&str> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(depth) = depth.parse::<usize>() else {
            report.fail(format!("cargo tree printed {line:?}, which has no depth"));
            return seen.len();
        };
        way.truncate(depth);
        way.push(name);
        if depth == 0 || seen.contains(&name) {
            continue;
        }
        seen.push(name);
        if !banned.iter().any(|pattern| matches(pattern, name)) {
            continue;
        }
        let entry = allowed
            .iter()
            .position(|(who, what, _)| *who == member && *what == name);
        match entry.and_then(|index| used.get_mut(index)) {
            Some(used) => *used = true,
            None => report.fail(format!(
                "{member} pulls in {name} ({}): take the value as an argument instead, or turn \
                 the feature off that asks for it",
                way.join(" -> ")
            )),
        }
    }
    seen.len()
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0 weft-dns v0.1.0 (/src/dns)
1 hickory-proto v0.26.3
2 rand v0.10.4
3 getrandom v0.4.3
4 libc v0.2.191
1 thiserror v2.0.21
2 thiserror-impl v2.0.21 (proc-macro)
1 rand v0.10.4 (*)
";

    fn run(allowed: &[(&str, &str, &str)], banned: &[&str]) -> (usize, Vec<String>, Vec<bool>) {
        let mut report = Report::default();
        let mut used = vec![false; allowed.len()];
        let count = check_tree("weft-dns", TREE, banned, allowed, &mut used, &mut report);
        (count, report.failures().to_vec(), used)
    }

    #[test]
    fn a_banned_crate_is_reported_with_its_way_in() {
        let (count, failures, _) = run(&[], &["libc", "tokio*"]);
        assert_eq!(count, 6);
        assert_eq!(failures.len(), 1);
        assert!(
            failures[0].contains("weft-dns -> hickory-proto -> rand -> getrandom -> libc"),
            "{failures:?}"
        );
    }

    #[test]
    fn an_allowed_crate_is_noted_as_used() {
        let allowed = [
            ("weft-dns", "libc", "why"),
            ("weft-mesh", "getrandom", "another crate's"),
        ];
        let (_, failures, used) = run(&allowed, &["libc", "getrandom"]);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].contains("getrandom"));
        assert_eq!(used, [true, false]);
    }

    #[test]
    fn prefixes_match_families() {
        assert!(matches("tokio*", "tokio-util"));
        assert!(matches("netlink-*", "netlink-sys"));
        assert!(!matches("ring", "string"));
        assert!(!matches("mio", "mio2"));
    }

    #[test]
    fn every_reason_is_given() {
        assert!(ALLOWED.iter().all(|(_, _, reason)| reason.len() > 10));
    }
}
