//! Which trees of control groups this machine shows: it decides which runtime program can be used, and
//! how a container is limited.

use std::fmt;
use std::path::Path;

use crate::mountinfo::{self, Mounted};

/// Where every distribution mounts them.
const ROOT: &str = "/sys/fs/cgroup";

/// What is mounted of cgroups(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupKind {
    /// Nothing: no container can be limited.
    None,
    /// A tree for each controller.
    V1,
    /// Controllers in trees of version 1, and one of version 2 beside them. crun refuses it.
    Hybrid,
    /// One tree for all.
    V2,
}

impl CgroupKind {
    /// Of the calling thread's mount namespace.
    #[must_use]
    pub fn of_node() -> Self {
        mountinfo::read().map_or(Self::None, |mounts| Self::of(&mounts))
    }

    pub(crate) fn of(mounts: &[Mounted]) -> Self {
        let at_root = mounts
            .iter()
            .rfind(|mounted| mounted.point == Path::new(ROOT));
        if at_root.is_some_and(|mounted| mounted.kind == "cgroup2") {
            return Self::V2;
        }
        let has = |kind: &str| {
            let mut below = mounts.iter().filter(|m| m.point.starts_with(ROOT));
            below.any(|mounted| mounted.kind == kind)
        };
        match (has("cgroup"), has("cgroup2")) {
            (true, true) => Self::Hybrid,
            (true, false) => Self::V1,
            // Not where runtime programs look.
            (false, _) => Self::None,
        }
    }
}

impl fmt::Display for CgroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::V1 => "1",
            Self::Hybrid => "1 and 2",
            Self::V2 => "2",
        })
    }
}

/// Whether the kernel limits what a group swaps; it may be built or started without.
pub(crate) fn counts_swap(mounts: &[Mounted], kind: CgroupKind) -> bool {
    match kind {
        CgroupKind::None => false,
        CgroupKind::V2 => Path::new("/proc/swaps").exists(),
        CgroupKind::V1 | CgroupKind::Hybrid => mounts
            .iter()
            .filter(|mounted| mounted.kind == "cgroup")
            .filter(|mounted| mounted.options.split(',').any(|word| word == "memory"))
            .any(|mounted| mounted.point.join("memory.memsw.limit_in_bytes").exists()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> CgroupKind {
        CgroupKind::of(&mountinfo::parse(text.as_bytes()))
    }

    /// Recorded on machines of each kind.
    #[test]
    fn what_is_mounted_tells_the_kind() {
        let fedora = "25 1 0:23 / /sys rw - sysfs sysfs rw\n\
            29 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(kind(fedora), CgroupKind::V2);
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(kind(hybrid), CgroupKind::Hybrid);
        let without_unified: String = hybrid.lines().take(2).map(|l| format!("{l}\n")).collect();
        assert_eq!(kind(&without_unified), CgroupKind::V1);
        // A fresh sysfs hides them.
        assert_eq!(
            kind("25 1 0:23 / /sys rw - sysfs sysfs rw\n"),
            CgroupKind::None
        );
        let elsewhere = "41 31 0:38 / /run/cg rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(kind(elsewhere), CgroupKind::None);
        // What was mounted last at a place is what is seen.
        let over = format!("{hybrid}50 23 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(kind(&over), CgroupKind::V2);
    }

    #[test]
    fn swap_is_counted_where_the_memory_tree_has_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        let line = format!(
            "32 31 0:29 / {} rw - cgroup cgroup rw,memory\n",
            dir.path().display()
        );
        let mounts = mountinfo::parse(line.as_bytes());
        assert!(!counts_swap(&mounts, CgroupKind::V1));
        std::fs::write(dir.path().join("memory.memsw.limit_in_bytes"), "").expect("written");
        assert!(counts_swap(&mounts, CgroupKind::V1));
        assert!(!counts_swap(&mounts, CgroupKind::None));
    }
}
