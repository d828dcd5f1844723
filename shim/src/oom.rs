//! Whether the kernel killed a process of a task because the task had no memory left.

use std::path::{Path, PathBuf};

use crate::cgroup;

/// Where version 2 and version 1 of control groups count that, one file in each group.
const FILES: [&str; 2] = ["memory.events", "memory.oom_control"];

/// The count of a task's group when it began: a group may be there from an earlier attempt.
#[derive(Debug)]
pub(crate) struct Kills {
    group: Option<PathBuf>,
    before: u64,
}

impl Kills {
    /// From now on, also of a group that is not made yet.
    pub(crate) fn from_now(group: Option<&Path>) -> Self {
        Self {
            before: group.map_or(0, count),
            group: group.map(Path::to_owned),
        }
    }

    /// Whether there was one since. Has to be asked before the group is removed.
    pub(crate) fn any(&self) -> bool {
        self.group.as_deref().map_or(0, count) > self.before
    }
}

/// Zero where nothing counts.
fn count(group: &Path) -> u64 {
    let folders = cgroup::folders(group).into_iter();
    folders
        .flat_map(|folder| FILES.map(|name| folder.join(name)))
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter_map(|text| kills_in(&text))
        .max()
        .unwrap_or(0)
}

/// Both files have lines of a key and a number.
fn kills_in(text: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = pairs.find(|(key, _)| *key == "oom_kill")?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_in_files_of_both_versions() {
        let v2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(kills_in(v2), Some(2));
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        assert_eq!(kills_in(v1), Some(1));
        // Before Linux 4.13 nobody counted.
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\n"), None);
        for odd in ["", "oom_kill", "oom_kill x\n", "oom_kill -1\n"] {
            assert_eq!(kills_in(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_task_without_a_group_has_no_kills() {
        assert!(!Kills::from_now(None).any());
        assert!(!Kills::from_now(Some(Path::new("weft-no-such-group/t"))).any());
    }
}
