//! Child processes in namespaces, held by pidfd: no signal and no wait can hit another process
//! that got the same id.

mod fork;
mod spawn;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

pub use fork::{Fork, fork, leave};
pub use rustix::process::Signal;
pub use spawn::{Spawn, SpawnError};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned or called `exit`.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was not our child: adopted after a restart of the parent, status lost.
    Unknown,
}

impl Exit {
    /// True for exit code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code that a shell would show: 128 + the number for a signal; `None` when unknown.
    #[must_use]
    pub fn shell_code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => Some(128 + signal),
            Self::Unknown => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("ended, exit status unknown"),
        }
    }
}

/// A process that leads its own session and process group: spawned by us, or adopted.
///
/// Dropping it neither ends nor waits for the process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    start_time: u64,
    pidfd: OwnedFd,
    ours: bool,
    exit: Mutex<Option<Exit>>,
}

impl Process {
    /// Takes up a process that an earlier instance spawned, by the id and start time that it wrote
    /// down. `None` when that process is gone (or its id belongs to another one by now).
    ///
    /// # Errors
    /// When the process is out of file descriptors, or `/proc` is not mounted.
    pub fn adopt(pid: u32, start_time: u64) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // The descriptor first: after that the id cannot be reused unnoticed.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match stat_of(pid)? {
            Some(stat) if stat.start_time == start_time && !stat.ended => Ok(Some(Self {
                pid,
                start_time,
                pidfd,
                ours: false,
                exit: Mutex::new(None),
            })),
            _ => Ok(None),
        }
    }

    /// Takes up a child that this process did not start itself, as who reaps the orphans below it
    /// gets one: by the id that whoever started it told. `None` when there is no such child.
    ///
    /// # Errors
    /// When the process is out of file descriptors, or `/proc` is not mounted.
    pub fn inherit(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        // A child's id is its own until it is waited for.
        let own = rustix::process::getpid().as_raw_nonzero().get();
        match stat_of(pid)? {
            Some(stat) if stat.parent == own => Self::of_child(pid).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes ownership of a child that was just spawned and not waited for.
    fn of_child(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let start_time = stat_of(pid)?.map_or(0, |stat| stat.start_time);
        Ok(Self {
            pid,
            start_time,
            pidfd,
            ours: true,
            exit: Mutex::new(None),
        })
    }

    /// Process id, also the id of its session and process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Clock ticks between boot and its start (field 22 of `/proc/PID/stat`): with the id it names
    /// one process for as long as the machine is up.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Signals the process alone. One that has ended is success.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.signal_number(signal.as_raw())
    }

    /// The same by the signal's number: those in real time have no names.
    ///
    /// # Errors
    /// `EPERM`; `EINVAL` when there is no such signal.
    pub fn signal_number(&self, number: i32) -> io::Result<()> {
        gone_is_fine(self.send_signal(number, 0))
    }

    /// Signals its whole process group, which is what Ctrl-C does. A group that has ended is
    /// success. Works also after the process itself was waited for.
    ///
    /// # Errors
    /// `EPERM` when no process of the group may be signalled.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        match self.send_signal(signal.as_raw(), PIDFD_SIGNAL_PROCESS_GROUP) {
            // Before Linux 6.9 only by number.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                gone_is_fine(Ok(rustix::process::kill_process_group(self.pid, signal)?))
            }
            other => gone_is_fine(other),
        }
    }

    fn send_signal(&self, number: i32, flags: libc::c_uint) -> io::Result<()> {
        // SAFETY: a plain system call on a descriptor that we own; the siginfo pointer may be null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                number,
                std::ptr::null::<libc::siginfo_t>(),
                flags,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Waits for the end, blocking the thread. Any number of threads may wait, and call again later.
    /// What is left of the process group then is killed: a task ends with its first process.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn wait(&self) -> io::Result<Exit> {
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], None)
            .map(drop)
            .or_else(|e| {
                if e == rustix::io::Errno::INTR {
                    Ok(())
                } else {
                    Err(e)
                }
            })?;
        match self.try_wait()? {
            Some(exit) => Ok(exit),
            None => self.wait(),
        }
    }

    /// Waits for the end for so long at most; `None` when it still runs.
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<Option<Exit>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(Some(exit));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The end, when it is there already; see [`Process::wait`].
    ///
    /// # Errors
    /// Not seen in practice.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut known = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(*known);
        }
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now))? == 0 {
            return Ok(None);
        }
        // While the leader is not reaped its group id cannot be taken by others.
        if let Err(error) = self.signal_group(Signal::KILL) {
            tracing::warn!(pid = self.pid(), %error, "cannot end what is left of a process group");
        }
        *known = Some(if self.ours {
            self.reap()?
        } else {
            Exit::Unknown
        });
        Ok(*known)
    }

    fn reap(&self) -> io::Result<Exit> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(status) => {
                    let code = status.as_ref().and_then(|s| s.exit_status());
                    let signal = status.as_ref().and_then(|s| s.terminating_signal());
                    return Ok(match (code, signal) {
                        (Some(code), _) => Exit::Code(code),
                        (None, Some(signal)) => Exit::Signal(signal),
                        (None, None) => Exit::Unknown,
                    });
                }
                Err(rustix::io::Errno::INTR) => {}
                // Someone else waited for all children.
                Err(rustix::io::Errno::CHILD) => return Ok(Exit::Unknown),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The pidfd: readable once the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

struct Stat {
    parent: i32,
    start_time: u64,
    /// A zombie, or dead.
    ended: bool,
}

/// Fields 3, 4 and 22 of `/proc/PID/stat`; the second field is a name that may hold anything, in
/// parentheses.
fn stat_of(pid: Pid) -> io::Result<Option<Stat>> {
    let text = match std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(text) => text,
        Err(error) => {
            let gone = error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH);
            return if gone { Ok(None) } else { Err(error) };
        }
    };
    let fields = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace());
    let parsed = fields.and_then(|mut fields| {
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Stat {
            parent,
            start_time,
            ended: matches!(state, "Z" | "X" | "x"),
        })
    });
    parsed
        .map(Some)
        .ok_or_else(|| io::Error::other(format!("unexpected /proc/PID/stat: {text}")))
}

#[cfg(test)]
mod tests;
