//! `weft exec`: a program beside that of a task, whose input and output are a conversation.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;
use tokio::time::sleep;
use weft_model::exec::{Exec, Frame, Frames};
use weft_model::id::TaskId;
use weft_shim::guest::Descriptors;
use weft_swarm::Exchange;
use weft_sys::error_text::without_numbers;
use weft_sys::process::{Exit, Process, Signal};
use weft_sys::terminal;

use crate::blocking::blocking;
use crate::parts::handles::Handles;
use crate::sandbox::runner::RunError;

/// Bytes of one read.
const CHUNK: usize = 32 << 10;
/// How long the output of a program that has ended may be held open, without a word, by what it started.
const LAST: Duration = Duration::from_millis(200);
/// Reads of each output after that end at most: more than a pipe holds.
const LAST_READS: usize = 64;

/// What a shell shows of a program that cannot be executed, or is not there.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Tells the guests of this process apart.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// A program, which is killed when nobody is interested any more.
struct Running(Arc<Process>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::KILL) {
            tracing::warn!(%error, "a program beside that of a task was not ended");
        }
    }
}

/// This side of its standard descriptors.
struct Ours {
    /// Absent where it is passed none.
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    /// Absent with a terminal.
    stderr: Option<OwnedFd>,
}

/// Runs it and passes on, to its end or until nobody listens.
pub(super) async fn answer(
    handles: Arc<Handles>,
    task: TaskId,
    exec: Exec,
    mut exchange: Exchange,
) {
    let with_terminal = exec.terminal.is_some();
    let started = blocking(move || start(&handles, &task, &exec)).await;
    let last = match started.and_then(|started| started) {
        Ok((process, ours)) => {
            match carry(process, ours, with_terminal, &mut exchange).await {
                Ok(Some(code)) => Frame::Exit(code),
                // Who asked is gone.
                Ok(None) => return,
                Err(error) => Frame::Failed(NOT_STARTED, without_numbers(&error.to_string())),
            }
        }
        Err(error) => {
            let code = match error.downcast_ref::<RunError>() {
                Some(RunError::NoProgram { .. }) => NOT_FOUND,
                _ => NOT_STARTED,
            };
            Frame::Failed(code, without_numbers(&format!("{error:#}")))
        }
    };
    let said = exchange.outgoing.send(last.to_bytes().into()).await;
    if said.is_ok() {
        exchange.finish().await;
    }
}

fn start(handles: &Handles, task: &TaskId, exec: &Exec) -> anyhow::Result<(Running, Ours)> {
    let orders = handles.session.assignments().borrow().clone();
    let mut tasks = orders.iter().flat_map(|orders| &orders.own.tasks);
    let task = tasks
        .find(|known| known.id == *task)
        .ok_or_else(|| anyhow::anyhow!("the node does not know of the task yet: try again"))?;
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}x{number}", std::process::id());
    let runner = &handles.runner;
    let Some(size) = exec.terminal else {
        let (ours, descriptors) = with_pipes(exec.input)?;
        let process = runner.start_guest(task, exec, &name, descriptors)?;
        return Ok((Running(Arc::new(process)), ours));
    };
    let (process, terminal) = runner.start_guest_on_terminal(task, exec, &name, size)?;
    let running = Running(Arc::new(process));
    let ours = Ours {
        stdin: Some(terminal.try_clone()?),
        stdout: terminal,
        stderr: None,
    };
    Ok((running, ours))
}

fn with_pipes(input: bool) -> io::Result<(Ours, Descriptors)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdout, stderr) = (pipe()?, pipe()?);
    let stdin = if input { Some(pipe()?) } else { None };
    let (their_stdin, stdin) = match stdin {
        Some((theirs, ours)) => (Some(theirs), Some(ours)),
        None => (None, None),
    };
    let descriptors = Descriptors {
        stdin: their_stdin.map(File::from),
        stdout: stdout.1.into(),
        stderr: stderr.1.into(),
    };
    let ours = Ours {
        stdin,
        stdout: stdout.0,
        stderr: Some(stderr.0),
    };
    Ok((ours, descriptors))
}

/// The exit status; nothing when who asked is gone.
async fn carry(
    running: Running,
    ours: Ours,
    with_terminal: bool,
    exchange: &mut Exchange,
) -> io::Result<Option<u8>> {
    let stdin = ours.stdin.map(written).transpose()?;
    let (stdout, stderr) = (
        listened(ours.stdout)?,
        ours.stderr.map(listened).transpose()?,
    );
    let out = exchange.outgoing.clone();
    let passing = Passing::default();
    let outputs = async {
        tokio::join!(
            pass(Some(stdout), Frame::Output, &out, &passing),
            pass(stderr, Frame::Error, &out, &passing)
        );
    };
    let inputs = take(stdin, with_terminal, &mut exchange.incoming);
    let process = Arc::clone(&running.0);
    let ended = blocking(move || process.wait());
    tokio::pin!(outputs, inputs, ended);
    let mut open = true;
    let exit = loop {
        tokio::select! {
            () = &mut outputs, if open => open = false,
            exit = &mut ended => break exit.map_err(io::Error::other)?,
            () = &mut inputs => return Ok(None),
            // While a program does not read what it is told, nobody hears the user.
            () = out.closed() => return Ok(None),
        }
    };
    let mut seen = passing.reads();
    let most = seen + 2 * LAST_READS;
    if open {
        loop {
            tokio::select! {
                () = &mut outputs => break,
                () = &mut inputs => return Ok(None),
                () = sleep(LAST) => {}
            }
            let reads = passing.reads();
            // Who takes it slowly is waited for.
            if reads > most || (reads == seen && !passing.is_saying()) {
                tracing::debug!("what a program started holds its output open");
                break;
            }
            seen = reads;
        }
    }
    let code = match exit? {
        Exit::Code(code) => code,
        other => other.shell_code().unwrap_or(255),
    };
    Ok(Some(u8::try_from(code).unwrap_or(255)))
}

