//! Host tasks: programs of the node itself, each in its sandbox.
//!
//! ```text
//!   DIR/TASK-ID/resolv.conf   shown to the task as /etc/resolv.conf
//!               hosts         shown to the task as /etc/hosts
//!               process.json  id and start time of the process, for adoption after a restart
//!               stdout.log    appended, one file for all attempts to start, about 10 MiB at most
//!               stderr.log
//!               ended.json    final status; the first three are gone then
//! ```

mod ended;
mod files;
mod logs;
mod program;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weft_control::id::{NodeId, TaskId};
use weft_control::objects::Task;
use weft_sys::process::{Bind, Exit, Process, Signal, Spawn, SpawnError};
use weft_sys::replace_file::PRIVATE;

use super::Sandbox;
use files::ProcessRecord;

pub use program::find_program;

/// Why a task was not started. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Config: only programs of the node are run so far.
    #[error(
        "image {image:?} cannot be run on node {node}: use the word `host` and a program of the node's own file system"
    )]
    Image {
        /// As given.
        image: String,
        /// Name of this node.
        node: String,
    },
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
    /// Config: the file is there but cannot be run.
    #[error("{program} on node {node} is not an executable file")]
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
    /// Local or Config: the process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl RunError {
    /// True when trying again on this node cannot help: the task is rejected.
    #[must_use]
    pub fn rejects(&self) -> bool {
        match self {
            Self::Image { .. }
            | Self::NoCommand
            | Self::NoProgram { .. }
            | Self::NotExecutable { .. }
            | Self::BadId(_) => true,
            Self::Spawn(error) => {
                matches!(
                    error,
                    SpawnError::NotFound { .. } | SpawnError::NotExecutable { .. }
                )
            }
            Self::File { .. } => false,
        }
    }
}

/// Starts, adopts and cleans up the host tasks of this node.
#[derive(Debug, Clone)]
pub struct Runner {
    dir: PathBuf,
    node_name: String,
    node_id: NodeId,
}

/// A task's process. Clones are the same process; any number of threads may wait for it.
#[derive(Debug, Clone)]
pub struct RunningTask {
    process: Arc<Process>,
}

impl Runner {
    /// A runner that keeps the files of its tasks below `dir`, which is made on first use.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, node_name: impl Into<String>, node_id: NodeId) -> Self {
        Self {
            dir: dir.into(),
            node_name: node_name.into(),
            node_id,
        }
    }

    /// Checks that the task can be run here, before its sandbox is made, and returns the full path of
    /// its program.
    ///
    /// # Errors
    /// One of those that [`RunError::rejects`].
    pub fn check(&self, task: &Task) -> Result<PathBuf, RunError> {
        if task.spec.image != "host" {
            let (image, node) = (task.spec.image.clone(), self.node_name.clone());
            return Err(RunError::Image { image, node });
        }
        let program = task.spec.command.first().ok_or(RunError::NoCommand)?;
        find_program(program, &self.node_name)
    }

    /// Starts the task in its sandbox and writes down its process.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn start(&self, task: &Task, sandbox: &Sandbox) -> Result<RunningTask, RunError> {
        let program = self.check(task)?;
        let dir = self.task_dir(&task.id)?;
        let binds = self.write_files(task, &dir)?;
        ended::forget_end(&dir)?;
        logs::trim_all(&dir)?;
        let log = |name| {
            let path = dir.join(name);
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(PRIVATE)
                .open(&path);
            file.map_err(|source| RunError::File { path, source })
        };
        let args: Vec<OsString> = task
            .spec
            .command
            .iter()
            .skip(1)
            .map(OsString::from)
            .collect();
        let process = Spawn {
            program: &program,
            args: &args,
            env: &self.environment(task),
            netns: Some(sandbox.netns()),
            binds: &binds,
            cwd: None,
            stdout: Some(log(logs::LOGS[0])?),
            stderr: Some(log(logs::LOGS[1])?),
            parent_death_signal: None,
        }
        .start()?;
        let record = ProcessRecord::of(&process);
        if let Err(error) = record.write(&dir) {
            // Without the record a restarted agent would start a second one beside it.
            if let Err(left) = process.signal_group(Signal::KILL) {
                tracing::warn!(task = %task.id, error = %left, "process left behind");
            }
            return Err(error);
        }
        Ok(RunningTask {
            process: Arc::new(process),
        })
    }

    /// The process that an earlier agent started for the task, if it still runs. Its exit status
    /// will be unknown: it is no child of this agent.
    ///
    /// # Errors
    /// [`RunError::BadId`], [`RunError::File`].
    pub fn adopt(&self, task: &TaskId) -> Result<Option<RunningTask>, RunError> {
        let dir = self.task_dir(task)?;
        let Some(record) = ProcessRecord::read(&dir) else {
            return Ok(None);
        };
        let process = record.adopt().map_err(|source| RunError::File {
            path: dir.join(files::RECORD),
            source,
        })?;
        Ok(process.map(|process| RunningTask {
            process: Arc::new(process),
        }))
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
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunError::File { path, source })
            }
            _ => Ok(()),
        }
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
        std::fs::create_dir_all(dir).map_err(|source| RunError::File {
            path: dir.to_owned(),
            source,
        })?;
        let host_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let ips: Vec<_> = task
            .attachments
            .iter()
            .filter_map(|a| a.ips.first().copied())
            .collect();
        let contents = [
            (
                "resolv.conf",
                files::resolv_conf(&host_resolv),
                "/etc/resolv.conf",
            ),
            ("hosts", files::hosts(&task.name(), &ips), "/etc/hosts"),
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
    fn environment(&self, task: &Task) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), program::search_path()),
            ("HOSTNAME".into(), task.name().into()),
        ];
        for pair in &task.spec.env {
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
        env
    }
}

impl RunningTask {
    /// Process id on this node.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the end, blocking the thread; what is left of its process group is killed then.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn wait(&self) -> io::Result<Exit> {
        self.process.wait()
    }

    /// The end, when it is there already.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.process.try_wait()
    }

    /// Asks the task to end (SIGTERM to its process group), kills it after `grace`, and waits. Blocks
    /// for `grace` at most, apart from what the kernel needs to end a process.
    ///
    /// # Errors
    /// `EPERM`; not seen in practice.
    pub fn stop(&self, grace: Duration) -> io::Result<Exit> {
        self.process.signal_group(Signal::TERM)?;
        if let Some(exit) = self.process.wait_timeout(grace)? {
            return Ok(exit);
        }
        self.process.signal_group(Signal::KILL)?;
        self.process.wait()
    }

    /// The process: its descriptor becomes readable when it has ended, for waiting without a thread.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}
