//! Gives tasks and nodes their addresses. What cannot be given is written on the object that
//! lacks it, and tried again on every reconciliation.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_model::id::{EndpointId, NetworkId};
use weft_model::objects::{
    Attachment, Mac, Network, Service, ServiceSpec, Task, TaskSpec, TaskState, Vip,
};

use super::draft::Draft;
use super::ending;
use super::index::Key;
use super::ipam::{Exhausted, Ipam};
use super::state::ClusterState;

/// True when nodes accept connections for the service. Ports with `mode=host` go the same way, to
/// one task in place of all.
pub(super) fn uses_ingress(spec: &ServiceSpec) -> bool {
    !spec.endpoint.ports.is_empty()
}

/// Networks of tasks that are made of `task`, in the order of their interfaces: the user's first,
/// then ingress where their service is `published`.
fn networks_of(
    state: &ClusterState,
    task: &TaskSpec,
    published: bool,
) -> Vec<(NetworkId, Vec<String>)> {
    let mut networks: Vec<_> = task
        .networks
        .iter()
        .map(|n| (NetworkId(n.target.clone()), n.aliases.clone()))
        .collect();
    if published && let Some(ingress) = state.ingress() {
        networks.push((ingress.id.clone(), Vec::new()));
    }
    networks
}

/// Gives addresses to new tasks and to nodes that have none on the ingress network.
pub(super) fn allocate(draft: &mut Draft<'_>) {
    let lacking = draft.state.nodes_at(Key::Unaddressed);
    let lacking: Vec<_> = lacking.map(|n| n.id.clone()).collect();
    let new = draft.state.tasks_at(Key::Unaddressed);
    let new: Vec<_> = new.map(|t| t.id.clone()).collect();
    let ingress = draft.state.ingress().cloned();
    if new.is_empty() && (lacking.is_empty() || ingress.is_none()) {
        return;
    }
    let mut ipam = Ipam::new(&draft.state);
    for id in lacking {
        let (Some(ingress), Some(node)) = (&ingress, draft.state.nodes.get(&id)) else {
            break;
        };
        let mut node = node.clone();
        match ipam.allocate_node(ingress) {
            Ok(ip) => {
                node.ingress_ip = Some(ip);
                draft.put(node);
            }
            Err(e) => {
                let message = e.to_string();
                if node.status.message != message {
                    node.status.message = message;
                    draft.put(node);
                }
            }
        }
    }
    for id in new {
        if let Some(mut task) = draft.state.tasks.get(&id).cloned() {
            match attach(draft, &mut ipam, &task) {
                Ok(attachments) => {
                    task.attachments = attachments;
                    task.status.state = TaskState::Pending;
                    task.status.since = draft.now;
                    task.status.message = "pending task scheduling".to_owned();
                    task.status.err.clear();
                    draft.put(task);
                }
                Err(e) => {
                    let err = e.to_string();
                    if task.status.err != err {
                        task.status.message = "waiting for an address".to_owned();
                        task.status.err = err;
                        draft.put(task);
                    }
                }
            }
        }
    }
    ipam.store(draft);
}

fn attach(
    draft: &mut Draft<'_>,
    ipam: &mut Ipam,
    task: &Task,
) -> Result<Vec<Attachment>, Exhausted> {
    let mut attachments: Vec<Attachment> = Vec::new();
    let service = draft.state.services.get(&task.service);
    let published = service.is_some_and(|service| uses_ingress(&service.spec));
    for (id, aliases) in networks_of(&draft.state, &task.spec, published) {
        let given = match ending::lasting(draft.state.networks.get(&id)) {
            Some(network) => {
                let ips = ipam.allocate_all(network);
                ips.map(|ips| with_prefixes(network, ips))
            }
            None => Err(Exhausted {
                network: id.to_string(),
                usage: "the network was removed".to_owned(),
            }),
        };
        let addresses = given.inspect_err(|_| {
            for done in &attachments {
                ipam.release(&done.network, done.ips());
            }
        })?;
        attachments.push(Attachment {
            endpoint: EndpointId::from_entropy(draft.entropy.next_u128()),
            network: id,
            mac: mac_of(&addresses),
            addresses,
            aliases,
        });
    }
    Ok(attachments)
}

/// What an endpoint has on the network: these addresses, with the prefix lengths of their subnets.
pub(super) fn with_prefixes(network: &Network, ips: Vec<IpAddr>) -> Vec<IpNet> {
    ips.into_iter().map(|ip| network.with_prefix(ip)).collect()
}

/// The Ethernet address of an endpoint: it follows from its first address.
pub(super) fn mac_of(addresses: &[IpNet]) -> Mac {
    let first = addresses.first().map(IpNet::addr);
    Mac::for_ip(first.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

/// Virtual addresses of the service: one of each family on each of its networks.
pub(super) fn vips(
    state: &ClusterState,
    ipam: &mut Ipam,
    service: &Service,
) -> Result<Vec<Vip>, Exhausted> {
    let published = uses_ingress(&service.spec);
    let networks: Vec<NetworkId> = networks_of(state, &service.spec.task, published)
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    vips_on(state, ipam, &networks)
}

/// Virtual addresses of a service on these networks, one of each family.
pub(super) fn vips_on(
    state: &ClusterState,
    ipam: &mut Ipam,
    networks: &[NetworkId],
) -> Result<Vec<Vip>, Exhausted> {
    let mut vips = Vec::new();
    for id in networks {
        if let Some(network) = state.networks.get(id) {
            let ips = ipam.allocate_all(network)?;
            vips.extend(ips.into_iter().map(|ip| Vip {
                network: id.clone(),
                addr: network.with_prefix(ip),
            }));
        }
    }
    Ok(vips)
}
