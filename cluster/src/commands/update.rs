//! `weft service update`: what a service is to be, and what its tasks are then.

use std::sync::Arc;

use weft_model::api::{ServiceUpdate, UpdatePlan};
use weft_model::objects::{
    PortSpec, PublishMode, Service, ServiceMode, ServiceSpec, TaskSpec, UpdateOrder, UpdateState,
};

use super::super::conditions::{is_updating, is_wanted};
use super::super::draft::{Draft, Entropy, Planned};
use super::super::enforcer;
use super::super::error::CommandError;
use super::super::respec::respec;
use super::super::state::ClusterState;
use super::super::{homes, jobs, ports, sizes, updater};
use super::service::{check_spec, resolve_networks};
use super::{container, placement};

/// True when `wanted` names this port: the same target and protocol, and the same published port
/// and address where it gives them.
fn names_port(wanted: &PortSpec, port: &PortSpec) -> bool {
    wanted.target == port.target
        && wanted.protocol == port.protocol
        && (wanted.published == 0 || wanted.published == port.published)
        && (wanted.host_ip.is_none() || wanted.host_ip == port.host_ip)
}

fn remove_ports(service: &mut Service, unwanted: &[PortSpec]) -> Result<(), CommandError> {
    for wanted in unwanted {
        let given = &service.endpoint.ports;
        if !given.iter().any(|p| names_port(wanted, p)) {
            let mut have: Vec<String> = given.iter().map(ToString::to_string).collect();
            have.sort();
            return Err(CommandError::bad(format!(
                "service {} publishes no port {wanted}; it publishes {}",
                service.spec.name,
                if have.is_empty() {
                    "none".to_owned()
                } else {
                    have.join(", ")
                }
            )));
        }
    }
    let keep: Vec<bool> = service
        .endpoint
        .ports
        .iter()
        .map(|p| !unwanted.iter().any(|wanted| names_port(wanted, p)))
        .collect();
    let mut kept = keep.iter();
    service
        .spec
        .endpoint
        .ports
        .retain(|_| kept.next().copied().unwrap_or(true));
    let mut kept = keep.iter();
    service
        .endpoint
        .ports
        .retain(|_| kept.next().copied().unwrap_or(true));
    Ok(())
}

/// What an update says the whole of a service is to be.
fn respecified(
    state: &ClusterState,
    before: &Service,
    spec: &ServiceSpec,
) -> Result<ServiceSpec, CommandError> {
    let name = &before.spec.name;
    let mut spec = spec.clone();
    if spec.name != *name {
        return Err(CommandError::bad(format!(
            "renaming services is not supported: service {name} stays {name}; make one of the other \
             name with \"weft service create\""
        )));
    }
    if std::mem::discriminant(&spec.mode) != std::mem::discriminant(&before.spec.mode) {
        return Err(CommandError::bad(format!(
            "service mode change is not allowed: remove service {name} and create it anew"
        )));
    }
    container::keep_credentials(
        &before.spec.task.container,
        &mut Arc::make_mut(&mut spec.task).container,
    );
    check_spec(state, &mut spec)?;
    resolve_networks(state, Arc::make_mut(&mut spec.task))?;
    if spec.task == before.spec.task {
        // Its tasks share it.
        spec.task = Arc::clone(&before.spec.task);
    }
    Ok(spec)
}

/// `weft service update`: what a service is to be. Tasks that are not that any more are replaced, one
/// after the other as its policy says; where none is, every connection goes on. Each update begins
/// another run of a job.
///
/// # Errors
/// It does not exist, what it is to be cannot work, it publishes no such port, or a port is in use
/// (the text says by whom); there is nothing to go back to.
pub fn update_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    update: &ServiceUpdate,
) -> Result<Planned<Service>, CommandError> {
    let before = state.find_service(reference)?;
    if update.rollback {
        let alone = ServiceUpdate {
            rollback: true,
            ..ServiceUpdate::default()
        };
        if *update != alone {
            return Err(CommandError::bad(
                "other flags may not be combined with --rollback",
            ));
        }
        return roll_back(state, now, entropy, before);
    }
    let mut service = before.clone();
    if let Some(spec) = &update.spec {
        service.spec = respecified(state, before, spec)?;
    }
    if service.spec.endpoint.ports != before.spec.endpoint.ports && !update.publish_rm.is_empty() {
        return Err(CommandError::bad(
            "ports are given twice, as EndpointSpec.Ports and PublishRm: give one of them",
        ));
    }
    remove_ports(&mut service, &update.publish_rm)?;
    for port in &update.publish_add {
        // As docker: what is published already stays as it is.
        if port.published == 0 || !service.endpoint.ports.contains(port) {
            service.spec.endpoint.ports.push(port.clone());
        }
    }
    service.spec.connections = update.connections(service.spec.connections);
    service.spec.attach = update.attach.unwrap_or(service.spec.attach);
    if !update.placement.is_empty() {
        let task = Arc::make_mut(&mut service.spec.task);
        task.placement = placement::updated(&task.placement, &update.placement)?;
        placement::check(&service.spec)?;
        sizes::check_service(&service.spec, state.nodes.len())?;
    }
    ports::validate(&service.spec)?;
    let mut draft = Draft::new(state, now, entropy);
    if service.spec == before.spec {
        return Ok(draft.plan(service));
    }
    let mut service = respec(&mut draft, before, service)?;
    homes::forget_lost(state, &before.spec.task, &mut service);
    jobs::begin(&mut service, now);
    service.previous_spec = Some(Arc::new(way_back(before, &service.spec)));
    let message = "update in progress";
    service.update_status = updater::begin(state, &service, now, UpdateState::Updating, message);
    Ok(put(draft, service))
}

