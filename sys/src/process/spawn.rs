//! Starting a program in a network namespace.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Process;
use crate::netns::Netns;
use crate::{descriptors, open_files};

/// A program to be started.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; a bare name is looked up in `PATH` of this process.
    pub program: &'a Path,
    /// The name that it is told it was called by; its path when absent.
    pub arg0: Option<&'a str>,
    /// Arguments, without the program's name.
    pub args: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Network namespace; this thread's when absent.
    pub netns: Option<&'a Netns>,
    /// Working directory; `/` when absent.
    pub cwd: Option<&'a Path>,
    /// Standard input; empty when absent.
    pub stdin: Option<File>,
    /// Standard output; discarded when absent.
    pub stdout: Option<File>,
    /// Standard error; discarded when absent.
    pub stderr: Option<File>,
    /// Sent to it when the *thread* that called [`Spawn::start`] ends. Only for callers whose
    /// thread lives as long as the program should.
    pub parent_death_signal: Option<Signal>,
}

/// Why a program was not started; nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Config: there is no such program.
    #[error("program {program} was not found on this node")]
    NotFound {
        /// As given.
        program: PathBuf,
    },
    /// Config: it may not be executed.
    #[error(
        "program {program} cannot be executed: is its execute permission set, and is the interpreter of its first line installed?"
    )]
    NotExecutable {
        /// As given.
        program: PathBuf,
    },
    /// Local: the kernel refused.
    #[error("cannot start {program} in its namespaces: {source}")]
    Kernel {
        /// As given.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Spawn<'_> {
    /// Starts the program as leader of a new session and process group. It has its three standard
    /// descriptors and no other, whatever this process inherited, and its limit of open files is the
    /// one from before [`open_files::raise`].
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn start(self) -> Result<Process, SpawnError> {
        let program = self.program.to_owned();
        let failed = |source| SpawnError::Kernel {
            program: program.clone(),
            source,
        };
        let netns = match self.netns {
            Some(netns) => Some(netns.as_fd().try_clone_to_owned().map_err(failed)?),
            None => None,
        };
        let mut command = Command::new(self.program);
        if let Some(arg0) = self.arg0 {
            command.arg0(arg0);
        }
        command
            .args(self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.cwd.unwrap_or(Path::new("/")))
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(self.stdout.map_or_else(Stdio::null, Stdio::from))
            .stderr(self.stderr.map_or_else(Stdio::null, Stdio::from));
        let death = self.parent_death_signal;
        let open_files = open_files::original();
        // SAFETY: the closure runs in the forked child before exec. It makes system calls only, on
        // values prepared before the fork: no allocation, no lock, no memory of other threads.
        unsafe {
            command.pre_exec(move || enter(netns.as_ref(), death, open_files.as_ref()));
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            // A script whose interpreter is missing exists itself.
            io::ErrorKind::NotFound if program.exists() => SpawnError::NotExecutable {
                program: program.clone(),
            },
            io::ErrorKind::NotFound => SpawnError::NotFound {
                program: program.clone(),
            },
            io::ErrorKind::PermissionDenied if !executable(&program) => SpawnError::NotExecutable {
                program: program.clone(),
            },
            _ => failed(source),
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(io::Error::other("process id out of range")))?;
        Process::of_child(pid).map_err(|source| {
            // Out of descriptors: without a pidfd nobody could end it later, so it ends here.
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::error!(pid = child.id(), %error, "a program was left running");
            }
            failed(source)
        })
    }
}

fn enter(
    netns: Option<&OwnedFd>,
    death: Option<Signal>,
    open_files: Option<&Rlimit>,
) -> io::Result<()> {
    setsid()?;
    heed_signals();
    if let Some(limit) = open_files {
        setrlimit(Resource::Nofile, *limit)?;
    }
    if let Some(netns) = netns {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    if death.is_some() {
        set_parent_process_death_signal(death)?;
    }
    // Those of ours have the mark already; those that we inherited may not.
    descriptors::close_on_exec_from(3)
}

/// Signals that the kernel has.
const SIGNALS: usize = 64;

/// Signals are what they are to a program that nobody told anything: `nohup` in front of the agent, and
/// what programs of Rust ignore, is not for what the agent starts.
fn heed_signals() {
    // `struct sigaction` of the kernel: the default action, no flag, an empty mask.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads a structure that is there and no longer than this one, and writes
        // none. It changes this process alone, which has one thread and no handler yet; the call
        // itself, as the C library keeps two signals for itself. SIGKILL and SIGSTOP stay as they are.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNALS / 8,
            );
        }
    }
}

fn executable(program: &Path) -> bool {
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
}
