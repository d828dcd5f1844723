//! What the agent and the shim tell each other.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_sys::error_text::without_numbers;
use weft_sys::process::{Exit, Process};

use crate::files;

/// The folder, in memory and of one task alone, in which it sees secrets of any name.
pub const SECRETS: &str = "/run/secrets";

/// What to run, and behind which walls.
///
/// Of a container the walls are those that its bundle says; program, environment, user and capabilities
/// are of what is asked inside of it ([`crate::check`], [`crate::guest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Full path of the program. Inside a container it may be a name, which is looked up in the `PATH`
    /// of the environment, among the container's files.
    pub program: PathBuf,
    /// Arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// `NAME|UID[:GROUP|GID]`, looked up in the node's own files, or the container's; root when absent.
    pub user: Option<String>,
    /// More groups of the user, names or numbers, looked up in the same files.
    pub groups: Vec<String>,
    /// Working directory; `/` when absent.
    pub cwd: Option<PathBuf>,
    /// The capabilities that the program may ever have, by the kernel's numbers. Root has them, any
    /// other user only by way of a program's file.
    pub capabilities: u64,
    /// Nothing that the program executes gains rights by its file.
    pub no_new_privileges: bool,
    /// Host name that the program sees, at most 64 bytes.
    pub hostname: String,
    /// Files that the program sees at other places.
    pub binds: Vec<Bind>,
    /// Secrets and configs: files in memory that the program alone sees, and cannot change. For each
    /// the target is a file of the node, or below [`SECRETS`]; nothing is made on the node's disk.
    #[serde(default)]
    pub payloads: Vec<Bind>,
    /// Folders and files that it must not see.
    pub hidden: Vec<PathBuf>,
    /// Its control group, below the mount point of each tree; none when absent.
    pub cgroup: Option<PathBuf>,
    /// What it may use at most, as far as there is a control group.
    pub limits: Limits,
    /// Bytes on disk of each of its two outputs at most, apart from what is written at once (64 KiB).
    pub log_limit_bytes: u64,
    /// The container that the task is; a program of the node when absent.
    pub container: Option<OciContainer>,
}

/// A container of an OCI runtime program, such as `runc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciContainer {
    /// Full path of the runtime program.
    pub runtime: PathBuf,
    /// Where it keeps what it knows of its containers (`--root`).
    pub root: PathBuf,
    /// Folder with `config.json`, a full path.
    pub bundle: PathBuf,
    /// The container's name with the runtime program.
    pub id: String,
    /// The program has a terminal, as `process.terminal` of the bundle says too: both of its outputs
    /// are one.
    pub terminal: bool,
}

/// What a task may use at most; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at one time.
    pub pids: u64,
}

/// A file of the node that the program sees at another place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// What is shown.
    pub source: PathBuf,
    /// Where. Of [`Spec::binds`] an empty file is made there where nothing is. A symbolic link is
    /// followed.
    pub target: PathBuf,
}

/// One process for as long as the machine is up: ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// As the agent knows it.
    pub pid: u32,
    /// Clock ticks between boot and its start.
    pub start_time: u64,
}

impl ProcessId {
    /// Of a process that runs.
    #[must_use]
    pub fn of(process: &Process) -> Self {
        Self {
            pid: process.pid(),
            start_time: process.start_time(),
        }
    }
}

/// Why a task did not start; nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Trying again on this node cannot help.
    pub permanent: bool,
    /// What, where, and what to do.
    pub message: String,
}

impl Failure {
    /// Of something that is in the way now, and perhaps not later.
    pub(crate) fn temporary(error: &anyhow::Error) -> Self {
        Self {
            permanent: false,
            message: without_numbers(&format!("{error:#}")),
        }
    }
}

/// What a shim answers when it was told to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The program runs.
    Started {
        /// Process 1 of its PID namespace.
        init: ProcessId,
        /// What this machine does not give: one sentence each.
        warnings: Vec<String>,
    },
    /// It does not.
    Failed(Failure),
}

/// How a task ended, as `exit.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code of the program, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it never ran; the code is what Docker shows of such a container then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The kernel killed one of its processes, which had no memory left within the limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// Milliseconds since 1970.
    pub time_ms: u64,
}

impl Ended {
    /// The end as that of a process.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.code, self.signal) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        }
    }

    /// How the task of a folder ended; `None` while it has not, and when nobody wrote it down.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        files::read(&dir.join(files::EXIT))
    }
}

/// Process 1 of the task of a folder, when it was made already.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read_init(dir: &Path) -> io::Result<Option<ProcessId>> {
    files::read(&dir.join(files::INIT))
}

/// Forgets process 1 of the task of a folder, as of one that ran before the machine came up: its number
/// is somebody else's now, and may have the same start time.
///
/// # Errors
/// The file cannot be removed.
pub fn forget_init(dir: &Path) -> io::Result<()> {
    files::remove(&dir.join(files::INIT))
}

/// Removes what an earlier attempt to run the task left in its folder, but for its output.
///
/// # Errors
/// One of the files cannot be removed.
pub fn forget(dir: &Path) -> io::Result<()> {
    for name in [
        files::SPEC,
        files::INIT,
        files::EXIT,
        files::PID,
        files::CONSOLE,
    ] {
        files::remove(&dir.join(name))?;
    }
    Ok(())
}
