//! A task that is a container: an OCI runtime program starts it, and this process takes its process 1 in.
//!
//! While the runtime program is at work, standard error is its own until it executes the container's
//! program, and the container's from there on: what comes meanwhile is held, and is either the reason of a
//! failure or the first output of the task.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, set_child_subreaper};
use weft_sys::process::{Exit, Process, Signal, SpawnError};

use crate::console::Console;
use crate::oom::Kills;
use crate::output::{CHUNK_BYTES, Log, now, read_once};
use crate::running::{End, Running};
use crate::spec::{Failure, OciContainer, ProcessId, Spec};
use crate::{cgroup, files, leftovers, reason, runtime};

/// In front of every reason, as in Docker.
const FAILED: &str = "starting container failed";

/// How long the runtime program may take: it needs a tenth of a second, on a machine that is busy. The
/// agent waits a little longer for the shim's answer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Bytes of standard error that are held while nobody knows whose they are.
const HELD_BYTES: usize = 64 << 10;

/// Reads of what is in a pipe when the runtime program has ended: more than a pipe holds.
const LAST_READS: usize = 32;

/// Why there is no container, and the exit code that tells of it.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) failure: Failure,
    pub(crate) code: Option<i32>,
}

impl From<anyhow::Error> for NotStarted {
    fn from(error: anyhow::Error) -> Self {
        Self {
            failure: Failure::temporary(&error.context(FAILED)),
            code: None,
        }
    }
}

/// Has the container started, and waits until its program runs. Orphans become children of this process,
/// which has one thread and no other children.
///
/// # Errors
/// It does not run, and nothing is left of it.
pub(crate) fn start(
    dir: &Path,
    spec: &Spec,
    container: &OciContainer,
) -> Result<Running, NotStarted> {
    set_child_subreaper(Some(getpid()))
        .map_err(io::Error::from)
        .context("cannot take the container's processes in")?;
    if let Some(group) = &spec.cgroup {
        cgroup::reserve(group);
    }
    let kills = Kills::from_now(spec.cgroup.as_deref());
    let mut logs = Log::of_task(dir, spec.log_limit_bytes);
    match begin(dir, container, START_LIMIT, &mut logs) {
        Ok(begun) => Ok(Running {
            init: begun.init,
            outputs: begun.outputs,
            terminal: begun.terminal,
            logs,
            warnings: Vec::new(),
            kills,
            end: End::Reaped(None),
        }),
        Err(not_started) => {
            let group = spec.cgroup.as_deref().unwrap_or(Path::new(""));
            if let Err(error) = leftovers::end_container(dir, container, group) {
                crate::complain(&error.to_string());
            }
            Err(not_started)
        }
    }
}

/// Has the runtime program forget a container that has ended, and removes what it made for it.
pub(crate) fn clean_up(spec: &Spec, container: &OciContainer) {
    if let Err(error) = container.delete() {
        // What is left takes no part in anything.
        crate::complain(&error.to_string());
    }
    if let Some(group) = &spec.cgroup {
        cgroup::remove(group);
    }
}

/// Standard output and standard error, and the container's side of its terminal.
type Outputs = ([Option<File>; 2], Option<OwnedFd>);

/// A container whose program runs.
#[derive(Debug)]
struct Begun {
    init: Process,
    outputs: [Option<File>; 2],
    /// The container's side of its terminal.
    terminal: Option<OwnedFd>,
}

fn begin(
    dir: &Path,
    container: &OciContainer,
    limit: Duration,
    logs: &mut [Log; 2],
) -> Result<Begun, NotStarted> {
    let pid_file = dir.join(files::PID);
    files::remove(&pid_file).context("container.pid")?;
    let mut starting = Starting::new(dir, container, &pid_file)?;
    let exit = starting
        .wait(limit, logs)
        .context("cannot follow the container runtime")?;
    match exit {
        Some(Exit::Code(0)) => {}
        Some(exit) => return Err(starting.failed(container, exit)),
        None => {
            let (name, seconds) = (container.runtime.display(), limit.as_secs_f32());
            let why = anyhow!("{name} did not start it within {seconds} seconds");
            return Err(why.into());
        }
    }
    let init = init_of(&pid_file)
        .with_context(|| format!("{} tells no process", container.runtime.display()))?;
    files::write(&dir.join(files::INIT), &ProcessId::of(&init)).context("init.json")?;
    files::remove(&pid_file).context("container.pid")?;
    let (outputs, terminal) = starting.outputs(logs).context("its terminal")?;
    Ok(Begun {
        init,
        outputs,
        terminal,
    })
}

/// The process that the runtime program left behind, once that has ended.
fn init_of(pid_file: &Path) -> anyhow::Result<Process> {
    let text = std::fs::read_to_string(pid_file).with_context(|| format!("{pid_file:?}"))?;
    let pid: u32 = text
        .trim()
        .parse()
        .with_context(|| format!("{pid_file:?} holds no number"))?;
    let init = Process::inherit(pid)?;
    init.with_context(|| format!("process {pid} of {pid_file:?} was not left to the shim"))
}

