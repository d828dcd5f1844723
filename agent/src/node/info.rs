//! What a node says of itself and of its membership. It needs no leader: a manager tells what it knows.

use std::net::SocketAddr;

use weft_model::api::{ClusterInfo, ContainersInfo, RemoteManager, SwarmInfo};
use weft_model::id::NodeId;
use weft_model::objects::Role;
use weft_runtime::cgroups::CgroupKind;
use weft_sys::clock::unix_millis;

use crate::parts::handles::Handles;
use crate::sandbox::runner::ContainerEngine;

/// What containers are run with.
pub(super) fn of_containers(engine: &ContainerEngine) -> ContainersInfo {
    let runtime = engine.program().ok();
    ContainersInfo {
        default_runtime: runtime.map_or_else(String::new, |program| program.name.clone()),
        runtime_version: runtime.map_or_else(String::new, |program| program.version.clone()),
        storage_driver: engine.driver().to_owned(),
        cgroup_version: match CgroupKind::of_node() {
            CgroupKind::None => String::new(),
            kind => kind.to_string(),
        },
    }
}

/// The membership, as it is at present.
pub(super) fn of_member(handles: &Handles) -> SwarmInfo {
    let identity = handles.session.identity();
    let failure = handles.session.last_failure();
    let manager = handles.manager.get();
    let managers = managers(handles);
    let known = manager.as_ref().and_then(|manager| manager.swarm().ok());
    SwarmInfo {
        cluster: ClusterInfo {
            id: identity.cluster_id().to_owned(),
            root_rotation_in_progress: known
                .as_ref()
                .is_some_and(|swarm| swarm.root_rotation_in_progress),
            spec: known.map(|swarm| swarm.cluster.spec),
        },
        node_id: handles.node_id.clone(),
        control_available: identity.role() == Role::Manager,
        addr: handles.membership.node.addr,
        manager_count: manager.as_ref().map_or(0, |_| managers.len()),
        node_count: manager.map_or(0, |manager| manager.state().nodes.len()),
        managers,
        connected: handles.session.connected(),
        error_at: failure.as_ref().map(|failure| unix_millis(failure.at)),
        error: failure.map(|failure| failure.error.to_string()),
    }
}

/// The managers: of their log where the node is one, else of its orders, and before there are any
/// those that it was told of when it joined.
fn managers(handles: &Handles) -> Vec<RemoteManager> {
    let remote = |node: &NodeId, addr: SocketAddr, leader| RemoteManager {
        node_id: Some(node.clone()),
        addr: addr.to_string(),
        leader,
    };
    if let Some(manager) = handles.manager.get() {
        let members = manager.managers();
        let members = members.iter();
        return members.map(|m| remote(&m.node, m.addr, m.leads)).collect();
    }
    let orders = handles.session.assignments().borrow().clone();
    let nodes = orders.iter().flat_map(|orders| &orders.shared.nodes);
    let ordered = nodes.filter(|node| node.role == Role::Manager);
    let mut ordered: Vec<_> = ordered
        .filter_map(|node| Some(remote(&node.id, node.manager_addr?, false)))
        .collect();
    ordered.sort_by(|a, b| a.addr.cmp(&b.addr));
    if !ordered.is_empty() {
        return ordered;
    }
    let told = handles.membership.managers.iter();
    told.map(|addr| RemoteManager {
        node_id: None,
        addr: addr.clone(),
        leader: false,
    })
    .collect()
}
