//! Waits until a service is what it was asked to be, and shows how far it is
//! (docker/cli `cli/command/service/progress`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};
use weft_client::Client;
use weft_model::api::{ServiceDetail, TaskRow};
use weft_model::objects::{Service, ServiceMode, TaskState, UpdateConfig, UpdateState};

use crate::commands::failures::{Failures, all_over};
use crate::commands::{paths, rows};
use crate::output::{Printer, complain, shown};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);

/// How long every task has to keep running before the service counts as converged.
const STABLE: Duration = Duration::from_secs(1);

/// Columns of a terminal that has no room for bars, at most; docker's.
const NARROW: usize = 110;
/// Characters of an error in place of a state at most.
const MAX_ERROR: usize = 75;

/// More tasks than this get no line of their own.
const MAX_BARS: usize = 20;

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
        if let Some(line) = rollback.note(&detail.service)?.filter(|_| !quiet) {
            out.line(&line)?;
            screen.leave();
        }
        if !quiet {
            screen.show(&progress, out)?;
            if let Some(line) = verifying.note(&progress, detail.service.policy()) {
                out.line(&line)?;
                screen.leave();
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
                    out.line(&format!("verify: Service {id} converged"))?;
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
                        out.line(&format!("verify: Every task of service {id} has run"))?;
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
    /// State, or error, of the newest task of each slot.
    slots: BTreeMap<String, String>,
}

impl Progress {
    /// Judges a service and its tasks.
    pub(super) fn of(detail: &ServiceDetail, tasks: &[TaskRow]) -> Self {
        let job = JobProgress::of(detail);
        let wanted = match (detail.service.spec.mode, job) {
            (_, Some(job)) => job.total,
            (ServiceMode::Replicated { replicas }, None) => replicas,
            (_, None) => detail.status.desired,
        };
        let mut progress = Self {
            running: 0,
            wanted,
            leaving: 0,
            updating: false,
            back: false,
            job,
            slots: BTreeMap::new(),
        };
        if let Some(status) = &detail.service.update_status {
            progress.updating = status.state.is_active();
            progress.back = status.state.is_rollback();
        }
        // Scaling down keeps what runs and spreads best, which need not be the first slots: a line
        // for each that stays, numbered as docker does.
        let stays = |row: &&TaskRow| row.task.is_wanted();
        let slots: BTreeSet<u32> = tasks
            .iter()
            .filter(stays)
            .map(|row| row.task.slot)
            .collect();
        let numbers: BTreeMap<u32, u32> = slots.into_iter().filter(|s| *s > 0).zip(1..).collect();
        let slot_of = |row: &TaskRow| match row.task.slot {
            0 => Some(row.node_name.clone()),
            slot => {
                let number = numbers.get(&slot).filter(|number| **number <= wanted)?;
                // All as wide as the last one, as docker has them: in this order they are shown, too.
                let width = wanted.to_string().len();
                Some(format!("{number:>width$}/{wanted}"))
            }
        };
        let mut newest: BTreeMap<String, &TaskRow> = BTreeMap::new();
        let mut errors: BTreeMap<String, (u64, &str)> = BTreeMap::new();
        for row in tasks {
            let ended = row.task.status.state.is_terminal();
            let error = (row.task.meta.created_at, row.task.status.err.as_str());
            let slot = slot_of(row);
            if ended
                && !error.1.is_empty()
                && let Some(slot) = &slot
            {
                let last = errors.entry(slot.clone()).or_default();
                *last = error.max(*last);
            }
            // Right after scaling down more slots than wanted are there: the last ones have no line.
            let Some(slot) = slot.filter(|_| stays(&row)) else {
                // A task on a node that is down, or gone, cannot report its end.
                let reports = row.task.node.is_some() && !row.node_down;
                progress.leaving += u32::from(!ended && reports);
                continue;
            };
            let newer = newest
                .get(&slot)
                .is_none_or(|old| row.task.meta.created_at >= old.task.meta.created_at);
            if newer {
                newest.insert(slot, row);
            }
        }
        for (slot, row) in newest {
            let status = &row.task.status;
            // An old task is one that is still to be replaced.
            let old = progress.updating && row.task.spec != detail.service.spec.task;
            progress.running += u32::from(status.state == TaskState::Running && !old);
            // A task that takes the place of one that failed shows why, until it runs.
            let last = errors
                .get(&slot)
                .filter(|_| status.state < TaskState::Running);
            let text = match last {
                _ if !status.err.is_empty() => status.err.clone(),
                Some((_, error)) => (*error).to_owned(),
                None => rows::state_word(status.state),
            };
            progress.slots.insert(slot, shown(&text).into_owned());
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

    /// The first line of what docker prints, or two of a job.
    fn overall(&self) -> String {
        if let Some(job) = self.job {
            return format!(
                "job progress: {} out of {} complete\nactive tasks: {} out of {} tasks",
                job.completed, job.total, self.running, job.at_once
            );
        }
        let what = if self.back {
            "rolling back update: "
        } else {
            ""
        };
        format!(
            "overall progress: {what}{} out of {} tasks",
            self.running, self.wanted
        )
    }
}

/// Whether users were told that all new tasks run and are watched.
#[derive(Debug, Default)]
pub(super) struct Verifying(bool);

impl Verifying {
    /// Docker's line, once each time that all of them run.
    pub(super) fn note(&mut self, progress: &Progress, policy: &UpdateConfig) -> Option<String> {
        let seconds = policy.watched().as_secs();
        let watched = progress.updating && progress.runs() && seconds > 0;
        let news = watched && !self.0;
        self.0 = watched;
        news.then(|| {
            format!("verify: Waiting {seconds} seconds to verify that tasks are stable...")
        })
    }
}

/// Whether the service goes back, as far as its users were told.
#[derive(Debug, Default)]
pub(super) struct Rollback {
    /// Why it does.
    reason: Option<String>,
}

impl Rollback {
    /// The line that a rollback begins with.
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
                Ok(Some(format!("rollback: {}", status.message)))
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

/// What was shown last. A terminal is redrawn; elsewhere a line is printed when it changes.
#[derive(Debug, Default)]
pub(super) struct Screen {
    overall: String,
    slots: BTreeMap<String, String>,
    drawn: usize,
}

impl Screen {
    /// Something else was printed: what is new comes below it.
    fn leave(&mut self) {
        self.drawn = 0;
    }

    /// Shows what is new.
    pub(super) fn show(&mut self, progress: &Progress, out: &mut Printer) -> std::io::Result<()> {
        let overall = progress.overall();
        if self.overall == overall && self.slots == progress.slots {
            return Ok(());
        }
        if out.is_terminal() {
            if self.drawn > 0 {
                out.redraw(self.drawn)?;
            }
            let mut text = format!("{overall}\n");
            let bars = progress.slots.iter().take(MAX_BARS);
            self.drawn = overall.lines().count() + bars.len();
            let is_wide = out.width().is_some_and(|columns| columns > NARROW);
            for (slot, state) in bars {
                let state = if is_wide { bar(state) } else { word(state) };
                text.push_str(&format!("{slot}: {state}\n"));
            }
            out.text(&text)?;
        } else {
            if self.overall != overall {
                out.line(&overall)?;
            }
            for (slot, state) in progress.slots.iter().take(MAX_BARS) {
                if self.slots.get(slot) != Some(state) {
                    out.line(&format!("{slot}: {state}"))?;
                }
            }
            out.flush()?;
        }
        self.overall = overall;
        self.slots.clone_from(&progress.slots);
        Ok(())
    }
}

/// A state, as wide as the longest; or what went wrong.
fn word(state: &str) -> String {
    let text: String = state.chars().take(MAX_ERROR).collect();
    format!("{text:<9} ")
}

/// `running   [=====>]`: the state and how far it is on the way to running.
fn bar(state: &str) -> String {
    const WIDTH: usize = 50;
    const ORDER: [&str; 9] = [
        "new",
        "pending",
        "assigned",
        "accepted",
        "preparing",
        "ready",
        "starting",
        "running",
        "",
    ];
    match ORDER.iter().position(|s| *s == state) {
        Some(step) => {
            let filled = (step + 1) * WIDTH / 8;
            format!(
                "{state:<9} [{:<WIDTH$}]",
                format!("{}>", "=".repeat(filled.saturating_sub(1).min(WIDTH - 1)))
            )
        }
        None => state.chars().take(MAX_ERROR).collect(),
    }
}
