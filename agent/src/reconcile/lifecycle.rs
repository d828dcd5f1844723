//! One task on this node: from its first order to the report of its end.

mod end;
mod sandbox;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_model::assignment::{Assignment, Payloads};
use weft_model::objects::{ContainerStatus, Runtime, Task, TaskState, TaskStatus};
use weft_shim::spec::Ended;
use weft_sys::clock::unix_ms;
use weft_sys::process::Exit;

use super::accepted::serves;
use super::checks::{Checks, Verdict};
use super::delivery::{DELIVERED_WITHIN, Delivery, unsent};
use super::drain::{Drain, Progress};
use super::listening::opened;
use crate::blocking::blocking;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::sandbox::Sandbox;
use crate::sandbox::runner::{RunningTask, SHIM_LIMIT, container_id, not_started};
use end::End;
use start::Begun;

/// Between two looks at who still sends to a task that is going.
const LOOK: Duration = Duration::from_millis(25);

/// Until the end of a program is heard of that nothing is left of.
const END_SEEN_WITHIN: Duration = Duration::from_secs(1);

/// What a lifecycle is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Stop,
}

/// One task from its first order to its end.
pub(super) struct Lifecycle {
    pub(super) handles: Arc<Handles>,
    pub(super) data_path: Arc<DataPath>,
    /// Those that it began with, without secrets and configs.
    pub(super) orders: Arc<Assignment>,
    pub(super) task: Task,
    pub(super) wish: watch::Receiver<Wish>,
    /// Of the last orders.
    pub(super) payloads: watch::Receiver<Arc<Payloads>>,
}

/// What there is of a task before anything is done.
enum Found {
    /// Its final status.
    Ended(TaskStatus),
    Running(RunningTask),
    /// It ended while no agent looked.
    EndedUnseen(Ended),
    /// It ran, and nobody wrote down its end.
    Lost,
    Nothing,
}

impl Lifecycle {
    pub(super) async fn run(mut self) {
        let id = self.task.id.clone();
        let end = self.live().await.unwrap_or_else(End::Rejected);
        let end = self.with_its_reason(end).await;
        if end.has_run() {
            self.delivered().await;
        }
        for attachment in &self.task.attachments {
            self.handles.local.remove(&attachment.endpoint);
        }
        self.handles.dns.stop(id.as_str()).await;
        match &end {
            End::Rejected(error) => {
                tracing::warn!(task = %id, error = %format!("{error:#}"), "task rejected");
            }
            End::NotStarted(error, _) => {
                tracing::warn!(task = %id, error = %format!("{error:#}"), "a container did not start");
            }
            End::Unhealthy(..) => tracing::info!(task = %id, "an unhealthy task was stopped"),
            _ => {}
        }
        let mut status = end.status(unix_ms());
        if status.container.container_id.is_empty() {
            status.container.container_id = self.container_id();
        }
        // On disk before it is reported: a restart must not run the task again.
        self.clean_up(&status).await;
        self.handles.session.report(id, status);
    }

    /// Removes what the task had here, but for its output. Each step is tried, whatever the others
    /// say.
    async fn clean_up(&self, status: &TaskStatus) {
        let path = self.handles.netns_path(self.task.id.as_str());
        let (runner, id) = (self.handles.runner.clone(), self.task.id.clone());
        let (gateway, status) = (self.data_path.gateway.clone(), status.clone());
        let images =
            (self.task.spec.runtime == Runtime::Container).then(|| self.handles.images.clone());
        let cleaned = blocking(move || -> anyhow::Result<()> {
            let left = match (gateway.wait(), Sandbox::open(&path.to_string_lossy())) {
                (Some(gateway), Ok(sandbox)) => gateway.disconnect(&sandbox),
                _ => Ok(()),
            };
            let removed = Sandbox::remove(&path);
            let finished = runner.finish(&id, &status);
            // Its layers are mounted no more.
            let released = images.map_or(Ok(()), |images| images.release(id.as_str()));
            left?;
            removed?;
            finished?;
            released?;
            Ok(())
        });
        if let Err(error) = cleaned.await.and_then(|r| r) {
            let error = format!("{error:#}");
            tracing::warn!(task = %self.task.id, error, "what the task had was not all removed");
        }
    }

    /// The id of its container; empty for a program of the node.
    fn container_id(&self) -> String {
        match self.task.spec.runtime {
            Runtime::Host => String::new(),
            Runtime::Container => container_id(&self.task.id),
        }
    }

    fn report(&self, state: TaskState, message: &str, container: ContainerStatus) {
        self.handles.session.report(
            self.task.id.clone(),
            TaskStatus {
                state,
                since: unix_ms(),
                message: message.to_owned(),
                container,
                ..TaskStatus::default()
            },
        );
    }

    /// Of a task that failed: whether it had no memory left.
    async fn with_its_reason(&self, end: End) -> End {
        let End::Exited(exit) = end else {
            return end;
        };
        if exit.success() {
            return end;
        }
        let (runner, id) = (self.handles.runner.clone(), self.task.id.clone());
        match blocking(move || runner.end_of(&id)).await {
            Ok(Ok(Some(Ended { oom: true, .. }))) => {
                End::OutOfMemory(exit, self.task.spec.resources.limits.memory_bytes)
            }
            _ => end,
        }
    }

