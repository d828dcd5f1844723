//! A stack to what the swarm is asked for: networks, secrets, configs and services by their final
//! names, as docker/cli's `cli/compose/convert` makes them of a file.
//!
//! What weft cannot carry out is refused here, by the place where it is written. Managers check again
//! what they are asked for (`cluster/src/commands`), so a rule that only they know is a late error and
//! no hole.

mod container;
mod mounts;
mod networks;
mod payloads;
mod policy;
mod ports;
mod service;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use weft_model::names;
use weft_model::objects::{NetworkSpec, PayloadSpec, PortSpec, STACK_LABEL, ServiceSpec};

use crate::model::{Service, Stack};
use crate::problem::{Findings, Position, Problems, below, problem};

/// What a stack of a name asks the swarm for.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The name of the stack.
    pub name: String,
    /// Those that services use, by the names of the file.
    pub networks: Vec<StackNetwork>,
    /// Those of the file, and those that are there already and are used.
    pub secrets: Vec<StackPayload>,
    /// Likewise.
    pub configs: Vec<StackPayload>,
    /// In the order of the file, but each behind those that it depends on.
    pub services: Vec<StackService>,
    /// What services publish, but for ports that managers choose.
    pub ports: Vec<StackPort>,
    /// What people are to be told though nothing is wrong.
    pub warnings: Vec<String>,
}

/// A network of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct StackNetwork {
    /// Its name in the file.
    pub key: String,
    /// As it is to be, by its final name. Of one that is external the name alone says something.
    pub spec: NetworkSpec,
    /// It has to be there already.
    pub external: bool,
}

/// Where the bytes of a secret or a config come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The swarm has them already, by the final name.
    External,
    /// A file, by its absolute path.
    File(String),
    /// The file of the stack.
    Content(String),
    /// A variable of the environment of whoever deploys.
    Environment(String),
}

/// A secret or a config of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct StackPayload {
    /// Its name in the file.
    pub key: String,
    /// Where it is written.
    pub at: Position,
    /// As it is to be, by its final name, without its bytes.
    pub spec: PayloadSpec,
    /// Where these are.
    pub origin: Origin,
}

/// What a service waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Tasks of the other run.
    Started,
    /// They are healthy.
    Healthy,
    /// They have ended with success.
    Completed,
}

/// A service of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct StackService {
    /// Its name in the file.
    pub key: String,
    /// As it is to be. Networks, secrets and configs are named, and have no ids.
    pub spec: ServiceSpec,
    /// Final names of services that come before it, and what it waits for.
    pub depends_on: Vec<(String, Condition)>,
}

/// A published port of a service of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackPort {
    /// Final name of the service.
    pub service: String,
    /// Where it is written.
    pub at: Position,
    /// Keys from the top of the file: `services.web.ports.0`.
    pub path: String,
    /// As it is to be.
    pub spec: PortSpec,
}

/// What a stack comes to under a name.
///
/// # Errors
/// A name that none can have, and all that weft cannot carry out.
pub fn deployment(stack: &Stack, name: &str) -> Result<Deployment, Problems> {
    if let Err(error) = names::check_service(name) {
        let shown: String = name.chars().take(names::MAX_NAME + 1).collect();
        // What it begins with is docker's.
        let what = format!("invalid stack name: {shown:?}: {error}");
        let problem = problem(&Position::default(), "", what, "choose another one");
        return Err(Problems(vec![problem]));
    }
    let mut work = Work {
        stack,
        name,
        ports: Vec::new(),
        findings: Findings::default(),
    };
    let networks = networks::networks(&mut work);
    let secrets = payloads::secrets(&mut work);
    let configs = payloads::configs(&mut work);
    let mut services = Vec::with_capacity(stack.services.len());
    for service in in_order(stack) {
        services.push(service::service(service, &mut work));
    }
    one_of_a_name(&mut work);
    let mut findings = work.findings;
    findings.errors.sort();
    findings.errors.dedup();
    if !findings.errors.is_empty() {
        return Err(Problems(findings.errors));
    }
    Ok(Deployment {
        name: name.to_owned(),
        networks,
        secrets,
        configs,
        services,
        ports: work.ports,
        warnings: findings.told(),
    })
}

/// What is at hand while a stack is gone through.
struct Work<'a> {
    stack: &'a Stack,
    name: &'a str,
    /// Of the services so far.
    ports: Vec<StackPort>,
    findings: Findings,
}

impl Work<'_> {
    /// The name in the swarm of what the file calls so.
    fn scoped(&self, key: &str) -> String {
        format!("{}_{key}", self.name)
    }

    /// The name that the file gives, or that which follows from its key.
    fn named(&self, name: Option<&String>, key: &str) -> String {
        match name.filter(|name| !name.is_empty()) {
            Some(name) => name.clone(),
            None => self.scoped(key),
        }
    }

    /// Labels of the file with that of the stack.
    fn labels(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = labels.clone();
        labels.insert(STACK_LABEL.to_owned(), self.name.to_owned());
        labels
    }

    /// Refuses what a service says by a key, which may be a path.
    fn refuse(
        &mut self,
        service: &Service,
        key: &str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let path = path_of(service, key);
        self.findings.error(service.place(key), &path, what, mend);
    }

    /// Tells something about it that is not wrong.
    fn warn(
        &mut self,
        service: &Service,
        key: &str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let path = path_of(service, key);
        self.findings.warn(service.place(key), &path, what, mend);
    }

    /// Refuses labels that nobody could ask for.
    fn check_labels(&mut self, labels: &BTreeMap<String, String>, at: &Position, path: &str) {
        if let Err(error) = names::check_labels(labels) {
            self.findings
                .error(at, path, error.to_string(), "rename the label");
        }
    }
}

fn path_of(service: &Service, key: &str) -> String {
    let path = below("services", &service.name);
    if key.is_empty() {
        path
    } else {
        below(&path, key)
    }
}

/// Services as the file has them, but each behind those that it depends on.
fn in_order(stack: &Stack) -> Vec<&Service> {
    let by_name: BTreeMap<&str, usize> = stack
        .services
        .iter()
        .enumerate()
        .map(|(index, service)| (service.name.as_str(), index))
        .collect();
    let needs: Vec<Vec<usize>> = stack
        .services
        .iter()
        .map(|service| {
            let needs = service.depends_on.keys();
            let mut needs: Vec<usize> = needs
                .filter_map(|name| by_name.get(name.as_str()).copied())
                .collect();
            needs.sort_unstable();
            needs
        })
        .collect();
    let mut order = Vec::with_capacity(stack.services.len());
    let mut seen = vec![false; stack.services.len()];
    for start in 0..stack.services.len() {
        // In depth without recursion: services on the way, each with the next one to look at.
        let mut way: Vec<(usize, usize)> = Vec::new();
        if !std::mem::replace(&mut seen[start], true) {
            way.push((start, 0));
        }
        while let Some(step) = way.last_mut() {
            let (index, next) = *step;
            step.1 += 1;
            match needs[index].get(next) {
                Some(need) if seen[*need] => {}
                Some(need) => {
                    seen[*need] = true;
                    way.push((*need, 0));
                }
                None => {
                    order.push(&stack.services[index]);
                    way.pop();
                }
            }
        }
    }
    order
}

/// Names that differ in case only are one name to a resolver, and to the swarm.
fn one_of_a_name(work: &mut Work<'_>) {
    let stack = work.stack;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for service in &stack.services {
        if !seen.insert(service.name.to_ascii_lowercase()) {
            let what = "has the name of another service, but for the case of its letters";
            work.refuse(service, "", what, "rename one of them");
        }
    }
}
