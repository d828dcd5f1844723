//! One task on this node: from its first order to the report of its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_dns::ClientView;
use weft_model::assignment::{Assignment, EndpointView};
use weft_model::objects::{Attachment, ContainerStatus, Network, Task, TaskState, TaskStatus};
use weft_model::records::EndpointRecord;
use weft_model::stop_signal;
use weft_shim::spec::Ended;
use weft_sys::clock::unix_ms;
use weft_sys::process::Exit;

use super::accepted::serves;
use super::attach::{ifname, local_port, port_config, usable_addresses};
use super::checks::{Checks, Verdict};
use super::delivery::{DELIVERED_WITHIN, Delivery, unsent};
use super::drain::{Drain, Progress};
use super::listening::opened;
use crate::blocking::blocking;
use crate::compile::known::KnownEndpoint;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::sandbox::Sandbox;
use crate::sandbox::runner::{RunningTask, SHIM_LIMIT};

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
    pub(super) orders: Arc<Assignment>,
    pub(super) task: Task,
    pub(super) wish: watch::Receiver<Wish>,
}

/// How a task ended.
enum End {
    Exited(Exit),
    Stopped(Exit),
    /// Its checks failed, and it was stopped for that.
    Unhealthy(Exit, String),
    NeverRan,
    /// It ended before, and its end may not have been reported.
    Known(TaskStatus),
    Rejected(anyhow::Error),
}

/// What there is of a task before anything is done.
enum Found {
    /// Its final status.
    Ended(TaskStatus),
    Running(RunningTask),
    /// It ended while no agent looked.
    EndedUnseen(Ended),
    Nothing,
}

impl End {
    /// The final status of the task. The texts of failures are docker's.
    fn status(self, now: u64) -> TaskStatus {
        let (state, message, err, exit) = match self {
            Self::Known(status) => return status,
            Self::Exited(exit) if exit.success() => (
                TaskState::Complete,
                "finished".to_owned(),
                String::new(),
                exit.shell_code(),
            ),
            Self::Exited(exit) => {
                let code = code_of(exit);
                let err = format!("task: non-zero exit ({code})");
                (TaskState::Failed, "ended".to_owned(), err, Some(code))
            }
            Self::Stopped(exit) => (
                TaskState::Shutdown,
                "shutdown".to_owned(),
                String::new(),
                exit.shell_code(),
            ),
            // Whatever code it ends with when it is stopped.
            Self::Unhealthy(exit, why) => {
                let code = code_of(exit);
                let how = if code == 0 { "exit" } else { "non-zero exit" };
                let err = format!("task: {how} ({code}): dockerexec: unhealthy container");
                let message = format!("its health check failed: {why}");
                (TaskState::Failed, message, err, Some(code))
            }
            Self::NeverRan => (
                TaskState::Shutdown,
                "shutdown".to_owned(),
                String::new(),
                None,
            ),
            Self::Rejected(error) => (
                TaskState::Rejected,
                "rejected".to_owned(),
                format!("{error:#}"),
                None,
            ),
        };
        TaskStatus {
            state,
            since: now,
            message,
            err,
            container: ContainerStatus { exit_code: exit },
            ..TaskStatus::default()
        }
    }
}

/// The code that a shell would show; 255, as docker has it, where the machine lost its power, or
/// somebody killed the shim.
fn code_of(exit: Exit) -> i32 {
    exit.shell_code().unwrap_or(255)
}

impl Lifecycle {
    pub(super) async fn run(mut self) {
        let id = self.task.id.clone();
        let end = self.live().await.unwrap_or_else(End::Rejected);
        if let End::Exited(_) | End::Stopped(_) | End::Unhealthy(..) = end {
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
            End::Unhealthy(..) => tracing::info!(task = %id, "an unhealthy task was stopped"),
            _ => {}
        }
        let status = end.status(unix_ms());
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
        let cleaned = blocking(move || -> anyhow::Result<()> {
            let left = match (gateway.wait(), Sandbox::open(&path.to_string_lossy())) {
                (Some(gateway), Ok(sandbox)) => gateway.disconnect(&sandbox),
                _ => Ok(()),
            };
            let removed = Sandbox::remove(&path);
            let finished = runner.finish(&id, &status);
            left?;
            removed?;
            finished?;
            Ok(())
        });
        if let Err(error) = cleaned.await.and_then(|r| r) {
            let error = format!("{error:#}");
            tracing::warn!(task = %self.task.id, error, "the sandbox was not removed");
        }
    }

