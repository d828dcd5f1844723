//! The agent's side: starting a shim, and hearing from it whether the task runs.
//!
//! | who | by | what |
//! |---|---|---|
//! | agent | `spec.json` | what to run |
//! | agent | a record of its own | the shim's process: from here on a later agent finds it |
//! | agent | standard input | `go` |
//! | shim | standard output | one [`Answer`] |
//!
//! A shim whose agent goes away before `go` ends without having started anything.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use weft_sys::netns::Netns;
use weft_sys::process::{Process, Signal, Spawn, SpawnError};

use crate::spec::{Answer, Failure, ProcessId, Spec};
use crate::{NAME, files};

pub(crate) const GO: &str = "go\n";

/// How long a shim may take to start a task: mounts and forks, or an OCI runtime program, on a machine that
/// is busy.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long one that has failed may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A task to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The multi-call program, or the shim alone.
    pub program: &'a Path,
    /// Folder of the task.
    pub dir: &'a Path,
    /// What to run.
    pub spec: &'a Spec,
    /// Network namespace of the task; that of the caller when absent.
    pub netns: Option<&'a Netns>,
}

/// A task that runs.
#[derive(Debug)]
pub struct Launched {
    /// The shim: it ends with the task.
    pub shim: Process,
    /// Process 1 of the task.
    pub init: ProcessId,
    /// What this machine does not give, one sentence each.
    pub warnings: Vec<String>,
}

/// Why a task does not run; nothing does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Local: a file of the task.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: the shim itself.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Local: it cannot be spoken to.
    #[error("cannot speak to the task's shim: {0}")]
    Pipe(#[from] io::Error),
    /// Local: it does not answer. It was ended.
    #[error("the task's shim {0}; {log} says more", log = .1.display())]
    Silent(&'static str, PathBuf),
    /// Config or Local: the shim says why.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Launch<'_> {
    /// Starts the shim, has `record` write down its process, and lets it start the task. Blocks
    /// until the program runs, some milliseconds.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub fn start(
        self,
        record: impl FnOnce(&Process) -> io::Result<()>,
    ) -> Result<Launched, LaunchError> {
        let spec = self.dir.join(files::SPEC);
        files::write(&spec, self.spec)
            .map_err(|source| LaunchError::File { path: spec, source })?;
        let log = self.dir.join(files::LOG);
        let stderr = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .map_err(|source| LaunchError::File {
                path: log.clone(),
                source,
            })?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let ((stdin, go), (answer, stdout)) = (pipe()?, pipe()?);
        let args: [OsString; 1] = [self.dir.into()];
        let shim = Spawn {
            program: self.program,
            arg0: Some(NAME),
            args: &args,
            env: &[],
            netns: self.netns,
            cwd: None,
            stdin: Some(stdin.into()),
            stdout: Some(stdout.into()),
            stderr: Some(stderr),
            parent_death_signal: None,
        }
        .start()?;
        let (mut go, answer) = (File::from(go), File::from(answer));
        let started = record(&shim)
            .and_then(|()| go.write_all(GO.as_bytes()))
            .map_err(LaunchError::from)
            .and_then(|()| hear(answer, &log));
        drop(go);
        let failure = match started {
            Ok(Answer::Started { init, warnings }) => {
                return Ok(Launched {
                    shim,
                    init,
                    warnings,
                });
            }
            Ok(Answer::Failed(failure)) => {
                shim.wait_timeout(END_LIMIT)?;
                failure.into()
            }
            Err(error) => error,
        };
        // Process 1 dies with it.
        shim.signal(Signal::KILL)?;
        shim.wait()?;
        Err(failure)
    }
}

/// One line.
fn hear(mut answer: File, log: &Path) -> Result<Answer, LaunchError> {
    let silent = |what| LaunchError::Silent(what, log.to_owned());
    let deadline = Instant::now() + START_LIMIT;
    let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
    while line.last() != Some(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&answer, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(silent("did not start it within 30 seconds")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        match answer.read(&mut buffer)? {
            0 => return Err(silent("ended before it started it")),
            len => line.extend_from_slice(&buffer[..len]),
        }
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::from(error).into())
}
