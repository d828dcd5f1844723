//! Services.

use std::sync::Arc;
use std::time::Duration;

use weft_model::id::ServiceId;
use weft_model::objects::{
    ContainerSpec, EndingService, EndpointMode, FailureAction, Meta, Service, ServiceEndpoint,
    ServiceMode, ServiceSpec, TaskSpec, TaskState,
};
use weft_model::{capability, names, stop_signal};

use super::super::conditions::is_updating;
use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::index::{Key, folded};
use super::super::ipam::Ipam;
use super::super::object::{Change, ObjectId};
use super::super::state::ClusterState;
use super::super::{allocator, jobs, ports, sizes, template};
use super::endpoint::MAX_ALIASES;
use super::{container, health, placement, references};

/// Tasks of one service at most. Far above what one service needs here, and low enough that a
/// slip of the finger does not fill the manager's memory.
pub const MAX_REPLICAS: u32 = 10_000;
/// Longest restart delay and stop grace period: 24 hours.
pub const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

fn check_replicas(mode: ServiceMode) -> Result<(), CommandError> {
    match mode {
        ServiceMode::ReplicatedJob {
            max_concurrent: 0,
            total_completions: 1..,
        } => Err(CommandError::bad(
            "a job of which no task may run never ends: --max-concurrent must be at least 1",
        )),
        ServiceMode::Replicated { replicas }
        | ServiceMode::ReplicatedJob {
            total_completions: replicas,
            ..
        } if replicas > MAX_REPLICAS => Err(CommandError::bad(format!(
            "{replicas} replicas are too many: a service may have {MAX_REPLICAS} at most; ask \
                 for fewer, or split the service"
        ))),
        _ => Ok(()),
    }
}

fn check_delays(task: &TaskSpec) -> Result<(), CommandError> {
    let delays = [
        ("restart delay", task.restart.delay),
        ("restart window", task.restart.window),
        ("stop grace period", task.container.stop_grace),
    ];
    let of_health = task.container.health.iter().flat_map(health::times);
    for (name, delay) in delays.into_iter().chain(of_health) {
        if delay > MAX_DELAY {
            return Err(CommandError::bad(format!(
                "{name} of {} ms is too long: it may be {} ms (24 hours) at most",
                delay.as_millis(),
                MAX_DELAY.as_millis()
            )));
        }
    }
    Ok(())
}

/// How tasks are replaced, there and back.
fn check_policies(spec: &ServiceSpec) -> Result<(), CommandError> {
    for (name, policy) in [("update", &spec.update), ("rollback", &spec.rollback)] {
        let times = [
            ("delay", policy.delay),
            ("monitor", policy.monitor),
            ("timeout", policy.timeout),
        ];
        if let Some((what, time)) = times.into_iter().find(|(_, time)| *time > MAX_DELAY) {
            return Err(CommandError::bad(format!(
                "{name} {what} of {} ms is too long: it may be {} ms (24 hours) at most; give a \
                 shorter --{name}-{what}",
                time.as_millis(),
                MAX_DELAY.as_millis()
            )));
        }
    }
    if spec.rollback.failure_action == FailureAction::Rollback {
        return Err(CommandError::bad(
            "rollback failure action rollback: what goes back already cannot go back again; give \
             --rollback-failure-action pause or continue",
        ));
    }
    Ok(())
}

/// Command, environment and signal: what the kernel cannot hand to a program would fail on every node.
fn check_process(container: &ContainerSpec) -> Result<(), CommandError> {
    // What was given, as far as it helps to find it.
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    for (index, arg) in container.args.iter().enumerate() {
        if arg.contains('\0') {
            return Err(CommandError::bad(format!(
                "argument {} of the command {:?} has a NUL character, which no program can be \
                 given; leave it out",
                index + 1,
                shown(arg)
            )));
        }
    }
    for pair in &container.env {
        let fault = if pair.contains('\0') {
            "has a NUL character, which no program can be given; leave it out"
        } else if pair.is_empty() || pair.starts_with('=') {
            "has no name; write NAME=VALUE"
        } else {
            continue;
        };
        let shown = shown(pair);
        return Err(CommandError::bad(format!(
            "environment variable {shown:?} {fault}"
        )));
    }
    stop_signal::number(&container.stop_signal)
        .map_err(|error| CommandError::bad(error.to_string()))?;
    template::check(container)
}

