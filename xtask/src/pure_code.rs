//! Pure crates decide: the same arguments give the same result, on each run and each machine. So
//! they read no clock, draw no random numbers without a seed, start no threads, look at no
//! environment, file or socket, and go through no map whose order is that of its hashes.
//!
//! [`crate::purity`] keeps crates out that do any of this; here it is about what std offers. Tests
//! may do as they like.

use cargo_metadata::Metadata;

use crate::arrows;
use crate::hash_order;
use crate::modules::{self, Modules};
use crate::report::Report;
use crate::rust_text::tokens;

const CLOCK: &str = "a clock: take the time as an argument";
const RANDOM: &str = "random numbers without a seed: take the seed, or a generator, as an argument";
const SEEDED: &str = "hashes by a seed of the process's own: hashbrown's with a fixed seed, or a \
                      BTreeMap";
const THREAD: &str = "threads: return what is to be done, the caller has the threads";
const ENVIRONMENT: &str = "the environment: take the setting as an argument";
const IO: &str = "input and output: take the bytes, return the bytes";
const ORDER: &str = "a walk in the order of hashes: sort what comes out, take a BTreeMap, or say \
                     in ALLOWED why the order cannot be seen";

/// What is not for pure crates: a word wherever it stands, or a path, also as a part of one.
const BANNED: &[(&str, &str)] = &[
    ("Instant::now", CLOCK),
    ("std::time::Instant", CLOCK),
    ("SystemTime", CLOCK),
    ("UNIX_EPOCH", CLOCK),
    ("rand::rng", RANDOM),
    ("rand::random", RANDOM),
    ("rand::prelude", RANDOM),
    ("thread_rng", RANDOM),
    ("ThreadRng", RANDOM),
    ("OsRng", RANDOM),
    ("SysRng", RANDOM),
    ("make_rng", RANDOM),
    ("from_os_rng", RANDOM),
    ("getrandom", RANDOM),
    ("RandomState", RANDOM),
    ("std::collections::HashMap", SEEDED),
    ("std::collections::HashSet", SEEDED),
    ("std::collections::hash_map", SEEDED),
    ("std::collections::hash_set", SEEDED),
    ("std::thread", THREAD),
    ("thread_local", THREAD),
    ("std::env", ENVIRONMENT),
    ("std::fs", IO),
    ("std::process", IO),
    ("std::os", IO),
    ("std::io::stdin", IO),
    ("std::io::stdout", IO),
    ("std::io::stderr", IO),
    ("TcpStream", IO),
    ("TcpListener", IO),
    ("UdpSocket", IO),
];

/// What is there all the same: file, what, and why it does no harm. An entry that nothing needs is
/// an error.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "vxlan/src/builder.rs",
        "paths.iter",
        "into a map again, and no two keys are one",
    ),
    (
        "vxlan/src/builder.rs",
        "networks.values",
        "the largest of all, which is the same in any order",
    ),
    (
        "mesh/src/services.rs",
        "published.iter",
        "told as having no order: callers ask about all of it",
    ),
];

/// Something that a pure crate should not do.
struct Finding {
    file: String,
    line: usize,
    what: String,
    why: &'static str,
}

/// Reports what pure crates do and should not, and exceptions that nothing needs.
pub(crate) fn check(metadata: &Metadata, report: &mut Report) -> anyhow::Result<()> {
    let root = metadata.workspace_root.as_std_path();
    let mut used = vec![false; ALLOWED.len()];
    let (mut crates, mut files) = (0, 0);
    for package in metadata.workspace_packages() {
        if !arrows::is_pure(package.name.as_str()) {
            continue;
        }
        crates += 1;
        for modules in modules::of(package, root)? {
            files += modules.len();
            compare(&found(&modules), ALLOWED, &mut used, report);
        }
    }
    for ((file, what, _), _) in ALLOWED.iter().zip(&used).filter(|(_, used)| !**used) {
        report.fail(format!(
            "{file}: {what} is allowed in xtask/src/pure_code.rs but no longer there; remove the \
             entry"
        ));
    }
    report.checked(format!("pure code: {files} files of {crates} crates"));
    Ok(())
}

