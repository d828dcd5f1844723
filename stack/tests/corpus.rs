//! Files as people write them, each with what it comes to: `tests/corpus/NAME.case`.
//!
//! A case is in parts, each behind a line `=== NAME`: files of the stack (`*.yml` or `-`, in order), `env`
//! (lines NAME=VALUE), env files by their absolute path, and `out`, the stack as it is written, or `errors`,
//! all of them, a line each. Of `warnings` each line is a part of one. What is read is planned for a swarm
//! under the name `shop`: `refused` is what weft cannot carry out of it.
//!
//! With WEFT_BLESS=1 in the environment, `out`, `errors` and `refused` become what they are: read the
//! difference before you keep it.

#![allow(clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weft_stack::{Interpolation, Loaded, Problems, Source, Surroundings, deployment, load, render};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    cases.sort();
    cases
}

fn parts(text: &str) -> Vec<(String, String)> {
    let mut parts: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("=== "), parts.last_mut()) {
            (Some(name), _) => parts.push((name.to_owned(), String::new())),
            (None, Some((_, part))) => {
                part.push_str(line);
                part.push('\n');
            }
            (None, None) => panic!("{line:?} is in no part"),
        }
    }
    parts
}

fn read(
    parts: &[(String, String)],
    sources: &[Source<'_>],
    interpolation: Interpolation,
) -> Result<Loaded, Problems> {
    let part = |name: &str| {
        parts
            .iter()
            .find(|(there, _)| there == name)
            .map(|(_, text)| text.as_str())
    };
    let variables: BTreeMap<&str, &str> = part("env")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let surroundings = Surroundings {
        variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
        file: &|path| {
            part(path)
                .map(str::to_owned)
                .ok_or("no such file".to_owned())
        },
        folder: "/srv",
        home: Some("/root"),
        interpolation,
    };
    load(sources, &surroundings)
}

/// What a case comes to: parts by their names.
fn results(parts: &[(String, String)], sources: &[Source<'_>]) -> Vec<(&'static str, String)> {
    let loaded = match read(parts, sources, Interpolation::Done) {
        Ok(loaded) => loaded,
        Err(problems) => return vec![("errors", format!("{problems}\n"))],
    };
    let mut results = vec![("out", render(&loaded.stack))];
    if let Err(problems) = deployment(&loaded.stack, "shop") {
        results.push(("refused", format!("{problems}\n")));
    }
    results
}

/// Writes a case with its results in place of those that it has.
fn bless(path: &Path, parts: &[(String, String)], results: &[(&'static str, String)]) {
    let of_results = ["out", "errors", "refused"];
    let kept = parts
        .iter()
        .filter(|(name, _)| !of_results.contains(&name.as_str()) && name != "warnings");
    let warnings = parts.iter().filter(|(name, _)| name == "warnings");
    let results = results.iter().map(|(name, text)| (*name, text.as_str()));
    let kept = kept.map(|(name, text)| (name.as_str(), text.as_str()));
    let warnings = warnings.map(|(name, text)| (name.as_str(), text.as_str()));
    let mut written = String::new();
    for (name, text) in kept.chain(results).chain(warnings) {
        written.push_str(&format!("=== {name}\n{text}"));
    }
    std::fs::write(path, written).expect("a case is written");
}

fn check(path: &Path) {
    let name = path.display();
    let text = std::fs::read_to_string(path).expect("a case");
    let parts = parts(&text);
    let part = |name: &str| {
        parts
            .iter()
            .find(|(there, _)| there == name)
            .map(|(_, text)| text.as_str())
    };
    let sources: Vec<Source<'_>> = parts
        .iter()
        .filter(|(name, _)| name.ends_with(".yml") || name == "-")
        .map(|(name, text)| Source { name, text })
        .collect();
    assert!(!sources.is_empty(), "{name}");
    let results = results(&parts, &sources);
    if std::env::var_os("WEFT_BLESS").is_some() {
        bless(path, &parts, &results);
    } else {
        for word in ["out", "errors", "refused"] {
            let result = results.iter().find(|(there, _)| *there == word);
            let result = result.map(|(_, text)| text.as_str());
            assert_eq!(result, part(word), "{name}: {word}");
        }
    }
    let Some((_, written)) = results.iter().find(|(word, _)| *word == "out") else {
        return;
    };
    let loaded = read(&parts, &sources, Interpolation::Done).expect("it was read before");
    for line in part("warnings").unwrap_or_default().lines() {
        let is_told = loaded.warnings.iter().any(|warning| warning.contains(line));
        assert!(is_told, "{name}: {line}: {:?}", loaded.warnings);
    }
    // What is written can be read, and is the same stack.
    let again = [Source {
        name: "again.yml",
        text: written,
    }];
    let again = read(&[], &again, Interpolation::Skipped);
    let again = again.unwrap_or_else(|problems| panic!("{name}: {problems}"));
    assert_eq!(render(&again.stack), *written, "{name}");
}

#[test]
fn files_come_to_what_they_say() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in cases {
        check(&case);
    }
}

#[test]
fn the_order_of_keys_changes_nothing() {
    let one = "services: {a: {image: x, dns: [1.1.1.1], tty: true}, b: {image: y}}\nnetworks: {n: {}, m: {}}\n";
    let other = "networks: {m: {}, n: {}}\nservices: {b: {image: y}, a: {tty: true, dns: [1.1.1.1], image: x}}\n";
    let written = |text: &str| {
        let source = [Source {
            name: "a.yml",
            text,
        }];
        let loaded = read(&[], &source, Interpolation::Done).expect("a stack");
        render(&loaded.stack)
    };
    assert_eq!(written(one), written(other));
}
