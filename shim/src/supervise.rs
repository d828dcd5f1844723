//! The shim proper: has the task started, keeps what it prints, writes down how it ended.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use weft_sys::process::Exit;

use crate::files::{self, Reserved};
use crate::output::{CHUNK_BYTES, now, read_once};
use crate::running::Running;
use crate::spec::{Answer, Ended, Failure, ProcessId, Spec};
use crate::{container, host, launch};

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
            answer(&Answer::Failed(Failure::temporary(&error)));
            return Err(error);
        }
    };
    let started = match &spec.container {
        None => host::start(dir, &spec).map_err(|failure| (failure, None)),
        Some(container) => container::start(dir, &spec, container)
            .map_err(|not_started| (not_started.failure, not_started.code)),
    };
    let mut running = match started {
        Ok(running) => running,
        Err((failure, code)) => {
            answer(&Answer::Failed(failure.clone()));
            let exit = code.map_or(Exit::Unknown, Exit::Code);
            let ended = Ended {
                failure: Some(failure),
                ..ended(exit)
            };
            return end.write(&ended).map(|()| 1).context("exit.json");
        }
    };
    answer(&Answer::Started {
        init: ProcessId::of(&running.init),
        warnings: std::mem::take(&mut running.warnings),
    });
    let (exit, oom) = follow(running)?;
    if let Some(container) = &spec.container {
        container::clean_up(&spec, container);
    }
    let ended = Ended { oom, ..ended(exit) };
    end.write(&ended).context("exit.json")?;
    let code = exit.shell_code().unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
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

/// Of a task that ran, and had memory enough.
fn ended(exit: Exit) -> Ended {
    let time_ms = now() / 1_000_000;
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::Unknown => (None, None),
    };
    Ended {
        code,
        signal,
        failure: None,
        oom: false,
        time_ms,
    }
}

/// Keeps what the task prints until process 1 has ended. Returns how it did, and whether it ran out of
/// memory.
fn follow(running: Running) -> anyhow::Result<(Exit, bool)> {
    let Running {
        init,
        mut outputs,
        // Held to the end.
        terminal: _terminal,
        mut logs,
        kills,
        mut end,
        ..
    } = running;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut fds = vec![PollFd::new(&init, PollFlags::IN)];
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
                if !read_once(output, &mut buffer, |bytes| log.write(bytes, now())) {
                    break;
                }
            }
        }
        if over {
            break;
        }
        end.look(&init)?;
    }
    // Before anybody removes the group.
    let oom = kills.any();
    Ok((end.exit(&init)?, oom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_written_as_it_is_read() {
        for exit in [Exit::Code(9), Exit::Signal(15), Exit::Unknown] {
            for oom in [false, true] {
                let ended = Ended { oom, ..ended(exit) };
                assert_eq!(ended.exit(), exit);
                let text = serde_json::to_string(&ended).expect("text");
                assert_eq!(text.contains("oom"), oom, "{text}");
                assert_eq!(serde_json::from_str::<Ended>(&text).expect("read"), ended);
            }
        }
        // As an earlier version wrote it.
        let before: Ended = serde_json::from_str("{\"code\":3,\"time_ms\":7}").expect("read");
        assert!(!before.oom);
    }
}
