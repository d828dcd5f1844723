//! What nodes report of their tasks.

use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{ContainerStatus, TaskState, TaskStatus};
use weft_model::text::{MAX_STATUS, cleaned};

use super::super::draft::{Draft, Entropy};
use super::super::error::CommandError;
use super::super::homes;
use super::super::object::Change;
use super::super::state::ClusterState;

/// Characters of a container's id.
const CONTAINER_ID_CHARS: usize = 64;

/// Takes over a status, with its texts cleaned and cut to [`MAX_STATUS`]. A state never goes
/// backwards, and a forgotten task is no error: both are ignored.
///
/// # Errors
/// The task is not the node's, or the state is not one that nodes report.
pub fn update_task_status(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    node: &NodeId,
    task: &TaskId,
    status: &TaskStatus,
) -> Result<Vec<Change>, CommandError> {
    let Some(task) = state.tasks.get(task) else {
        return Ok(Vec::new());
    };
    if task.node.as_ref() != Some(node) {
        return Err(CommandError::forbidden(format!(
            "task {} is not assigned to node {node}",
            task.id
        )));
    }
    if matches!(status.state, TaskState::Remove | TaskState::Orphaned) {
        return Err(CommandError::bad(format!(
            "task {}: a node cannot report state {:?}",
            task.id, status.state
        )));
    }
    let mut status = TaskStatus {
        message: cleaned(&status.message, MAX_STATUS),
        err: cleaned(&status.err, MAX_STATUS),
        container: ContainerStatus {
            container_id: cleaned(&status.container.container_id, CONTAINER_ID_CHARS),
            ..status.container
        },
        // A clock that runs ahead does not put things into the future.
        since: status.since.min(now),
        // By the managers' clock, whatever the node says.
        running_since: match status.state {
            TaskState::Running => Some(task.status.running_since.unwrap_or(now)),
            _ => task.status.running_since,
        },
        ..status.clone()
    };
    // Why it is stopped stays said: its node only knows that it was told to.
    if status.err.is_empty() && task.desired == TaskState::Shutdown {
        status.err.clone_from(&task.status.err);
    }
    let newer = status.state > task.status.state
        || (status.state == task.status.state
            && !status.state.is_terminal()
            && (status.message != task.status.message || status.err != task.status.err));
    let mut draft = Draft::new(state, now, entropy);
    if newer {
        let mut task = task.clone();
        task.status = status;
        homes::note(&mut draft, &task);
        draft.put(task);
    }
    Ok(draft.into_changes())
}
