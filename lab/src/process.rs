//! Processes of other owners, told apart from later ones with the same id.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use weft_sys::process::Signal;

/// A process by id and time of birth: an id alone may be given to another process later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRef {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), in clock ticks since boot.
    pub(crate) started: u64,
}

impl ProcessRef {
    /// A process that runs now.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let started = start_time(pid).with_context(|| format!("process {pid} does not run"))?;
        Ok(Self { pid, started })
    }

    /// True while this very process runs; one that ended and was not waited for does not run.
    pub(crate) fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// A descriptor that keeps meaning this very process; none when it is gone.
    pub(crate) fn open(self) -> anyhow::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Looked at after the open: from here on the descriptor cannot mean another one.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(Errno::SRCH) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot open process {}", self.pid)),
        }
    }

    /// Sends a signal; a process that is gone needs none.
    pub(crate) fn signal(self, signal: Signal) -> anyhow::Result<()> {
        let Some(fd) = self.open()? else {
            return Ok(());
        };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("cannot signal process {}", self.pid)),
        }
    }

    /// Waits until it has ended; false when the time was not enough.
    pub(crate) fn wait_end(self, limit: Duration) -> anyhow::Result<bool> {
        let Some(fd) = self.open()? else {
            return Ok(true);
        };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("the time limit is too long")?;
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Children of a process, as `/proc` lists them.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// First argument of a process; empty when it is gone.
pub(crate) fn arg0(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// When a process was born; none when it does not run (any more).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ProcessRef::of(child.id()).unwrap();
        assert!(process.is_alive());
        assert!(!process.wait_end(Duration::ZERO).unwrap());
        let other = ProcessRef {
            started: process.started + 1,
            ..process
        };
        assert!(!other.is_alive());
        other.signal(Signal::KILL).unwrap();
        assert!(process.is_alive(), "another process was signalled");

        process.signal(Signal::TERM).unwrap();
        assert!(process.wait_end(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive());
        process.signal(Signal::TERM).unwrap();
        assert!(ProcessRef::of(child.id()).is_err());
    }
}
