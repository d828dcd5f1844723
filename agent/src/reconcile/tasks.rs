//! Tasks of this node: one lifecycle each, driven by what the orders want.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use weft_model::assignment::{Assignment, Payloads};
use weft_model::id::TaskId;
use weft_model::objects::{Task, TaskState, TaskStatus};
use weft_sys::clock::unix_ms;

use super::lifecycle::{Lifecycle, Wish};
use crate::blocking::blocking;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::sandbox::Sandbox;

/// How long a process that nobody wants any more may take to end.
const STRANGER_GRACE: Duration = Duration::from_secs(10);

/// Strangers that are ended at the same time: each takes one of the runtime's threads meanwhile.
const STRANGERS_AT_ONCE: usize = 32;

/// A lifecycle, kept until the orders forget its task: a task that is over must not start again.
#[derive(Debug)]
struct Begun {
    wish: watch::Sender<Wish>,
    /// Absent once it is over.
    task: Option<JoinHandle<()>>,
}

/// Lifecycles by task.
#[derive(Debug)]
pub(crate) struct Tasks {
    handles: Arc<Handles>,
    data_path: Arc<DataPath>,
    lifecycles: BTreeMap<TaskId, Begun>,
    /// Secrets and configs of the last orders: tasks that start wait for theirs.
    payloads: watch::Sender<Arc<Payloads>>,
}

impl Tasks {
    pub(crate) fn new(handles: Arc<Handles>, data_path: Arc<DataPath>) -> Self {
        Self {
            handles,
            data_path,
            lifecycles: BTreeMap::new(),
            payloads: watch::Sender::default(),
        }
    }

    /// Starts what is wanted and not there, stops what is there and not wanted.
    pub(crate) async fn converge(&mut self, orders: &Arc<Assignment>) {
        self.payloads.send_if_modified(|last| {
            let news = !Arc::ptr_eq(last, &orders.payloads);
            if news {
                *last = Arc::clone(&orders.payloads);
            }
            news
        });
        let mut listed = BTreeSet::new();
        for task in &orders.own.tasks {
            listed.insert(&task.id);
            let wanted = task.is_wanted();
            match self.lifecycles.get(&task.id) {
                Some(begun) if !wanted => stop(begun),
                Some(_) => {}
                None if task.status.state.is_terminal() => {}
                None => self.begin(orders, task, wanted),
            }
        }
        for (id, begun) in &self.lifecycles {
            if !listed.contains(id) {
                stop(begun);
            }
        }
        self.collect_ended().await;
        self.lifecycles
            .retain(|id, begun| begun.task.is_some() || listed.contains(id));
    }

    /// Whether the lifecycle of a task has begun and is not over.
    pub(crate) fn live(&self, id: &TaskId) -> bool {
        let begun = self.lifecycles.get(id);
        let task = begun.and_then(|begun| begun.task.as_ref());
        task.is_some_and(|task| !task.is_finished())
    }

    fn begin(&mut self, orders: &Arc<Assignment>, task: &Task, wanted: bool) {
        let wish = watch::Sender::new(if wanted { Wish::Run } else { Wish::Stop });
        let lifecycle = Lifecycle {
            handles: Arc::clone(&self.handles),
            data_path: Arc::clone(&self.data_path),
            // It lives as long as its task: nothing secret does that it needs at its start alone.
            orders: Arc::new(Assignment {
                payloads: Arc::default(),
                ..Assignment::clone(orders)
            }),
            task: task.clone(),
            wish: wish.subscribe(),
            payloads: self.payloads.subscribe(),
        };
        let running = tokio::spawn(lifecycle.run());
        let begun = Begun {
            wish,
            task: Some(running),
        };
        self.lifecycles.insert(task.id.clone(), begun);
    }

    /// Takes note of lifecycles that are over. One that panicked has not reported its end.
    async fn collect_ended(&mut self) {
        for (id, begun) in &mut self.lifecycles {
            let Some(task) = begun.task.take_if(|t| t.is_finished()) else {
                continue;
            };
            if let Err(error) = task.await {
                tracing::error!(task = %id, %error, "a task lifecycle panicked");
                let status = TaskStatus {
                    state: TaskState::Failed,
                    since: unix_ms(),
                    message: "ended".to_owned(),
                    err: format!("weftd: {error}; see its log"),
                    ..TaskStatus::default()
                };
                self.handles.session.report(id.clone(), status);
            }
        }
    }

