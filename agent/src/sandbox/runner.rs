//! Host tasks: programs of the node itself, each in its sandbox, with a shim beside it that starts
//! it behind its walls and keeps its output and its end (`weft_shim`).
//!
//! ```text
//!   DIR/TASK-ID/resolv.conf   shown to the task as /etc/resolv.conf
//!               hosts         shown to the task as /etc/hosts
//!               process.json  id and start time of the shim, for adoption after a restart
//!               init.json     the same of process 1 of the task
//!               stdout.log    appended, the same files for all attempts to start; with stdout.log.1,
//!               stderr.log    which is what came before, and .times, 10 MiB at most
//!               shim.log      what the shim itself had to say
//!               exit.json     how the task ended, also while no agent looked
//!               ended.json    final status; only the logs stay beside it then
//! ```

mod ages;
mod check;
mod ended;
mod files;
mod guest;
mod program;
mod walls;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weft_cluster::{CommandError, TemplateFields, expand, expand_hostname};
use weft_model::capability::{self, UnknownCapability};
use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{Runtime, Task};
use weft_shim::cgroup;
use weft_shim::launch::{Launch, LaunchError};
use weft_shim::spec::{self, Bind, Ended, Limits, Spec};
use weft_sys::privileges;
use weft_sys::process::{Exit, Process, Signal};

use super::Sandbox;
use ages::Ages;
use files::ProcessRecord;

pub(crate) use program::find_program;
pub use walls::hidden;

/// The program that is a shim when it is called so: this one, also when its file was replaced since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Bytes of output that are kept of each stream of a task.
const LOG_LIMIT_BYTES: u64 = 10 << 20;

/// How long a shim may take to write down the end of its task.
pub(crate) const SHIM_LIMIT: Duration = Duration::from_secs(5);

