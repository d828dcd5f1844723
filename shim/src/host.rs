//! A task that is a program of the node: process 1 is the shim's own ([`crate::init`]).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::process::{Fork, Process, fork};

use crate::init::{self, Note};
use crate::oom::Kills;
use crate::output::Log;
use crate::running::{End, Running};
use crate::spec::{Failure, ProcessId, Spec};
use crate::{cgroup, files};

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

/// Makes process 1, and waits until the program runs.
///
/// # Errors
/// It does not.
pub(crate) fn start(dir: &Path, spec: &Spec) -> Result<Running, Failure> {
    let group = spec.cgroup.as_deref();
    let mut warnings = group.map_or_else(Vec::new, |group| cgroup::make(group, &spec.limits));
    let kills = Kills::from_now(group);
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
    let (init, ours) = made().map_err(|error| Failure::temporary(&error))?;
    for line in BufReader::new(&ours.setup).lines() {
        let note = line.map_err(anyhow::Error::from);
        match note.and_then(|line| Ok(serde_json::from_str(&line)?)) {
            Ok(Note::Warning(warning)) => warnings.push(warning),
            Ok(Note::Failed(failure)) => return Err(failure),
            Err(error) => return Err(Failure::temporary(&error)),
        }
    }
    // Nothing more is said either when the program runs or when process 1 is gone; the latter is
    // an end like any other.
    Ok(Running {
        init,
        outputs: ours.outputs.map(Some),
        terminal: None,
        logs: Log::of_task(dir, spec.log_limit_bytes),
        warnings,
        kills,
        end: End::Told(ours.status),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

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
