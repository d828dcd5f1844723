//! Networks, volumes, secrets and configs.

use super::place::Place;
use crate::model::{Config, External, Ipam, Network, Pool, Secret, Stack, Volume};
use crate::problem::Findings;
use crate::surroundings::Surroundings;
use crate::tree::Entry;

pub(super) fn read(
    root: &Place<'_>,
    stack: &mut Stack,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) {
    for (entry, place) in root.get("networks").iter().flat_map(Place::entries) {
        let network = network(entry, &place, findings);
        stack.networks.insert(entry.key.clone(), network);
    }
    for (entry, place) in root.get("volumes").iter().flat_map(Place::entries) {
        let volume = volume(entry, &place, findings);
        stack.volumes.insert(entry.key.clone(), volume);
    }
    for (entry, place) in root.get("secrets").iter().flat_map(Place::entries) {
        let secret = secret(entry, &place, surroundings, findings);
        stack.secrets.insert(entry.key.clone(), secret);
    }
    for (entry, place) in root.get("configs").iter().flat_map(Place::entries) {
        let config = config(entry, &place, surroundings, findings);
        stack.configs.insert(entry.key.clone(), config);
    }
}

/// Whether a thing is there already, and its name. `external: {name: X}` is `external` and `name`.
fn external(
    entry: &Entry,
    place: &Place<'_>,
    findings: &mut Findings,
) -> (External, Option<String>) {
    let name = place.text("name");
    let Some(inner) = place.get("external") else {
        return (External::No, name);
    };
    match inner.node.flag() {
        Some(false) => (External::No, name),
        Some(true) => (External::Yes, name.or_else(|| Some(entry.key.clone()))),
        None => {
            let of_form = inner.text("name");
            if of_form.is_some() && name.is_some() {
                let what = "external.name and name conflict";
                findings.error(
                    inner.at(),
                    &place.path,
                    what,
                    "write `external: true` and name",
                );
            } else if of_form.is_some() {
                let what = "external.name is deprecated";
                findings.warn(
                    inner.at(),
                    &place.path,
                    what,
                    "write `external: true` and name",
                );
            }
            let name = name.or(of_form).unwrap_or_else(|| entry.key.clone());
            (External::Yes, Some(name))
        }
    }
}

/// What is there already has no options of ours.
fn alone(place: &Place<'_>, external: External, findings: &mut Findings) {
    if external == External::No {
        return;
    }
    for (entry, inner) in place.entries() {
        let key = entry.key.as_str();
        if !matches!(key, "external" | "name") && !entry.value.is_null() {
            let what = format!("conflicting parameters \"external\" and {key:?} specified");
            findings.error(&entry.at, &inner.path, what, "take one of them away");
        }
    }
}

fn network(entry: &Entry, place: &Place<'_>, findings: &mut Findings) -> Network {
    let (external, name) = external(entry, place, findings);
    alone(place, external, findings);
    Network {
        at: entry.at.clone(),
        name,
        driver: place.text("driver"),
        driver_opts: place.labels("driver_opts"),
        ipam: place.get("ipam").map(|place| Ipam {
            driver: place.text("driver"),
            config: place
                .get("config")
                .iter()
                .flat_map(Place::items)
                .map(|place| Pool {
                    subnet: place.text("subnet"),
                })
                .collect(),
        }),
        external,
        internal: place.flag("internal").unwrap_or_default(),
        attachable: place.flag("attachable").unwrap_or_default(),
        enable_ipv6: place.flag("enable_ipv6").unwrap_or_default(),
        labels: place.labels("labels"),
    }
}

fn volume(entry: &Entry, place: &Place<'_>, findings: &mut Findings) -> Volume {
    let (external, name) = external(entry, place, findings);
    alone(place, external, findings);
    Volume {
        at: entry.at.clone(),
        name,
        driver: place.text("driver"),
        driver_opts: place.labels("driver_opts"),
        external,
        labels: place.labels("labels"),
    }
}

/// Exactly one place has what a secret or a config holds.
fn one_origin(
    entry: &Entry,
    place: &Place<'_>,
    external: External,
    origins: &[&str],
    findings: &mut Findings,
) {
    if external == External::Yes {
        return;
    }
    let given: Vec<&str> = origins
        .iter()
        .copied()
        .filter(|key| place.get(key).is_some())
        .collect();
    let mend = format!("write one of {}, or `external: true`", origins.join(", "));
    match given[..] {
        [_] => {}
        [] => findings.error(&entry.at, &place.path, "does not say what it holds", mend),
        _ => {
            let what = format!("says what it holds more than once: {}", given.join(", "));
            findings.error(&entry.at, &place.path, what, mend);
        }
    }
}

fn secret(
    entry: &Entry,
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Secret {
    let (external, name) = external(entry, place, findings);
    alone(place, external, findings);
    one_origin(
        entry,
        place,
        external,
        &["file", "environment", "driver"],
        findings,
    );
    Secret {
        at: entry.at.clone(),
        name,
        file: place.text("file").map(|path| surroundings.absolute(&path)),
        environment: place.text("environment"),
        external,
        labels: place.labels("labels"),
        driver: place.text("driver"),
        driver_opts: place.labels("driver_opts"),
        template_driver: place.text("template_driver"),
    }
}

fn config(
    entry: &Entry,
    place: &Place<'_>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Config {
    let (external, name) = external(entry, place, findings);
    alone(place, external, findings);
    one_origin(
        entry,
        place,
        external,
        &["file", "content", "environment"],
        findings,
    );
    Config {
        at: entry.at.clone(),
        name,
        file: place.text("file").map(|path| surroundings.absolute(&path)),
        content: place.text("content"),
        environment: place.text("environment"),
        external,
        labels: place.labels("labels"),
        template_driver: place.text("template_driver"),
    }
}
