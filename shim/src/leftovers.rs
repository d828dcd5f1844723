//! What a command leaves behind in a control group of its own: processes that left its session, and
//! the group.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup;

/// Looks at a group that does not become empty.
const ROUNDS: usize = 100;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// Ends every process in a group, and removes it. One that is in no tree has none.
pub(crate) fn end(group: &Path) {
    for folder in cgroup::folders(group) {
        // Linux 5.14, in the unified tree: all at once, and whatever forks meanwhile.
        let at_once = std::fs::write(folder.join("cgroup.kill"), "1").is_ok();
        for _ in 0..ROUNDS {
            let left = if at_once {
                !listed(&folder).is_empty()
            } else {
                kill_listed(&folder)
            };
            if !left {
                break;
            }
            std::thread::sleep(PAUSE);
        }
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
