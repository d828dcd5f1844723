//! Process 1 of a container (`--init`): starts the program, passes signals on to it alone, reaps orphans,
//! and ends as it does. What tini is to Docker, and called as that is: `docker-init -- PROGRAM ARGS`.
//!
//! It is of the container: with its user, its capabilities and nothing of the node but this program, which
//! is mounted there read-only.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{getpid, setpgid};
use rustix::stdio::stdin;
use rustix::termios::tcsetpgrp;
use weft_sys::error_text::without_numbers;
use weft_sys::process::{Exit, Fork, Signal, fork, leave};
use weft_sys::{namespaces, signals};

/// The name that it is called by; its place in a container is `/sbin/docker-init`.
pub(crate) const NAME: &str = "docker-init";

/// Exit codes of a shell: there is no such program …
const NOT_FOUND: u8 = 127;
/// … or it cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Of this one, which was called with nothing to start, or could not.
const FAILED: u8 = 1;

/// Is process 1 until the program ends, and has its exit code, as a shell would show it.
pub(crate) fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    let Some((program, args)) = words.split_first() else {
        complain("it needs the program that it is to start");
        return ExitCode::from(FAILED);
    };
    match run(program, args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("cannot start {}: {error}", program.display()));
            ExitCode::from(FAILED)
        }
    }
}

fn run(program: &OsString, args: &[OsString]) -> io::Result<u8> {
    // Before there is anybody whose end could be missed.
    signals::block_all()?;
    let leader = match fork()? {
        Fork::Child => become_program(program, args),
        Fork::Parent(process) => process.pid(),
    };
    let exit = follow(leader)?;
    let code = exit.shell_code().unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
}

/// In a process group of its own, which the terminal belongs to where there is one: what is typed there
/// (Ctrl-C) reaches the program once.
fn become_program(program: &OsString, args: &[OsString]) -> ! {
    // With all signals blocked a process in the background may take the terminal.
    let own = setpgid(None, None).and_then(|()| tcsetpgrp(stdin(), getpid()));
    if own.is_err() {
        // Most have no terminal.
    }
    drop(signals::unblock_all());
    let error = Command::new(program).args(args).exec();
    complain(&format!("cannot execute {}: {error}", program.display()));
    leave(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}

/// Waits for the end of the program. Orphans are reaped, every other signal is passed on.
fn follow(leader: u32) -> io::Result<Exit> {
    loop {
        let signal = signals::wait()?;
        if signal != Signal::CHILD.as_raw() {
            if signals::send(leader, signal).is_err() {
                // It has become another user, to whom this one may send nothing; SIGKILL of the whole
                // container comes after the grace period.
            }
            continue;
        }
        // One SIGCHLD may stand for several.
        while let Some((pid, exit)) = namespaces::reap()? {
            if pid == leader {
                return Ok(exit);
            }
        }
    }
}

fn complain(message: &str) {
    let message = without_numbers(message);
    if writeln!(io::stderr(), "{NAME}: {message}").is_err() {
        // Nobody reads it; the exit status has to do.
    }
}
