//! `depends_on`: a service is made when those that it depends on are as far as it wants them.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::Instant;
use weft_client::Client;
use weft_model::api::{ServiceDetail, TaskRow};
use weft_model::objects::{ServiceMode, TaskState};
use weft_stack::Condition;

use super::ledger::Hopeless;
use crate::commands::converge::Progress;
use crate::commands::failures::{Failures, all_over};
use crate::commands::{paths, rows};
use crate::output::complain;

/// Longest time that one service is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// A service with a task on each node that has none for so long gets none: no node may have one.
const SETTLED: Duration = Duration::from_secs(2);

/// Waits until a service is as far as another one wants it, and says what it waits for and why, unless
/// `quiet`. Why nobody waits any longer for a service that only has to be started is returned: docker
/// does not wait for it at all.
///
/// # Errors
/// The node's; the service will not get there, or did not in five minutes.
pub(super) async fn wait(
    client: &Client,
    name: &str,
    wanted: Condition,
    quiet: bool,
) -> anyhow::Result<Option<String>> {
    let begun = Instant::now();
    let mut told = String::new();
    let mut failures = Failures::default();
    loop {
        let detail: ServiceDetail = client.get(&paths::service(name)).await?;
        let tasks: Vec<TaskRow> = client.get(&paths::tasks(name)).await?;
        if is_met(wanted, &detail, &tasks, begun.elapsed() >= SETTLED) {
            return Ok(None);
        }
        if let Some(why) = hopeless(name, &mut failures, &detail, &tasks) {
            return match wanted {
                Condition::Started => Ok(Some(why)),
                Condition::Healthy | Condition::Completed => Err(Hopeless(why).into()),
            };
        }
        let standing = standing(name, wanted, &detail, &tasks);
        if begun.elapsed() >= PATIENCE {
            let why = format!(
                "service {name} did not get there in {} minutes ({standing}); see `weft service ps \
                 --no-trunc {name}`",
                PATIENCE.as_secs() / 60
            );
            return match wanted {
                Condition::Started => Ok(Some(why)),
                // It may be there by the next time.
                Condition::Healthy | Condition::Completed => Err(anyhow!(why)),
            };
        }
        if !quiet && standing != told {
            complain(&standing);
            told = standing;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Why a service will not get there.
fn hopeless(
    name: &str,
    failures: &mut Failures,
    detail: &ServiceDetail,
    tasks: &[TaskRow],
) -> Option<String> {
    if let Some(why) = failures.note(tasks) {
        return Some(format!(
            "service {name} does not start: {why}; see `weft service logs {name}`"
        ));
    }
    let errors = all_over(tasks, count(detail), detail.status.up_to_date())?;
    (!errors.is_empty()).then(|| {
        format!(
            "service {name} does not run, and is not to be restarted: {}; see `weft service logs {name}`",
            errors.join("; ")
        )
    })
}

/// `waiting for service vote_db to be healthy: 0/1 running (pulling image)`
fn standing(name: &str, wanted: Condition, detail: &ServiceDetail, tasks: &[TaskRow]) -> String {
    let goal = match wanted {
        Condition::Started => "",
        Condition::Healthy => " to be healthy",
        Condition::Completed => " to complete",
    };
    let status = detail.status;
    let counts = match detail.service.spec.mode {
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => format!("{}/{total_completions} completed", status.completed),
        ServiceMode::GlobalJob => {
            let total = status.desired.saturating_add(status.completed);
            format!("{}/{total} completed", status.completed)
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => {
            format!("{}/{} running", status.up_to_date(), count(detail))
        }
    };
    let why: Vec<String> = obstacle(detail, tasks)
        .into_iter()
        .chain(last_failure(tasks))
        .collect();
    if why.is_empty() {
        format!("waiting for service {name}{goal}: {counts}")
    } else {
        let why = why.join("; ");
        format!("waiting for service {name}{goal}: {counts} ({why})")
    }
}

/// What the newest task that does not run yet is at.
fn obstacle(detail: &ServiceDetail, tasks: &[TaskRow]) -> Option<String> {
    let to_come = tasks
        .iter()
        .filter(|row| row.task.is_wanted() && row.task.status.state < TaskState::Running);
    let newest = to_come.max_by_key(|row| row.task.meta.created_at);
    let state = newest.map_or(TaskState::New, |row| row.task.status.state);
    if state <= TaskState::Pending {
        // The way out is in it.
        let waits = detail.waiting.first().cloned();
        return waits.or_else(|| newest.map(|row| rows::state_word(row.task.status.state)));
    }
    let status = &newest?.task.status;
    // How much of it is there changes all the time.
    let word = status.message.split(' ').next().unwrap_or_default();
    Some(match (status.state, word) {
        (TaskState::Preparing, "pulling" | "unpacking") => format!("{word} image"),
        _ => rows::state_word(status.state),
    })
}

/// What became of the last task that failed.
fn last_failure(tasks: &[TaskRow]) -> Option<String> {
    let failed = tasks.iter().filter(|row| {
        let state = row.task.status.state;
        matches!(state, TaskState::Failed | TaskState::Rejected)
    });
    let last = failed.max_by_key(|row| row.task.meta.created_at)?;
    Some(format!("the last one failed: {}", last.task.status.err))
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
    let at_work = status.up_to_date() > 0 || status.completed > 0;
    // It ran, and is not to be restarted.
    let is_over =
        all_over(tasks, to_run, status.up_to_date()).is_some_and(|errors| errors.is_empty());
    let is_empty = to_run == 0 && (settled || matches!(mode, ServiceMode::Replicated { .. }));
    match wanted {
        Condition::Completed if mode.is_job() => {
            (settled || !tasks.is_empty()) && Progress::of(detail, tasks).is_complete()
        }
        Condition::Completed => is_empty || (status.up_to_date() == 0 && is_over),
        Condition::Healthy if !mode.is_job() => {
            is_empty || (to_run > 0 && status.up_to_date() >= to_run)
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
    use crate::commands::tests::task;

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
    #[test]
    fn what_is_waited_for_is_told_with_its_reason() {
        let one = ServiceMode::Replicated { replicas: 1 };
        let mut waiting = detail(one, 0, 1, 0);
        let said = |wanted, detail: &ServiceDetail, tasks: &[TaskRow]| {
            standing("vote_db", wanted, detail, tasks)
        };
        assert_eq!(
            said(Condition::Started, &waiting, &[]),
            "waiting for service vote_db: 0/1 running"
        );
        let at = |created, state| task("a", 1, created, TaskState::Running, state, "");
        let mut row = at(5, TaskState::Preparing);
        row.task.status.message = "pulling redis:7 34 %".to_owned();
        assert_eq!(
            said(Condition::Started, &waiting, &[row]),
            "waiting for service vote_db: 0/1 running (pulling image)"
        );
        let failed = task(
            "a",
            1,
            5,
            TaskState::Shutdown,
            TaskState::Failed,
            "exit code 1",
        );
        let rows = [failed, at(6, TaskState::Starting)];
        assert_eq!(
            said(Condition::Healthy, &waiting, &rows),
            "waiting for service vote_db to be healthy: 0/1 running (starting; the last one failed: exit \
             code 1)"
        );
        let rows = [at(6, TaskState::Pending)];
        assert_eq!(
            said(Condition::Started, &waiting, &rows),
            "waiting for service vote_db: 0/1 running (pending)"
        );
        waiting.waiting = vec!["no suitable node".to_owned()];
        assert_eq!(
            said(Condition::Started, &waiting, &rows),
            "waiting for service vote_db: 0/1 running (no suitable node)"
        );
        let job = ServiceMode::ReplicatedJob {
            max_concurrent: 1,
            total_completions: 2,
        };
        let job = detail(job, 1, 1, 1);
        assert_eq!(
            said(Condition::Completed, &job, &[at(6, TaskState::Running)]),
            "waiting for service vote_db to complete: 1/2 completed"
        );
    }

    #[test]
    fn three_failures_are_enough() {
        let waiting = detail(ServiceMode::Replicated { replicas: 1 }, 0, 1, 0);
        let failed = |id: &str| {
            let (desired, state) = (TaskState::Shutdown, TaskState::Failed);
            task(id, 1, 5, desired, state, "exit code 1")
        };
        let mut failures = Failures::default();
        assert_eq!(hopeless("vote_db", &mut failures, &waiting, &[]), None);
        let rows = ["a", "b"].map(failed);
        assert_eq!(hopeless("vote_db", &mut failures, &waiting, &rows), None);
        let rows = ["a", "b", "c"].map(failed);
        let why = hopeless("vote_db", &mut failures, &waiting, &rows).expect("enough");
        assert!(
            why.starts_with("service vote_db does not start: task web.1 failed 3 times"),
            "{why}"
        );
    }
}
