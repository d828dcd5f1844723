//! `env_file` and `environment` of a service.

use std::collections::BTreeMap;

use super::place::Place;
use crate::problem::Findings;
use crate::surroundings::Surroundings;
use crate::tree::Node;

/// Largest env file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// The variables: those of files, the later one first asked, then the service's own. What has no value,
/// or an empty one, takes that of where weft is called; where there is none either, the name stays alone.
pub(super) fn environment(
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    for file in files(place) {
        all.extend(of_file(&file, surroundings, findings));
    }
    for (name, value) in place.pairs("environment") {
        if name.is_empty() {
            if let Some(place) = place.get("environment") {
                let what = "has a variable without a name";
                findings.error(place.at(), &place.path, what, "write NAME=VALUE");
            }
            continue;
        }
        let value = match value {
            Some(value) if !value.is_empty() => Some(value),
            value => (surroundings.variable)(&name).or(value),
        };
        all.insert(name, value);
    }
    all
}

/// An env file, and whether it has to be there.
struct EnvFile<'a> {
    place: Place<'a>,
    path: &'a str,
    required: bool,
}

fn files<'a>(place: &Place<'a>) -> Vec<EnvFile<'a>> {
    let Some(place) = place.get("env_file") else {
        return Vec::new();
    };
    let places = if place.is_list() {
        place.items().collect()
    } else {
        vec![place]
    };
    let mut files = Vec::new();
    for place in places {
        let node: &'a Node = place.node;
        let text = node
            .text()
            .or_else(|| node.get("path").and_then(Node::text));
        if let Some(path) = text {
            let required = place.flag("required").unwrap_or(true);
            files.push(EnvFile {
                place,
                path,
                required,
            });
        }
    }
    files
}

fn of_file(
    file: &EnvFile<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, Option<String>> {
    let path = surroundings.absolute(file.path);
    let place = &file.place;
    let text = match (surroundings.file)(&path) {
        Ok(text) if text.len() <= MAX_FILE => text,
        Ok(text) => {
            let what = format!("names {path}, which has {} bytes", text.len());
            let mend = format!("an env file may have {MAX_FILE} bytes");
            findings.error(place.at(), &place.path, what, mend);
            return BTreeMap::new();
        }
        Err(_) if !file.required => return BTreeMap::new(),
        Err(error) => {
            let what = format!("names {path}, which cannot be read: {error}");
            findings.error(
                place.at(),
                &place.path,
                what,
                "make the file, or take the line away",
            );
            return BTreeMap::new();
        }
    };
    let mut variables = BTreeMap::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            // What stands there may be a secret.
            let what = format!("names {path}, of which line {number} has no name of a variable");
            findings.error(place.at(), &place.path, what, "write NAME=VALUE");
            continue;
        }
        // As docker does: an empty value is filled, and without a value anywhere it is left out.
        let written = value.as_ref().filter(|value| !value.is_empty()).cloned();
        let filled = written.or_else(|| (surroundings.variable)(name));
        if let Some(value) = filled.or(value) {
            variables.insert(name.to_owned(), Some(value));
        }
    }
    variables
}
