//! Which walls stand between sandboxes, strangers and this node.

use super::Checks;
use crate::sandbox::gwbridge::GatewayBridge;

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
