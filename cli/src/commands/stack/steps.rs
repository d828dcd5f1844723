//! What is to be done so that the swarm has what a stack says: a list of steps, and nothing for what is
//! as it should be. The order is docker's (docker/cli `cli/command/stack/swarm/deploy_composefile.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;

use weft_model::id::{PayloadId, ServiceId};
use weft_model::names;
use weft_model::objects::{NetworkSpec, Payload, PayloadKind, PayloadSpec, Service, ServiceSpec};
use weft_stack::{
    Condition, Deployment, Origin, Problems, StackNetwork, StackPayload, StackService, same,
};

use super::current::{Current, stack_of};
use super::differences;
use super::images::{Choice, Images, image_of};
use super::ports::Ports;
use super::turns::in_turn;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// `--prune`
    RemoveService {
        /// Which.
        id: ServiceId,
        /// Its name.
        name: String,
    },
    /// A network that is not there.
    CreateNetwork(NetworkSpec),
    /// A secret or a config that is not there.
    CreatePayload(PayloadKind, PayloadSpec),
    /// One that is there. What a secret holds only managers can compare.
    UpdatePayload {
        /// Which of the two.
        kind: PayloadKind,
        /// Which.
        id: PayloadId,
        /// As it was seen.
        version: u64,
        /// As it is to be.
        spec: PayloadSpec,
        /// Other labels are what differs.
        relabels: bool,
    },
    /// A service that is not there.
    CreateService {
        /// As it is to be.
        spec: ServiceSpec,
        /// What it waits for.
        after: Vec<(String, Condition)>,
    },
    /// One that is there and is to be another one.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// As it was seen.
        version: u64,
        /// As it is to be.
        spec: ServiceSpec,
        /// What differs; nothing where only credentials are sent anew.
        differs: Vec<String>,
    },
}

impl Step {
    /// `network vote_front`
    #[must_use]
    pub(super) fn what(&self) -> String {
        match self {
            Self::RemoveService { name, .. } => format!("service {name}"),
            Self::CreateNetwork(spec) => format!("network {}", spec.name),
            Self::CreatePayload(kind, spec) | Self::UpdatePayload { kind, spec, .. } => {
                format!("{kind} {}", spec.name)
            }
            Self::CreateService { spec, .. } | Self::UpdateService { spec, .. } => {
                format!("service {}", spec.name)
            }
        }
    }

    /// What docker prints before it; of what may change nothing, no line.
    #[must_use]
    pub(super) fn line(&self) -> Option<String> {
        let what = self.what();
        Some(match self {
            Self::RemoveService { .. } => format!("Removing {what}"),
            Self::CreateNetwork(_) | Self::CreatePayload(..) | Self::CreateService { .. } => {
                format!("Creating {what}")
            }
            Self::UpdateService { differs, .. } if differs.is_empty() => return None,
            Self::UpdatePayload { .. } => return None,
            Self::UpdateService { .. } => return self.updating(),
        })
    }

    /// The line of an update that did change something.
    #[must_use]
    pub(super) fn updating(&self) -> Option<String> {
        let what = self.what();
        match self {
            Self::UpdatePayload { id, .. } => Some(format!("Updating {what} (id: {id})")),
            Self::UpdateService { id, .. } => Some(format!("Updating {what} (id: {id})")),
            _ => None,
        }
    }

    /// The line of `--dry-run`; nothing where only managers can tell.
    #[must_use]
    pub(super) fn would(&self) -> Option<String> {
        let what = self.what();
        Some(match self {
            Self::RemoveService { .. } => format!("would remove {what}"),
            Self::CreateNetwork(_) | Self::CreatePayload(..) | Self::CreateService { .. } => {
                format!("would create {what}")
            }
            Self::UpdatePayload { relabels: true, .. } => format!("would update {what} (labels)"),
            Self::UpdatePayload { .. } => return None,
            Self::UpdateService { differs, .. } if differs.is_empty() => {
                format!("would update {what} (credentials of the registry)")
            }
            Self::UpdateService { differs, .. } => {
                format!("would update {what} ({})", differs.join(", "))
            }
        })
    }

