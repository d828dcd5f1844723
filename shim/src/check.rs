//! A command inside a task that runs: it sees and may do what the task's program does, has a limit in
//! time, and leaves nothing behind.
//!
//! A process of its own carries it out, as only one with a single thread can enter a task. It stays on
//! the node's side, so that it can end what does not end by itself, whatever became of the agent:
//!
//! ```text
//!   agent ── spawns ──► weft-shim --check          the order on standard input, the answer on
//!                        │ forks                    standard output
//!                        ▼
//!                       the command                 in all namespaces of process 1 of the task, in a
//!                                                   control group below the task's
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use weft_sys::error_text::without_numbers;
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Fork, Process, Signal, Spawn, fork, leave};

use crate::launch::LaunchError;
use crate::spec::{self, Failure, ProcessId, Spec};
use crate::{NAME, enter, leftovers, program};

/// The argument by which the program is called to carry out a check.
pub(crate) const FLAG: &str = "--check";

/// The exit code of a command that was not started, as the task could not be entered.
const NOT_STARTED: u8 = 126;

/// Bytes of output that are kept, as in Docker.
const KEPT_BYTES: usize = 4096;

/// Bytes of one read.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads of what is left in the pipe at the end.
const LAST_READS: usize = 16;

/// The longest that a command may take.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A command to be run inside a task.
#[derive(Debug)]
pub struct Check<'a> {
    /// The multi-call program, or the shim alone.
    pub program: &'a Path,
    /// Folder of the task.
    pub dir: &'a Path,
    /// What to run, as whom; what the task sees is as it was made.
    pub spec: &'a Spec,
    /// Longest time of the command; all of it is killed then.
    pub limit: Duration,
}

/// A check under way.
#[derive(Debug)]
pub struct Checking {
    /// The process that carries it out; it ends soon after the limit.
    pub helper: Process,
    /// Where its answer comes, and the end of the file behind it: see [`Checked::read`].
    pub answer: OwnedFd,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How the command ended.
    pub outcome: Outcome,
    /// What it printed, 4096 bytes of both outputs at most, with `...` where there was more.
    pub output: String,
}

/// How a command inside a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By itself or by a signal; the code is that of a shell.
    Ended(i32),
    /// It took longer than it may, and was killed.
    TimedOut,
    /// It did not run: why.
    NotRun(String),
}

impl Checked {
    /// An answer, once all of it is there.
    ///
    /// # Errors
    /// It is none: whoever was to give it was killed.
    pub fn read(answer: &[u8]) -> io::Result<Self> {
        Ok(serde_json::from_slice(answer)?)
    }
}

/// What the agent writes to standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    init: ProcessId,
    spec: Spec,
    limit: Duration,
}

impl Check<'_> {
    /// Starts it. Blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`LaunchError`]; [`LaunchError::Failed`] where the task does not run.
    pub fn start(self) -> Result<Checking, LaunchError> {
        let init = spec::read_init(self.dir)?.ok_or_else(|| Failure {
            permanent: false,
            message: "the task does not run".to_owned(),
        })?;
        let order = Order {
            init,
            spec: self.spec.clone(),
            limit: self.limit,
        };
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let ((stdin, to), (answer, stdout)) = (pipe()?, pipe()?);
        let args: [OsString; 1] = [FLAG.into()];
        let helper = Spawn {
            program: self.program,
            arg0: Some(NAME),
            args: &args,
            env: &[],
            netns: None,
            cwd: None,
            stdin: Some(stdin.into()),
            stdout: Some(stdout.into()),
            stderr: None,
            parent_death_signal: None,
        }
        .start()?;
        let told = serde_json::to_vec(&order)
            .map_err(io::Error::from)
            .and_then(|text| File::from(to).write_all(&text));
        if let Err(error) = told {
            helper.signal(Signal::KILL)?;
            helper.wait()?;
            return Err(error.into());
        }
        Ok(Checking { helper, answer })
    }
}

