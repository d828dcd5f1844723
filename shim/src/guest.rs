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
//! In a container the program makes a terminal of the container's own in place of the node's, before it
//! is executed, and sends this side of it to the agent ([`terminal`]).
//!
//! The file says what to run and is removed once it is read, as it holds the environment. Only a
//! process with a single thread can enter a task, so it is not the agent itself.

mod terminal;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::{Deserialize, Serialize};
use weft_sys::error_text::without_numbers;
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Fork, Process, Signal, Spawn, fork, leave};
use weft_sys::terminal::{Size, open_terminal};

use crate::confinement::Confinement;
use crate::launch::LaunchError;
use crate::spec::{self, Failure, ProcessId, Spec};
use crate::user::User;
use crate::{NAME, enter, files, program};
use terminal::Awaited;

/// The argument by which the program is called to start a guest.
pub(crate) const FLAG: &str = "--guest";

/// The exit code of a program that was not started, as the task could not be entered.
const NOT_STARTED: u8 = 126;

/// How long a guest may take until it has a terminal: it needs milliseconds, on a machine that is busy.
const TERMINAL_LIMIT: Duration = Duration::from_secs(20);

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
    terminal: Option<Terminal>,
}

/// Which terminal a guest gets for its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Terminal {
    /// That of the node which its standard descriptors are.
    Node,
    /// One of the container, of so many columns and rows, which is waited for at its standard input.
    Container(Size),
}

impl Guest<'_> {
    /// Starts it; the process that is returned ends with it, and it with that one. Its exit status is
    /// what a shell would show of the program.
    ///
    /// # Errors
    /// See [`LaunchError`]; [`LaunchError::Failed`] where the task does not run.
    pub fn start(self, descriptors: Descriptors) -> Result<Process, LaunchError> {
        self.spawn(descriptors, None)
    }

    /// The same on a terminal of so many columns and rows, of which this side is returned. It is one of the
    /// container's, by name and owner, where the task is one that has `/dev/pts`; else one of the node.
    /// Blocks until that is known, some milliseconds.
    ///
    /// # Errors
    /// As of [`Guest::start`]; there are no more terminals.
    pub fn start_on_terminal(self, size: Size) -> Result<(Process, OwnedFd), LaunchError> {
        let in_container = self.spec.container.is_some();
        let (ours, theirs) = open_terminal(size).map_err(no_terminal)?;
        let theirs = File::from(theirs);
        let (awaited, stdin, terminal) = if in_container {
            let (awaited, stdin) = Awaited::new().map_err(no_terminal)?;
            (Some(awaited), stdin, Terminal::Container(size))
        } else {
            let stdin = theirs.try_clone().map_err(no_terminal)?;
            (None, stdin, Terminal::Node)
        };
        let descriptors = Descriptors {
            stdin: Some(stdin),
            stdout: theirs.try_clone().map_err(no_terminal)?,
            // What it says before it has another one is seen there, too.
            stderr: theirs,
        };
        let guest = self.spawn(descriptors, Some(terminal))?;
        let Some(awaited) = awaited else {
            return Ok((guest, ours));
        };
        match awaited.wait(TERMINAL_LIMIT) {
            Ok(own) => Ok((guest, own.unwrap_or(ours))),
            Err(error) => {
                guest.signal(Signal::KILL)?;
                guest.wait()?;
                Err(no_terminal(error).into())
            }
        }
    }

    fn spawn(
        self,
        descriptors: Descriptors,
        terminal: Option<Terminal>,
    ) -> Result<Process, LaunchError> {
        let init = spec::read_init(self.dir)?.ok_or_else(|| Failure {
            permanent: false,
            message: "the task does not run".to_owned(),
        })?;
        let order = Order {
            init,
            spec: self.spec.clone(),
            cwd: self.cwd.to_owned(),
            terminal,
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

fn no_terminal(error: io::Error) -> Failure {
    Failure::temporary(&anyhow::Error::from(error).context("cannot make a terminal for it"))
}

/// Carries out what the file says, to the end of the program, and returns its exit code.
pub(crate) fn run(path: &Path) -> u8 {
    carry_out(path).unwrap_or_else(|error| {
        crate::say(&without_numbers(&format!("{error:#}")));
        NOT_STARTED
    })
}

fn carry_out(path: &Path) -> anyhow::Result<u8> {
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
    let (why, code) = match entered(order, init) {
        Ok((user, confinement)) => {
            let user = user.as_ref();
            let terminal = order.terminal.is_some();
            let not = program::become_guest(spec, user, &confinement, &cwd, terminal, starter);
            (not.failure.message, not.code)
        }
        Err(error) => (format!("cannot enter the task: {error:#}"), NOT_STARTED),
    };
    crate::say(&without_numbers(&why));
    leave(code)
}

fn entered(order: &Order, init: &Process) -> anyhow::Result<(Option<User>, Confinement)> {
    let (user, confinement) = enter::enter(&order.spec, init, None)?;
    if let Some(Terminal::Container(size)) = order.terminal {
        terminal::take(size, user.as_ref()).context("its terminal")?;
    }
    Ok((user, confinement))
}