    async fn live(&mut self) -> anyhow::Result<End> {
        let process = match self.found().await? {
            Found::Ended(status) => return Ok(End::Known(status)),
            Found::EndedUnseen(Ended {
                failure: Some(failure),
                code,
                ..
            }) => {
                return match self.task.spec.runtime {
                    Runtime::Host => Err(failure.into()),
                    Runtime::Container => {
                        let error = anyhow::Error::msg(not_started(&failure));
                        Ok(End::NotStarted(error, code))
                    }
                };
            }
            Found::EndedUnseen(ended) if *self.wish.borrow() == Wish::Stop => {
                return Ok(End::Stopped(ended.exit()));
            }
            Found::EndedUnseen(ended) => return Ok(End::Exited(ended.exit())),
            Found::Running(process) => {
                let taken_over = self.take_over(&process).await;
                if let Err(error) = taken_over {
                    // Nobody could find it again: it must not go on unseen.
                    let exit = self.end(process).await?;
                    if *self.wish.borrow() == Wish::Stop {
                        return Ok(End::Stopped(exit));
                    }
                    return Err(error);
                }
                process
            }
            // It ran before, and nobody wrote down its end: whether it runs again is for the manager
            // to say, which may not want it any more by now. The orders know of it, or its files do: a
            // machine may lose its power before it is told what it has reported.
            Found::Lost => return Ok(End::Exited(Exit::Unknown)),
            Found::Nothing if self.task.status.state >= TaskState::Starting => {
                return Ok(End::Exited(Exit::Unknown));
            }
            Found::Nothing if *self.wish.borrow() == Wish::Stop => return Ok(End::NeverRan),
            Found::Nothing => match self.start().await? {
                Begun::Running(process) => process,
                Begun::Not(end) => return Ok(end),
            },
        };
        match self.follow(&process).await {
            Ok(end) => Ok(end),
            Err(error) => {
                self.end(process).await?;
                Err(error)
            }
        }
    }

    /// What an earlier agent, or the shim that it started, left of the task.
    async fn found(&self) -> anyhow::Result<Found> {
        let (runner, id) = (self.handles.runner.clone(), self.task.id.clone());
        let found = blocking(move || {
            if let Some(status) = runner.ended(&id)? {
                return Ok(Found::Ended(status));
            }
            // In this order: between the two looks it may end, but not come back.
            if let Some(running) = runner.adopt(&id)? {
                return Ok(Found::Running(running));
            }
            if let Some(ended) = runner.end_of(&id)? {
                return Ok(Found::EndedUnseen(ended));
            }
            Ok(if runner.has_begun(&id)? {
                Found::Lost
            } else {
                Found::Nothing
            })
        });
        found.await?
    }

    /// Follows a running task to its end.
    async fn follow(&mut self, process: &RunningTask) -> anyhow::Result<End> {
        let mut end = watch_end(process)?;
        let netns = self.handles.netns_path(self.task.id.as_str());
        let opened = opened(&self.task, &self.orders, netns);
        tokio::select! {
            exit = ended(&mut end) => return Ok(End::Exited(exit)),
            stop = self.wish.wait_for(|w| *w == Wish::Stop) => drop(stop),
            () = opened => {}
        }
        let mut checks = match Checks::begin(&self.handles.runner, &self.task, process).await {
            Ok(checks) => checks,
            // The namespace of a program that has ended already cannot be opened: how it ended counts.
            Err(error) => {
                let exit = tokio::time::timeout(END_SEEN_WITHIN, ended(&mut end)).await;
                return exit.map_or(Err(error), |exit| Ok(End::Exited(exit)));
            }
        };
        let mut told: Option<Verdict> = None;
        // What an earlier agent was to end is not shown to others once more.
        while *self.wish.borrow() == Wish::Run {
            match checks.verdict() {
                Verdict::Unhealthy(why) => {
                    let served = !matches!(told, None | Some(Verdict::Starting(_)));
                    let exit = self.replace(process, &mut end, served).await?;
                    return Ok(End::Unhealthy(exit, why));
                }
                verdict if told.as_ref() == Some(&verdict) => {}
                verdict => {
                    self.tell(&verdict, process);
                    told = Some(verdict);
                }
            }
            tokio::select! {
                exit = ended(&mut end) => return Ok(End::Exited(exit)),
                stop = self.wish.wait_for(|w| *w == Wish::Stop) => {
                    // The sender lives as long as the table of lifecycles: an error means that too.
                    drop(stop);
                    break;
                }
                () = checks.changed() => {}
            }
        }
        drop(checks);
        self.withdraw();
        // Balancers and resolvers everywhere learn of it before the process does.
        tokio::select! {
            exit = ended(&mut end) => return Ok(End::Stopped(exit)),
            () = self.drained() => {}
        }
        Ok(End::Stopped(self.end(process.clone()).await?))
    }