/// Longest user of a task, in bytes: two names of 32 and what is between them leave room.
const MAX_USER_LEN: usize = 128;

/// Puts the names of capabilities into the form in which they are stored, each once.
fn check_privileges(container: &mut ContainerSpec) -> Result<(), CommandError> {
    let user = &container.user;
    let plain = user.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let named = user.split(':').all(|part| !part.is_empty()) && user.split(':').count() <= 2;
    if user.len() > MAX_USER_LEN || !plain || !(user.is_empty() || named) {
        return Err(CommandError::bad(format!(
            "invalid user {:?}: write NAME or UID, and perhaps a group: www-data, 33, 33:33",
            user.chars().take(MAX_USER_LEN).collect::<String>()
        )));
    }
    for names in [&mut container.cap_add, &mut container.cap_drop] {
        let canonical: Result<std::collections::BTreeSet<String>, _> = names
            .iter()
            .map(|name| capability::canonical(name))
            .collect();
        let canonical = canonical.map_err(|error| CommandError::bad(error.to_string()))?;
        *names = canonical.into_iter().collect();
    }
    Ok(())
}

/// Replaces network names by ids.
pub(super) fn resolve_networks(
    state: &ClusterState,
    task: &mut TaskSpec,
) -> Result<(), CommandError> {
    let mut seen = std::collections::BTreeSet::new();
    for attachment in &mut task.networks {
        let network = state
            .find_lasting_network(&attachment.target)
            .map_err(|mut e| {
                e.message
                    .push_str("; make it with \"weft network create\" first");
                e
            })?;
        if network.spec.ingress {
            return Err(CommandError::bad(
                "Service cannot be explicitly attached to the ingress network",
            ));
        }
        if !seen.insert(network.id.clone()) {
            return Err(CommandError::bad(format!(
                "network {} is given twice",
                network.spec.name
            )));
        }
        let aliases = attachment.aliases.len() + attachment.stack_aliases.len();
        if aliases > MAX_ALIASES {
            return Err(CommandError::bad(format!(
                "{aliases} aliases on network {} are too many: there may be {MAX_ALIASES}",
                network.spec.name
            )));
        }
        for alias in attachment.aliases.iter().chain(&attachment.stack_aliases) {
            names::check("alias", alias)?;
        }
        attachment.target.clone_from(&network.id.0);
    }
    Ok(())
}

/// Whether a service can be what is asked for, by itself. What has several spellings gets one, and secrets
/// and configs get both their ids and their names.
pub(super) fn check_spec(state: &ClusterState, spec: &mut ServiceSpec) -> Result<(), CommandError> {
    names::check_service(&spec.name)?;
    names::check_labels(&spec.labels)?;
    let task = Arc::make_mut(&mut spec.task);
    container::check(task)?;
    check_process(&task.container)?;
    super::mounts::check(task)?;
    references::resolve(state, task)?;
    check_replicas(spec.mode)?;
    check_delays(task)?;
    health::check(task, &spec.endpoint.ports)?;
    health::check_attempts(&task.restart)?;
    check_privileges(&mut task.container)?;
    placement::check(spec)?;
    check_policies(spec)?;
    sizes::check_service(spec, state.nodes.len())?;
    ports::validate(spec)
}

