//! What is asked of managers and nodes in conversations: answers that go on, passed from node to node.

use serde::{Deserialize, Serialize};

use crate::api::{LogsQuery, VolumeAsk};
use crate::exec::Exec;
use crate::id::TaskId;

/// What the user of a node asks of the manager that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Talk {
    /// Output of a task or of a service's tasks: lines of JSON, each a
    /// [`LogItem`](crate::api::LogItem).
    Logs {
        /// Of the service, or of the task by its id or the start of that.
        reference: String,
        /// Which lines.
        query: LogsQuery,
    },
    /// A program in the walls of a task: [`Frame`](crate::exec::Frame)s, both ways.
    Exec {
        /// The task: its id, the start of that, or `SERVICE.SLOT`.
        reference: String,
        /// What to run.
        exec: Exec,
    },
    /// Volumes of a node, or of all: the number of answers, then each as JSON, in lines. Each is a
    /// [`VolumeAnswer`](crate::api::VolumeAnswer).
    Volumes {
        /// Id, name, or the start of an id; all nodes where there is none.
        node: Option<String>,
        /// What each is asked.
        asked: VolumeAsk,
    },
}

/// What the manager that leads asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Question {
    /// Output of these tasks; the answer names no tasks.
    Logs {
        /// All are of the node.
        tasks: Vec<TaskId>,
        /// Which lines.
        query: LogsQuery,
    },
    /// A program in the walls of a task.
    Exec {
        /// It is of the node.
        task: TaskId,
        /// What to run.
        exec: Exec,
    },
    /// Something about its volumes: one [`VolumeAnswer`](crate::api::VolumeAnswer) as JSON.
    Volumes {
        /// What.
        asked: VolumeAsk,
    },
}
