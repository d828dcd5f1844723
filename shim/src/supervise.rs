//! The shim proper: makes process 1, keeps what the task prints, writes down how it ended.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Exit, Fork, Process, fork};

use crate::files::{self, Reserved};
use crate::init::{self, Note};
use crate::output::{CHUNK_BYTES, Log, NAMES};
use crate::spec::{Answer, Ended, Failure, ProcessId, Spec};
use crate::{cgroup, launch};

/// Reads of what is left in a pipe at the end: nobody can fill it any more, unless a task gave its
/// end away.
const LAST_READS: usize = 1024;

/// Is the shim of the task in `dir`, to the task's end. Returns what a shell would show of it.
///
/// # Errors
/// Nothing was started, and the agent was told so as far as it listens.
pub(crate) fn run(dir: &Path) -> anyhow::Result<u8> {
    let path = dir.join(files::SPEC);
    let spec: Spec = files::read(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .with_context(|| format!("there is no {}", path.display()))?;
    files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let mut word = String::new();
    io::stdin().lock().read_line(&mut word)?;
    if word != launch::GO {
        // The agent went away, or could not write down who this is: nobody would find the task.
        return Ok(0);
    }
    let end = Reserved::new(dir.join(files::EXIT));
    let end = match end.with_context(|| format!("cannot write in {}", dir.display())) {
        Ok(end) => end,
        Err(error) => {
            answer(&Answer::Failed(temporary(&error)));
            return Err(error);
        }
    };
    let (init, ends, warnings) = match start(dir, &spec) {
        Ok(started) => started,
        Err(failure) => {
            answer(&Answer::Failed(failure.clone()));
            let ended = ended(Exit::Unknown, Some(failure));
            return end.write(&ended).map(|()| 1).context("exit.json");
        }
    };
    answer(&Answer::Started {
        init: ProcessId::of(&init),
        warnings,
    });
    let logs = NAMES.map(|name| Log::open(dir.join(name), spec.log_limit_bytes));
    let exit = follow(&init, ends, logs)?;
    end.write(&ended(exit, None)).context("exit.json")?;
    let code = exit.shell_code().unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
}

fn temporary(error: &anyhow::Error) -> Failure {
    Failure {
        permanent: false,
        message: format!("{error:#}"),
    }
}

/// Tells the agent, if it is still there, and lets go of it.
fn answer(answer: &Answer) {
    let told = serde_json::to_writer(io::stdout().lock(), answer).is_ok()
        && writeln!(io::stdout().lock()).is_ok();
    let null = File::options().read(true).write(true).open("/dev/null");
    let released = null.is_ok_and(|null| {
        rustix::stdio::dup2_stdin(&null).is_ok() && rustix::stdio::dup2_stdout(&null).is_ok()
    });
    if !(told && released) {
        // An agent that is away finds the files of the task.
        crate::complain("the agent did not listen");
    }
}

/// Unix nanoseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

fn ended(exit: Exit, failure: Option<Failure>) -> Ended {
    let time_ms = now() / 1_000_000;
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::Unknown => (None, None),
    };
    Ended {
        code,
        signal,
        failure,
        time_ms,
    }
}

/// The shim's ends of the pipes to process 1.
struct Ends {
    go: File,
    setup: File,
    status: File,
    outputs: [File; 2],
}

fn pipes() -> io::Result<(Ends, init::Ends)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (go, setup, status, stdout, stderr) = (pipe()?, pipe()?, pipe()?, pipe()?, pipe()?);
    for output in [&stdout.0, &stderr.0] {
        rustix::fs::fcntl_setfl(output, OFlags::NONBLOCK)?;
    }
    let ours = Ends {
        go: go.1.into(),
        setup: setup.0.into(),
        status: status.0.into(),
        outputs: [stdout.0.into(), stderr.0.into()],
    };
    let theirs = init::Ends {
        go: go.0.into(),
        setup: setup.1.into(),
        status: status.1.into(),
        stdout: stdout.1,
        stderr: stderr.1,
    };
    Ok((ours, theirs))
}