/// A runtime program at work.
struct Starting {
    runtime: Process,
    outputs: [Option<File>; 2],
    held: Held,
    console: Option<Console>,
}

impl Starting {
    fn new(dir: &Path, container: &OciContainer, pid_file: &Path) -> Result<Self, NotStarted> {
        let console = container.terminal.then(|| Console::listen(dir));
        let console = console.transpose().context("no socket for its terminal")?;
        let address: Option<PathBuf> = console.as_ref().map(Console::address);
        let pipe = || runtime::pipe().context("a pipe");
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
        // With a terminal the container has it for all three, and only the runtime program the pipe.
        let (stdout, to_stdout) = match console {
            Some(_) => (None, None),
            None => (Some(stdout), Some(to_stdout)),
        };
        let runtime = container.run(
            pid_file,
            address.as_deref(),
            to_stdout.map(File::from),
            to_stderr.into(),
        );
        let runtime = runtime.map_err(|error| {
            let permanent = !matches!(error, SpawnError::Kernel { .. });
            let mut not_started = NotStarted::from(anyhow!(error).context("container runtime"));
            not_started.failure.permanent = permanent;
            not_started
        })?;
        Ok(Self {
            runtime,
            outputs: [stdout.map(File::from), Some(stderr.into())],
            held: Held::default(),
            console,
        })
    }

    /// Reads until the runtime program has ended. `None` when it was not done within the limit. It is ended
    /// then, as it is with any error.
    fn wait(&mut self, limit: Duration, logs: &mut [Log; 2]) -> io::Result<Option<Exit>> {
        let followed = self.follow(limit, logs);
        if !matches!(followed, Ok(Some(_))) {
            self.runtime.signal_group(Signal::KILL)?;
            self.runtime.wait()?;
        }
        followed
    }

    fn follow(&mut self, limit: Duration, logs: &mut [Log; 2]) -> io::Result<Option<Exit>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(exit) = self.runtime.try_wait()? {
                for _ in 0..LAST_READS {
                    if !self.read(logs) {
                        break;
                    }
                }
                return Ok(Some(exit));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = vec![PollFd::new(&self.runtime, PollFlags::IN)];
            for output in self.outputs.iter().flatten() {
                fds.push(PollFd::new(output, PollFlags::IN));
            }
            if let Some(console) = self.console.as_ref().and_then(Console::waits_for) {
                fds.push(PollFd::from_borrowed_fd(console, PollFlags::IN));
            }
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            drop(fds);
            if let Some(console) = &mut self.console {
                console.take()?;
            }
            self.read(logs);
        }
    }

    /// Reads each output once; false when there was nothing.
    fn read(&mut self, [stdout, stderr]: &mut [Log; 2]) -> bool {
        let [of_stdout, of_stderr] = &mut self.outputs;
        let held = &mut self.held;
        let mut buffer = vec![0; CHUNK_BYTES];
        let first = read_once(of_stdout, &mut buffer, |bytes| stdout.write(bytes, now()));
        let second = read_once(of_stderr, &mut buffer, |bytes| {
            held.push(now(), bytes, stderr);
        });
        first || second
    }

    /// What the runtime program said, behind Docker's words.
    fn failed(&self, container: &OciContainer, exit: Exit) -> NotStarted {
        let said = self.held.bytes();
        if said.is_empty() {
            let name = container.runtime.display();
            return anyhow!("OCI runtime create failed: {name} says nothing ({exit})").into();
        }
        let reason = reason::of(&said);
        NotStarted {
            failure: Failure {
                permanent: reason.permanent,
                message: format!("{FAILED}: OCI runtime create failed: {}", reason.text),
            },
            code: Some(reason.code),
        }
    }

    /// Where the program's output comes from, and the other side of that where it is a terminal; what
    /// was held is told.
    fn outputs(self, [_, stderr]: &mut [Log; 2]) -> anyhow::Result<Outputs> {
        let Some(console) = self.console else {
            self.held.tell(stderr);
            return Ok((self.outputs, None));
        };
        let warned = String::from_utf8_lossy(&self.held.bytes()).into_owned();
        if !warned.is_empty() {
            crate::complain(&warned);
        }
        let terminal = console.terminal()?.context("none was sent")?;
        Ok(([Some(terminal.ours), None], terminal.theirs))
    }
}

/// Pieces of standard error, and when they came, in Unix nanoseconds.
#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<(u64, Vec<u8>)>,
    len: usize,
}

impl Held {
    /// So much is nobody's reason: the oldest goes to the log.
    fn push(&mut self, now: u64, bytes: &[u8], log: &mut Log) {
        self.len += bytes.len();
        self.pieces.push_back((now, bytes.to_owned()));
        while self.len > HELD_BYTES {
            let Some((then, bytes)) = self.pieces.pop_front() else {
                return;
            };
            self.len -= bytes.len();
            log.write(&bytes, then);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let pieces = self.pieces.iter();
        pieces.flat_map(|(_, bytes)| bytes).copied().collect()
    }

    fn tell(self, log: &mut Log) {
        for (then, bytes) in self.pieces {
            log.write(&bytes, then);
        }
    }
}

#[cfg(test)]
mod tests;
