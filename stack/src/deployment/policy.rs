//! What `deploy` says: how many tasks, where, what follows their end, and how they are replaced. What is
//! not said is what a service has that is made by flags.

use std::time::Duration;

use weft_model::objects::{
    EndpointMode, FailureAction, Placement, PlacementPreference, Ratio, ResourceLimits,
    ResourceRequirements, Resources, RestartCondition, RestartPolicy, ServiceMode, SpreadOver,
    UpdateConfig, UpdateOrder,
};

use super::Work;
use crate::amount::Nanoseconds;
use crate::model::{self, Deploy, Service};
use crate::problem::below;

/// Longest of the times that managers and nodes wait: 24 hours.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Replacements that are counted at most.
const MAX_ATTEMPTS: u64 = 1_000;
/// Tasks of one service at most.
const MAX_REPLICAS: u64 = 10_000;
/// The least part of a processor, in billionths.
const LEAST_NANO_CPUS: u64 = 1_000_000;
/// The least memory: 4 MiB.
const LEAST_MEMORY: u64 = 4 << 20;

/// How many tasks.
pub(super) fn mode(service: &Service, deploy: &Deploy, work: &mut Work<'_>) -> ServiceMode {
    let asked = deploy.replicas.unwrap_or(1);
    let replicas = u32::try_from(asked.min(MAX_REPLICAS)).unwrap_or_default();
    if asked > MAX_REPLICAS {
        let what = format!("is {asked}: a service may have {MAX_REPLICAS} replicas at most");
        let mend = "ask for fewer, or split the service";
        work.refuse(service, "deploy.replicas", what, mend);
    }
    match deploy.mode.as_deref() {
        Some("global") => ServiceMode::Global,
        Some("global-job") => ServiceMode::GlobalJob,
        // As docker has it: all at one time.
        Some("replicated-job") => ServiceMode::ReplicatedJob {
            max_concurrent: replicas,
            total_completions: replicas,
        },
        _ => ServiceMode::Replicated { replicas },
    }
}

/// How the name of a service resolves.
pub(super) fn endpoint_mode(deploy: &Deploy) -> EndpointMode {
    match deploy.endpoint_mode.as_deref() {
        Some("dnsrr") => EndpointMode::Dnsrr,
        _ => EndpointMode::Vip,
    }
}

/// A time, if it is not too long.
pub(super) fn time(
    service: &Service,
    key: &str,
    given: Option<Nanoseconds>,
    work: &mut Work<'_>,
) -> Option<Duration> {
    let time = Duration::from_nanos(given?.0);
    if time > MAX_DELAY {
        let what = format!("is {} s long, and may be 24 hours at most", time.as_secs());
        work.refuse(service, key, what, "write a shorter time");
    }
    Some(time)
}

/// What follows the end of a task: `deploy.restart_policy`, or without it `restart`.
pub(super) fn restart(service: &Service, deploy: &Deploy, work: &mut Work<'_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    let Some(asked) = &deploy.restart_policy else {
        of_word(service, &mut policy, work);
        return policy;
    };
    let key = "deploy.restart_policy";
    policy.condition = match asked.condition.as_deref() {
        Some("none") => RestartCondition::None,
        Some("on-failure") => RestartCondition::OnFailure,
        _ => RestartCondition::Any,
    };
    let path = below(key, "delay");
    policy.delay = time(service, &path, asked.delay, work).unwrap_or(policy.delay);
    let path = below(key, "window");
    policy.window = time(service, &path, asked.window, work).unwrap_or(policy.window);
    policy.max_attempts = asked.max_attempts.unwrap_or_default();
    if policy.max_attempts > MAX_ATTEMPTS {
        let what = format!(
            "is {}: {MAX_ATTEMPTS} are counted at most, and 0 is no limit",
            policy.max_attempts
        );
        let path = below(key, "max_attempts");
        work.refuse(service, &path, what, "write a smaller number");
    }
    policy
}

