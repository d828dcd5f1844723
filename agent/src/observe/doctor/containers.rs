//! What containers need of the machine: a runtime program, control groups, overlay mounts.

use super::Checks;
use crate::sandbox::runner::{COPIES, ContainerEngine, cgroup_version};

/// Looks at all of it.
pub(super) fn examine(checks: &mut Checks, engine: &ContainerEngine) {
    match engine.program() {
        Ok(program) => checks.ok(
            "container runtime",
            format!(
                "{} {} ({})",
                program.name,
                program.version,
                program.path.display()
            ),
        ),
        Err(why) => checks.warn(
            "container runtime",
            why,
            "programs of the node (`host`) run all the same; for containers install crun or runc and \
             restart weftd: what runs goes on meanwhile",
        ),
    }
    match cgroup_version() {
        Some(version) => checks.ok("control groups", format!("version {version}")),
        None => checks.warn(
            "control groups",
            "there are none at /sys/fs/cgroup",
            "mount them there: limits of tasks do not hold without, and runc needs them",
        ),
    }
    match engine.driver() {
        COPIES => checks.warn(
            "container storage",
            "copies: the data directory's file system allows no overlay mounts",
            "put --data-dir on ext4, xfs or tmpfs: every container has a copy of its image until then",
        ),
        driver => checks.ok("container storage", driver),
    }
}
