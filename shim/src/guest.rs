//! A program beside that of a task, inside of its walls (`weft exec`).
//!
//! ```text
//!   agent ── spawns ──► weft-shim --guest FILE     has the program's standard descriptors: pipes, or a
//!                        │ forks                   terminal of the node
//!                        ▼
//!                       the program                in all namespaces of process 1 of the task, and
//!                                                  ended with the first one
//! ```
//!
//! The file says what to run and is removed once it is read, as it holds the environment. Only a
//! process with a single thread can enter a task, so it is not the agent itself.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::{Deserialize, Serialize};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Fork, Process, Spawn, fork, leave};

use crate::launch::LaunchError;
use crate::spec::{self, Failure, ProcessId, Spec};
use crate::{NAME, enter, files, program};

/// The argument by which the program is called to start a guest.
pub(crate) const FLAG: &str = "--guest";

/// The exit code of a program that was not started, as the task could not be entered.
const NOT_STARTED: u8 = 126;

/// A program to be run beside a task's.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The multi-call program, or the shim alone.
    pub program: &'a Path,
    /// Folder of the task.
    pub dir: &'a Path,
    /// Tells guests of one task apart: letters and digits.
    pub name: &'a str,
    /// What to run, as whom; what the task sees is as it was made.
    pub spec: &'a Spec,
    /// Working directory; the spec's when empty.
    pub cwd: &'a Path,
    /// Standard output is a terminal, which the program gets for its own.
    pub terminal: bool,
}

/// Standard input, output and error of a guest. Input that is absent is empty.
#[derive(Debug)]
pub struct Descriptors {
    /// To read from.
    pub stdin: Option<File>,
    /// To write to.
    pub stdout: File,
    /// To write errors to.
    pub stderr: File,
}

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    init: ProcessId,
    spec: Spec,
    cwd: PathBuf,
    terminal: bool,
}

impl Guest<'_> {
    /// Starts it; the process that is returned ends with it, and it with that one. Its exit status is
    /// what a shell would show of the program.
    ///
    /// # Errors
    /// See [`LaunchError`]; [`LaunchError::Failed`] where the task does not run.
    pub fn start(self, descriptors: Descriptors) -> Result<Process, LaunchError> {
        let init = spec::read_init(self.dir)?.ok_or_else(|| Failure {
            permanent: false,
            message: "the task does not run".to_owned(),
        })?;
        let order = Order {
            init,
            spec: self.spec.clone(),
            cwd: self.cwd.to_owned(),
            terminal: self.terminal,
        };
        let path = self.dir.join(format!("guest-{}.json", self.name));
        files::write(&path, &order).map_err(|source| LaunchError::File {
            path: path.clone(),
            source,
        })?;
        let args: [OsString; 2] = [FLAG.into(), path.clone().into()];
        let started = Spawn {
            program: self.program,
            arg0: Some(NAME),
            args: &args,
            env: &[],
            netns: None,
            cwd: None,
            stdin: descriptors.stdin,
            stdout: Some(descriptors.stdout),
            stderr: Some(descriptors.stderr),
            parent_death_signal: None,
        }
        .start();
        if started.is_err() {
            files::remove(&path)?;
        }
        Ok(started?)
    }
}

/// Carries out what the file says, to the end of the program.
///
/// # Errors
/// It was not started.
pub(crate) fn run(path: &Path) -> anyhow::Result<u8> {
    let order: Order = files::read(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .with_context(|| format!("there is no {}", path.display()))?;
    files::remove(path)?;
    let init = Process::adopt(order.init.pid, order.init.start_time)?;
    let init = init.context("the task does not run any more")?;
    let this = pidfd_open(getpid(), PidfdFlags::empty()).map_err(io::Error::from)?;
    // Of its next children.
    let pid = Kinds {
        pid: true,
        ..Kinds::default()
    };
    namespaces::enter(&init, pid).context("cannot enter the task")?;
    let guest = match fork()? {
        Fork::Child => become_guest(&order, &init, &this),
        Fork::Parent(guest) => guest,
    };
    let code = guest.wait()?.shell_code().unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
}

fn become_guest(order: &Order, init: &Process, starter: &OwnedFd) -> ! {
    let spec = &order.spec;
    let cwd = match &spec.cwd {
        Some(own) if order.cwd.as_os_str().is_empty() => own,
        _ => &order.cwd,
    };
    // What is relative is so to where tasks start.
    let cwd = Path::new("/").join(cwd);
    let (why, code) = match enter::enter(spec, init, None) {
        Ok((user, confinement)) => {
            let user = user.as_ref();
            let terminal = order.terminal;
            let not = program::become_guest(spec, user, &confinement, &cwd, terminal, starter);
            (not.failure.message, not.code)
        }
        Err(error) => (format!("cannot enter the task: {error:#}"), NOT_STARTED),
    };
    crate::complain(&why);
    leave(code)
}
