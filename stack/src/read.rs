//! A checked tree to a [`Stack`]: short forms are written out, paths made absolute, env files read.

mod deploy;
mod environment;
mod mounts;
mod place;
mod ports;
mod service;
mod top;

use place::Place;

use crate::model::Stack;
use crate::problem::Findings;
use crate::surroundings::Surroundings;
use crate::tree::{Meaning, Node};

/// Version of a file that says none, and of `3`.
const VERSION: &str = "3.13";
/// The newest `3.N`.
const NEWEST: u32 = 13;

/// Reads a file. What is wrong is in the findings.
pub(crate) fn read(file: &Node, surroundings: &Surroundings<'_>, findings: &mut Findings) -> Stack {
    let root = Place {
        node: file,
        path: String::new(),
    };
    if let Some(place) = root.get("name") {
        let what = "names nothing: the stack has the name that the command line says";
        findings.warn(place.at(), &place.path, what, "docker refuses the key");
    }
    let mut stack = Stack {
        version: version(&root, findings),
        name: root.text("name"),
        ..Stack::default()
    };
    for (entry, place) in root.get("services").iter().flat_map(Place::entries) {
        stack
            .services
            .push(service::service(entry, &place, surroundings, findings));
    }
    top::read(&root, &mut stack, surroundings, findings);
    stack
}

/// `3`, or `3.0` to `3.13`; a file of another format means other things by the same keys.
fn version(root: &Place<'_>, findings: &mut Findings) -> String {
    let Some(place) = root.get("version") else {
        return VERSION.to_owned();
    };
    let scalar = place.node.scalar();
    let text = scalar.map_or("", |scalar| scalar.text.as_str());
    if scalar.is_some_and(|scalar| scalar.meaning() != Meaning::Text) {
        let what = format!("is taken as {text:?}; docker refuses a version that is no string");
        findings.warn(place.at(), &place.path, what, "put it in quotes");
    }
    let minor = text
        .strip_prefix("3.")
        .and_then(|minor| minor.parse::<u32>().ok());
    match (text, minor) {
        ("" | "3", _) => VERSION.to_owned(),
        (_, Some(minor)) if minor <= NEWEST => text.to_owned(),
        _ => {
            let what = format!("unsupported Compose file version: {text}");
            let mend = "take the line away, or write \"3.9\"; keys of version 2 such as mem_limit \
                        are below deploy";
            findings.error(place.at(), &place.path, what, mend);
            VERSION.to_owned()
        }
    }
}
