//! Tasks of this node, each in its sandbox, with a shim beside it that starts it behind its walls and
//! keeps its output and its end (`weft_shim`): programs of the node itself ([`host`]), and containers
//! ([`container`]), whose walls an OCI runtime program makes.
//!
//! ```text
//!   DIR/TASK-ID/resolv.conf   shown to the task as /etc/resolv.conf
//!               hosts         shown to the task as /etc/hosts
//!               hostname      shown to a container as /etc/hostname
//!               process.json  id and start time of the shim, for adoption after a restart
//!               init.json     the same of process 1 of the task
//!               stdout.log    appended, the same files for all attempts to start; with stdout.log.1,
//!               stderr.log    which is what came before, and .times, 10 MiB at most
//!               shim.log      what the shim itself had to say
//!               exit.json     how the task ended, also while no agent looked
//!               ended.json    final status; only the logs stay beside it then
//!
//!   of a container besides:
//!               upper, work   what it has written over the layers of its image
//!               rootfs        both as one, its file system
//!               config.json   its bundle: what the runtime program reads; with its environment, 0600
//!               container.json  what a later agent has to know of it
//! ```
//!
//! Secrets and configs of a task are not in there, but in memory ([`payloads`]).

mod ages;
mod check;
mod container;
mod ended;
mod engine;
mod error;
mod files;
mod guest;
mod host;
mod kept;
mod mounts;
mod network_settings;
mod payloads;
mod program;
mod running;
mod templates;
mod walls;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{Runtime, Task};
use weft_shim::cgroup;
use weft_shim::launch::Launch;
use weft_shim::spec::Ended;
use weft_sys::privileges;
use weft_sys::unwritable_program::UnwritableProgram;
use weft_volumes::Volumes;

use super::Sandbox;
use ages::Ages;
use engine::Containers;
use files::ProcessRecord;
use kept::Kept;

pub(crate) use container::container_id;
pub(crate) use engine::COPIES;
pub use engine::ContainerEngine;
pub use error::RunError;
pub(crate) use error::not_started;
pub(crate) use payloads::missing as missing_payload;
pub(crate) use program::find_program;
pub use running::RunningTask;
pub(crate) use running::SHIM_LIMIT;
pub use walls::hidden;

/// The program that is a shim when it is called so: this one, also when its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Below the folder of all tasks, where nothing else is said: no id of one has a dot.
const MEMORY: &str = ".memory";

/// Bytes of output that are kept of each stream of a task.
const LOG_LIMIT_BYTES: u64 = 10 << 20;

/// Starts, adopts and cleans up the tasks of this node.
#[derive(Debug, Clone)]
pub struct Runner {
    dir: PathBuf,
    /// Secrets and configs of tasks.
    memory: PathBuf,
    node_name: String,
    node_id: NodeId,
    shim: PathBuf,
    /// It is linked statically: it runs in every container.
    shim_is_static: bool,
    /// The same program, for what enters a container: made on first use, absent where the kernel gives none.
    entering: Arc<OnceLock<Option<UnwritableProgram>>>,
    hidden: Vec<PathBuf>,
    /// Absent where it runs programs of the node alone.
    containers: Option<Containers>,
    started: Instant,
    /// Of tasks that have ended.
    ages: Arc<Mutex<Ages<TaskId>>>,
}

