//! A task that runs, as its shim sees it: of the node or a container.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use weft_sys::namespaces;
use weft_sys::process::{Exit, Process};

use crate::oom::Kills;
use crate::output::Log;

/// A task that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its process 1.
    pub(crate) init: Process,
    /// This side of standard output and standard error, which do not block; one that is absent is
    /// nobody's.
    pub(crate) outputs: [Option<File>; 2],
    /// The container's side of its terminal, which is not to be without anybody.
    pub(crate) terminal: Option<OwnedFd>,
    /// Where those go.
    pub(crate) logs: [Log; 2],
    /// What this machine does not give, one sentence each.
    pub(crate) warnings: Vec<String>,
    /// Whether it runs out of memory.
    pub(crate) kills: Kills,
    /// How its end is heard of.
    pub(crate) end: End,
}

/// How the shim hears how a task ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By a line of process 1, which is the shim's own.
    Told(File),
    /// By the kernel, whoever process 1 is: as soon as it is reaped, with whatever else was left to the
    /// shim.
    Reaped(Option<Exit>),
}

impl End {
    /// Something has happened: children that have ended are reaped.
    pub(crate) fn look(&mut self, init: &Process) -> io::Result<()> {
        let Self::Reaped(exit) = self else {
            return Ok(());
        };
        while exit.is_none()
            && let Some((pid, end)) = namespaces::reap()?
        {
            if pid == init.pid() {
                *exit = Some(end);
            }
        }
        Ok(())
    }

    /// Of a task whose process 1 has ended.
    pub(crate) fn exit(mut self, init: &Process) -> io::Result<Exit> {
        self.look(init)?;
        match self {
            Self::Told(status) => told(init, &status),
            Self::Reaped(Some(exit)) => Ok(exit),
            Self::Reaped(None) => init.wait(),
        }
    }
}

/// How the program ended, by what process 1 wrote.
fn told(init: &Process, mut status: &File) -> io::Result<Exit> {
    let mut line = String::new();
    status.read_to_string(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (kind, number) = (words.next(), words.next().and_then(|n| n.parse().ok()));
    Ok(match (kind, number) {
        (Some("code"), Some(code)) => Exit::Code(code),
        (Some("signal"), Some(signal)) => Exit::Signal(signal),
        // Killed, and everything in the namespace with it.
        _ => init.wait()?,
    })
}
