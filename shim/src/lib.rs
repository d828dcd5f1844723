//! The shim: one small process beside each task. It starts the task behind its walls, keeps its
//! output, and writes down how it ended. It outlives the agent, and the task does not outlive it.
//!
//! ```text
//!   agent ── spawns, in the task's network namespace ──► shim            a session of its own
//!                                                         │ forks
//!                                                         ▼
//!                                                        process 1       of a new PID namespace; makes
//!                                                         │ forks        the task's mounts, passes on
//!                                                         ▼              signals, reaps orphans
//!                                                        the program     Docker's capabilities, three
//!                                                                        descriptors, its own session
//! ```
//!
//! Files in the task's folder and the end of the process are what the agent and the shim have in
//! common; only while a task starts they speak, by two pipes ([`launch`]).
//!
//! | file | by | what |
//! |---|---|---|
//! | `spec.json` | agent | what to run; the shim removes it once it is read, as it holds the environment |
//! | `init.json` | shim | process 1, there before the program runs; stop signals go to it |
//! | `stdout.log`, `stdout.log.1`, … | shim | output, bounded as it is written ([`output`]), and read again ([`lines`]) |
//! | `stdout.log.times`, … | shim | when that came |
//! | `exit.json` | shim | how the program ended |
//!
//! A program of the node is not process 1 itself: the kernel ignores signals that process 1 has no
//! handler for, and most programs have none for SIGTERM.
//!
//! A task may be a container ([`spec::OciContainer`]). An OCI runtime program starts it then and ends; as
//! the shim takes orphans in, process 1 of the container is its child from there on, and its end is told
//! to the shim, whatever became of the agent:
//!
//! ```text
//!   agent ── spawns ──► shim                       takes orphans in; has the outputs or the terminal
//!                        │ spawns
//!                        ├► runc run --detach      makes process 1 by the bundle, and ends
//!                        │
//!                        ▼ once that has ended
//!                       process 1 of the container, which may be the program itself
//! ```
//!
//! | file | by | what |
//! |---|---|---|
//! | `container.pid` | runtime program | process 1 |
//! | `console.sock` | shim | where the terminal comes from, while a container starts that has one |
//!
//! A shim that is killed takes a program of the node with it, and leaves a container behind: who finds it
//! without `exit.json` calls [`leftovers::end_container`].
//!
//! Beside tasks that run, the same program carries out what is asked inside of them ([`check`]).
//!
//! One thread, no async runtime, few dependencies. The program is small and static (`src/main.rs`): `weft`
//! carries it, and weftd writes it to its data directory. Where it could not be built, the code is called
//! as `weft-shim` from the multi-call program.
//!
//! Under a third name it is process 1 of containers ([`container_init`], `--init`).

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod check;
mod confinement;
mod console;
mod container;
mod container_init;
mod devices;
mod enter;
mod files;
pub mod guest;
mod host;
mod init;
pub mod launch;
pub mod leftovers;
pub mod lines;
mod oom;
pub mod output;
mod passing;
mod payloads;
mod program;
mod reason;
mod running;
mod runtime;
pub mod spec;
mod supervise;
mod user;
mod view;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The name that the multi-call program is called by to be a shim.
pub const NAME: &str = "weft-shim";

/// The argument by which a shim says by its exit status that it can be executed, and does nothing.
pub const SELF_TEST: &str = "--self-test";

/// Whether this process was started as a shim.
#[must_use]
pub fn is_called() -> bool {
    is_called_by(NAME)
}

fn is_called_by(wanted: &str) -> bool {
    let name = std::env::args_os().next();
    name.as_deref()
        .and_then(|name| Path::new(name).file_name())
        .is_some_and(|name| name == wanted)
}

/// Is the shim of the task whose folder is the only argument, and then its exit status is the task's;
/// carries out a [`check`], or starts a [`guest`]. In a container it is process 1, by that one's name.
pub fn main() -> ExitCode {
    if is_called_by(container_init::NAME) {
        return container_init::main();
    }
    let mut words = std::env::args_os().skip(1);
    let Some(word) = words.next() else {
        complain("started by weftd only: it needs the folder of a task");
        return ExitCode::from(64);
    };
    if word == SELF_TEST {
        return ExitCode::SUCCESS;
    }
    let done = if word == check::FLAG {
        check::run()
    } else if word == guest::FLAG {
        Ok(guest::run(Path::new(&words.next().unwrap_or_default())))
    } else {
        supervise::run(Path::new(&word))
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(message: &str) {
    say(&format!("{NAME}: {message}"));
}

fn say(message: &str) {
    if writeln!(std::io::stderr(), "{message}").is_err() {
        // Nobody reads it; the exit status has to do.
    }
}
