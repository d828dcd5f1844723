//! What is left where nobody looked after it: processes of a command that left its session, in a control
//! group of their own, and a container whose shim was killed.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use weft_sys::process::Process;

use crate::spec::{self, OciContainer};
use crate::{cgroup, files};

/// How long process 1 of a container may take to end that was killed, and with it all of its PID
/// namespace.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Looks at a group that does not become empty.
const ROUNDS: usize = 100;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// Ends a container that has no shim any more, as one lives on whose shim was killed: its process 1, if it
/// was written down in the task's folder, whatever is in its control group, and what its runtime program
/// knows of it. Nothing left of it is success. Blocks for some seconds at most.
///
/// # Errors
/// It may run on, or the runtime program may know of it still; everything was tried.
pub fn end_container(dir: &Path, container: &OciContainer, cgroup: &Path) -> io::Result<()> {
    let killed = kill_init(dir);
    end(cgroup);
    let deleted = container.delete();
    cgroup::remove(cgroup);
    let tidied = [files::PID, files::CONSOLE].map(|name| files::remove(&dir.join(name)));
    let tidied = tidied.into_iter().collect::<io::Result<()>>();
    killed.and(deleted).and(tidied)
}

fn kill_init(dir: &Path) -> io::Result<()> {
    let Some(init) = spec::read_init(dir)? else {
        return Ok(());
    };
    let Some(init) = Process::adopt(init.pid, init.start_time)? else {
        return Ok(());
    };
    init.signal(Signal::KILL)?;
    match init.wait_timeout(END_LIMIT)? {
        Some(_) => Ok(()),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("process {} does not end although it was killed", init.pid()),
        )),
    }
}

/// Ends every process in a group and in the groups inside, and removes them. One that is in no tree has
/// none.
pub(crate) fn end(group: &Path) {
    for folder in cgroup::folders(group) {
        // Linux 5.14, in the unified tree: all at once, and whatever forks meanwhile.
        let at_once = std::fs::write(folder.join("cgroup.kill"), "1").is_ok();
        for _ in 0..ROUNDS {
            let mut left = false;
            for folder in cgroup::below(&folder) {
                left |= if at_once {
                    !listed(&folder).is_empty()
                } else {
                    kill_listed(&folder)
                };
            }
            if !left {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        cgroup::remove_below(&folder);
        if std::fs::remove_dir(folder).is_err() {
            // It was never made here, or goes with the task's.
        }
    }
}

/// Kills the processes that a group lists; false when there was none.
fn kill_listed(folder: &Path) -> bool {
    let found = listed(folder);
    for number in found.lines() {
        let pid = number.parse().ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Still in the group once it is held: nobody else got its number.
        if let Some(pidfd) = pidfd
            && listed(folder).lines().any(|again| again == number)
            && pidfd_send_signal(&pidfd, Signal::KILL).is_err()
        {
            // It has ended meanwhile.
        }
    }
    !found.is_empty()
}

/// Nothing where there is no group.
fn listed(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default()
}
