//! Starting a program in a network namespace and a mount namespace of its own.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{
    Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Process;
use crate::netns::Netns;
use crate::open_files;

/// A file of the host that the program sees at another place.
#[derive(Debug, Clone)]
pub struct Bind {
    /// What is shown.
    pub source: PathBuf,
    /// Where; must exist. A symbolic link is followed.
    pub target: PathBuf,
}

/// A program to be started.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Path of the program; a bare name is looked up in `PATH` of this process.
    pub program: &'a Path,
    /// Arguments, without the program's name.
    pub args: &'a [OsString],
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Network namespace; this thread's when absent.
    pub netns: Option<&'a Netns>,
    /// Shown in a mount namespace of its own; none is made when this is empty.
    pub binds: &'a [Bind],
    /// Working directory; `/` when absent.
    pub cwd: Option<&'a Path>,
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
    /// Config: a place to show a file at is missing.
    #[error("cannot show {source_path} as {target}: {source}; create an empty file there", source_path = .bind.source.display(), target = .bind.target.display())]
    Bind {
        /// Which one.
        bind: Bind,
        /// What the kernel said.
        source: io::Error,
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
    /// Starts the program as leader of a new session and process group, with standard input closed
    /// (`/dev/null`). Every other descriptor of this process is closed in it, and its limit of open
    /// files is the one from before [`open_files::raise`].
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn start(self) -> Result<Process, SpawnError> {
        let program = self.program.to_owned();
        let failed = |source| SpawnError::Kernel {
            program: program.clone(),
            source,
        };
        let mut mounts = Vec::with_capacity(self.binds.len());
        for bind in self.binds {
            for path in [&bind.source, &bind.target] {
                std::fs::metadata(path).map_err(|source| SpawnError::Bind {
                    bind: bind.clone(),
                    source,
                })?;
            }
            let (source, target) = (c_path(&bind.source), c_path(&bind.target));
            mounts.push((source.map_err(failed)?, target.map_err(failed)?));
        }
        let netns = match self.netns {
            Some(netns) => Some(netns.as_fd().try_clone_to_owned().map_err(failed)?),
            None => None,
        };
        let mut command = Command::new(self.program);
        command
            .args(self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(self.cwd.unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(self.stdout.map_or_else(Stdio::null, Stdio::from))
            .stderr(self.stderr.map_or_else(Stdio::null, Stdio::from));
        let death = self.parent_death_signal;
        let open_files = open_files::original();
        // SAFETY: the closure runs in the forked child before exec. It makes system calls only, on
        // values prepared before the fork: no allocation, no lock, no memory of other threads.
        unsafe {
            command.pre_exec(move || enter(netns.as_ref(), &mounts, death, open_files.as_ref()));
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
        Process::of_child(&child).map_err(|source| {
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
    mounts: &[(CString, CString)],
    death: Option<Signal>,
    open_files: Option<&Rlimit>,
) -> io::Result<()> {
    setsid()?;
    if let Some(limit) = open_files {
        setrlimit(Resource::Nofile, *limit)?;
    }
    if let Some(netns) = netns {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    if !mounts.is_empty() {
        // SAFETY: the forked child has one thread; nothing shares its file system state.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        // Mounts of the host go on to appear inside, none of ours outside.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", downstream)?;
        for (source, target) in mounts {
            mount_bind(source.as_c_str(), target.as_c_str())?;
        }
    }
    if death.is_some() {
        set_parent_process_death_signal(death)?;
    }
    Ok(())
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn executable(program: &Path) -> bool {
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
}