impl Runner {
    /// A runner that keeps the files of its tasks below `dir`, which is made on first use, and mounts
    /// what they have in memory there too.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, node_name: impl Into<String>, node_id: NodeId) -> Self {
        let dir: PathBuf = dir.into();
        Self {
            memory: dir.join(MEMORY),
            dir,
            node_name: node_name.into(),
            node_id,
            shim: THIS_PROGRAM.into(),
            shim_is_static: false,
            entering: Arc::default(),
            hidden: Vec::new(),
            containers: None,
            started: Instant::now(),
            ages: Arc::default(),
        }
    }

    /// The same with another folder for secrets and configs of tasks: one that the machine's end takes
    /// away, so that not even the places of mounts are left.
    #[must_use]
    pub fn keeping_memory_in(self, memory: PathBuf) -> Self {
        Self { memory, ..self }
    }

    /// The same for tasks that must not see these folders and files of the node.
    #[must_use]
    pub fn hiding(self, hidden: Vec<PathBuf>) -> Self {
        Self { hidden, ..self }
    }

    /// The same with a static program as the shim of tasks, where there is one.
    #[must_use]
    pub fn with_shim(self, program: Option<&Path>) -> Self {
        match program {
            Some(program) => Self {
                shim: program.to_owned(),
                shim_is_static: true,
                ..self
            },
            None => self,
        }
    }

    /// The same for a node that runs containers too, with these volumes.
    #[must_use]
    pub fn with_containers(self, engine: ContainerEngine, volumes: Volumes) -> Self {
        let containers = Some(Containers { engine, volumes });
        Self { containers, ..self }
    }

    /// The program that enters tasks. Who is root in a container can open the file that a process executes
    /// which has come in, and must not overwrite the node's program by it.
    fn entering(&self) -> &Path {
        let made = self.entering.get_or_init(|| {
            let program = UnwritableProgram::of(&self.shim);
            let told = program.inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "checks and programs inside of containers (`weft exec`) are started from the \
                     file of weftd itself, or of its shim, which root of a container may be able to overwrite: that the agent may \
                     make mounts (CAP_SYS_ADMIN, Linux 5.12) mends it"
                );
            });
            told.ok()
        });
        made.as_ref()
            .map_or(self.shim.as_path(), UnwritableProgram::path)
    }

    /// Checks that the task can be run here, before its image is fetched and its sandbox is made.
    ///
    /// # Errors
    /// See [`RunError`].
    pub(crate) fn check(&self, task: &Task) -> Result<(), RunError> {
        match task.spec.runtime {
            Runtime::Host => self.check_host(task).map(drop),
            Runtime::Container => self.check_container(task),
        }
    }

    /// Starts the task in its sandbox; its secrets and configs were kept before
    /// ([`Runner::keep_payloads`]), and a container was prepared ([`Runner::prepare`]). Its shim is written
    /// down before.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn start(&self, task: &Task, sandbox: &Sandbox) -> Result<RunningTask, RunError> {
        let dir = self.task_dir(&task.id)?;
        let (spec, kept) = match task.spec.runtime {
            Runtime::Host => (self.host_spec(task, &dir)?, None),
            Runtime::Container => {
                let kept = Kept::read(&dir);
                let kept = kept.ok_or_else(|| RunError::NotPrepared(dir.join(kept::FILE)))?;
                network_settings::apply(sandbox, &task.spec.container.sysctls)?;
                (self.container_spec(task, &kept), Some(kept))
            }
        };
        ended::forget_end(&dir)?;
        if kept.is_none() {
            let own = privileges::effective_capabilities().unwrap_or(u64::MAX);
            walls::tell_missing(&task.id, spec.capabilities, own);
        }
        let launched = Launch {
            program: &self.shim,
            dir: &dir,
            spec: &spec,
            netns: Some(sandbox.netns()),
        }
        .start(|shim| {
            // Without the record a restarted agent would start a second one beside it.
            let written = ProcessRecord::of(shim).write(&dir);
            written.map_err(io::Error::other)
        });
        let launched = launched.map_err(|error| match kept {
            Some(_) => RunError::Container(error),
            None => RunError::Launch(error),
        })?;
        for warning in launched.warnings {
            tracing::warn!(task = %task.id, warning, "a wall of the task does not stand");
        }
        Ok(RunningTask::new(launched.shim, dir, kept))
    }

    /// The task that an earlier agent started, if it still runs.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`].
    pub fn adopt(&self, task: &TaskId) -> Result<Option<RunningTask>, RunError> {
        let dir = self.task_dir(task)?;
        let Some(record) = ProcessRecord::read(&dir) else {
            return Ok(None);
        };
        let shim = record.adopt().map_err(|source| RunError::File {
            path: dir.join(files::RECORD),
            source,
        })?;
        let kept = shim.is_some().then(|| Kept::read(&dir)).flatten();
        Ok(shim.map(|shim| RunningTask::new(shim, dir, kept)))
    }

    /// How a task ended that no agent has looked at since; `None` when nobody wrote it down.
    ///
    /// # Errors
    /// [`RunError::BadId`].
    pub fn end_of(&self, task: &TaskId) -> Result<Option<Ended>, RunError> {
        Ok(running::read_end(&self.task_dir(task)?))
    }

    /// Whether the program of a task was started here, and its files were not taken away since.
    ///
    /// # Errors
    /// [`RunError::BadId`].
    pub fn has_begun(&self, task: &TaskId) -> Result<bool, RunError> {
        Ok(running::has_begun(&self.task_dir(task)?))
    }

    /// Tasks that have files here and have not ended, or have secrets in memory still: after a restart,
    /// those that are not assigned any more are to be adopted, stopped and finished.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn known(&self) -> Result<Vec<TaskId>, RunError> {
        let mut known = self.folders()?;
        known.retain(|task| {
            ended::ended_at(&self.dir.join(task.as_str())).is_none() || self.has_payloads(task)
        });
        Ok(known)
    }

    /// Tasks that have a folder here, ended or not.
    fn folders(&self) -> Result<Vec<TaskId>, RunError> {
        let mut folders = listed(&self.dir)?;
        folders.extend(listed(&self.memory)?);
        folders.sort();
        folders.dedup();
        Ok(folders)
    }

    /// Removes the files of a task that has ended, its output included; none is success.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`].
    pub fn remove(&self, task: &TaskId) -> Result<(), RunError> {
        let path = self.task_dir(task)?;
        // Not through what is mounted there.
        self.clear_container(task, &path)?;
        self.clear_payloads(task)?;
        self.remove_group(task);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes the files of all tasks, none of which runs.
    ///
    /// # Errors
    /// As of [`Runner::remove`], the first one; the other folders are removed all the same.
    pub(crate) fn remove_all(&self) -> Result<(), RunError> {
        let folders = self.folders()?;
        let removed = folders.iter().map(|task| self.remove(task));
        // Each, whatever the others say.
        removed.fold(Ok(()), Result::and)
    }

    fn remove_group(&self, task: &TaskId) {
        let (name, node) = (&self.node_name, &self.node_id);
        cgroup::remove(&walls::control_group(name, node, task));
    }

    /// Folder of a task's files.
    ///
    /// # Errors
    /// [`RunError::BadId`]: an id is used as a file name, and comes from the wire.
    pub fn task_dir(&self, task: &TaskId) -> Result<PathBuf, RunError> {
        if is_id(task.as_str()) {
            Ok(self.dir.join(task.as_str()))
        } else {
            Err(RunError::BadId(task.0.clone()))
        }
    }
}

/// Tasks that have a folder in this one.
fn listed(dir: &Path) -> Result<Vec<TaskId>, RunError> {
    let failed = |source| RunError::File {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.to_str().filter(|name| is_id(name)).map(TaskId::from));
    }
    Ok(found)
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