/// `weft service create`
///
/// # Errors
/// A name or port in use (the text says by whom), an unknown network, secret or config, a spec that
/// cannot work, no address left for a virtual IP.
pub fn create_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    mut spec: ServiceSpec,
) -> Result<Planned<Service>, CommandError> {
    check_spec(state, &mut spec)?;
    let mut services = state.services_at(Key::Name(folded(&spec.name)));
    if let Some(other) = services.next() {
        return Err(CommandError::conflict(format!(
            "name conflicts with an existing object: service {} already exists",
            other.spec.name
        )));
    }
    resolve_networks(state, Arc::make_mut(&mut spec.task))?;
    if allocator::uses_ingress(&spec) && state.ingress().is_none() {
        return Err(CommandError::bad(
            "service needs ingress network, but no ingress network is present",
        ));
    }
    let id = ServiceId::from_entropy(entropy.next_u128());
    let (ports, last_port) = ports::allocate(state, &id, &spec, &[])?;
    let mut draft = Draft::new(state, now, entropy);
    if last_port != state.counters.last_port {
        let mut counters = state.counters.clone();
        counters.last_port = last_port;
        draft.put(counters);
    }
    let mut service = Service {
        id: id.clone(),
        meta: Meta::default(),
        spec,
        previous_spec: None,
        endpoint: ServiceEndpoint {
            ports,
            ..ServiceEndpoint::default()
        },
        update_status: None,
        job_status: None,
        rebalancing: None,
        homes: Vec::new(),
    };
    jobs::begin(&mut service, now);
    if service.spec.endpoint.mode == EndpointMode::Vip {
        let mut ipam = Ipam::new(state);
        service.endpoint.vips = allocator::vips(state, &mut ipam, &service)
            .map_err(|e| CommandError::conflict(format!("no virtual IP: {e}")))?;
        ipam.store(&mut draft);
    }
    draft.put(service);
    let service = draft.state.services.get(&id).cloned();
    let service = service.ok_or_else(|| CommandError::unavailable("the new service vanished"))?;
    Ok(draft.plan(service))
}

/// `weft service scale`: replicas, or how many tasks of a job are to complete.
///
/// # Errors
/// It does not exist, is not replicated, or would have more than [`MAX_REPLICAS`].
pub fn scale_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    replicas: u32,
) -> Result<Planned<Service>, CommandError> {
    let before = state.find_service(reference)?;
    let mut service = before.clone();
    if service.spec.mode.is_global() {
        return Err(CommandError::bad(
            "scale can only be used with replicated or replicated-job mode",
        ));
    }
    let mode = match service.spec.mode {
        // The run goes on: what has completed counts.
        ServiceMode::ReplicatedJob { max_concurrent, .. } => ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions: replicas,
        },
        _ => ServiceMode::Replicated { replicas },
    };
    check_replicas(mode)?;
    let mut draft = Draft::new(state, now, entropy);
    if service.spec.mode != mode {
        service.spec.mode = mode;
        sizes::check_service(&service.spec, state.nodes.len())?;
        if is_updating(before) {
            // The way back leads to what was before the update, and to as many tasks as now.
            if let Some(previous) = &mut service.previous_spec {
                Arc::make_mut(previous).mode = mode;
            }
        } else {
            service.previous_spec = Some(Arc::new(before.spec.clone()));
            service.update_status = None;
        }
        draft.put(service.clone());
    }
    let id = service.id.clone();
    let service = draft.state.services.get(&id).cloned().unwrap_or(service);
    Ok(draft.plan(service))
}

/// `weft service rm`: its tasks are stopped and forgotten. Connections that are open to them go on
/// until they have ended; meanwhile name and ports are free for another service.
///
/// # Errors
/// It does not exist.
pub fn remove_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
) -> Result<Vec<Change>, CommandError> {
    let service = state.find_service(reference)?;
    let mut draft = Draft::new(state, now, entropy);
    let mut has_tasks = false;
    for task in state.tasks_of(&service.id) {
        has_tasks |= !task.status.state.is_terminal();
        let mut task = task.clone();
        task.desired = TaskState::Remove;
        draft.put(task);
    }
    for endpoint in state.endpoints_at(Key::Service(service.id.clone())) {
        let mut endpoint = endpoint.clone();
        endpoint.service = None;
        draft.put(endpoint);
    }
    if has_tasks {
        draft.put(EndingService {
            id: service.id.clone(),
            name: service.spec.name.clone(),
            vips: service.endpoint.vips.clone(),
        });
    }
    draft.delete(ObjectId::Service(service.id.clone()));
    Ok(draft.into_changes())
}