    /// Lets the others and the manager know what the task may do.
    fn tell(&self, verdict: &Verdict, process: &RunningTask) {
        self.set_ready(*verdict == Verdict::Serving);
        let (state, message) = match verdict {
            Verdict::Serving => (TaskState::Running, "started".to_owned()),
            Verdict::Starting(why) if why.is_empty() => {
                let message = "starting: waits until its checks pass";
                (TaskState::Starting, message.to_owned())
            }
            Verdict::Starting(why) => (TaskState::Starting, format!("starting: {why}")),
            Verdict::Closed(why) | Verdict::Unhealthy(why) => {
                (TaskState::Running, format!("takes no connections: {why}"))
            }
        };
        let container = match self.task.spec.runtime {
            Runtime::Host => ContainerStatus::default(),
            Runtime::Container => ContainerStatus {
                container_id: self.container_id(),
                pid: process.init_pid(),
                exit_code: None,
            },
        };
        self.report(state, &message, container);
    }

    /// Stops a task that is not healthy, as one that nobody wants any more. Where it never served,
    /// nobody has to let go of it.
    async fn replace(
        &self,
        process: &RunningTask,
        end: &mut watch::Receiver<Option<Exit>>,
        served: bool,
    ) -> anyhow::Result<Exit> {
        self.withdraw();
        if served {
            tokio::select! {
                exit = ended(end) => return Ok(exit),
                () = self.drained() => {}
            }
        }
        self.end(process.clone()).await
    }

    /// Waits until nobody has a connection to the task any more, or has had time to end it.
    async fn drained(&self) {
        let endpoints = self.task.attachments.iter().map(|a| a.endpoint.clone());
        let mut drain = Drain::new(endpoints, self.task.spec.container.stop_grace);
        let view = self.data_path.gossip.view();
        let path = self.handles.netns_path(self.task.id.as_str());
        let begun = tokio::time::Instant::now();
        loop {
            let seen = Arc::clone(&view.borrow());
            let progress = drain.progress(&seen, begun.elapsed());
            let idle = progress == Progress::Idle;
            // Not every connection comes by a balancer.
            if progress == Progress::Over || (idle && !serves(path.clone()).await) {
                return;
            }
            tokio::time::sleep(if idle { 4 * LOOK } else { LOOK }).await;
        }
    }

    /// Waits, for a while, until what the task sent before its end has reached its readers.
    async fn delivered(&self) {
        // Nothing listens any more.
        self.withdraw();
        let grace = self.task.spec.container.stop_grace;
        let mut delivery = Delivery::new(grace.max(DELIVERED_WITHIN));
        let path = self.handles.netns_path(self.task.id.as_str());
        let begun = tokio::time::Instant::now();
        loop {
            let path = path.clone();
            let left = blocking(move || {
                let sandbox = Sandbox::open(&path.to_string_lossy())?;
                Ok::<_, anyhow::Error>(unsent(sandbox.netns())?)
            });
            match left.await.and_then(|left| left) {
                Ok(left) if !delivery.is_over(left, begun.elapsed()) => {}
                Ok(_) => return,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::debug!(task = %self.task.id, error, "no look at its last data");
                    return;
                }
            }
            tokio::time::sleep(4 * LOOK).await;
        }
    }

    async fn end(&self, process: RunningTask) -> anyhow::Result<Exit> {
        let container = &self.task.spec.container;
        let grace = container.stop_grace;
        let signal = process.stop_signal(&container.stop_signal);
        // A thread of its own waits: hundreds that stop slowly would take all of the runtime's.
        let Ok(mut end) = watch_end(&process) else {
            return Ok(blocking(move || process.stop(signal, grace)).await??);
        };
        process.terminate(signal)?;
        if let Ok(exit) = tokio::time::timeout(grace, ended(&mut end)).await {
            return Ok(exit);
        }
        process.kill()?;
        if let Ok(exit) = tokio::time::timeout(SHIM_LIMIT, ended(&mut end)).await {
            return Ok(exit);
        }
        process.kill_shim()?;
        Ok(ended(&mut end).await)
    }

    fn set_ready(&self, ready: bool) {
        for attachment in &self.task.attachments {
            self.handles.local.set_ready(&attachment.endpoint, ready);
        }
    }

    /// It is on its way out.
    fn withdraw(&self) {
        for attachment in &self.task.attachments {
            self.handles.local.withdraw(&attachment.endpoint);
        }
    }
}

/// Learns of the end of a process. A parked thread with a small stack waits for each: the safe
/// way to wait for a process that may not be our child.
fn watch_end(process: &RunningTask) -> anyhow::Result<watch::Receiver<Option<Exit>>> {
    let (sender, receiver) = watch::channel(None);
    let process = process.clone();
    std::thread::Builder::new()
        .name("task-end".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            let exit = process.wait().unwrap_or_else(|error| {
                tracing::error!(pid = process.pid(), %error, "cannot wait for a task");
                Exit::Unknown
            });
            sender.send_replace(Some(exit));
        })?;
    Ok(receiver)
}

async fn ended(end: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match end.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Unknown),
        Err(_) => Exit::Unknown,
    }
}
