//! Output of tasks, as they write it.

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, ServiceId, TaskId};

/// `weft service logs`: which lines, as parameters of the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsQuery {
    /// The answer goes on with what tasks write from now on.
    pub follow: bool,
    /// Only what was written from this moment on: Unix milliseconds.
    pub since: Option<u64>,
    /// So many lines of each task at most, the last ones of what there is already.
    pub tail: Option<u64>,
}

/// Where a task wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// A task whose lines follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogTask {
    /// Its id.
    #[serde(rename = "TaskID")]
    pub id: TaskId,
    /// Its service.
    #[serde(rename = "ServiceID")]
    pub service: ServiceId,
    /// Name of that.
    pub service_name: String,
    /// Its slot; 0 of global services.
    pub slot: u32,
    /// Its node.
    #[serde(rename = "NodeID")]
    pub node: NodeId,
    /// Host name of that.
    pub node_name: String,
}

/// A line that a task wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogLine {
    /// Which task.
    #[serde(rename = "TaskID")]
    pub task: TaskId,
    /// Where.
    pub stream: LogStream,
    /// When, by the clock of its node: Unix nanoseconds.
    #[serde(rename = "timeNano")]
    pub time: u64,
    /// Without its end. What is no UTF-8 is replaced; longer ones than 16 KiB come in several.
    pub line: String,
}

/// A line of the answer to `weft service logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    /// Lines of this task follow.
    Task(LogTask),
    /// A line of a task that was named.
    Line(LogLine),
    /// What there was when the answer began is told; not before the end where nobody follows.
    CaughtUp,
    /// Lines that are not in the answer, and why not; one sentence.
    Incomplete(String),
}
