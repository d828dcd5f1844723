//! What a service has to be reached by, after its specification has changed.

use weft_model::id::NetworkId;
use weft_model::objects::{EndpointMode, PortSpec, PublishMode, Service};

use super::draft::Draft;
use super::error::CommandError;
use super::ipam::Ipam;
use super::object::ObjectId;
use super::state::ClusterState;
use super::{allocator, ending, ports};

fn host_ports(service: &Service) -> Vec<PortSpec> {
    let ports = service.endpoint.ports.iter();
    let mut ports: Vec<PortSpec> = ports
        .filter(|p| p.mode == PublishMode::Host)
        .cloned()
        .collect();
    ports.sort_by_key(|p| (p.published, p.protocol, p.host_ip, p.target));
    ports
}

/// Gives `service`, which was `before`, the ports and virtual addresses that its specification asks
/// for. What it has stays, as far as it fits.
///
/// # Errors
/// A network, a secret or a config is gone, there is no ingress network, a port is in use (the text says
/// by whom), no address is left.
pub(super) fn respec(
    draft: &mut Draft<'_>,
    before: &Service,
    mut service: Service,
) -> Result<Service, CommandError> {
    let needs_ingress = allocator::uses_ingress(&service.spec);
    if needs_ingress && draft.state.ingress().is_none() {
        return Err(CommandError::bad(
            "service needs ingress network, but no ingress network is present",
        ));
    }
    for network in &service.spec.task.networks {
        let id = NetworkId(network.target.clone());
        if ending::lasting(draft.state.networks.get(&id)).is_none() {
            return Err(CommandError::bad(format!(
                "network {} of service {} was removed",
                network.target, service.spec.name
            )));
        }
    }
    check_payloads(&draft.state, &service)?;
    let had = &service.endpoint.ports;
    let (given, last_port) = ports::allocate(&draft.state, &service.id, &service.spec, had)?;
    service.endpoint.ports = given;
    if last_port != draft.state.counters.last_port {
        let mut counters = draft.state.counters.clone();
        counters.last_port = last_port;
        draft.put(counters);
    }
    if host_ports(&service) != host_ports(before) {
        let id = ObjectId::Service(service.id.clone());
        service.endpoint.host_ports_since = draft.state.next_version(&id);
    }
    readdress(draft, &mut service)?;
    Ok(service)
}

/// What a service saw before may have been removed since. Another one of that name has other bytes.
fn check_payloads(state: &ClusterState, service: &Service) -> Result<(), CommandError> {
    let mut uses = service.spec.task.container.payloads();
    let gone = uses.find(|one| !state.payloads.contains_key(one.id));
    gone.map_or(Ok(()), |gone| {
        let (kind, name, service) = (gone.kind, gone.name, &service.spec.name);
        Err(CommandError::bad(format!(
            "{kind} {name} of service {service} was removed: the service cannot be again what it was with \
             it; say with \"weft service update --{kind}-add\" what it is to see"
        )))
    })
}

/// Virtual addresses on the networks of the service alone, and on that for published ports once it
/// had one there.
fn readdress(draft: &mut Draft<'_>, service: &mut Service) -> Result<(), CommandError> {
    if service.spec.endpoint.mode == EndpointMode::Dnsrr {
        service.endpoint.vips.clear();
        return Ok(());
    }
    let ingress = draft.state.ingress().map(|network| network.id.clone());
    let networks = service.spec.task.networks.iter();
    let mut networks: Vec<NetworkId> = networks.map(|n| NetworkId(n.target.clone())).collect();
    service
        .endpoint
        .vips
        .retain(|vip| networks.contains(&vip.network) || ingress.as_ref() == Some(&vip.network));
    if allocator::uses_ingress(&service.spec) {
        networks.extend(ingress);
    }
    let vips = &service.endpoint.vips;
    networks.retain(|id| vips.iter().all(|vip| vip.network != *id));
    if networks.is_empty() {
        return Ok(());
    }
    let mut ipam = Ipam::new(&draft.state);
    let vips = allocator::vips_on(&draft.state, &mut ipam, &networks)
        .map_err(|e| CommandError::conflict(format!("no virtual IP: {e}")))?;
    service.endpoint.vips.extend(vips);
    ipam.store(draft);
    Ok(())
}