/// Carries out the check that standard input asks for.
///
/// # Errors
/// There is no such order, or nobody to hear the answer.
pub(crate) fn run() -> anyhow::Result<u8> {
    let order: Order =
        serde_json::from_reader(io::stdin().lock()).context("no order of a check")?;
    let checked = carry_out(&order).unwrap_or_else(|error| Checked {
        outcome: Outcome::NotRun(without_numbers(&format!("{error:#}"))),
        output: String::new(),
    });
    serde_json::to_writer(io::stdout().lock(), &checked).context("nobody hears the answer")?;
    Ok(0)
}

fn carry_out(order: &Order) -> anyhow::Result<Checked> {
    let init = Process::adopt(order.init.pid, order.init.start_time)?;
    let init = init.context("the task does not run any more")?;
    // One that an earlier agent began may not be over yet.
    let own = format!("check-{}", std::process::id());
    let group = order.spec.cgroup.as_ref().map(|group| group.join(own));
    let (output, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK)?;
    // Of its next children: this process sees the node's processes, and its `/proc`, on.
    namespaces::enter(
        &init,
        Kinds {
            pid: true,
            ..Kinds::default()
        },
    )?;
    let command = match fork()? {
        Fork::Child => {
            drop(output);
            let (why, code) = become_command(&order.spec, &init, group.as_deref(), &write);
            if writeln!(File::from(write), "{why}").is_err() {
                // Its output says why, as that of a shell would; without it the code has to do.
            }
            leave(code)
        }
        Fork::Parent(command) => command,
    };
    drop(write);
    let followed = follow(&command, output.into(), order.limit.min(LONGEST));
    if let Some(group) = group {
        leftovers::end(&group);
    }
    Ok(followed?)
}

/// Returns only when that failed: why, and with which exit code.
fn become_command(
    spec: &Spec,
    init: &Process,
    group: Option<&Path>,
    output: &OwnedFd,
) -> (String, u8) {
    match enter::enter(spec, init, group) {
        Ok((user, confinement)) => {
            let user = user.as_ref();
            let not = program::become_it(spec, user, &confinement, output, output);
            (not.failure.message, not.code)
        }
        Err(error) => {
            let why = format!("cannot enter the task: {error:#}");
            (without_numbers(&why), NOT_STARTED)
        }
    }
}

/// Waits for the end of the command, or its limit. Nothing of its process group is left then.
fn follow(command: &Process, mut pipe: File, limit: Duration) -> io::Result<Checked> {
    let deadline = Instant::now() + limit;
    let (mut output, mut open) = (Output::default(), true);
    let outcome = loop {
        if let Some(exit) = command.try_wait()? {
            break Outcome::Ended(exit.shell_code().unwrap_or(255));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            command.signal(Signal::KILL)?;
            command.wait()?;
            break Outcome::TimedOut;
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(command, PollFlags::IN)];
        fds.extend(open.then(|| PollFd::new(&pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        open = open && output.take(&mut pipe)? != Piece::Closed;
    };
    for _ in 0..LAST_READS {
        if output.take(&mut pipe)? != Piece::Some {
            break;
        }
    }
    Ok(Checked {
        outcome,
        output: output.text(),
    })
}

/// What one read of a pipe came to.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Some,
    Nothing,
    Closed,
}

/// The beginning of what a command prints.
#[derive(Debug, Default)]
struct Output {
    kept: Vec<u8>,
    is_longer: bool,
}

impl Output {
    fn take(&mut self, pipe: &mut File) -> io::Result<Piece> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let len = match pipe.read(&mut buffer) {
            Ok(0) => return Ok(Piece::Closed),
            Ok(len) => len,
            Err(error) => {
                let later = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
                return if later {
                    Ok(Piece::Nothing)
                } else {
                    Err(error)
                };
            }
        };
        let room = KEPT_BYTES - self.kept.len();
        self.kept.extend_from_slice(&buffer[..len.min(room)]);
        self.is_longer |= len > room;
        Ok(Piece::Some)
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.is_longer {
            text.push_str("...");
        }
        text
    }
}