/// Why a task was not started. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Config: there is nothing to run.
    #[error(
        "no command: name the program after the image, as in `weft service create --name web host /usr/bin/web`"
    )]
    NoCommand,
    /// Config: there is no such program here.
    #[error(
        "program {program:?} was not found on node {node} (looked in {looked_in}): install it on every node, or give its full path"
    )]
    NoProgram {
        /// As given.
        program: String,
        /// Name of this node.
        node: String,
        /// Folders, or the path itself.
        looked_in: String,
    },
    /// Config: nothing here runs containers.
    #[error("node {0} has no container runtime")]
    NoRuntime(String),
    /// Config: the file is there but cannot be run.
    #[error("{program:?} on node {node} is not an executable file")]
    NotExecutable {
        /// Full path.
        program: PathBuf,
        /// Name of this node.
        node: String,
    },
    /// Peer: the manager sent an id that is no file name.
    #[error("task id {0:?} is not made of letters and digits")]
    BadId(String),
    /// Local: a file of the task.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Config: a capability that this version does not know.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// Config: a template of its environment or host name.
    #[error(transparent)]
    Template(#[from] CommandError),
    /// Local or Config: the process.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Starts, adopts and cleans up the host tasks of this node.
#[derive(Debug, Clone)]
pub struct Runner {
    dir: PathBuf,
    node_name: String,
    node_id: NodeId,
    shim: PathBuf,
    hidden: Vec<PathBuf>,
    started: Instant,
    /// Of tasks that have ended.
    ages: Arc<Mutex<Ages<TaskId>>>,
}

/// A task that runs, by its shim. Clones are the same task; any number of threads may wait for it.
#[derive(Debug, Clone)]
pub struct RunningTask {
    shim: Arc<Process>,
    dir: PathBuf,
}

impl Runner {
    /// A runner that keeps the files of its tasks below `dir`, which is made on first use.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, node_name: impl Into<String>, node_id: NodeId) -> Self {
        Self {
            dir: dir.into(),
            node_name: node_name.into(),
            node_id,
            shim: THIS_PROGRAM.into(),
            hidden: Vec::new(),
            started: Instant::now(),
            ages: Arc::default(),
        }
    }

    /// The same for tasks that must not see these folders and files of the node.
    #[must_use]
    pub fn hiding(self, hidden: Vec<PathBuf>) -> Self {
        Self { hidden, ..self }
    }

    /// Checks that the task can be run here, before its sandbox is made, and returns the full path of
    /// its program.
    ///
    /// # Errors
    /// See [`RunError`].
    pub(crate) fn check(&self, task: &Task) -> Result<PathBuf, RunError> {
        let container = &task.spec.container;
        match task.spec.runtime {
            Runtime::Host => {
                let program = container.args.first().ok_or(RunError::NoCommand)?;
                let env = self.expanded_env(task)?;
                self.hostname(task)?;
                find_program(program, &env, &self.node_name)
            }
            Runtime::Container => Err(RunError::NoRuntime(self.node_name.clone())),
        }
    }

    /// Starts the task in its sandbox. Its shim is written down before.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn start(&self, task: &Task, sandbox: &Sandbox) -> Result<RunningTask, RunError> {
        let program = self.check(task)?;
        let dir = self.task_dir(&task.id)?;
        let binds = self.write_files(task, &dir)?;
        ended::forget_end(&dir)?;
        let spec = self.spec(task, program, binds)?;
        let own = privileges::effective_capabilities().unwrap_or(u64::MAX);
        if let Some(missing) = walls::missing(spec.capabilities, own) {
            tracing::warn!(
                task = %task.id,
                ?missing,
                "a task has fewer capabilities than its service asks for: weftd has not got them \
                 itself (CapabilityBoundingSet= of its unit)"
            );
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
        })?;
        for warning in launched.warnings {
            tracing::warn!(task = %task.id, warning, "a wall of the task does not stand");
        }
        Ok(RunningTask {
            shim: Arc::new(launched.shim),
            dir,
        })
    }

    fn spec(&self, task: &Task, program: PathBuf, binds: Vec<Bind>) -> Result<Spec, RunError> {
        let container = &task.spec.container;
        let user = Some(container.user.clone()).filter(|user| !user.is_empty());
        let args = container.args.iter().skip(1).map(OsString::from);
        let limits = &task.spec.resources.limits;
        Ok(Spec {
            program,
            args: args.collect(),
            env: self.environment(task)?,
            user,
            capabilities: capability::granted(&container.cap_add, &container.cap_drop)?.0,
            no_new_privileges: container.privileges.no_new_privileges,
            binds,
            hostname: self.hostname(task)?,
            hidden: self.hidden.clone(),
            cgroup: Some(walls::control_group(
                &self.node_name,
                &self.node_id,
                &task.id,
            )),
            limits: Limits {
                nano_cpus: limits.nano_cpus,
                memory_bytes: limits.memory_bytes,
                pids: limits.pids,
            },
            log_limit_bytes: LOG_LIMIT_BYTES,
        })
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
        Ok(shim.map(|shim| RunningTask {
            shim: Arc::new(shim),
            dir,
        }))
    }

    /// How a task ended that no agent has looked at since; `None` when nobody wrote it down.
    ///
    /// # Errors
    /// [`RunError::BadId`].
    pub fn end_of(&self, task: &TaskId) -> Result<Option<Ended>, RunError> {
        Ok(read_end(&self.task_dir(task)?))
    }

    /// Tasks that have files here and have not ended: after a restart, those that are not assigned any
    /// more are to be adopted, stopped and finished.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn known(&self) -> Result<Vec<TaskId>, RunError> {
        let mut known = self.folders()?;
        known.retain(|task| ended::ended_at(&self.dir.join(task.as_str())).is_none());
        Ok(known)
    }

    /// Tasks that have a folder here, ended or not.
    fn folders(&self) -> Result<Vec<TaskId>, RunError> {
        let failed = |source| RunError::File {
            path: self.dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            folders.extend(name.to_str().filter(|name| is_id(name)).map(TaskId::from));
        }
        folders.sort();
        Ok(folders)
    }

    /// Removes the files of a task that has ended, its output included; none is success.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`].
    pub fn remove(&self, task: &TaskId) -> Result<(), RunError> {
        let path = self.task_dir(task)?;
        self.remove_group(task);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunError::File { path, source })
            }
            _ => Ok(()),
        }
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

    fn write_files(&self, task: &Task, dir: &Path) -> Result<Vec<Bind>, RunError> {
        std::fs::create_dir_all(dir)
            .and_then(|()| spec::forget(dir))
            .map_err(|source| RunError::File {
                path: dir.to_owned(),
                source,
            })?;
        let host_resolv = files::host_resolv_conf();
        let hostname = self.hostname(task)?;
        let ips: Vec<_> = task
            .attachments
            .iter()
            .filter_map(|a| a.ips().next())
            .collect();
        let contents = [
            (
                "resolv.conf",
                files::resolv_conf(&host_resolv),
                "/etc/resolv.conf",
            ),
            (
                "hosts",
                files::hosts(&task.name(), &hostname, &ips),
                "/etc/hosts",
            ),
        ];
        contents
            .into_iter()
            .map(|(name, text, target)| {
                let source = dir.join(name);
                match std::fs::write(&source, text) {
                    Ok(()) => Ok(Bind {
                        source,
                        target: target.into(),
                    }),
                    Err(error) => Err(RunError::File {
                        path: source,
                        source: error,
                    }),
                }
            })
            .collect()
    }

    /// Defaults, then the spec's, then ours, which no spec can override.
    fn environment(&self, task: &Task) -> Result<Vec<(OsString, OsString)>, RunError> {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), program::SEARCH_PATH.into()),
            ("HOSTNAME".into(), self.hostname(task)?.into()),
        ];
        for pair in &self.expanded_env(task)? {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // An empty key, or a NUL anywhere, cannot be passed to a program.
            if !key.is_empty() && !pair.contains('\0') {
                env.push((key.into(), value.into()));
            }
        }
        env.extend([
            ("WEFT_TASK_ID".into(), task.id.as_str().into()),
            ("WEFT_TASK_NAME".into(), task.name().into()),
            ("WEFT_TASK_SLOT".into(), task.slot.to_string().into()),
            (
                "WEFT_SERVICE_NAME".into(),
                task.service_name.as_str().into(),
            ),
            ("WEFT_NODE_NAME".into(), self.node_name.as_str().into()),
            ("WEFT_NODE_ID".into(), self.node_id.as_str().into()),
        ]);
        Ok(env)
    }

    /// What templates of the task can name.
    fn template_fields(&self, task: &Task) -> TemplateFields {
        TemplateFields {
            service_id: task.service.to_string(),
            service_name: task.service_name.clone(),
            node_id: self.node_id.to_string(),
            node_hostname: self.node_name.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
            task_id: task.id.to_string(),
            task_name: task.name(),
            task_slot: match task.slot {
                0 => self.node_id.to_string(),
                slot => slot.to_string(),
            },
        }
    }

    fn expanded_env(&self, task: &Task) -> Result<Vec<String>, RunError> {
        let fields = self.template_fields(task);
        let pairs = task.spec.container.env.iter();
        let expanded = pairs.map(|pair| -> Result<String, RunError> {
            match pair.split_once('=') {
                Some((key, value)) => Ok(format!("{key}={}", expand(value, &fields)?)),
                None => Ok(pair.clone()),
            }
        });
        expanded.collect()
    }

    /// The host name that the task sees.
    fn hostname(&self, task: &Task) -> Result<String, RunError> {
        match task.spec.container.hostname.as_str() {
            "" => Ok(files::hostname(task)),
            given => Ok(expand_hostname(given, &self.template_fields(task))?),
        }
    }
}

impl RunningTask {
    /// Process id of the shim on this node: it is in the task's network namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shim.pid()
    }

    /// Waits for the end, blocking the thread. Nothing of the task is left then.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn wait(&self) -> io::Result<Exit> {
        let of_shim = self.shim.wait()?;
        Ok(match (read_end(&self.dir), of_shim) {
            (Some(ended), _) => ended.exit(),
            // It could not write it down, and passes it on.
            (None, Exit::Code(code)) => Exit::Code(code),
            // Killed, and the task with it.
            (None, _) => Exit::Unknown,
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

    /// Process 1 passes a signal on to the program, and takes everything with it when it is killed.
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

/// `None` also when it cannot be read, which is logged.
fn read_end(dir: &Path) -> Option<Ended> {
    Ended::read(dir).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "the end of a task cannot be read");
        None
    })
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
