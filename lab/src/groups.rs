//! Control groups of a lab's tasks. They are the kernel's, and outlive the machines: who takes a lab
//! down removes them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::state::State;

/// Above the groups of all nodes, in each tree.
const WEFT: &str = "weft";

/// Removes the groups of all tasks that the disks of the machines know, and those of the nodes that are
/// empty then. Groups of other tasks are another lab's, whose nodes have the same names.
pub(crate) fn remove(state: &State) {
    let trees = trees(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    for machine in &state.machines {
        let tasks = folders(&state.dir.join(&machine.name).join("data/tasks"));
        let tasks: Vec<_> = tasks.iter().filter_map(|path| path.file_name()).collect();
        for tree in &trees {
            let node = tree.join(WEFT).join(&machine.name);
            for task in &tasks {
                remove_all(&node.join(task));
            }
            remove_empty(&node);
        }
    }
    for tree in &trees {
        remove_empty(&tree.join(WEFT));
    }
}

/// A group and those inside it, the innermost first. What is else in its folder are the kernel's own
/// files, which go with it.
fn remove_all(group: &Path) {
    for inner in folders(group) {
        remove_all(&inner);
    }
    remove_empty(group);
}

fn remove_empty(group: &Path) {
    if fs::remove_dir(group).is_err() {
        // It is not there, or somebody else is in it.
    }
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Where control groups are mounted (proc_pid_mountinfo(5)), of both versions.
fn trees(mounts: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        matches!(kind.split(' ').next()?, "cgroup" | "cgroup2").then_some(())?;
        Some(PathBuf::from(mount.split(' ').nth(4)?))
    };
    mounts.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_both_versions_are_found() {
        let mounts = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            nonsense\n";
        let found = trees(mounts);
        let wanted = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn groups_go_with_what_is_inside_them() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("task");
        fs::create_dir_all(group.join("a/b")).unwrap();
        fs::create_dir_all(group.join("c")).unwrap();
        remove_all(&group);
        assert!(!group.exists());
    }
}
