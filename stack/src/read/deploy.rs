//! `deploy` of a service.

use super::place::Place;
use crate::model::{
    Deploy, GenericResource, GenericSpec, Limits, Placement, Preference, Reservations, Resources,
    RestartPolicy, UpdateConfig,
};
use crate::problem::Findings;

/// More tasks than anybody has.
const MOST: u64 = 1_000_000;

pub(super) fn deploy(place: &Place<'_>, findings: &mut Findings) -> Deploy {
    let modes = ["replicated", "global", "replicated-job", "global-job"];
    let deploy = Deploy {
        mode: place.one_of("mode", &modes, findings),
        replicas: place.count("replicas", MOST, findings),
        labels: place.labels("labels"),
        endpoint_mode: place.one_of("endpoint_mode", &["vip", "dnsrr"], findings),
        placement: place
            .get("placement")
            .map(|place| placement(&place, findings)),
        resources: place.get("resources").map(|place| Resources {
            limits: place.get("limits").map(|place| limits(&place, findings)),
            reservations: place
                .get("reservations")
                .map(|place| reservations(&place, findings)),
        }),
        restart_policy: place.get("restart_policy").map(|place| RestartPolicy {
            condition: place.one_of("condition", &["none", "on-failure", "any"], findings),
            delay: place.duration("delay", findings),
            max_attempts: place.count("max_attempts", u64::MAX, findings),
            window: place.duration("window", findings),
        }),
        update_config: place
            .get("update_config")
            .map(|place| update(&place, true, findings)),
        rollback_config: place
            .get("rollback_config")
            .map(|place| update(&place, false, findings)),
    };
    let is_global = deploy
        .mode
        .as_deref()
        .is_some_and(|mode| mode.starts_with("global"));
    if is_global && let Some(replicas) = place.get("replicas") {
        let what = "replicas can only be used with replicated or replicated-job mode";
        findings.error(
            replicas.at(),
            &replicas.path,
            what,
            "take replicas away, or mode",
        );
    }
    deploy
}

fn placement(place: &Place<'_>, findings: &mut Findings) -> Placement {
    let preferences = place.get("preferences");
    let preferences = preferences.iter().flat_map(Place::items);
    Placement {
        constraints: place.texts("constraints"),
        preferences: preferences
            .filter_map(|place| place.text("spread"))
            .map(|spread| Preference { spread })
            .collect(),
        max_replicas_per_node: place.count("max_replicas_per_node", MOST, findings),
    }
}

fn limits(place: &Place<'_>, findings: &mut Findings) -> Limits {
    Limits {
        cpus: cpus(place, findings),
        memory: place.size("memory", findings),
        pids: place.count("pids", u64::MAX, findings),
    }
}

fn reservations(place: &Place<'_>, findings: &mut Findings) -> Reservations {
    let mut generic_resources = Vec::new();
    for item in place.get("generic_resources").iter().flat_map(Place::items) {
        let Some(spec) = item.get("discrete_resource_spec") else {
            continue;
        };
        let value = spec.count("value", u64::MAX, findings);
        if let (Some(kind), Some(value)) = (spec.text("kind"), value) {
            let discrete_resource_spec = GenericSpec { kind, value };
            generic_resources.push(GenericResource {
                discrete_resource_spec,
            });
        }
    }
    Reservations {
        cpus: cpus(place, findings),
        memory: place.size("memory", findings),
        generic_resources,
    }
}

/// Processors, as they are written.
fn cpus(place: &Place<'_>, findings: &mut Findings) -> Option<String> {
    let text = place.text("cpus")?;
    let is_number = text
        .parse::<f64>()
        .is_ok_and(|cpus| cpus.is_finite() && cpus >= 0.0);
    if !is_number && let Some(place) = place.get("cpus") {
        let what = format!("is {text:?}, which is no number of processors");
        findings.error(place.at(), &place.path, what, "write it as \"0.5\"");
    }
    is_number.then_some(text)
}

/// A rollback cannot roll back.
fn update(place: &Place<'_>, may_roll_back: bool, findings: &mut Findings) -> UpdateConfig {
    let actions = ["pause", "continue", "rollback"];
    let actions = &actions[..if may_roll_back { 3 } else { 2 }];
    let ratio = place.get("max_failure_ratio");
    let ratio = ratio.and_then(|place| {
        let ratio = place.node.scalar().and_then(|scalar| scalar.number())?;
        if (0.0..=1.0).contains(&ratio) {
            return Some(ratio);
        }
        let what = format!("is {ratio}, and must be from 0 to 1");
        findings.error(place.at(), &place.path, what, "write it as 0.25");
        None
    });
    UpdateConfig {
        parallelism: place.count("parallelism", MOST, findings),
        delay: place.duration("delay", findings),
        failure_action: place.one_of("failure_action", actions, findings),
        monitor: place.duration("monitor", findings),
        max_failure_ratio: ratio,
        order: place.one_of("order", &["stop-first", "start-first"], findings),
    }
}
