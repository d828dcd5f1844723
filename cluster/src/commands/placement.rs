//! Where tasks may run and what they need there: what is refused, and how it is changed.

use weft_model::api::PlacementUpdate;
use weft_model::objects::{Placement, ServiceMode, ServiceSpec, TaskSpec};

use super::super::constraint::{Constraint, spread_label};
use super::super::error::CommandError;

/// The least part of a processor that can be limited or reserved, in billionths.
const LEAST_NANO_CPUS: u64 = 1_000_000;
/// The least memory: 4 MiB.
const LEAST_MEMORY: u64 = 4 << 20;
/// Constraints and preferences of one service, each.
const MAX_CONSTRAINTS: usize = 128;

/// Placement and resources of a service, by themselves.
pub(super) fn check(spec: &ServiceSpec) -> Result<(), CommandError> {
    let placement = &spec.task.placement;
    for (what, count) in [
        ("constraints", placement.constraints.len()),
        ("placement preferences", placement.preferences.len()),
        ("platforms", placement.platforms.len()),
    ] {
        if count > MAX_CONSTRAINTS {
            return Err(CommandError::bad(format!(
                "{count} {what} are too many: there may be {MAX_CONSTRAINTS}"
            )));
        }
    }
    for text in &placement.constraints {
        Constraint::parse(text).map_err(CommandError::bad)?;
    }
    for preference in &placement.preferences {
        spread_label(&preference.spread.spread_descriptor).map_err(CommandError::bad)?;
    }
    if placement.max_replicas > 0 && !has_replicas(spec.mode) {
        return Err(CommandError::bad(
            "replicas-max-per-node can only be used with replicated or replicated-job mode",
        ));
    }
    check_resources(&spec.task)
}

fn has_replicas(mode: ServiceMode) -> bool {
    matches!(
        mode,
        ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. }
    )
}

fn check_resources(task: &TaskSpec) -> Result<(), CommandError> {
    let (limits, reservations) = (&task.resources.limits, &task.resources.reservations);
    for nano_cpus in [limits.nano_cpus, reservations.nano_cpus] {
        if nano_cpus != 0 && nano_cpus < LEAST_NANO_CPUS {
            let cpus = format!("0.{nano_cpus:09}");
            return Err(CommandError::bad(format!(
                "invalid cpu value {}: Must be at least 0.001",
                cpus.trim_end_matches('0')
            )));
        }
    }
    for memory in [limits.memory_bytes, reservations.memory_bytes] {
        if memory != 0 && memory < LEAST_MEMORY {
            return Err(CommandError::bad(format!(
                "invalid memory value {memory}: Must be at least 4MiB"
            )));
        }
    }
    Ok(())
}

/// The placement after an update. As docker has it, what is taken away goes first, and constraints
/// are in order afterwards.
pub(super) fn updated(
    before: &Placement,
    update: &PlacementUpdate,
) -> Result<Placement, CommandError> {
    let mut after = before.clone();
    for constraint in &update.constraint_rm {
        if !after.constraints.contains(constraint) {
            return Err(CommandError::bad(format!(
                "the service has no constraint {constraint:?}; it has {}",
                match after.constraints.as_slice() {
                    [] => "none".to_owned(),
                    some => some.join(", "),
                }
            )));
        }
        after.constraints.retain(|there| there != constraint);
    }
    for preference in &update.preference_rm {
        if !after.preferences.contains(preference) {
            return Err(CommandError::bad(format!(
                "the service has no placement preference spread={}",
                preference.spread.spread_descriptor
            )));
        }
        after.preferences.retain(|there| there != preference);
    }
    let new = update.constraint_add.iter();
    let new = new.filter(|constraint| !before.constraints.contains(constraint));
    after.constraints.extend(new.cloned());
    if after.constraints != before.constraints {
        after.constraints.sort();
        after.constraints.dedup();
    }
    after
        .preferences
        .extend(update.preference_add.iter().cloned());
    after.max_replicas = update.max_replicas.unwrap_or(before.max_replicas);
    Ok(after)
}
