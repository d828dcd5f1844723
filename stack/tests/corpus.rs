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
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Cases that one takes and the other does not, and why that is meant.
const TAKEN_BY_ONE: [(&str, &str); 22] = [
    ("addresses", "addresses of replicas are chosen"),
    ("content", "configs.X.content is used"),
    ("depends-circle", "a circle starts nothing"),
    ("depends-map", "the map form is used"),
    ("empty-values", "an empty section says nothing"),
    ("env-optional", "env_file with required is used"),
    ("everything", "dns_opt is used"),
    ("extensions", "x- may stand anywhere"),
    ("global-replicas", "told by docker when it is deployed"),
    ("host-ports", "numbers in quotes are numbers"),
    ("jobs", "the map form of depends_on is used"),
    ("mistyped", "told by docker when it is deployed"),
    ("numeric-cpus", "numbers without quotes are numbers"),
    ("restart-wrong", "told by docker when it is deployed"),
    ("same-port", "told by docker when it is deployed"),
    ("second-document", "a second document would be dropped"),
    ("self-circle", "a circle starts nothing"),
    ("three-circle", "a circle starts nothing"),
    ("top-name", "a name at the top is read"),
    ("undefined", "told by docker when it is deployed"),
    ("volumes-options", "sizes have units"),
    ("windows", "nodes run Linux"),
];
/// Cases that both take, which come to something else, and why that is meant.
const OTHERWISE: [(&str, &str); 6] = [
    ("binds", "create_host_path is carried out"),
    ("elk", "an empty value of a later file counts"),
    ("interpolation", "defaults may hold variables"),
    ("kong", "the address of a port is used"),
    ("override", "ports stay in the order of the files"),
    ("ports", "the address of a port is used"),
];

/// What the docker of this machine prints for a case; nothing where it refuses it.
fn by_docker(parts: &[(String, String)]) -> Option<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("docker");
    command.args(["stack", "config"]).current_dir(dir.path());
    command.env_clear().env("HOME", "/root");
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut input = "";
    for (name, text) in parts {
        match name.as_str() {
            "-" => input = text,
            "env" => {
                command.envs(text.lines().filter_map(|line| line.split_once('=')));
            }
            // Env files are asked for by paths that begin at the folder of the stack.
            name if name.ends_with(".yml") || name.starts_with('/') => {
                let below = name.strip_prefix("/srv/").unwrap_or(name);
                let path = dir.path().join(below.trim_start_matches('/'));
                let folder = path.parent().expect("it is in the folder");
                std::fs::create_dir_all(folder).expect("a folder");
                std::fs::write(path, text).expect("a file");
            }
            _ => {}
        }
        if name.ends_with(".yml") || name == "-" {
            command.args(["-c", name]);
        }
    }
    let mut docker = command.stderr(Stdio::null()).spawn().expect(
        "`docker stack config` is compared with: install docker's command line, version 23 or later",
    );
    let mut stdin = docker.stdin.take().expect("it was asked for");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let said = docker.wait_with_output().expect("it ends");
    let text = String::from_utf8(said.stdout).expect("text");
    // Paths are the same as if the folder were the one of the cases.
    let folder = dir.path().display().to_string();
    said.status.success().then(|| text.replace(&folder, "/srv"))
}

#[test]
#[ignore = "second tier: it asks docker's own command line, version 23 or later"]
fn docker_reads_the_same() {
    let mut found = (Vec::new(), Vec::new());
    for case in cases() {
        let name = case.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(&case).expect("a case");
        let parts = parts(&text);
        let own = parts.iter().find(|(there, _)| there == "out");
        let theirs = by_docker(&parts);
        let (Some((_, own)), Some(theirs)) = (own, &theirs) else {
            if own.is_some() != theirs.is_some() {
                found.0.push(name.into_owned());
            }
            continue;
        };
        let source = [Source {
            name: "docker.yml",
            text: theirs,
        }];
        let read = read(&parts, &source, Interpolation::Skipped);
        let read = read.unwrap_or_else(|problems| panic!("{name}: {problems}"));
        if render(&read.stack) != *own {
            found.1.push(name.into_owned());
        }
    }
    let names = |meant: &[(&str, &str)]| -> Vec<String> {
        meant.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    assert_eq!(found, (names(&TAKEN_BY_ONE), names(&OTHERWISE)));
}
