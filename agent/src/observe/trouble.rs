//! What keeps this node from doing its work that a person can mend: ports and disks that others
//! fill, a copy of its data directory, managers of the past.

use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::published::busy::NO_ADDRESS;

/// Sets or clears the warnings of this node.
pub(crate) fn warn(handles: &Handles, data_path: &DataPath) {
    busy_ports(handles, data_path);
    full_disks(handles, data_path);
    clones(handles);
    managers(handles);
    past_managers(handles);
}

fn managers(handles: &Handles) {
    let quorum = handles.manager.get().map(|manager| manager.quorum());
    match quorum.and_then(|quorum| quorum.warning()) {
        Some(why) => handles.warnings.set("managers", why.to_owned()),
        None => handles.warnings.clear("managers"),
    }
}

fn busy_ports(handles: &Handles, data_path: &DataPath) {
    match data_path.mesh.frame_error() {
        Some(error) => handles.warnings.set(
            "mesh",
            format!("replicas do not see the address of their clients, as connections to published ports are accepted by this node: {error}"),
        ),
        None if data_path.mesh_port.is_some() => handles.warnings.clear("mesh"),
        None => {}
    }
    match data_path.mesh.wall_error() {
        Some(error) => handles.warnings.set(
            "mesh wall",
            format!("published ports may be reached past the addresses that they were published on: {error}"),
        ),
        None => handles.warnings.clear("mesh wall"),
    }
    let mut busy = data_path.mesh.busy();
    // Somebody else may have the address.
    busy.retain(|b| b.owner != NO_ADDRESS);
    if busy.is_empty() {
        handles.warnings.clear("ports");
        return;
    }
    let list: Vec<String> = busy
        .iter()
        .map(|b| {
            format!(
                "port {}/{} of service {} is held by {}",
                b.port, b.protocol, b.service, b.owner
            )
        })
        .collect();
    handles.warnings.set("ports", list.join("; "));
}

fn full_disks(handles: &Handles, data_path: &DataPath) {
    let warnings = &handles.warnings;
    match data_path.journal_trouble() {
        Some(why) => warnings.set(
            "journal",
            format!(
                "connections through virtual addresses and published ports will not all outlive this agent: {why} (in {}); make room there",
                handles.config.run_dir.join("flows").display()
            ),
        ),
        None => warnings.clear("journal"),
    }
    let manager = handles.manager.get();
    match manager.and_then(|manager| manager.trouble()) {
        Some(why) => warnings.set("store", format!("the manager cannot store changes: {why}")),
        None => warnings.clear("store"),
    }
}

fn clones(handles: &Handles) {
    let manager = handles.manager.get();
    let clones = manager.map(|manager| manager.clones()).unwrap_or_default();
    if clones.is_empty() {
        handles.warnings.clear("clones");
    } else {
        handles.warnings.set("clones", clones.join("; "));
    }
}

fn past_managers(handles: &Handles) {
    let manager = handles.manager.get();
    let past = manager.map(|manager| manager.past_managers());
    match past.filter(|past| !past.is_empty()) {
        Some(past) => handles.warnings.set("past managers", past.join("; ")),
        None => handles.warnings.clear("past managers"),
    }
}
