//! Statuses of tasks on their way to a manager: the latest of each task wins.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use weft_model::id::TaskId;
use weft_model::objects::TaskStatus;

/// Bounded by the number of tasks on the node.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pending: Mutex<BTreeMap<TaskId, TaskStatus>>,
    added: Notify,
}

impl Reports {
    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, TaskStatus>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, task: TaskId, status: TaskStatus) {
        self.pending().insert(task, status);
        self.added.notify_one();
    }

    /// Waits until there is something to send. Cancel-safe: nothing is taken out.
    pub(super) async fn wait(&self) -> Vec<(TaskId, TaskStatus)> {
        loop {
            let added = self.added.notified();
            let batch: Vec<_> = self
                .pending()
                .iter()
                .map(|(t, s)| (t.clone(), s.clone()))
                .collect();
            if !batch.is_empty() {
                return batch;
            }
            added.await;
        }
    }

    /// Forgets what a manager has stored, unless it changed meanwhile.
    pub(super) fn stored(&self, batch: &[(TaskId, TaskStatus)]) {
        let mut pending = self.pending();
        for (task, status) in batch {
            if pending.get(task) == Some(status) {
                pending.remove(task);
            }
        }
    }
}
