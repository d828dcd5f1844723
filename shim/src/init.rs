//! Process 1 of a task's PID namespace: makes what the task sees, starts the program, passes
//! signals on to it alone, reaps orphans, and ends with it, and with it everything in the namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use weft_sys::error_text::without_numbers;
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Exit, Fork, Signal, fork, leave};
use weft_sys::{capabilities, signals};

use crate::confinement::Confinement;
use crate::program;
use crate::spec::{Failure, Spec};
use crate::user::{self, User};
use crate::view;

/// `CAP_KILL`: the program may be another user.
const KILL: u64 = 1 << 5;

/// The ends of the pipes to the shim.
#[derive(Debug)]
pub(crate) struct Ends {
    /// One byte once the shim has written down who this is; the end when the shim is gone.
    pub(crate) go: File,
    /// [`Note`]s, one for each line, until the program runs.
    pub(crate) setup: File,
    /// One line once it has ended.
    pub(crate) status: File,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What process 1 says before the program runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    Warning(String),
    Failed(Failure),
}

impl Note {
    fn say(&self, mut to: &File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        to.write_all(&line)
    }
}

/// Is process 1 until the program ends.
pub(crate) fn run(spec: &Spec, mut ends: Ends) -> ! {
    let mut byte = [0];
    let told = namespaces::set_parent_death_signal(Signal::KILL)
        .and_then(|()| ends.go.read(&mut byte))
        .unwrap_or(0);
    if told != 1 {
        leave(1);
    }
    let user = match prepare(spec, &ends.setup) {
        Ok(user) => user,
        Err(error) => fail(&ends.setup, &format!("{error:#}")),
    };
    let leader = match fork() {
        Ok(Fork::Child) => {
            let (user, none) = (user.as_ref(), Confinement::default());
            let not = program::become_it(spec, user, &none, &ends.stdout, &ends.stderr);
            drop(Note::Failed(not.failure).say(&ends.setup));
            leave(not.code);
        }
        Ok(Fork::Parent(process)) => process.pid(),
        Err(error) => fail(&ends.setup, &format!("cannot start a process: {error}")),
    };
    let Ends {
        status,
        setup,
        stdout,
        stderr,
        ..
    } = ends;
    // From here on the program alone holds them: their end is its.
    drop((setup, stdout, stderr));
    match follow(leader) {
        Ok(Exit::Code(code)) => drop(writeln!(&status, "code {code}")),
        Ok(Exit::Signal(signal)) => drop(writeln!(&status, "signal {signal}")),
        // The shim sees an end that nobody told it of.
        Ok(Exit::Unknown) | Err(_) => {}
    }
    leave(0)
}

fn fail(setup: &File, message: &str) -> ! {
    let failure = Failure {
        permanent: false,
        message: without_numbers(message),
    };
    drop(Note::Failed(failure).say(setup));
    leave(1)
}

fn prepare(spec: &Spec, setup: &File) -> anyhow::Result<Option<User>> {
    signals::block_all()?;
    namespaces::unshare(Kinds {
        mount: true,
        ipc: true,
        cgroup: true,
        uts: true,
        ..Kinds::default()
    })?;
    namespaces::set_hostname(&spec.hostname)?;
    for warning in view::show(spec)? {
        Note::Warning(warning).say(setup)?;
    }
    user::of(spec)
}

/// Waits for the end of the program. Orphans are reaped, every other signal is passed on.
fn follow(leader: u32) -> io::Result<Exit> {
    capabilities::bound(KILL)?;
    capabilities::keep(KILL)?;
    loop {
        let signal = signals::wait()?;
        if signal != Signal::CHILD.as_raw() {
            // As docker: a supervisor ends its workers itself, in its order. What is left when the
            // grace period ends goes with this process.
            signals::send(leader, signal)?;
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