/// `restart` of a container as docker takes it in a stack.
fn of_word(service: &Service, policy: &mut RestartPolicy, work: &mut Work<'_>) {
    let Some(word) = &service.restart else {
        return;
    };
    let (word, attempts) = word.split_once(':').unwrap_or((word.as_str(), "0"));
    match word {
        "on-failure" => {
            policy.condition = RestartCondition::OnFailure;
            policy.max_attempts = attempts.parse::<u64>().unwrap_or_default();
            if policy.max_attempts > MAX_ATTEMPTS {
                let what =
                    format!("has {attempts} attempts, and {MAX_ATTEMPTS} are counted at most");
                work.refuse(service, "restart", what, "write a smaller number");
            }
        }
        "no" => {
            let what =
                "is \"no\", and tasks are replaced all the same, as `docker stack deploy` has it";
            let mend = "write deploy.restart_policy.condition: none";
            work.warn(service, "restart", what, mend);
        }
        _ => {}
    }
}

/// How tasks are replaced; `key` is `update_config` or `rollback_config`.
pub(super) fn update(
    service: &Service,
    key: &str,
    asked: Option<&model::UpdateConfig>,
    mode: ServiceMode,
    work: &mut Work<'_>,
) -> UpdateConfig {
    let default = UpdateConfig::default();
    let Some(asked) = asked else {
        return default;
    };
    let key = below("deploy", key);
    if mode.is_job() {
        let what = "update and rollback configuration is not supported for jobs";
        work.refuse(service, &key, what, "take it away, or write another mode");
    }
    let delay = time(service, &below(&key, "delay"), asked.delay, work);
    let monitor = time(service, &below(&key, "monitor"), asked.monitor, work);
    let parallelism = asked.parallelism.map(u32::try_from);
    UpdateConfig {
        // More than a service can have is as good as all of them.
        parallelism: parallelism.map_or(default.parallelism, |number| number.unwrap_or(u32::MAX)),
        delay: delay.unwrap_or(default.delay),
        failure_action: match asked.failure_action.as_deref() {
            Some("continue") => FailureAction::Continue,
            Some("rollback") => FailureAction::Rollback,
            _ => FailureAction::Pause,
        },
        monitor: monitor.unwrap_or(default.monitor),
        max_failure_ratio: asked
            .max_failure_ratio
            .and_then(Ratio::new)
            .unwrap_or_default(),
        order: match asked.order.as_deref() {
            Some("start-first") => UpdateOrder::StartFirst,
            _ => UpdateOrder::StopFirst,
        },
        timeout: default.timeout,
    }
}

/// On which nodes.
pub(super) fn placement(
    service: &Service,
    deploy: &Deploy,
    mode: ServiceMode,
    work: &mut Work<'_>,
) -> Placement {
    let Some(asked) = &deploy.placement else {
        return Placement::default();
    };
    let key = "deploy.placement.constraints";
    for text in &asked.constraints {
        let operands = text.split_once("==").or_else(|| text.split_once("!="));
        let subject = operands.map(|(subject, _)| subject.trim().to_ascii_lowercase());
        let is_known = |subject: &str| {
            let prefixes = ["node.labels.", "engine.labels."];
            let single = [
                "node.id",
                "node.hostname",
                "node.ip",
                "node.role",
                "node.platform.os",
                "node.platform.arch",
            ];
            prefixes
                .iter()
                .any(|prefix| subject.len() > prefix.len() && subject.starts_with(prefix))
                || single.contains(&subject)
        };
        match subject {
            None => {
                let what = format!("has {text:?}: constraint expected one operator from ==, !=");
                work.refuse(service, key, what, "write it as node.labels.disk == ssd");
            }
            Some(subject) if !is_known(&subject) => {
                let what = format!("has {text:?}: key '{subject}' is invalid");
                let mend = "there are node.id, node.hostname, node.ip, node.role, node.platform.os, \
                            node.platform.arch, node.labels.KEY and engine.labels.KEY";
                work.refuse(service, key, what, mend);
            }
            Some(_) => {}
        }
    }
    for preference in &asked.preferences {
        let rest = preference.spread.strip_prefix("node.labels.");
        if rest.is_none_or(str::is_empty) {
            let what = format!("spreads over {:?}", preference.spread);
            let mend = "tasks are spread over the labels of nodes: write node.labels.KEY";
            work.refuse(service, "deploy.placement.preferences", what, mend);
        }
    }
    let most = asked.max_replicas_per_node.unwrap_or_default();
    if most > 0 && mode.is_global() {
        let what = "replicas-max-per-node can only be used with replicated or replicated-job mode";
        let mend = "take it away: a global service has one task on each node";
        let key = "deploy.placement.max_replicas_per_node";
        work.refuse(service, key, what, mend);
    }
    let preferences = asked.preferences.iter();
    Placement {
        constraints: asked.constraints.clone(),
        preferences: preferences
            .map(|preference| PlacementPreference {
                spread: SpreadOver {
                    spread_descriptor: preference.spread.clone(),
                },
            })
            .collect(),
        max_replicas: u32::try_from(most).unwrap_or(u32::MAX),
        platforms: Vec::new(),
    }
}