fn without_waiting(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

// Unchecked, as a terminal is no pipe; it is read and written like one.
fn listened(fd: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd_unchecked(without_waiting(fd)?)
}

fn written(fd: OwnedFd) -> io::Result<Sender> {
    Sender::from_owned_fd_unchecked(without_waiting(fd)?)
}

/// How far both outputs are.
#[derive(Default)]
struct Passing {
    reads: AtomicUsize,
    /// Pieces that somebody is still to take.
    saying: AtomicUsize,
}

impl Passing {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn is_saying(&self) -> bool {
        self.saying.load(Ordering::Relaxed) > 0
    }
}

/// Says what is read, to its end.
async fn pass(
    from: Option<Receiver>,
    frame: impl Fn(Vec<u8>) -> Frame,
    to: &mpsc::Sender<Bytes>,
    passing: &Passing,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        // A terminal without a program is an error to read from.
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        passing.reads.fetch_add(1, Ordering::Relaxed);
        let said = frame(buffer[..length].to_vec()).to_bytes();
        passing.saying.fetch_add(1, Ordering::Relaxed);
        let sent = to.send(said.into()).await;
        passing.saying.fetch_sub(1, Ordering::Relaxed);
        if sent.is_err() {
            return;
        }
    }
}

/// Does what the user says, until he is gone.
async fn take(
    mut stdin: Option<Sender>,
    with_terminal: bool,
    said: &mut mpsc::Receiver<Result<Bytes, weft_cluster::CommandError>>,
) {
    let mut frames = Frames::default();
    while let Some(Ok(piece)) = said.recv().await {
        frames.add(&piece);
        loop {
            match frames.next_frame() {
                Ok(Some(Frame::Input(bytes))) if bytes.is_empty() && !with_terminal => stdin = None,
                Ok(Some(Frame::Input(bytes))) => {
                    if let Some(to) = &mut stdin
                        && to.write_all(&bytes).await.is_err()
                    {
                        // It reads no more.
                        stdin = None;
                    }
                }
                Ok(Some(Frame::Resize(columns, rows))) if with_terminal => {
                    let size = (columns, rows);
                    let resized = stdin
                        .as_ref()
                        .map(|terminal| terminal::resize(terminal, size));
                    if let Some(Err(error)) = resized {
                        tracing::debug!(%error, "a terminal keeps its size");
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "what a user says is not understood");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use weft_sys::process::Spawn;

    use super::*;

    const SAID: usize = 1 << 20;

    /// A program that ends once the pipe has the last of what it says.
    #[tokio::test]
    async fn who_reads_slowly_hears_all_that_a_program_said() {
        let (ours, theirs) = with_pipes(false).expect("pipes");
        let script = format!("head -c {SAID} /dev/zero");
        let args: [OsString; 2] = ["-c".into(), script.into()];
        let process = Spawn {
            program: Path::new("/bin/sh"),
            arg0: None,
            args: &args,
            env: &[],
            netns: None,
            cwd: None,
            stdin: None,
            stdout: Some(theirs.stdout),
            stderr: Some(theirs.stderr),
            parent_death_signal: None,
        }
        .start()
        .expect("it starts");
        let (mut user, mut node) = Exchange::pair();
        let running = Running(Arc::new(process));
        let hearing = async {
            let (mut frames, mut heard) = (Frames::default(), 0);
            while heard < SAID
                && let Some(piece) = user.incoming.recv().await
            {
                frames.add(&piece.expect("a piece"));
                while let Some(frame) = frames.next_frame().expect("frames") {
                    if let Frame::Output(bytes) = frame {
                        heard += bytes.len();
                    }
                }
                sleep(LAST / 2).await;
            }
            heard
        };
        let carried = carry(running, ours, false, &mut node);
        let (code, heard) = tokio::join!(carried, hearing);
        assert_eq!(code.expect("it runs"), Some(0));
        assert_eq!(heard, SAID);
    }

    /// Its input is full, so that nothing more of what the user says is heard.
    #[tokio::test]
    async fn a_program_that_reads_nothing_ends_with_its_user() {
        let (ours, theirs) = with_pipes(true).expect("pipes");
        let args: [OsString; 1] = ["1000".into()];
        let process = Spawn {
            program: Path::new("/bin/sleep"),
            arg0: None,
            args: &args,
            env: &[],
            netns: None,
            cwd: None,
            stdin: theirs.stdin,
            stdout: Some(theirs.stdout),
            stderr: Some(theirs.stderr),
            parent_death_signal: None,
        }
        .start()
        .expect("it starts");
        let (user, mut node) = Exchange::pair();
        let saying = async move {
            let input = || Frame::Input(vec![0; CHUNK]).to_bytes().into();
            for _ in 0..24 {
                // Until nobody takes more.
                if user.outgoing.try_send(input()).is_err() {
                    sleep(LAST).await;
                }
            }
            drop(user);
        };
        let carried = carry(Running(Arc::new(process)), ours, false, &mut node);
        let both = async { tokio::join!(carried, saying) };
        let (code, ()) = tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .expect("it ends");
        assert_eq!(code.expect("it ran"), None);
    }
}
