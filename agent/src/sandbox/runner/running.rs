//! A task that runs, by its shim.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weft_model::objects::{HealthConfig, Task};
use weft_model::stop_signal;
use weft_shim::spec::{self, Ended};
use weft_sys::process::{Exit, Process, Signal};

use super::kept::Kept;

/// How long a shim may take to write down the end of its task.
pub(crate) const SHIM_LIMIT: Duration = Duration::from_secs(5);

/// A task that runs, by its shim. Clones are the same task; any number of threads may wait for it.
#[derive(Debug, Clone)]
pub struct RunningTask {
    shim: Arc<Process>,
    dir: PathBuf,
    /// Of a container.
    kept: Option<Arc<Kept>>,
}

impl RunningTask {
    pub(super) fn new(shim: Process, dir: PathBuf, kept: Option<Kept>) -> Self {
        Self {
            shim: Arc::new(shim),
            dir,
            kept: kept.map(Arc::new),
        }
    }

    /// Process id of the shim on this node: it is in the task's network namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shim.pid()
    }

    /// Process 1 of the task as the node sees it; 0 where nobody knows it.
    #[must_use]
    pub(crate) fn init_pid(&self) -> u32 {
        match spec::read_init(&self.dir) {
            Ok(init) => init.map_or(0, |init| init.pid),
            Err(error) => {
                tracing::debug!(dir = %self.dir.display(), %error, "no process 1 of a task");
                0
            }
        }
    }

    /// The check of the task by a command: of a container the image may have one.
    pub(crate) fn health<'a>(&'a self, task: &'a Task) -> Option<&'a HealthConfig> {
        match &self.kept {
            Some(kept) => kept.health.as_ref(),
            None => task.spec.container.health.as_ref(),
        }
    }

    /// What asks the task to end, by its number: what its service says, where `of_service` is known;
    /// of a container also what its image says.
    pub(crate) fn stop_signal(&self, of_service: &str) -> i32 {
        let given = match &self.kept {
            Some(kept) => &kept.stop_signal,
            None => of_service,
        };
        // Managers take none that is not known; one of a later version, or of an image, is asked as any
        // program is.
        stop_signal::number(given).unwrap_or(stop_signal::DEFAULT)
    }

    /// Waits for the end, blocking the thread. Nothing of the task is left then.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn wait(&self) -> io::Result<Exit> {
        let of_shim = self.shim.wait()?;
        if let Some(ended) = read_end(&self.dir) {
            return Ok(ended.exit());
        }
        // Nobody has cleaned up behind it.
        if let Some(kept) = &self.kept {
            kept.end(&self.dir);
        }
        Ok(match of_shim {
            // It could not write it down, and passes it on.
            Exit::Code(code) => Exit::Code(code),
            // Killed, and the task with it.
            _ => Exit::Unknown,
        })
    }

    /// Asks the task to end (by a signal of that number to its first process), kills it after `grace`,
    /// and waits. Blocks for `grace` at most, apart from what the kernel needs to end a process.
    ///
    /// # Errors
    /// `EPERM`; not seen in practice.
    pub fn stop(&self, signal: i32, grace: Duration) -> io::Result<Exit> {
        self.terminate(signal)?;
        if self.shim.wait_timeout(grace)?.is_none() {
            self.kill()?;
        }
        if self.shim.wait_timeout(SHIM_LIMIT)?.is_none() {
            self.kill_shim()?;
        }
        self.wait()
    }

    /// Asks the task to end by a signal of that number, without waiting.
    ///
    /// # Errors
    /// `EPERM`; not seen in practice.
    pub(crate) fn terminate(&self, signal: i32) -> io::Result<()> {
        self.signal(signal)
    }

    /// Kills the task, without waiting. Its shim writes the end down, within [`SHIM_LIMIT`].
    ///
    /// # Errors
    /// `EPERM`; not seen in practice.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL.as_raw())
    }

    /// Kills a shim that does not end by itself, and with it whatever is left.
    ///
    /// # Errors
    /// `EPERM`; not seen in practice.
    pub(crate) fn kill_shim(&self) -> io::Result<()> {
        tracing::warn!(
            pid = self.pid(),
            "the shim of a task does not end: it is killed"
        );
        self.shim.signal(Signal::KILL)
    }

    /// Process 1 of a program of the node passes a signal on, that of a container is the program; both
    /// take everything with them when they are killed.
    fn signal(&self, number: i32) -> io::Result<()> {
        match spec::read_init(&self.dir)? {
            Some(init) => match Process::adopt(init.pid, init.start_time)? {
                Some(init) => init.signal_number(number),
                // The shim is about to write that down.
                None => Ok(()),
            },
            // Not started yet: what ends the shim ends all.
            None => self.shim.signal_group(Signal::TERM),
        }
    }
}

/// Whether process 1 of a task was made. A file of it that cannot be read, as after a loss of power, says so
/// too.
pub(super) fn has_begun(dir: &Path) -> bool {
    !matches!(spec::read_init(dir), Ok(None))
}

/// `None` also when it cannot be read, which is logged.
pub(super) fn read_end(dir: &Path) -> Option<Ended> {
    Ended::read(dir).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "the end of a task cannot be read");
        None
    })
}
