//! What containers need of the machine: a runtime program, control groups, overlay mounts.

use weft_runtime::cgroups::CgroupKind;

use super::Checks;
use crate::sandbox::runner::{COPIES, ContainerEngine};

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
            "programs of the node (`host`) run all the same; restart weftd after the installation: what \
             runs goes on meanwhile",
        ),
    }
    match CgroupKind::of_node() {
        CgroupKind::None => checks.warn(
            "control groups",
            "there are none at /sys/fs/cgroup",
            "mount them there: limits of tasks do not hold without, and runc needs them",
        ),
        kind => checks.ok("control groups", format!("version {kind}")),
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
