//! Published ports that nodes cannot open: those of the agents themselves, and those that somebody
//! else holds.

use std::collections::BTreeMap;

use weft_model::api::ServiceDetail;
use weft_model::objects::{PortSpec, Protocol};
use weft_model::text::cleaned;
use weft_swarm::Manager;

use crate::api::{Answer, ApiError};
use crate::images;
use crate::parts::handles::Handles;

/// Refuses ports that no node could open.
///
/// # Errors
/// One is used by the agents themselves.
pub(crate) fn check(handles: &Handles, ports: &[PortSpec]) -> Answer<()> {
    let node = &handles.membership.node;
    let data_path = handles
        .session
        .assignments()
        .borrow()
        .as_ref()
        .map_or(0, |orders| orders.shared.data_path_port);
    let manager = node.manager_addr.map_or(0, |addr| addr.port());
    for port in ports {
        let own = match port.protocol {
            Protocol::Tcp => [
                (manager, "managers"),
                (node.gossip_port, "gossip"),
                (images::port(node.gossip_port).unwrap_or(0), "images"),
            ],
            Protocol::Udp => [
                (data_path, "VXLAN"),
                (node.gossip_port, "gossip"),
                (0, "nothing"),
            ],
        };
        let taken = own.iter().find(|(p, _)| *p != 0 && *p == port.published);
        if let Some((number, user)) = taken {
            return Err(ApiError::conflict(format!(
                "port {number}/{} is used by weft itself on every node ({user}); publish another port",
                port.protocol
            )));
        }
    }
    Ok(())
}

/// Longest name of a program that holds a port, in bytes.
const MAX_HOLDER: usize = 128;

/// Published ports of a service that some node could not open, as gossip tells it.
pub(crate) fn errors(handles: &Handles, manager: &Manager, service: &ServiceDetail) -> Vec<String> {
    let Some(data_path) = handles.data_path.load_full() else {
        return Vec::new();
    };
    let view = data_path.gossip.view().borrow().clone();
    let state = manager.state();
    let mut errors = Vec::new();
    // Ports on an address that is not there, and on how many nodes.
    let mut absent: BTreeMap<String, usize> = BTreeMap::new();
    let mut nodes = 0;
    for (owner, record) in view.nodes() {
        nodes += 1;
        for closed in &record.closed_ports {
            let (port, protocol) = (closed.port, closed.protocol);
            let ours = service.service.endpoint.ports.iter().any(|p| {
                p.published == port && p.protocol == protocol && p.host_ip == closed.host_ip
            });
            if !ours {
                continue;
            }
            let node = state
                .nodes
                .get(owner)
                .map_or(owner.as_str(), |n| n.description.hostname.as_str());
            match (&closed.holder, closed.host_ip) {
                (None, Some(ip)) => {
                    let error = format!("port {port}/{protocol}: no node has the address {ip}");
                    *absent.entry(error).or_default() += 1;
                }
                (holder, _) => errors.push(format!(
                    "port {port}/{protocol} on node {node} is held by {}: stop it there, or publish another port",
                    cleaned(holder.as_deref().unwrap_or("somebody"), MAX_HOLDER)
                )),
            }
        }
    }
    errors.extend(
        absent
            .into_iter()
            .filter(|(_, count)| *count == nodes)
            .map(|(error, _)| format!("{error}: give it to one, or publish another address")),
    );
    errors.sort();
    errors
}