    fn report(&self, state: TaskState, message: &str, err: String, exit_code: Option<i32>) {
        self.handles.session.report(
            self.task.id.clone(),
            TaskStatus {
                state,
                since: unix_ms(),
                message: message.to_owned(),
                err,
                container: ContainerStatus { exit_code },
                ..TaskStatus::default()
            },
        );
    }

    async fn live(&mut self) -> anyhow::Result<End> {
        let process = match self.found().await? {
            Found::Ended(status) => return Ok(End::Known(status)),
            Found::EndedUnseen(Ended {
                failure: Some(failure),
                ..
            }) => return Err(failure.into()),
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
            // to say, which may not want it any more by now.
            Found::Nothing if self.task.status.state >= TaskState::Starting => {
                return Ok(End::Exited(Exit::Unknown));
            }
            Found::Nothing if *self.wish.borrow() == Wish::Stop => return Ok(End::NeverRan),
            Found::Nothing => self.start().await?,
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
            let running = runner.adopt(&id)?.map(Found::Running);
            let ended = || Ok(runner.end_of(&id)?.map(Found::EndedUnseen));
            running
                .map_or_else(ended, |running| Ok(Some(running)))
                .map(|found| found.unwrap_or(Found::Nothing))
        });
        found.await?
    }

    async fn start(&self) -> anyhow::Result<RunningTask> {
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        blocking(move || runner.check(&task)).await??;
        self.report(TaskState::Preparing, "preparing", String::new(), None);
        let path = self.handles.netns_path(self.task.id.as_str());
        let sandbox = blocking(move || Sandbox::open_or_create(&path)).await??;
        let sandbox = self.prepare(sandbox).await?;
        self.report(TaskState::Starting, "starting", String::new(), None);
        let (runner, task) = (self.handles.runner.clone(), self.task.clone());
        Ok(blocking(move || runner.start(&task, &sandbox)).await??)
    }

    /// Attaches the sandbox of a process that an earlier agent started, also where it is to end: it has
    /// connections to finish. The process says which namespace that is: a path may have lost it.
    async fn take_over(&self, process: &RunningTask) -> anyhow::Result<()> {
        tracing::info!(task = %self.task.name(), pid = process.pid(), "adopted");
        let pid = process.pid().to_string();
        let sandbox = blocking(move || Sandbox::open(&pid)).await??;
        self.prepare(sandbox).await?;
        Ok(())
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
                    self.tell(&verdict);
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
        self.set_ready(false);
        // Balancers and resolvers everywhere learn of it before the process does.
        tokio::select! {
            exit = ended(&mut end) => return Ok(End::Stopped(exit)),
            () = self.drained() => {}
        }
        Ok(End::Stopped(self.end(process.clone()).await?))
    }

    /// Lets the others and the manager know what the task may do.
    fn tell(&self, verdict: &Verdict) {
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
        self.report(state, &message, String::new(), None);
    }

    /// Stops a task that is not healthy, as one that nobody wants any more. Where it never served,
    /// nobody has to let go of it.
    async fn replace(
        &self,
        process: &RunningTask,
        end: &mut watch::Receiver<Option<Exit>>,
        served: bool,
    ) -> anyhow::Result<Exit> {
        self.set_ready(false);
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
        self.set_ready(false);
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
        // Managers take none that is not known; one of a later version is asked as any program is.
        let signal = stop_signal::number(&container.stop_signal).unwrap_or(stop_signal::DEFAULT);
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

    /// Makes the ports, the way out and the resolver; what is there is taken over.
    async fn prepare(&self, mut sandbox: Sandbox) -> anyhow::Result<Sandbox> {
        let mut outside = false;
        for (index, attachment) in self.task.attachments.iter().enumerate() {
            outside |= self
                .network(attachment)
                .is_some_and(|n| !n.spec.internal && !n.spec.ingress);
            sandbox = self.add_port(sandbox, index, attachment).await?;
        }
        // A task that is only published has a way out too, as in Swarm.
        outside |= self
            .task
            .attachments
            .iter()
            .all(|a| self.network(a).is_some_and(|n| n.spec.ingress));
        let gateway = self.data_path.gateway.clone();
        let (sandbox, egress, sockets) = blocking(move || {
            let gateway = outside.then(|| gateway.wait()).flatten();
            let egress = gateway.map(|g| g.connect(&sandbox));
            let sockets = sandbox.dns_sockets();
            (sandbox, egress, sockets)
        })
        .await?;
        if let Some(Err(error)) = egress {
            self.handles
                .warnings
                .set("gateway", format!("a sandbox has no way out: {error}"));
        }
        let sockets = sockets?;
        let view = ClientView {
            networks: self
                .task
                .attachments
                .iter()
                .filter(|a| self.network(a).is_some_and(|n| !n.spec.ingress))
                .map(|a| a.network.as_str().to_owned())
                .collect(),
            internal_only: !outside,
            stack: None,
        };
        self.handles
            .dns
            .serve(self.task.id.as_str(), sockets, view)?;
        Ok(sandbox)
    }

    fn network(&self, attachment: &Attachment) -> Option<&Network> {
        self.orders
            .shared
            .networks
            .iter()
            .find(|n| n.id == attachment.network)
    }

    async fn add_port(
        &self,
        sandbox: Sandbox,
        index: usize,
        attachment: &Attachment,
    ) -> anyhow::Result<Sandbox> {
        let network = self.network(attachment).ok_or_else(|| {
            anyhow::anyhow!("network {} is not in the orders", attachment.network)
        })?;
        let config = port_config(ifname(index), attachment, network, self.data_path.mtu());
        let (sandbox, tap) = blocking(move || {
            let tap = sandbox.add_port(&config);
            (sandbox, tap)
        })
        .await?;
        let view = EndpointView::of_task(&self.task)
            .find(|view| view.id == attachment.endpoint)
            .ok_or_else(|| anyhow::anyhow!("the task is on no node"))?;
        let said = EndpointRecord {
            id: attachment.endpoint.clone(),
            ready: false,
            ipv4_only: Vec::new(),
            without_ipv6: usable_addresses(attachment, network) != attachment.addresses,
        };
        let record = KnownEndpoint::new(view, &said);
        self.handles.local.insert(local_port(
            self.handles.local.next_id(),
            &self.data_path,
            tap?,
            network.vni,
            record,
        )?);
        Ok(sandbox)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_dockers_words_and_a_code_in_any_case() {
        let sick = "timeout".to_owned();
        for (end, state, err, code) in [
            (End::Exited(Exit::Code(0)), TaskState::Complete, "", Some(0)),
            (
                End::Exited(Exit::Code(3)),
                TaskState::Failed,
                "task: non-zero exit (3)",
                Some(3),
            ),
            (
                End::Exited(Exit::Signal(9)),
                TaskState::Failed,
                "task: non-zero exit (137)",
                Some(137),
            ),
            // The machine lost its power.
            (
                End::Exited(Exit::Unknown),
                TaskState::Failed,
                "task: non-zero exit (255)",
                Some(255),
            ),
            (
                End::Unhealthy(Exit::Signal(15), sick.clone()),
                TaskState::Failed,
                "task: non-zero exit (143): dockerexec: unhealthy container",
                Some(143),
            ),
            // A program that ends well when it is asked to has not done its work.
            (
                End::Unhealthy(Exit::Code(0), sick),
                TaskState::Failed,
                "task: exit (0): dockerexec: unhealthy container",
                Some(0),
            ),
            (
                End::Stopped(Exit::Signal(15)),
                TaskState::Shutdown,
                "",
                Some(143),
            ),
            (End::NeverRan, TaskState::Shutdown, "", None),
        ] {
            let status = end.status(7);
            assert_eq!((status.state, status.since), (state, 7), "{err}");
            assert_eq!(status.err, err);
            assert_eq!(status.container.exit_code, code, "{err}");
        }
        let known = TaskStatus {
            since: 1,
            ..TaskStatus::default()
        };
        assert_eq!(End::Known(known.clone()).status(7), known);
    }
}
