//! The last steps before a forked process becomes the task's program.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, Mode};
use rustix::io::Errno;
use rustix::process::{ioctl_tiocsctty, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use weft_sys::error_text::without_numbers;
use weft_sys::process::Signal;
use weft_sys::{affinity, capabilities, descriptors, namespaces, seccomp, signals};

use crate::confinement::Confinement;
use crate::spec::{Failure, Spec};
use crate::user::{self, User};

/// Who a task is that names nobody.
const ROOT: u32 = 0;

/// `CAP_SYS_ADMIN`: no wall stands against it.
const SYS_ADMIN: u64 = 1 << 21;

/// What a shell, and Docker, show of a program that cannot be executed, or is not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Where a program inside a container is looked for that has no `PATH`: Docker's.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// In front of what kept a program inside a container from running.
const EXEC_FAILED: &str = "OCI runtime exec failed: exec failed: unable to start container process";

/// A program that does not run.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) failure: Failure,
    /// The exit code that tells of it.
    pub(crate) code: u8,
}

impl NotStarted {
    /// Of something that is in the way now, and perhaps not later.
    pub(crate) fn because(message: &str) -> Self {
        Self {
            failure: Failure {
                permanent: false,
                message: without_numbers(message),
            },
            code: NOT_EXECUTABLE,
        }
    }

    fn for_good(code: u8, message: String) -> Self {
        let failure = Failure {
            permanent: true,
            message,
        };
        Self { failure, code }
    }
}

/// Becomes the program. Returns only when that failed.
pub(crate) fn become_it(
    spec: &Spec,
    user: Option<&User>,
    confinement: &Confinement,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
) -> NotStarted {
    let program = &spec.program;
    if let Err(error) = enter_session(user, stdout, stderr) {
        return NotStarted::because(&format!("cannot start {program:?}: its session: {error}"));
    }
    let cwd = spec.cwd.as_deref().unwrap_or(Path::new("/"));
    execute(spec, user, confinement, cwd, || Ok(()))
}

/// Becomes a program beside that of the task, with the standard descriptors that this process has, for
/// as long as its `starter` lives. Returns only when that failed.
pub(crate) fn become_guest(
    spec: &Spec,
    user: Option<&User>,
    confinement: &Confinement,
    cwd: &Path,
    terminal: bool,
    starter: &OwnedFd,
) -> NotStarted {
    let program = &spec.program;
    if let Err(error) = enter_own_session(user, terminal) {
        return NotStarted::because(&format!("cannot start {program:?}: its session: {error}"));
    }
    // Last: who becomes another user loses it.
    execute(spec, user, confinement, cwd, || {
        namespaces::set_parent_death_signal(Signal::KILL)?;
        // The signal tells of what ends from now on; whose end that was before has no number in here.
        let mut starter = [PollFd::new(starter, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut starter, Some(&now))? {
            0 => Ok(()),
            _ => Err(io::Error::other("who asked for it has gone")),
        }
    })
}

fn enter_own_session(user: Option<&User>, terminal: bool) -> io::Result<()> {
    setsid()?;
    if terminal {
        ioctl_tiocsctty(io::stdin())?;
    }
    if let Some(user) = user {
        // As for the task itself. The group of a terminal is `tty`, and may write there: it stays.
        let group = (!terminal).then_some(user.gid);
        rustix::fs::fchown(io::stdout(), Some(user.uid), group)?;
        rustix::fs::fchown(io::stderr(), Some(user.uid), group)?;
    }
    descriptors::close_on_exec_from(3)?;
    signals::unblock_all()
}

/// With `last` after everything that another user may not do.
fn execute(
    spec: &Spec,
    user: Option<&User>,
    confinement: &Confinement,
    cwd: &Path,
    last: impl FnOnce() -> io::Result<()>,
) -> NotStarted {
    let program = &spec.program;
    let failed = |what: &str, error: io::Error| {
        NotStarted::because(&format!("cannot start {program:?}: {what}: {error}"))
    };
    as_the_machine_starts_processes();
    // With all rights still: of the filter, and to limits above the agent's own.
    if let Err(error) = confinement.set() {
        return failed("the container's filter of system calls and ulimits", error);
    }
    if let Err(error) = give_up(spec, user).and_then(|()| last()) {
        let what = match &spec.user {
            Some(name) => format!("cannot become user {name:?} with these capabilities"),
            None => "cannot give up capabilities".to_owned(),
        };
        return failed(&what, error);
    }
    if let Err(error) = std::env::set_current_dir(cwd) {
        return failed(&format!("its working directory {cwd:?}"), error);
    }
    let in_container = spec.container.is_some();
    let found = if in_container {
        match located(spec) {
            Ok(found) => found,
            Err(not_found) => return not_found,
        }
    } else {
        program.clone()
    };
    let given = spec.env.iter().any(|(key, _)| key == "HOME");
    // Docker's: the user's, else the root of the tree.
    let home = match user {
        Some(user) => user.home.clone(),
        None => user::home_of(ROOT),
    };
    let home = (!given).then(|| home.unwrap_or_else(|| "/".into()));
    let error = Command::new(found)
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .envs(home.map(|home| ("HOME", home)))
        .current_dir(cwd)
        .exec();
    if in_container {
        refused(program, &error)
    } else {
        not_executed(program, error)
    }
}

/// As Docker: a name without a slash is looked up in the program's own `PATH`, by who executes it.
fn located(spec: &Spec) -> Result<PathBuf, NotStarted> {
    let program = &spec.program;
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(program.clone());
    }
    let given = spec.env.iter().rev().find(|(key, _)| key == "PATH");
    let path = given.map_or(OsStr::new(SEARCH_PATH), |(_, path)| path.as_os_str());
    let executable = |full: &PathBuf| {
        full.is_file() && rustix::fs::access(full.as_path(), Access::EXEC_OK).is_ok()
    };
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    let found = dirs.map(|dir| dir.join(program)).find(executable);
    found.ok_or_else(|| {
        let why = exec_failed(program, "executable file not found in $PATH");
        NotStarted::for_good(NOT_FOUND, why)
    })
}