/// What `service rollback` leads to once a service is `after`. A change that makes the same of tasks, in
/// an update that is not over or was paused, does not hide what they were before that.
fn way_back(before: &Service, after: &ServiceSpec) -> ServiceSpec {
    let same = |task: &TaskSpec| {
        let forced = TaskSpec {
            force_update: after.task.force_update,
            ..task.clone()
        };
        forced == *after.task
    };
    let concerns_tasks = before.spec.endpoint != after.endpoint || !same(&before.spec.task);
    match &before.previous_spec {
        Some(previous) if is_updating(before) && !concerns_tasks => ServiceSpec {
            task: Arc::clone(&previous.task),
            endpoint: previous.endpoint.clone(),
            ..after.clone()
        },
        _ => before.spec.clone(),
    }
}

/// `weft service rollback`: the service is what it was before its last change; once more, and it is
/// what it is now.
fn roll_back(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    before: &Service,
) -> Result<Planned<Service>, CommandError> {
    let Some(previous) = &before.previous_spec else {
        return Err(CommandError::bad(format!(
            "service {} does not have a previous spec",
            before.spec.name
        )));
    };
    let back = Service {
        spec: ServiceSpec::clone(previous),
        previous_spec: Some(Arc::new(before.spec.clone())),
        ..before.clone()
    };
    let mut draft = Draft::new(state, now, entropy);
    let mut service = respec(&mut draft, before, back)?;
    jobs::begin(&mut service, now);
    let kind = UpdateState::RollbackStarted;
    service.update_status = updater::begin(state, &service, now, kind, updater::BY_HAND);
    Ok(put(draft, service))
}

fn put(mut draft: Draft<'_>, service: Service) -> Planned<Service> {
    let id = service.id.clone();
    enforcer::put_and_adopt(&mut draft, service.clone());
    let service = draft.state.services.get(&id).cloned().unwrap_or(service);
    draft.plan(service)
}

/// `weft service update --dry-run`: what [`update_service`] would do. Nothing changes.
///
/// # Errors
/// As [`update_service`].
pub fn plan_update(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    update: &ServiceUpdate,
) -> Result<UpdatePlan, CommandError> {
    let before = state.find_service(reference)?;
    let after = update_service(state, now, entropy, reference, update)?.value;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let wanted = state.tasks_of(&before.id).filter(|task| is_wanted(task));
    let job = after.spec.mode.is_job();
    let outdated = updater::outdated(state, &after).1.into_iter();
    // Of a job, what has ended is only forgotten.
    let replaced = outdated.filter(|task| !job || !task.status.state.is_terminal());
    let replaced = count(replaced.count());
    let another_run = after.job_status != before.job_status;
    Ok(UpdatePlan {
        before: before.spec.clone(),
        tasks: count(wanted.count()),
        replaced,
        warnings: if replaced == 0 && !another_run {
            Vec::new()
        } else {
            warnings(&after)
        },
        after: after.spec,
    })
}

/// What users should know before tasks of the service are replaced.
fn warnings(service: &Service) -> Vec<String> {
    let name = &service.spec.name;
    let mut ports = service.spec.endpoint.ports.iter();
    let on_host = ports.any(|port| port.mode == PublishMode::Host);
    let alone = service.spec.mode == ServiceMode::Replicated { replicas: 1 };
    let asked = service.policy().order;
    if service.spec.mode.is_job() {
        return vec![format!(
            "service {name} is a job: another run of it begins, and its tasks that have not ended are \
             stopped at once"
        )];
    }
    if on_host && asked == UpdateOrder::StartFirst {
        return vec![format!(
            "service {name} publishes ports with mode=host, and two of its tasks do not fit on one \
             node: old tasks are stopped first"
        )];
    }
    if alone && asked == UpdateOrder::StopFirst {
        return vec![format!(
            "service {name} has one task, and has none while that is replaced: give \
             --update-order start-first, or more --replicas"
        )];
    }
    Vec::new()
}
