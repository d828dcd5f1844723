//! Which walls stand between sandboxes, strangers and this node.

use std::time::Duration;

use weft_swarm::door::DoorSample;
use weft_sys::private_folder::check_folder;

use super::{Checks, DataPath, Handles};
use crate::gossip::KeysHeld;
use crate::sandbox::gwbridge::GatewayBridge;

/// Age of a gossip key that should have been turned long ago: 12 hours, and one for clocks that
/// differ.
const OLDEST_KEY: Duration = Duration::from_secs(13 * 3600);

/// The gateway bridge and the mesh address. Blocks.
pub(super) fn gateway(checks: &mut Checks) {
    let name = "gateway wall";
    match GatewayBridge::inspect() {
        Err(error) => checks.warn(
            name,
            error.to_string(),
            "install nftables and start weftd again: without its rules no sandbox gets a way out",
        ),
        Ok(wall) if wall.gaps.is_empty() => {
            let (sandbox, mesh) = (wall.refused_sandbox, wall.refused_mesh);
            let found = format!(
                "it stands, {} ports locked; refused: {sandbox} packets of sandboxes, {mesh} past the published ports",
                wall.ports
            );
            checks.ok(name, found);
        }
        Ok(wall) => checks.fail(
            name,
            wall.gaps.join("; "),
            "start weftd again, which puts it up; then look for what takes it down",
        ),
    }
}

/// Age of the gossip keys; managers turn them every 12 hours.
pub(super) fn keys(checks: &mut Checks, held: KeysHeld, now_ms: u64) {
    let name = "gossip keys";
    let KeysHeld {
        sealing_epoch,
        sealing_since_ms,
        held,
    } = held;
    if sealing_since_ms == 0 {
        checks.warn(
            name,
            format!("key {sealing_epoch} of {held}, of unknown age"),
            "the manager turns them; look whether it runs this version",
        );
        return;
    }
    let age = Duration::from_millis(now_ms.saturating_sub(sealing_since_ms));
    let hours = age.as_secs() / 3600;
    let found = format!("key {sealing_epoch} of {held} seals, for {hours} h");
    if age <= OLDEST_KEY {
        checks.ok(name, found);
    } else {
        checks.warn(
            name,
            found,
            "managers turn them every 12 h: look for one that runs, and at the clocks",
        );
    }
}

/// Places of a TCP port that strangers reach, and who was sent away.
pub(super) fn door(checks: &mut Checks, door: &DoorSample) {
    let of = |figures: &[(&'static str, u64)], wanted: &str| -> u64 {
        let kinds = figures.iter().filter(|(kind, _)| kind.starts_with(wanted));
        kinds.map(|(_, n)| n).sum()
    };
    let found = format!(
        "{} connections open, {} of them of strangers; refused {}",
        of(&door.open, ""),
        of(&door.open, "stranger"),
        of(&door.events, "refused"),
    );
    checks.ok(format!("door of {}", door.door), found);
}

/// Where keys and orders lie, and whether changes are stored.
pub(super) fn files(checks: &mut Checks, handles: &Handles, data_path: &DataPath) {
    let folder = &handles.config.data_dir;
    match check_folder(folder) {
        Ok(()) => checks.ok(
            "data directory",
            format!("{} is this user's alone", folder.display()),
        ),
        Err(error) => checks.fail(
            "data directory",
            error.to_string(),
            "start weftd again, which takes it for itself alone; keys in it may be known to others",
        ),
    }
    match data_path.journal_trouble() {
        None => checks.ok("journal of flows", "connections outlive this agent"),
        Some(why) => checks.warn(
            "journal of flows",
            why,
            "make room in the run directory: connections would end with this agent",
        ),
    }
    if let Some(manager) = handles.manager.get() {
        match manager.trouble() {
            None => checks.ok("store of the manager", "changes are stored"),
            Some(why) => checks.fail("store of the manager", why, "make room on its disk"),
        }
    }
}
