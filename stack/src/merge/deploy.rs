//! `deploy` of a service out of two files.

use super::replace;
use crate::model::{
    Deploy, Limits, Placement, Reservations, Resources, RestartPolicy, UpdateConfig,
};

pub(super) fn merge(base: &mut Deploy, over: Deploy) {
    replace(&mut base.mode, over.mode);
    replace(&mut base.replicas, over.replicas);
    base.labels.extend(over.labels);
    replace(&mut base.endpoint_mode, over.endpoint_mode);
    join(&mut base.placement, over.placement, placement);
    join(&mut base.resources, over.resources, resources);
    join(
        &mut base.restart_policy,
        over.restart_policy,
        restart_policy,
    );
    join(&mut base.update_config, over.update_config, update);
    join(&mut base.rollback_config, over.rollback_config, update);
}

/// Joins two where both are there.
fn join<T>(base: &mut Option<T>, over: Option<T>, both: fn(&mut T, T)) {
    match (base, over) {
        (Some(base), Some(over)) => both(base, over),
        (base, Some(over)) => *base = Some(over),
        (_, None) => {}
    }
}

fn placement(base: &mut Placement, over: Placement) {
    base.constraints.extend(over.constraints);
    base.preferences.extend(over.preferences);
    replace(&mut base.max_replicas_per_node, over.max_replicas_per_node);
}

fn resources(base: &mut Resources, over: Resources) {
    join(&mut base.limits, over.limits, limits);
    join(&mut base.reservations, over.reservations, reservations);
}

fn limits(base: &mut Limits, over: Limits) {
    replace(&mut base.cpus, over.cpus);
    replace(&mut base.memory, over.memory);
    replace(&mut base.pids, over.pids);
}

fn reservations(base: &mut Reservations, over: Reservations) {
    replace(&mut base.cpus, over.cpus);
    replace(&mut base.memory, over.memory);
    base.generic_resources.extend(over.generic_resources);
}

fn restart_policy(base: &mut RestartPolicy, over: RestartPolicy) {
    replace(&mut base.condition, over.condition);
    replace(&mut base.delay, over.delay);
    replace(&mut base.max_attempts, over.max_attempts);
    replace(&mut base.window, over.window);
}

fn update(base: &mut UpdateConfig, over: UpdateConfig) {
    replace(&mut base.parallelism, over.parallelism);
    replace(&mut base.delay, over.delay);
    replace(&mut base.failure_action, over.failure_action);
    replace(&mut base.monitor, over.monitor);
    replace(&mut base.max_failure_ratio, over.max_failure_ratio);
    replace(&mut base.order, over.order);
}
