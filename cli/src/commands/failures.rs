//! When waiting for a service has become hopeless, and why.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::api::TaskRow;
use weft_model::id::TaskId;
use weft_model::objects::{RestartCondition, TaskState};

/// Tasks of one slot that may fail, one after the other, before nobody waits for it any longer.
const PATIENCE: usize = 3;

/// Tasks that failed since somebody waits.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Those that had failed before.
    before: Option<BTreeSet<TaskId>>,
    /// By slot.
    since: BTreeMap<String, BTreeSet<TaskId>>,
}

/// `web.1`, or `web on node1` for global services.
fn slot(row: &TaskRow) -> String {
    let name = &row.task.service_name;
    match row.task.slot {
        0 => format!("{name} on {}", row.node_name),
        slot => format!("{name}.{slot}"),
    }
}

fn failed(row: &TaskRow) -> bool {
    matches!(
        row.task.status.state,
        TaskState::Failed | TaskState::Rejected
    )
}

/// True when the task ended and its slot stays with it: nothing will be tried again.
pub(super) fn is_over(row: &TaskRow) -> bool {
    let task = &row.task;
    let again = match task.spec.restart.condition {
        // A part of a job has then done what it was to do.
        RestartCondition::Any => {
            task.job_iteration.is_none() || task.status.state != TaskState::Complete
        }
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    let again = again && task.has_attempts_left();
    task.is_wanted() && task.status.state.is_terminal() && !again
}

impl Failures {
    /// Takes note of what failed, and says why waiting is hopeless, if it is.
    pub(super) fn note(&mut self, tasks: &[TaskRow]) -> Option<String> {
        let before = self.before.get_or_insert_with(|| {
            let failed = tasks.iter().filter(|row| failed(row));
            failed.map(|row| row.task.id.clone()).collect()
        });
        for row in tasks.iter().filter(|row| failed(row)) {
            if !before.contains(&row.task.id) {
                let slot = self.since.entry(slot(row)).or_default();
                slot.insert(row.task.id.clone());
            }
        }
        let (slot, count) = self
            .since
            .iter()
            .map(|(slot, tasks)| (slot, tasks.len()))
            .find(|(_, count)| *count >= PATIENCE)?;
        Some(format!(
            "task {slot} failed {count} times, the last time with: {}",
            last_error(tasks, slot)?
        ))
    }
}

fn last_error<'a>(tasks: &'a [TaskRow], name: &str) -> Option<&'a str> {
    let of_slot = tasks.iter().filter(|row| failed(row) && slot(row) == name);
    let last = of_slot.max_by_key(|row| row.task.meta.created_at)?;
    Some(&last.task.status.err)
}

/// Errors of tasks that are not tried again, when nothing else is waited for; an empty list means
/// that all of them did what they were to do. `wanted` slots are expected, `running` of them run.
pub(super) fn all_over(tasks: &[TaskRow], wanted: u32, running: u32) -> Option<Vec<String>> {
    let over: Vec<&TaskRow> = tasks.iter().filter(|row| is_over(row)).collect();
    let count = u32::try_from(over.len()).unwrap_or(u32::MAX);
    if over.is_empty() || count.saturating_add(running) < wanted {
        return None;
    }
    let errors = over.iter().filter(|row| failed(row));
    Some(
        errors
            .map(|row| format!("task {}: {}", slot(row), row.task.status.err))
            .collect(),
    )
}