/// What a task needs and may use.
pub(super) fn resources(
    service: &Service,
    deploy: &Deploy,
    work: &mut Work<'_>,
) -> ResourceRequirements {
    let Some(asked) = &deploy.resources else {
        return ResourceRequirements::default();
    };
    let mut made = ResourceRequirements::default();
    if let Some(limits) = &asked.limits {
        let key = "deploy.resources.limits";
        made.limits = ResourceLimits {
            nano_cpus: cpus(service, key, limits.cpus.as_deref(), work),
            memory_bytes: memory(service, key, limits.memory, work),
            pids: limits.pids.unwrap_or_default(),
        };
    }
    if let Some(reservations) = &asked.reservations {
        let key = "deploy.resources.reservations";
        if !reservations.generic_resources.is_empty() {
            let what = "has generic_resources, and nodes of weft offer none";
            let mend = "label the nodes that have the thing, and write \
                        deploy.placement.constraints: [node.labels.KEY == VALUE]";
            work.refuse(service, key, what, mend);
        }
        made.reservations = Resources {
            nano_cpus: cpus(service, key, reservations.cpus.as_deref(), work),
            memory_bytes: memory(service, key, reservations.memory, work),
        };
    }
    made
}

fn cpus(service: &Service, key: &str, text: Option<&str>, work: &mut Work<'_>) -> u64 {
    let Some(text) = text else {
        return 0;
    };
    let fault = match billionths(text) {
        Some(0) => return 0,
        Some(nano_cpus) if nano_cpus >= LEAST_NANO_CPUS => return nano_cpus,
        Some(_) => "Must be at least 0.001",
        None => "it is no decimal number with nine digits behind the point at most",
    };
    let what = format!("invalid cpu value {text}: {fault}");
    work.refuse(service, &below(key, "cpus"), what, "write it as \"0.5\"");
    0
}

/// A number of processors in billionths.
fn billionths(text: &str) -> Option<u64> {
    const DIGITS: usize = 9;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || whole.len() + part.len() == 0 {
        return None;
    }
    let part = part.trim_end_matches('0');
    if part.len() > DIGITS {
        return None;
    }
    let part = format!("{part:0<DIGITS$}").parse::<u64>().ok()?;
    let whole = match whole {
        "" => 0,
        whole => whole.parse::<u64>().ok()?,
    };
    whole.checked_mul(1_000_000_000)?.checked_add(part)
}

fn memory(service: &Service, key: &str, bytes: Option<u64>, work: &mut Work<'_>) -> u64 {
    let bytes = bytes.unwrap_or_default();
    if bytes != 0 && bytes < LEAST_MEMORY {
        let what = format!("invalid memory value {bytes}: Must be at least 4MiB");
        work.refuse(service, &below(key, "memory"), what, "write 4M or more");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_to_the_billionth() {
        for (text, nano_cpus) in [
            ("0.5", Some(500_000_000)),
            ("0.50", Some(500_000_000)),
            ("2", Some(2_000_000_000)),
            (".25", Some(250_000_000)),
            ("1.", Some(1_000_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000010", Some(1)),
            ("0", Some(0)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("0.0000000001", None),
            ("99999999999999", None),
        ] {
            assert_eq!(billionths(text), nano_cpus, "{text}");
        }
    }
}
