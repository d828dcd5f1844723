//! `depends_on`: a service is made when those that it depends on are as far as it wants them.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;
use weft_client::Client;
use weft_model::api::{ServiceDetail, TaskRow};
use weft_model::objects::ServiceMode;
use weft_stack::Condition;

use crate::commands::converge::Progress;
use crate::commands::failures::{Failures, all_over};
use crate::commands::paths;
use crate::output::complain;

/// Longest time that one service is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// A service with a task on each node that has none for so long gets none: no node may have one.
const SETTLED: Duration = Duration::from_secs(2);

/// Waits until a service is as far as another one wants it, and says so where that takes its time.
///
/// # Errors
/// The node's; the service will not get there, or did not in five minutes.
pub(super) async fn wait(client: &Client, name: &str, wanted: Condition) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut announced = false;
    let mut failures = Failures::default();
    loop {
        let detail: ServiceDetail = client.get(&paths::service(name)).await?;
        let tasks: Vec<TaskRow> = client.get(&paths::tasks(name)).await?;
        if is_met(wanted, &detail, &tasks, begun.elapsed() >= SETTLED) {
            return Ok(());
        }
        if let Some(why) = failures.note(&tasks) {
            bail!("service {name}, which others depend on, does not start: {why}");
        }
        let (to_run, running) = (count(&detail), detail.status.running);
        if let Some(errors) = all_over(&tasks, to_run, running).filter(|e| !e.is_empty()) {
            bail!(
                "service {name}, which others depend on, does not run, and is not to be restarted: {}",
                errors.join("; ")
            );
        }
        let word = word(wanted);
        if begun.elapsed() >= PATIENCE {
            bail!(
                "service {name}, which others depend on, did not get there ({word}) in {} minutes; see \
                 `weft service ps --no-trunc {name}`",
                PATIENCE.as_secs() / 60
            );
        }
        if !std::mem::replace(&mut announced, true) {
            complain(&format!("waiting for service {name} ({word})…"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// As the Compose Specification has it.
fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::Completed => "service_completed_successfully",
    }
}

/// Tasks that are to run.
fn count(detail: &ServiceDetail) -> u32 {
    match detail.service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            detail.status.desired
        }
    }
}

/// Whether a service is as far as that. A task with a health check runs once it is healthy. `settled`
/// is for services that were there for a while: managers have made their tasks.
fn is_met(wanted: Condition, detail: &ServiceDetail, tasks: &[TaskRow], settled: bool) -> bool {
    let (mode, status) = (detail.service.spec.mode, detail.status);
    let to_run = count(detail);
    let at_work = status.running > 0 || status.completed > 0;
    // It ran, and is not to be restarted.
    let is_over = all_over(tasks, to_run, status.running).is_some_and(|errors| errors.is_empty());
    let is_empty = to_run == 0 && (settled || matches!(mode, ServiceMode::Replicated { .. }));
    match wanted {
        Condition::Completed if mode.is_job() => {
            (settled || !tasks.is_empty()) && Progress::of(detail, tasks).is_complete()
        }
        Condition::Completed => is_empty || (status.running == 0 && is_over),
        Condition::Healthy if !mode.is_job() => {
            is_empty || (to_run > 0 && status.running >= to_run)
        }
        Condition::Started | Condition::Healthy => {
            let is_done = mode.is_job() && settled && Progress::of(detail, tasks).is_complete();
            at_work || is_over || is_done || (is_empty && !mode.is_job())
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_model::api::ServiceStatus;
    use weft_model::objects::{Meta, Service, ServiceEndpoint, ServiceSpec};

    use super::*;

    fn detail(mode: ServiceMode, running: u32, desired: u32, completed: u32) -> ServiceDetail {
        ServiceDetail {
            service: Service {
                id: "s".into(),
                meta: Meta::default(),
                spec: ServiceSpec {
                    mode,
                    ..ServiceSpec::default()
                },
                previous_spec: None,
                endpoint: ServiceEndpoint::default(),
                update_status: None,
                job_status: None,
                rebalancing: None,
                homes: Vec::new(),
            },
            status: ServiceStatus {
                running,
                outdated: 0,
                desired,
                completed,
            },
            port_errors: Vec::new(),
            waiting: Vec::new(),
        }
    }

    #[test]
    fn one_task_has_started_a_service_and_all_make_it_healthy() {
        let three = ServiceMode::Replicated { replicas: 3 };
        for (running, started, healthy) in [(0, false, false), (1, true, false), (3, true, true)] {
            // Right after it was made, managers want no task of it yet.
            for desired in [0, 3] {
                let detail = detail(three, running, desired, 0);
                let met = |wanted| is_met(wanted, &detail, &[], false);
                assert_eq!(met(Condition::Started), started, "{running} {desired}");
                assert_eq!(met(Condition::Healthy), healthy, "{running} {desired}");
            }
        }
        let none = detail(ServiceMode::Replicated { replicas: 0 }, 0, 0, 0);
        assert!(is_met(Condition::Healthy, &none, &[], false));
    }

    #[test]
    fn a_service_of_all_nodes_may_have_none() {
        let nowhere = detail(ServiceMode::Global, 0, 0, 0);
        assert!(!is_met(Condition::Healthy, &nowhere, &[], false));
        assert!(is_met(Condition::Healthy, &nowhere, &[], true));
        let two = detail(ServiceMode::Global, 1, 2, 0);
        assert!(is_met(Condition::Started, &two, &[], true));
        assert!(!is_met(Condition::Healthy, &two, &[], true));
    }

    #[test]
    fn a_job_is_waited_for_until_its_last_task() {
        let mode = ServiceMode::ReplicatedJob {
            max_concurrent: 1,
            total_completions: 2,
        };
        let met = |running, completed| {
            let detail = detail(mode, running, 1, completed);
            is_met(Condition::Completed, &detail, &[], true)
        };
        assert!(!met(1, 0) && !met(1, 1) && met(0, 2));
    }
}
