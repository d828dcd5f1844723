//! A control group for each task, `/weft/NODE/TASK`, in the trees that this machine has.
//!
//! It keeps tasks apart from the agent: what a supervisor does to the agent's group does not hit
//! them. A machine without a tree that can be written to does without.

use std::io;
use std::path::{Path, PathBuf};

/// Moves the calling process, and thereby its children, into `group` of every tree.
pub(crate) fn join(group: &Path) {
    for tree in trees() {
        let joined = std::fs::create_dir_all(tree.join(group))
            .and_then(|()| std::fs::write(tree.join(group).join("cgroup.procs"), "0"));
        if joined.is_err() {
            remove_from(&tree, group);
        }
    }
}

/// Removes the group of a task that has ended, and those above it that are empty then.
pub fn remove(group: &Path) {
    remove_inside(group);
    for tree in trees() {
        remove_from(&tree, group);
    }
}

fn remove_from(tree: &Path, group: &Path) {
    for part in group
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty())
    {
        match std::fs::remove_dir(tree.join(part)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Other tasks are in it.
            Err(_) => return,
        }
    }
}

/// Removes the groups in a group, which those who made them left behind.
fn remove_inside(group: &Path) {
    for folder in folders(group) {
        let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
        // What else is there are the kernel's own files, which go with the group.
        for inner in inside.filter(|inner| inner.file_type().is_ok_and(|kind| kind.is_dir())) {
            if std::fs::remove_dir(inner.path()).is_err() {
                // Somebody is in it: it stays, and the group with it.
            }
        }
    }
}

/// A group in every tree.
pub(crate) fn folders(group: &Path) -> Vec<PathBuf> {
    let trees = trees().into_iter();
    trees.map(|tree| tree.join(group)).collect()
}

/// Mount points of the unified tree, and of the one of version 1 that counts processes.
fn trees() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    trees_in(&mounts)
}

/// proc_pid_mountinfo(5): the fields after ` - ` are the kind, the source and its options.
fn trees_in(mounts: &str) -> Vec<PathBuf> {
    let tree = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let wanted = match kind.next()? {
            "cgroup2" => true,
            "cgroup" => kind.nth(1)?.split(',').any(|option| option == "pids"),
            _ => false,
        };
        let path = mount.split(' ').nth(4)?;
        // Octal escapes stand for blanks: not a place where anybody mounts this.
        (wanted && !path.contains('\\')).then(|| PathBuf::from(path))
    };
    mounts.lines().filter_map(tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_found_among_other_mounts() {
        let mounts = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            30 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            32 30 0:28 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
            nonsense\n";
        assert_eq!(
            trees_in(mounts),
            [
                Path::new("/sys/fs/cgroup/pids"),
                Path::new("/sys/fs/cgroup/unified")
            ]
        );
    }
}