/// What Docker's client shows; "unknown" is the kind that the layers between it and `runc` give to all of
/// these.
fn exec_failed(program: &Path, what: &str) -> String {
    format!("{EXEC_FAILED}: exec: {program:?}: {what}: unknown")
}

/// Docker's words and codes.
fn refused(program: &Path, error: &io::Error) -> NotStarted {
    let says = |what: &str| exec_failed(program, what);
    match error.kind() {
        io::ErrorKind::NotFound if !program.exists() => {
            let what = format!("stat {}: no such file or directory", program.display());
            NotStarted::for_good(NOT_FOUND, says(&what))
        }
        // The interpreter that its first line names.
        io::ErrorKind::NotFound => {
            NotStarted::for_good(NOT_FOUND, says("no such file or directory"))
        }
        io::ErrorKind::PermissionDenied => {
            NotStarted::for_good(NOT_EXECUTABLE, says("permission denied"))
        }
        _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            NotStarted::for_good(NOT_EXECUTABLE, says("exec format error"))
        }
        _ => NotStarted::because(&says(&without_numbers(&error.to_string()))),
    }
}

/// Undoes what only the agent was to have: a unit may confine it to a CPU, shield it from the
/// kernel's search for memory, or give it another mask. A task that stays so works all the same.
fn as_the_machine_starts_processes() {
    let result = affinity::unpin().and_then(|()| std::fs::write("/proc/self/oom_score_adj", "0"));
    if result.is_err() {
        // Not allowed to lower its score: it was raised by somebody with more rights.
    }
    umask(Mode::from_raw_mode(0o022));
}

fn enter_session(user: Option<&User>, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    setsid()?;
    // So that the program can open `/dev/stdout` again, as another user too.
    if let Some(user) = user {
        for pipe in [stdout, stderr] {
            rustix::fs::fchown(pipe.as_fd(), Some(user.uid), Some(user.gid))?;
        }
    }
    let null = std::fs::File::open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    descriptors::close_on_exec_from(3)?;
    signals::unblock_all()
}

/// The order matters: each step needs what the next ones take away.
fn give_up(spec: &Spec, user: Option<&User>) -> io::Result<()> {
    // What the node mounts later appears to the task as it is there, perhaps open for devices.
    if spec.capabilities & SYS_ADMIN == 0 {
        seccomp::refuse_device_nodes()?;
    }
    capabilities::bound(spec.capabilities)?;
    if let Some(user) = user {
        set_groups(user)?;
        set_thread_res_gid(user.gid, user.gid, user.gid)?;
        // The kernel takes all capabilities from who was root and is not any more.
        set_thread_res_uid(user.uid, user.uid, user.uid)?;
    }
    capabilities::keep(spec.capabilities)?;
    if spec.no_new_privileges {
        capabilities::gain_nothing()?;
    }
    Ok(())
}

/// A user namespace that an ordinary user made denies it (user_namespaces(7)): his own groups stay, and
/// mean nothing inside.
fn set_groups(user: &User) -> io::Result<()> {
    let denied = || {
        let word = std::fs::read_to_string("/proc/self/setgroups");
        word.is_ok_and(|word| word.trim() == "deny")
    };
    match set_thread_groups(&user.groups) {
        Err(Errno::PERM) if denied() => Ok(()),
        other => Ok(other?),
    }
}

fn not_executed(program: &Path, error: io::Error) -> NotStarted {
    let exists = program.exists();
    let (permanent, message) = match error.kind() {
        io::ErrorKind::NotFound if !exists => (
            true,
            format!(
                "program {program:?} is not where the task can see it: is it in a folder of weft, or in one of the agent alone?"
            ),
        ),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => (
            true,
            format!(
                "program {program:?} cannot be executed: may the task's user execute it, and is the interpreter of its first line installed?"
            ),
        ),
        _ => {
            let why = format!("cannot start {program:?}: {error}");
            (false, without_numbers(&why))
        }
    };
    NotStarted {
        failure: Failure { permanent, message },
        code: if exists { NOT_EXECUTABLE } else { NOT_FOUND },
    }
}