fn compare(
    findings: &[Finding],
    allowed: &[(&str, &str, &str)],
    used: &mut [bool],
    report: &mut Report,
) {
    for finding in findings {
        let entry = allowed
            .iter()
            .position(|(file, what, _)| *file == finding.file && *what == finding.what);
        match entry.and_then(|index| used.get_mut(index)) {
            Some(used) => *used = true,
            None => report.fail(format!(
                "{}:{}: {} is not for a pure crate: {}",
                finding.file, finding.line, finding.what, finding.why
            )),
        }
    }
}

fn found(modules: &Modules) -> Vec<Finding> {
    let mut found = Vec::new();
    for module in modules.values() {
        let file = module.file.display().to_string();
        let mut add = |line, what: &str, why| {
            found.push(Finding {
                file: file.clone(),
                line,
                what: what.to_owned(),
                why,
            });
        };
        let paths = BANNED.iter().copied();
        for (what, why) in paths.filter(|(what, _)| what.contains("::")) {
            let words: Vec<&str> = what.split("::").collect();
            for named in &module.named {
                if named
                    .segments
                    .windows(words.len())
                    .any(|part| part == words)
                {
                    add(named.line, what, why);
                }
            }
        }
        for token in tokens(&module.code) {
            if let Some((what, why)) = BANNED.iter().copied().find(|(what, _)| *what == token.text)
            {
                add(token.line, what, why);
            }
        }
    }
    for walk in hash_order::walks(modules) {
        found.push(Finding {
            file: walk.file.display().to_string(),
            line: walk.line,
            what: walk.what,
            why: ORDER,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::from_texts;

    fn lines(text: &str) -> Vec<String> {
        let shown = |finding: Finding| format!("{} {}", finding.line, finding.what);
        let modules = from_texts(&[("lib.rs", text)]);
        found(&modules).into_iter().map(shown).collect()
    }

    #[test]
    fn what_std_offers_is_found_by_whatever_name() {
        let text = "\
use std::{fs::File, thread};
use std::time::{Duration, Instant as Moment};
fn f() {
    let a = std::env::var(\"A\");
    let b = rand::rng().random::<u8>();
    let c = SystemTime::now();
    let d = clock::Instant::now();
}
";
        let mut found = lines(text);
        found.sort();
        assert_eq!(
            found,
            [
                "1 std::fs",
                "1 std::thread",
                "2 std::time::Instant",
                "4 std::env",
                "5 rand::rng",
                "6 SystemTime",
                "7 Instant::now",
            ]
        );
    }

    #[test]
    fn arguments_comments_and_tests_are_left_alone() {
        let text = "\
//! SystemTime::now() is read by the caller.
use std::time::Duration;
use weft_wire::Instant;
fn f(now: Instant, rng: &mut StdRng) -> u8 {
    rng.random()
}
#[cfg(test)]
mod tests {
    use std::thread;
}
";
        assert!(lines(text).is_empty());
    }

    #[test]
    fn exceptions_are_by_file_and_name_and_noted_as_used() {
        let modules = from_texts(&[(
            "lib.rs",
            "fn f(a: &HashMap<u8, u8>) { a.keys(); a.iter(); }",
        )]);
        let allowed = [
            ("lib.rs", "a.keys", "why"),
            ("b.rs", "a.iter", "another file"),
        ];
        let mut report = Report::default();
        let mut used = [false; 2];
        compare(&found(&modules), &allowed, &mut used, &mut report);
        assert_eq!(used, [true, false]);
        assert_eq!(report.failures().len(), 1);
        assert!(report.failures()[0].starts_with("lib.rs:1: a.iter is not"));
    }

    #[test]
    fn every_reason_is_given() {
        assert!(ALLOWED.iter().all(|(_, _, reason)| reason.len() > 10));
    }
}