    /// What begins the text of an error, as docker has it.
    #[must_use]
    pub(super) fn failed(&self) -> String {
        // "created" and the others without their end.
        let verb = self.becoming().trim_end_matches('d');
        format!("failed to {verb} {}", self.what())
    }

    /// What it is while the step is at work: being `created`.
    #[must_use]
    pub(super) fn becoming(&self) -> &'static str {
        match self {
            Self::RemoveService { .. } => "removed",
            Self::CreateNetwork(_) | Self::CreatePayload(..) | Self::CreateService { .. } => {
                "created"
            }
            Self::UpdatePayload { .. } | Self::UpdateService { .. } => "updated",
        }
    }

    /// The service that it makes or changes, by name.
    fn service(&self) -> Option<&str> {
        match self {
            Self::CreateService { spec, .. } | Self::UpdateService { spec, .. } => Some(&spec.name),
            _ => None,
        }
    }
}

/// All of them, and what there is to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plan {
    /// In order.
    pub(super) steps: Vec<Step>,
    /// Services that are as they should be.
    pub(super) unchanged: usize,
    /// Images that services keep though a registry was asked, and that none of them gets anew.
    pub(super) kept: BTreeSet<String>,
    /// Images that services keep though the node that was asked has others of these names.
    pub(super) kept_before: BTreeSet<String>,
    /// For people.
    pub(super) warnings: Vec<String>,
}

/// Whether services of the stack that it does not have any more are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prune {
    /// `--prune`
    Yes,
    /// They stay.
    No,
}