    /// Ends what an earlier agent ran and the orders no longer know, in the background. Once, with
    /// the first orders that come from a manager.
    pub(crate) async fn end_strangers(&self, orders: &Assignment) {
        let mut listed: BTreeSet<TaskId> = orders.own.tasks.iter().map(|t| t.id.clone()).collect();
        // What was taken up with older orders has a lifecycle, which ends it.
        listed.extend(self.lifecycles.keys().cloned());
        let (handles, known) = (Arc::clone(&self.handles), listed.clone());
        let found = blocking(move || -> anyhow::Result<BTreeSet<TaskId>> {
            let mut found: BTreeSet<TaskId> = handles.runner.known()?.into_iter().collect();
            // And an image may be held for one that is gone.
            let holds = handles.images.store().holds();
            let is_task = |owner: &&String| owner.bytes().all(|b| b.is_ascii_alphanumeric());
            let owners = holds.keys().filter(is_task);
            found.extend(owners.map(|owner| TaskId(owner.clone())));
            // A namespace may be older than the files of its task.
            let dir = handles.netns_path("");
            if let Ok(entries) = std::fs::read_dir(&dir) {
                for entry in entries {
                    found.insert(TaskId(entry?.file_name().to_string_lossy().into_owned()));
                }
            }
            // Of all others nothing is left that could use one.
            let there = found.union(&known).cloned().collect();
            if let Err(error) = handles.volumes.keep(&there) {
                tracing::warn!(%error, "volumes of earlier tasks were not all released");
            }
            Ok(found)
        });
        let strangers: Vec<TaskId> = match found.await.and_then(|r| r) {
            Ok(found) => found.difference(&listed).cloned().collect(),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "cannot list earlier tasks");
                return;
            }
        };
        let at_once = Arc::new(Semaphore::new(STRANGERS_AT_ONCE));
        for id in strangers {
            let (handles, data_path) = (Arc::clone(&self.handles), Arc::clone(&self.data_path));
            let at_once = Arc::clone(&at_once);
            tokio::spawn(async move {
                // Never closed, so there is one.
                let _permit = at_once.acquire().await;
                let stranger = id.clone();
                let ended = blocking(move || end_stranger(&handles, &data_path, &stranger)).await;
                if let Err(error) = ended.and_then(|r| r) {
                    let error = format!("{error:#}");
                    tracing::warn!(task = %id, error, "a task of an earlier run was not ended");
                }
            });
        }
    }

    /// Removes what is left of tasks that ended long ago, in the background.
    pub(crate) fn tidy(&self) {
        let keep: BTreeSet<TaskId> = self.lifecycles.keys().cloned().collect();
        let handles = Arc::clone(&self.handles);
        tokio::task::spawn_blocking(move || {
            let runner = &handles.runner;
            if let Err(error) = runner.prune(&keep) {
                tracing::warn!(%error, "output of earlier tasks was not removed");
            }
        });
    }

    /// Stops every task and waits for the end of all.
    pub(crate) async fn stop_all(mut self) {
        for begun in self.lifecycles.values() {
            stop(begun);
        }
        for (id, begun) in std::mem::take(&mut self.lifecycles) {
            if let Some(task) = begun.task
                && let Err(error) = task.await
            {
                tracing::error!(task = %id, %error, "a task lifecycle panicked");
            }
        }
    }

    /// Lets go of the tasks: processes and TAPs stay for the next agent.
    pub(crate) fn abandon(self) {
        for task in self.lifecycles.values().filter_map(|h| h.task.as_ref()) {
            task.abort();
        }
    }
}

fn stop(begun: &Begun) {
    begun
        .wish
        .send_if_modified(|w| std::mem::replace(w, Wish::Stop) != Wish::Stop);
}

fn end_stranger(handles: &Handles, data_path: &DataPath, id: &TaskId) -> anyhow::Result<()> {
    if let Some(process) = handles.runner.adopt(id)? {
        tracing::info!(task = %id, pid = process.pid(), "not assigned any more: ends");
        process.stop(process.stop_signal(""), STRANGER_GRACE)?;
    }
    let path = handles.netns_path(id.as_str());
    if let (Some(gateway), Ok(sandbox)) = (
        data_path.gateway.wait(),
        Sandbox::open(&path.to_string_lossy()),
    ) {
        gateway.disconnect(&sandbox)?;
    }
    Sandbox::remove(&path)?;
    let status = TaskStatus {
        state: TaskState::Shutdown,
        since: unix_ms(),
        message: "not assigned any more".to_owned(),
        ..TaskStatus::default()
    };
    let finished = handles.runner.finish(id, &status);
    // Its layers are mounted no more.
    handles.images.release(id.as_str())?;
    finished?;
    Ok(())
}