fn start(dir: &Path, spec: &Spec) -> Result<(Process, Ends, Vec<String>), Failure> {
    let group = spec.cgroup.as_ref();
    let mut warnings = group.map_or_else(Vec::new, |group| cgroup::make(group, &spec.limits));
    let made = || -> anyhow::Result<(Process, Ends)> {
        let (mut ours, theirs) = pipes()?;
        namespaces::unshare(Kinds {
            pid: true,
            ..Kinds::default()
        })
        .context("cannot make a PID namespace")?;
        let init = match fork().context("cannot start process 1")? {
            Fork::Child => {
                drop(ours);
                init::run(spec, theirs)
            }
            Fork::Parent(init) => init,
        };
        drop(theirs);
        files::write(&dir.join(files::INIT), &ProcessId::of(&init)).context("init.json")?;
        ours.go.write_all(&[1]).context("process 1 is gone")?;
        Ok((init, ours))
    };
    let (init, ours) = made().map_err(|error| temporary(&error))?;
    for line in BufReader::new(&ours.setup).lines() {
        let note = line.map_err(anyhow::Error::from);
        match note.and_then(|line| Ok(serde_json::from_str(&line)?)) {
            Ok(Note::Warning(warning)) => warnings.push(warning),
            Ok(Note::Failed(failure)) => return Err(failure),
            Err(error) => return Err(temporary(&error)),
        }
    }
    // Nothing more is said either when the program runs or when process 1 is gone; the latter is
    // an end like any other.
    Ok((init, ours, warnings))
}

/// Keeps what the task prints until process 1 has ended.
fn follow(init: &Process, ends: Ends, mut logs: [Log; 2]) -> anyhow::Result<Exit> {
    let Ends {
        mut status,
        outputs,
        ..
    } = ends;
    let mut outputs = outputs.map(Some);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut fds = vec![PollFd::new(init, PollFlags::IN)];
        for output in outputs.iter().flatten() {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let over = !fds[0].revents().is_empty();
        for (output, log) in outputs.iter_mut().zip(&mut logs) {
            let reads = if over { LAST_READS } else { 1 };
            for _ in 0..reads {
                match output.as_mut().map(|output| output.read(&mut buffer)) {
                    Some(Ok(len @ 1..)) => log.write(&buffer[..len], now()),
                    Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Closed by the task, which may go on without.
                    _ => {
                        *output = None;
                        break;
                    }
                }
            }
        }
        if over {
            break;
        }
    }
    let mut told = String::new();
    status.read_to_string(&mut told)?;
    let mut words = told.split_ascii_whitespace();
    let (kind, number) = (words.next(), words.next().and_then(|n| n.parse().ok()));
    Ok(match (kind, number) {
        (Some("code"), Some(code)) => Exit::Code(code),
        (Some("signal"), Some(signal)) => Exit::Signal(signal),
        // Killed, and everything in the namespace with it.
        _ => init.wait()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_as_it_is_read() {
        for exit in [Exit::Code(9), Exit::Signal(15), Exit::Unknown] {
            let ended = ended(exit, None);
            assert_eq!(ended.exit(), exit);
            let text = serde_json::to_string(&ended).expect("text");
            assert_eq!(serde_json::from_str::<Ended>(&text).expect("read"), ended);
        }
    }

    #[test]
    fn the_ends_of_a_pipe_belong_together() {
        let (mut ours, theirs) = pipes().expect("pipes");
        writeln!(&theirs.status, "code 3").expect("write");
        drop(theirs);
        let mut text = String::new();
        ours.status.read_to_string(&mut text).expect("read");
        assert_eq!(text, "code 3\n");
        assert_eq!(ours.outputs[0].read(&mut [0]).expect("closed"), 0);
    }
}