/// Compares what a stack says with what there is. The bytes of secrets and configs are read already.
///
/// # Errors
/// All that would fail later, so that nothing is begun: in docker's words where it has some.
pub(super) fn plan(
    deployment: &Deployment,
    current: &Current,
    images: &Images,
    prune: Prune,
) -> Result<Plan, Vec<String>> {
    let mut problems = Vec::new();
    let mut plan = Plan::default();
    if prune == Prune::Yes {
        plan.steps.extend(pruned(deployment, current));
    }
    let removed = plan.steps.iter().filter_map(|step| match step {
        Step::RemoveService { id, .. } => Some(id.clone()),
        _ => None,
    });
    let ports = Ports::of(deployment, current, &removed.collect());
    for network in &deployment.networks {
        match network_step(network, current, &deployment.name) {
            Ok((step, warning)) => {
                plan.steps.extend(step);
                plan.warnings.extend(warning);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let kinds = [
        (PayloadKind::Secret, &deployment.secrets),
        (PayloadKind::Config, &deployment.configs),
    ];
    for (kind, payloads) in kinds {
        for payload in payloads {
            match payload_step(kind, payload, current.payload(kind, &payload.spec.name)) {
                Ok(step) => plan.steps.extend(step),
                Err(problem) => problems.push(problem),
            }
        }
    }
    let mut anew = BTreeSet::new();
    let mut of_services = Vec::new();
    for service in &deployment.services {
        let there = current.service(&service.spec.name);
        if let Some(there) = there {
            problems.extend(not_to_be_updated(&deployment.name, &service.spec, there));
        }
        let (step, choice) = service_step(service, current, images);
        let image = image_of(&service.spec).to_owned();
        if choice == Choice::KeptBefore {
            plan.kept_before.insert(image.clone());
        }
        if choice == Choice::Found {
            anew.insert(image);
        } else {
            plan.kept.insert(image);
        }
        match step {
            Some(step) => of_services.push(step),
            None => plan.unchanged += 1,
        }
    }
    plan.kept.retain(|image| !anew.contains(image));
    match handed_over(of_services, &ports.handed_over) {
        Ok(steps) => plan.steps.extend(steps),
        Err(problem) => problems.push(problem),
    }
    if !ports.taken.is_empty() {
        problems.push(Problems(ports.taken).to_string());
    }
    if problems.is_empty() {
        Ok(plan)
    } else {
        Err(problems)
    }
}

/// What a network needs, and what there is to say of it.
fn network_step(
    network: &StackNetwork,
    current: &Current,
    stack: &str,
) -> Result<(Option<Step>, Option<String>), String> {
    let name = &network.spec.name;
    match current.network(name) {
        None if network.external => Err(format!(
            "network {name:?} is declared as external, but could not be found. You need to create \
             a swarm-scoped network before the stack is deployed"
        )),
        None => Ok((Some(Step::CreateNetwork(network.spec.clone())), None)),
        Some(_) if network.external => Ok((None, None)),
        Some(there) if stack_of(&there.spec.labels) != Some(stack) => Err(format!(
            "failed to create network {name}: network with name {name} already exists, and is not \
             of stack {stack}; write `external: true` to share it, or give it another name"
        )),
        Some(there) => Ok((None, unlike(stack, &there.spec, &network.spec))),
    }
}

/// Steps of services in the order of the file, but a service that gives a port up comes before the one
/// that takes it. It can: it is there, and is updated without waiting for any other.
fn handed_over(
    steps: Vec<Step>,
    givers: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<Step>, String> {
    let numbers: BTreeMap<&str, usize> = steps
        .iter()
        .enumerate()
        .filter_map(|(number, step)| Some((step.service()?, number)))
        .collect();
    let needs = steps.iter().map(|step| {
        let givers = step.service().and_then(|name| givers.get(name));
        let givers = givers.into_iter().flatten();
        givers
            .filter_map(|giver| numbers.get(giver.as_str()).copied())
            .collect::<Vec<usize>>()
    });
    let needs: Vec<Vec<usize>> = needs.collect();
    match in_turn(&needs) {
        Ok(order) => {
            let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
            let order = order.into_iter();
            Ok(order.filter_map(|number| steps[number].take()).collect())
        }
        Err(circle) => {
            let names = circle.iter().filter_map(|number| steps[*number].service());
            let names: Vec<&str> = names.collect();
            Err(format!(
                "services {} take published ports of each other, and one of them has to be first; deploy \
                 once with another port in one of them, and then as it is now",
                names.join(", ")
            ))
        }
    }
}

/// Services of the stack that the file does not have, by name.
fn pruned(deployment: &Deployment, current: &Current) -> Vec<Step> {
    let is_wanted = |service: &&Service| {
        let mut wanted = deployment.services.iter();
        wanted.any(|wanted| names::same(&wanted.spec.name, &service.spec.name))
    };
    let mut gone: Vec<&Service> = current
        .of_stack(&deployment.name)
        .filter(|service| !is_wanted(service))
        .collect();
    gone.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let steps = gone.into_iter().map(|service| Step::RemoveService {
        id: service.id.clone(),
        name: service.spec.name.clone(),
    });
    steps.collect()
}

/// Docker says nothing of it.
fn unlike(stack: &str, there: &NetworkSpec, wanted: &NetworkSpec) -> Option<String> {
    let differs = differences::of_network(there, wanted);
    (!differs.is_empty()).then(|| {
        format!(
            "weft: warning: network {} is not as the file says ({}) and stays as it is: networks cannot \
             be changed; have it made anew with `weft stack rm {stack}` before the next deploy",
            there.name,
            differs.join(", ")
        )
    })
}

/// What a secret or a config needs.
fn payload_step(
    kind: PayloadKind,
    wanted: &StackPayload,
    there: Option<&Payload>,
) -> Result<Option<Step>, String> {
    let name = &wanted.spec.name;
    let Some(there) = there else {
        return match wanted.origin {
            Origin::External => Err(format!("{kind} not found: {name}")),
            _ => Ok(Some(Step::CreatePayload(kind, wanted.spec.clone()))),
        };
    };
    if wanted.origin == Origin::External {
        return Ok(None);
    }
    let relabels = there.spec.labels != wanted.spec.labels;
    let is_another = kind == PayloadKind::Config && there.spec.data != wanted.spec.data;
    if is_another || there.spec.templating != wanted.spec.templating {
        let why = another(kind, name);
        return Err(format!("failed to update {kind} {name}: {why}"));
    }
    if kind == PayloadKind::Config && !relabels {
        return Ok(None);
    }
    Ok(Some(Step::UpdatePayload {
        kind,
        id: there.id.clone(),
        version: there.meta.version.index,
        spec: wanted.spec.clone(),
        relabels,
    }))
}

/// Docker's text, and the way out: a task would not see other bytes behind a name.
#[must_use]
pub(super) fn another(kind: PayloadKind, name: &str) -> String {
    format!(
        "only updates to Labels are allowed; what it holds is not what the swarm has: name a new one in \
         the file (`name: {}`), or take the old one away with `weft {kind} rm {name}` once no service \
         uses it",
        next(name)
    )
}

/// A name of the same that is free, as people number them.
fn next(name: &str) -> String {
    let numbered = name.rsplit_once("_v");
    let numbered = numbered.and_then(|(name, number)| Some((name, number.parse::<u32>().ok()?)));
    match numbered {
        Some((name, number)) => format!("{name}_v{}", number.saturating_add(1)),
        None => format!("{name}_v2"),
    }
}

/// What `--dry-run` and a deploy cannot know before it is sent.
#[must_use]
pub(super) fn not_compared(steps: &[Step]) -> Option<String> {
    let names: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::UpdatePayload { kind, spec, .. } if *kind == PayloadKind::Secret => {
                Some(spec.name.as_str())
            }
            _ => None,
        })
        .collect();
    let s = if names.len() == 1 { "" } else { "s" };
    (!names.is_empty()).then(|| {
        format!(
            "weft: note: what secret{s} {} hold{} is not compared, as nobody is shown a secret's bytes; \
             a deploy says so where the swarm has others",
            names.join(", "),
            if names.len() == 1 { "s" } else { "" }
        )
    })
}

/// Why a service cannot become what it is to be.
fn not_to_be_updated(stack: &str, wanted: &ServiceSpec, there: &Service) -> Option<String> {
    let name = &wanted.name;
    if there.spec.stack() != Some(stack) {
        return Some(format!(
            "failed to create service {name}: name conflicts with an existing object: service {name} \
             already exists and is not of stack {stack}; remove it with `weft service rm {name}`, or \
             give the stack another name"
        ));
    }
    if there.spec.name != *name {
        return Some(format!(
            "failed to update service {name}: it is {} at present, and renaming services is not \
             supported; write it so, or remove it with `weft service rm {}`",
            there.spec.name, there.spec.name
        ));
    }
    if discriminant(&there.spec.mode) != discriminant(&wanted.mode) {
        return Some(format!(
            "failed to update service {name}: service mode change is not allowed; remove it with \
             `weft service rm {name}` and deploy again"
        ));
    }
    None
}

/// What a service needs, and what becomes of its image.
#[must_use]
pub(super) fn service_step(
    wanted: &StackService,
    current: &Current,
    images: &Images,
) -> (Option<Step>, Choice) {
    let mut spec = wanted.spec.clone();
    let Some(there) = current.service(&spec.name) else {
        let choice = images.put_into(&mut spec, None);
        let after = wanted.depends_on.clone();
        return (Some(Step::CreateService { spec, after }), choice);
    };
    let choice = images.put_into(&mut spec, Some(&there.spec));
    // As docker: `--force` of an update is not taken back.
    Arc::make_mut(&mut spec.task).force_update = there.spec.task.force_update;
    let resolved = current.resolved(&spec);
    let differs = if same(&resolved, &there.spec) {
        // Whether credentials are others only managers can tell.
        if !images.with_credentials {
            return (None, choice);
        }
        Vec::new()
    } else {
        match differences::of_service(&there.spec, &resolved) {
            differs if differs.is_empty() => vec!["settings".to_owned()],
            differs => differs,
        }
    };
    let step = Step::UpdateService {
        id: there.id.clone(),
        version: there.meta.version.index,
        spec,
        differs,
    };
    (Some(step), choice)
}

#[cfg(test)]
mod tests;
