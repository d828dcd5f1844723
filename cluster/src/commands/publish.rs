//! `weft service update --publish-add, --publish-rm`: ports of a service that runs.

use weft_model::api::ServiceUpdate;
use weft_model::id::NetworkId;
use weft_model::objects::{EndpointMode, PortSpec, PublishMode, Service, Task, TaskState};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::ipam::Ipam;
use super::super::state::ClusterState;
use super::super::{allocator, ports};

/// True when `wanted` names this port: the same target and protocol, and the same published port
/// and address where it gives them.
fn names(wanted: &PortSpec, port: &PortSpec) -> bool {
    wanted.target == port.target
        && wanted.protocol == port.protocol
        && (wanted.published == 0 || wanted.published == port.published)
        && (wanted.host_ip.is_none() || wanted.host_ip == port.host_ip)
}

fn remove_ports(service: &mut Service, unwanted: &[PortSpec]) -> Result<(), CommandError> {
    for wanted in unwanted {
        let given = &service.endpoint.ports;
        if !given.iter().any(|p| names(wanted, p)) {
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
        .map(|p| !unwanted.iter().any(|wanted| names(wanted, p)))
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

/// Tasks that cannot serve the new ports as they are: one without an address for published ports,
/// and every one when ports of its node change hands.
fn has_to_be_replaced(task: &Task, ingress: Option<&NetworkId>, host_ports_changed: bool) -> bool {
    let attached = ingress.is_none_or(|id| task.attachments.iter().any(|a| a.network == *id));
    // Addresses are still to come for a task that is new.
    let late = task.status.state < TaskState::Pending;
    host_ports_changed || (!attached && !late)
}

fn host_ports(service: &Service) -> Vec<PortSpec> {
    let mut ports: Vec<PortSpec> = service
        .endpoint
        .ports
        .iter()
        .filter(|p| p.mode == PublishMode::Host)
        .cloned()
        .collect();
    ports.sort_by_key(|p| (p.published, p.protocol, p.host_ip, p.target));
    ports
}

/// `weft service update`: publishes ports and takes them back, and changes how connections find a
/// replica. Tasks go on, and so does every
/// connection on other ports; only a service that gets its first published port, or another port
/// with `mode=host`, has its tasks replaced.
///
/// # Errors
/// It does not exist, publishes no such port, or a port is in use (the text says by whom).
pub fn update_service(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    update: &ServiceUpdate,
) -> Result<Planned<Service>, CommandError> {
    let before = state.find_service(reference)?;
    let mut service = before.clone();
    remove_ports(&mut service, &update.publish_rm)?;
    for port in &update.publish_add {
        // As docker: what is published already stays as it is.
        if port.published == 0 || !service.endpoint.ports.contains(port) {
            service.spec.endpoint.ports.push(port.clone());
        }
    }
    service.spec.connections = update.connections(before.spec.connections);
    service.spec.attach = update.attach.unwrap_or(before.spec.attach);
    ports::validate(&service.spec)?;
    if service.spec == before.spec {
        return Ok(Draft::new(state, now, entropy).plan(service));
    }
    let needs_ingress = allocator::uses_ingress(&service.spec);
    if needs_ingress && state.ingress().is_none() {
        return Err(CommandError::bad(
            "service needs ingress network, but no ingress network is present",
        ));
    }
    let had = &service.endpoint.ports;
    let (given, last_port) = ports::allocate(state, &service.id, &service.spec, had)?;
    service.endpoint.ports = given;
    let mut draft = Draft::new(state, now, entropy);
    if last_port != state.counters.last_port {
        let mut counters = state.counters.clone();
        counters.last_port = last_port;
        draft.put(counters);
    }
    let ingress = state
        .ingress()
        .filter(|_| needs_ingress)
        .map(|n| n.id.clone());
    if let Some(ingress) = &ingress
        && service.spec.endpoint.mode == EndpointMode::Vip
        && !service
            .endpoint
            .vips
            .iter()
            .any(|vip| vip.network == *ingress)
    {
        let mut ipam = Ipam::new(state);
        let vips = allocator::vips_on(state, &mut ipam, std::slice::from_ref(ingress))
            .map_err(|e| CommandError::conflict(format!("no virtual IP: {e}")))?;
        service.endpoint.vips.extend(vips);
        ipam.store(&mut draft);
    }
    let moved = host_ports(&service) != host_ports(before);
    for task in state.tasks_of(&service.id) {
        if task.desired > TaskState::Running {
            continue;
        }
        if has_to_be_replaced(task, ingress.as_ref(), moved) {
            let mut task = task.clone();
            task.desired = TaskState::Shutdown;
            draft.put(task);
        }
    }
    let id = service.id.clone();
    draft.put(service.clone());
    let service = draft.state.services.get(&id).cloned().unwrap_or(service);
    Ok(draft.plan(service))
}
