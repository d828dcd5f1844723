//! Runs a command on a machine (`lab-enter`): joins the namespaces of its process 1 first.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use weft_sys::namespaces::{self, Kinds};
use weft_sys::netns::Netns;
use weft_sys::process::Signal;

/// What to do where.
#[derive(Debug, Args)]
pub(crate) struct EnterSpec {
    /// A network namespace of the machine to go on to, as the machine names it
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
    /// Process 1 of the machine, as seen from here
    pub(crate) pid: u32,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Does what the spec says and returns the exit status of the command; 128 and the signal when a
/// signal ended it, as a shell has it. Must be called before any thread is started.
///
/// # Errors
/// The machine is gone, or may not be entered; the program does not exist there.
pub(crate) fn run_enter(spec: &EnterSpec) -> anyhow::Result<ExitCode> {
    namespaces::set_parent_death_signal(Signal::KILL)?;
    let user = in_another_user_namespace(spec.pid)?;
    namespaces::enter_process(
        spec.pid,
        Kinds {
            user,
            ..Kinds::machine()
        },
    )
    .with_context(|| format!("cannot enter the node of process {}", spec.pid))?;
    if let Some(path) = &spec.netns {
        let netns = Netns::open(path)?;
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {}", path.display()))?;
    }
    let (program, args) = spec.command.split_first().context("no command given")?;
    // The PID namespace holds for children only, so the command is one.
    let status = Command::new(program).args(args).status();
    let status = match status {
        Ok(status) => status,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            bail!("{program}: no such program on the node")
        }
        Err(e) => return Err(e).with_context(|| format!("cannot run {program}")),
    };
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Makes network namespaces and binds them at `paths` (`lab-netns`). Runs as a command on the
/// machine: a process that entered a PID namespace itself can start no thread.
///
/// # Errors
/// One exists, or no permission; those before it were made.
pub(crate) fn run_netns(paths: &[impl AsRef<Path>]) -> anyhow::Result<ExitCode> {
    for path in paths {
        Netns::create_at(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn in_another_user_namespace(pid: u32) -> anyhow::Result<bool> {
    let of = |process: &str| {
        std::fs::read_link(format!("/proc/{process}/ns/user"))
            .with_context(|| format!("the node is gone: process {process} cannot be looked at"))
    };
    Ok(of("self")? != of(&pid.to_string())?)
}
