//! What only shows when all files are there: names that nothing has, circles, services without an image.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Grant, Port, Service, Stack};
use crate::near::nearest;
use crate::problem::{Findings, Position, below};

/// The network of services that name none, which need not be written.
const DEFAULT: &str = "default";

/// Tells what does not fit together.
pub(crate) fn check(stack: &Stack, findings: &mut Findings) {
    let names = stack.services.iter().map(|service| service.name.as_str());
    let names: BTreeSet<&str> = names.collect();
    for service in &stack.services {
        let path = format!("services.{}", service.name);
        if service.image.is_none() {
            let name = &service.name;
            let what = format!("invalid image reference for service {name}: no image specified");
            let mend = "write `image:`; a stack builds none";
            findings.error(&service.at, &path, what, mend);
        }
        for name in service.networks.keys() {
            if name != DEFAULT && !stack.networks.contains_key(name) {
                let known = stack.networks.keys().map(String::as_str).chain([DEFAULT]);
                let at = service.place(&below("networks", name));
                unknown("network", name, at, &path, known, findings);
            }
        }
        for mount in service
            .volumes
            .iter()
            .filter(|mount| mount.kind == "volume")
        {
            if let Some(name) = &mount.source
                && !stack.volumes.contains_key(name)
            {
                let known = stack.volumes.keys().map(String::as_str);
                unknown("volume", name, &mount.at, &path, known, findings);
            }
        }
        grants("secret", &service.secrets, &stack.secrets, &path, findings);
        grants("config", &service.configs, &stack.configs, &path, findings);
        depends_on(service, &names, &path, findings);
    }
    published(stack, findings);
    if let Some(circle) = circle(stack) {
        let first = stack
            .services
            .iter()
            .find(|service| service.name == circle[0]);
        let at = first.map(|service| service.at.clone()).unwrap_or_default();
        let path = format!("services.{}", circle[0]);
        let what = format!("depends on itself: {}", circle.join(" -> "));
        findings.error(&at, &path, what, "take one of these out of depends_on");
    }
}

fn unknown<'a>(
    what: &str,
    name: &str,
    at: &Position,
    path: &str,
    known: impl Iterator<Item = &'a str>,
    findings: &mut Findings,
) {
    let mend = match nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write it below `{what}s:` at the top of the file"),
    };
    findings.error(at, path, format!("undefined {what} {name:?}"), mend);
}

fn grants<T>(
    what: &str,
    grants: &[Grant],
    known: &BTreeMap<String, T>,
    path: &str,
    findings: &mut Findings,
) {
    for grant in grants {
        if !known.contains_key(&grant.source) {
            let known = known.keys().map(String::as_str);
            unknown(what, &grant.source, &grant.at, path, known, findings);
        }
    }
}

fn depends_on(service: &Service, names: &BTreeSet<&str>, path: &str, findings: &mut Findings) {
    for (name, dependency) in &service.depends_on {
        if !names.contains(name.as_str()) {
            let what = format!("depends on undefined service {name:?}");
            let mend = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => "take it away, or add the service".to_owned(),
            };
            findings.error(&dependency.at, path, what, mend);
        }
    }
}

/// Two services cannot have one port of all nodes, and one service cannot have a port twice. Both are
/// told, so that who mends the one does not meet the other.
fn published(stack: &Stack, findings: &mut Findings) {
    const MEND: &str = "publish another port";
    let mut owners: BTreeMap<(u16, &str), Vec<(&Service, &Port)>> = BTreeMap::new();
    for service in &stack.services {
        for (index, port) in service.ports.iter().enumerate() {
            let Some(published) = port.published else {
                continue;
            };
            let key = (published, port.protocol.as_str());
            let there = owners.entry(key).or_default();
            let path = || format!("services.{}.ports.{index}", service.name);
            let is_own = |owner: &Service| owner.name == service.name;
            let mut own = there.iter().filter(|(owner, _)| is_own(owner));
            if let Some((_, first)) = own.find(|(_, other)| meet(other, port)) {
                let what = format!(
                    "publishes port {published}/{} for the second time; the first is at {}",
                    port.protocol, first.at
                );
                findings.error(&port.at, &path(), what, MEND);
            }
            let mut others = there.iter().filter(|(owner, _)| !is_own(owner));
            if let Some((owner, _)) = others.find(|(_, other)| collide(other, port)) {
                let what = format!(
                    "publishes port {published}/{}, which service {} has",
                    port.protocol, owner.name
                );
                findings.error(&port.at, &path(), what, MEND);
            }
            there.push((service, port));
        }
    }
}

/// Whether both are on one address of a node.
fn meet(one: &Port, other: &Port) -> bool {
    !matches!((&one.host_ip, &other.host_ip), (Some(one), Some(other)) if one != other)
}

/// Whether there is a node that would have to have both. Of two that are each on the node of a task,
/// only managers know whether these meet.
fn collide(one: &Port, other: &Port) -> bool {
    meet(one, other) && (one.mode == "ingress" || other.mode == "ingress")
}

/// Names of services that wait for each other, the first one again at the end.
fn circle(stack: &Stack) -> Option<Vec<String>> {
    let arrows: BTreeMap<&str, Vec<&str>> = stack
        .services
        .iter()
        .map(|service| {
            let needs = service.depends_on.keys().map(String::as_str).collect();
            (service.name.as_str(), needs)
        })
        .collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in stack.services.iter().map(|service| service.name.as_str()) {
        // A walk in depth without recursion: names on the way, each with the next arrow to follow.
        let mut way: Vec<(&str, usize)> = vec![(start, 0)];
        let mut on_way: BTreeSet<&str> = BTreeSet::from([start]);
        while let Some(step) = way.last_mut() {
            let (name, next) = *step;
            step.1 += 1;
            let arrow = arrows.get(name).and_then(|needs| needs.get(next)).copied();
            match arrow {
                None => {
                    done.insert(name);
                    on_way.remove(name);
                    way.pop();
                }
                Some(need) if done.contains(need) => {}
                Some(need) => {
                    if !on_way.insert(need)
                        && let Some(begin) = way.iter().position(|(there, _)| *there == need)
                    {
                        let mut circle: Vec<String> = way[begin..]
                            .iter()
                            .map(|(name, _)| (*name).to_owned())
                            .collect();
                        circle.push(need.to_owned());
                        return Some(circle);
                    }
                    way.push((need, 0));
                }
            }
        }
    }
    None
}
