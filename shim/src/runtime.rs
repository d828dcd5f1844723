//! The OCI runtime program of a container: started, and asked to forget it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use weft_sys::process::{Exit, Process, Signal, Spawn, SpawnError};

use crate::reason;
use crate::spec::OciContainer;

/// All that it has of an environment: where it looks for programs of its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long it may take to forget a container whose process has ended: some milliseconds, on a machine
/// that is busy. An agent waits a little longer for the shim's end.
const DELETE_LIMIT: Duration = Duration::from_secs(3);

/// Bytes of what it says that are looked at.
const SAID_BYTES: u64 = 64 << 10;

impl OciContainer {
    /// Starts the program, which ends with this thread at the latest. It has an empty standard input.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub(crate) fn run(
        &self,
        pid_file: &Path,
        console: Option<&Path>,
        stdout: Option<File>,
        stderr: File,
    ) -> Result<Process, SpawnError> {
        let mut args: Vec<OsString> = vec![
            "run".into(),
            "--detach".into(),
            "--bundle".into(),
            self.bundle.clone().into(),
            "--pid-file".into(),
            pid_file.into(),
        ];
        if let Some(socket) = console {
            args.push("--console-socket".into());
            args.push(socket.into());
        }
        args.push(self.id.clone().into());
        self.spawn(&args, stdout, stderr)
    }

    /// Kills whatever is left of the container, and has the program forget it. One that it does not know
    /// is success.
    ///
    /// # Errors
    /// It does not do so, or not in time: what it says.
    pub(crate) fn delete(&self) -> io::Result<()> {
        let (said, stderr) = pipe()?;
        let args: [OsString; 3] = ["delete".into(), "--force".into(), self.id.clone().into()];
        let program = self
            .spawn(&args, None, stderr.into())
            .map_err(io::Error::other)?;
        let exit = program.wait_timeout(DELETE_LIMIT)?;
        if exit.is_none() {
            program.signal_group(Signal::KILL)?;
            program.wait()?;
        }
        if exit == Some(Exit::Code(0)) {
            return Ok(());
        }
        let mut text = Vec::new();
        if let Err(error) = File::from(said).take(SAID_BYTES).read_to_end(&mut text)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            return Err(error);
        }
        let why = match exit {
            Some(exit) => format!("{exit}: {}", reason::of(&text).text),
            None => format!("no answer within {} seconds", DELETE_LIMIT.as_secs()),
        };
        Err(io::Error::other(format!(
            "{} --root {} does not delete container {}: {why}",
            self.runtime.display(),
            self.root.display(),
            self.id,
        )))
    }

    fn spawn(
        &self,
        args: &[OsString],
        stdout: Option<File>,
        stderr: File,
    ) -> Result<Process, SpawnError> {
        let root: [OsString; 2] = ["--root".into(), self.root.clone().into()];
        let args = [&root[..], args].concat();
        let env: [(OsString, OsString); 1] = [("PATH".into(), PATH.into())];
        Spawn {
            program: &self.runtime,
            arg0: None,
            args: &args,
            env: &env,
            netns: None,
            cwd: None,
            stdin: None,
            stdout,
            stderr: Some(stderr),
            parent_death_signal: Some(Signal::KILL),
        }
        .start()
    }
}

/// One that is read without waiting, and to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((read, write))
}
