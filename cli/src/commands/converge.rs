//! Waits until a service is what it was asked to be, and shows how far it is
//! (docker/cli `cli/command/service/progress`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};
use weft_client::Client;
use weft_model::api::{ServiceDetail, TaskRow};
use weft_model::objects::{Service, ServiceMode, TaskState, UpdateConfig, UpdateState};

use crate::commands::failures::{Failures, all_over};
use crate::commands::paths;
use crate::commands::progress::{Board, SlotState, Way, drawn};
use crate::output::{Printer, complain, shown};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// How long every task has to keep running before the service counts as converged.
const STABLE: Duration = Duration::from_secs(1);

/// Where more tasks are wanted than this, none has a line of its own.
const MAX_BARS: u32 = 20;

/// Shows progress until the service has converged. An interrupt ends the waiting only, also while the
/// node does not answer.
///
/// # Errors
/// The node's, or the reason why the service will not converge; it stays all the same.
pub(super) async fn wait(
    client: &Client,
    id: &str,
    quiet: bool,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = watch(client, id, quiet, out) => return ended,
        _ = interrupt.recv() => {}
    }
    out.line(&format!(
        "Operation continuing in background.\nUse `weft service ps {id}` to check progress."
    ))?;
    Ok(())
}

/// Shows progress until the service has converged.
async fn watch(client: &Client, id: &str, quiet: bool, out: &mut Printer) -> anyhow::Result<()> {
    let mut screen = Screen::default();
    let mut failures = Failures::default();
    let mut stable_since = None;
    let mut rollback = Rollback::default();
    let mut verifying = Verifying::default();
    loop {
        let detail: ServiceDetail = client.get(&paths::service(id)).await?;
        let tasks: Vec<TaskRow> = client.get(&paths::tasks(id)).await?;
        let progress = Progress::of(&detail, &tasks);
        let status = detail.service.update_status.as_ref();
        let name = &detail.service.spec.name;
        let goes_back = rollback.note(&detail.service)?;
        if !quiet {
            if let Some(why) = goes_back {
                screen.say("rollback", &why, out)?;
            }
            screen.show(&progress, out)?;
            if let Some(text) = verifying.note(&progress, detail.service.policy()) {
                screen.say("verify", &text, out)?;
            }
        }
        if progress.is_complete() {
            if !quiet {
                out.line("job complete")?;
            }
            return Ok(());
        }
        if progress.converged() {
            let since = *stable_since.get_or_insert_with(Instant::now);
            // Managers have watched the tasks of an update already.
            if status.is_some_and(|status| status.state.is_over()) || since.elapsed() >= STABLE {
                for error in detail.port_errors.iter().chain(&detail.waiting) {
                    complain(&format!("weft: warning: {error}"));
                }
                if !quiet {
                    screen.say("verify", &format!("Service {id} converged"), out)?;
                }
                return Ok(());
            }
        } else {
            stable_since = None;
            if progress.updating {
                tokio::time::sleep(POLL).await;
                continue;
            }
            if let Some(why) = failures.note(&tasks) {
                bail!(
                    "service {name} does not start: {why}. The swarm keeps trying: see `weft service ps --no-trunc {name}`, or end it with `weft service rm {name}`."
                );
            }
            match all_over(&tasks, progress.wanted, progress.running) {
                Some(errors) if !errors.is_empty() => bail!(
                    "service {name} does not run, and is not to be restarted: {}",
                    errors.join("; ")
                ),
                Some(_) => {
                    if !quiet {
                        let text = format!("Every task of service {id} has run");
                        screen.say("verify", &text, out)?;
                    }
                    return Ok(());
                }
                None => {}
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far the run of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct JobProgress {
    /// Tasks that ended with success.
    completed: u32,
    /// Tasks that are to do so.
    total: u32,
    /// Tasks that may be at work at one time.
    at_once: u32,
}

impl JobProgress {
    fn of(detail: &ServiceDetail) -> Option<Self> {
        let status = &detail.status;
        let total = match detail.service.spec.mode {
            ServiceMode::ReplicatedJob {
                total_completions, ..
            } => total_completions,
            ServiceMode::GlobalJob => status.desired.saturating_add(status.completed),
            ServiceMode::Replicated { .. } | ServiceMode::Global => return None,
        };
        Some(Self {
            completed: status.completed,
            total,
            at_once: status.desired,
        })
    }
}

/// What has a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    /// One of so many tasks.
    Number(u32),
    /// The task of a node, by the id of that.
    Node(String),
}

impl Slot {
    fn of(row: &TaskRow) -> Self {
        match (row.task.slot, &row.task.node) {
            (0, Some(node)) => Self::Node(node.short().to_owned()),
            (slot, _) => Self::Number(slot),
        }
    }
}

/// How far a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Tasks that run and shall run.
    running: u32,
    /// Tasks that are to run.
    wanted: u32,
    /// Tasks that still run though they shall not.
    leaving: u32,
    /// Tasks are replaced one after the other.
    pub(super) updating: bool,
    /// They are what they were before.
    back: bool,
    /// Of a job.
    job: Option<JobProgress>,
    /// One task on each node.
    global: bool,
    /// Nobody made a task yet.
    nothing_yet: bool,
    /// State, or error, of the newest task of each slot; in an update of those that it has come to.
    slots: BTreeMap<Slot, SlotState>,
}

impl Progress {
    /// Judges a service and its tasks.
    pub(super) fn of(detail: &ServiceDetail, tasks: &[TaskRow]) -> Self {
        let job = JobProgress::of(detail);
        let mode = detail.service.spec.mode;
        let wanted = match (mode, job) {
            (_, Some(job)) => job.total,
            (ServiceMode::Replicated { replicas }, None) => replicas,
            (_, None) => detail.status.desired,
        };
        let status = detail.service.update_status.as_ref();
        let mut progress = Self {
            running: 0,
            wanted,
            leaving: 0,
            updating: status.is_some_and(|status| status.state.is_active()),
            back: status.is_some_and(|status| status.state.is_rollback()),
            job,
            global: matches!(mode, ServiceMode::Global | ServiceMode::GlobalJob),
            nothing_yet: false,
            slots: BTreeMap::new(),
        };
        // An old task is one that is still to be replaced.
        let updating = progress.updating;
        let is_old = |row: &TaskRow| updating && row.task.spec != detail.service.spec.task;
        let mut newest: BTreeMap<Slot, &TaskRow> = BTreeMap::new();
        let mut errors: BTreeMap<Slot, (u64, &str)> = BTreeMap::new();
        for row in tasks {
            let (slot, status) = (Slot::of(row), &row.task.status);
            if status.state.is_terminal() && !status.err.is_empty() && !is_old(row) {
                let error = (row.task.meta.created_at, status.err.as_str());
                let last = errors.entry(slot.clone()).or_default();
                *last = error.max(*last);
            }
            if !row.task.is_wanted() {
                progress.leaving += u32::from(is_leaving(row));
                continue;
            }
            let newer = newest
                .get(&slot)
                .is_none_or(|old| row.task.meta.created_at >= old.task.meta.created_at);
            if newer {
                newest.insert(slot, row);
            }
        }
        progress.nothing_yet = newest.is_empty();
        let mut lines = wanted;
        for (slot, row) in newest {
            // Scaling down keeps what runs and spreads best, which need not be the first slots. Right
            // after it more slots than wanted are there: the last ones have no line.
            if matches!(slot, Slot::Number(_)) {
                if lines == 0 {
                    progress.leaving += u32::from(is_leaving(row));
                    continue;
                }
                lines -= 1;
            }
            if is_old(row) {
                continue;
            }
            let status = &row.task.status;
            progress.running += u32::from(status.state == TaskState::Running);
            // A task that takes the place of one that failed shows why, until it runs.
            let last = errors
                .get(&slot)
                .filter(|_| status.state < TaskState::Running);
            let state = match last {
                _ if !status.err.is_empty() => SlotState::Error(shown(&status.err).into_owned()),
                Some((_, error)) => SlotState::Error(shown(error).into_owned()),
                None => SlotState::At(status.state),
            };
            progress.slots.insert(slot, state);
        }
        progress
    }

    /// True when as many tasks run as shall run, and no other.
    pub(super) fn converged(&self) -> bool {
        self.job.is_none() && self.runs() && !self.updating
    }

    fn runs(&self) -> bool {
        self.running == self.wanted && self.leaving == 0
    }

    /// True of a job when all of it is done.
    pub(super) fn is_complete(&self) -> bool {
        self.job.is_some_and(|job| job.completed >= job.total)
    }

    /// The first line of what docker prints, or two of a job: what each begins with, and says.
    fn overall(&self) -> Vec<(&'static str, String)> {
        let running = self.running;
        if let Some(job) = self.job {
            let complete = format!("{} out of {} complete", job.completed, job.total);
            let active = format!("{running} out of {} tasks", job.at_once);
            return vec![("job progress", complete), ("active tasks", active)];
        }
        let text = match self.wanted {
            _ if self.global && self.nothing_yet => "waiting for new tasks".to_owned(),
            wanted if self.back => {
                format!("rolling back update: {running} out of {wanted} tasks")
            }
            wanted => format!("{running} out of {wanted} tasks"),
        };
        vec![("overall progress", text)]
    }

    fn way(&self) -> Way {
        match self.job {
            Some(_) => Way::Complete,
            None if self.back => Way::Back,
            None => Way::Running,
        }
    }
}

/// Whether an end is still to come. A task on a node that is down, or gone, cannot report its end.
pub(super) fn is_leaving(row: &TaskRow) -> bool {
    !row.task.status.state.is_terminal() && row.task.node.is_some() && !row.node_down
}

/// Whether users were told that all new tasks run and are watched.
#[derive(Debug, Default)]
pub(super) struct Verifying(bool);

impl Verifying {
    /// What docker's line says, each time that all of them run, and when one of them does not any more.
    pub(super) fn note(&mut self, progress: &Progress, policy: &UpdateConfig) -> Option<String> {
        let seconds = policy.watched().as_secs();
        let watched = progress.updating && progress.runs() && seconds > 0;
        match (std::mem::replace(&mut self.0, watched), watched) {
            (false, true) => Some(format!(
                "Waiting {seconds} seconds to verify that tasks are stable..."
            )),
            (true, false) if progress.updating => Some("Detected task failure".to_owned()),
            _ => None,
        }
    }
}

/// Whether the service goes back, as far as its users were told.
#[derive(Debug, Default)]
pub(super) struct Rollback {
    /// Why it does.
    reason: Option<String>,
}

impl Rollback {
    /// Why a rollback that begins does so.
    ///
    /// # Errors
    /// The update, or the rollback, is paused; or it went back though nobody asked for that.
    pub(super) fn note(&mut self, service: &Service) -> anyhow::Result<Option<String>> {
        let Some(status) = &service.update_status else {
            return Ok(None);
        };
        match status.state {
            UpdateState::Paused => bail!("service update paused: {}", status.message),
            UpdateState::RollbackPaused => bail!("service rollback paused: {}", status.message),
            UpdateState::RollbackStarted if self.reason.is_none() => {
                self.reason = Some(status.message.clone());
                Ok(Some(status.message.clone()))
            }
            // One that somebody asked for has a way to where it was.
            UpdateState::RollbackCompleted if service.previous_spec.is_none() => {
                let name = &service.spec.name;
                let reason = self.reason.as_deref().unwrap_or("its update failed");
                bail!(
                    "service {name} is what it was before: {reason}; see `weft service ps {name}`"
                )
            }
            UpdateState::Updating
            | UpdateState::Completed
            | UpdateState::RollbackStarted
            | UpdateState::RollbackCompleted => Ok(None),
        }
    }
}

/// What was shown.
#[derive(Debug, Default)]
pub(super) struct Screen {
    board: Board,
    /// Which line each slot has, from 1.
    numbers: BTreeMap<Slot, u32>,
}

impl Screen {
    /// Has a line say something.
    fn say(&mut self, name: &str, text: &str, out: &mut Printer) -> std::io::Result<()> {
        self.board.say(name, text, out)?;
        out.flush()
    }

    /// Shows what is new.
    pub(super) fn show(&mut self, progress: &Progress, out: &mut Printer) -> std::io::Result<()> {
        for (name, text) in progress.overall() {
            self.board.say(name, &text, out)?;
        }
        if progress.wanted <= MAX_BARS {
            for (name, text) in self.lines(progress, out.width()) {
                self.board.say(&name, &text, out)?;
            }
        }
        out.flush()
    }

    /// A line for each slot. A terminal of `width` columns has them all from the beginning, the empty
    /// ones of tasks that are still to come, too.
    fn lines(&mut self, progress: &Progress, width: Option<usize>) -> Vec<(String, String)> {
        self.number(progress);
        let (mut lines, mut nodes) = (BTreeMap::new(), Vec::new());
        for (slot, state) in &progress.slots {
            let text = drawn(state, progress.way(), width);
            match (slot, self.numbers.get(slot)) {
                (Slot::Node(node), _) => nodes.push((node.clone(), text)),
                (Slot::Number(_), Some(number)) => {
                    lines.insert(*number, text);
                }
                (Slot::Number(_), None) => {}
            }
        }
        let total = progress.wanted;
        if width.is_some() && !progress.global {
            for number in 1..=total {
                lines.entry(number).or_default();
            }
        }
        let lines = lines.into_iter();
        nodes.extend(lines.map(|(number, text)| (format!("{number}/{total}"), text)));
        nodes
    }

    /// Gives slots without a line the first ones that are free, as they come: an update comes to them
    /// in any order.
    fn number(&mut self, progress: &Progress) {
        self.numbers
            .retain(|slot, number| progress.slots.contains_key(slot) && *number <= progress.wanted);
        for slot in progress.slots.keys() {
            if matches!(slot, Slot::Node(_)) || self.numbers.contains_key(slot) {
                continue;
            }
            let is_free = |number: &u32| !self.numbers.values().any(|taken| taken == number);
            if let Some(free) = (1..=progress.wanted).find(is_free) {
                self.numbers.insert(slot.clone(), free);
            }
        }
    }
}

#[cfg(test)]
mod tests;
