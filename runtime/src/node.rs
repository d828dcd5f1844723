//! What of this machine decides how a container is described.

use std::path::Path;

use rustix::process::geteuid;

use crate::apparmor;
use crate::cgroups::{self, CgroupKind};
use crate::mountinfo::{self, Mounted};

/// The ids of a user namespace, as user_namespaces(7) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<(u32, u32, u32)>);

impl IdMap {
    /// Lines are `INSIDE OUTSIDE COUNT`.
    pub(crate) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            Some((next()?, next()?, next()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// True for the namespace that the machine began with.
    pub(crate) fn is_initial(&self) -> bool {
        self.0 == [(0, 0, u32::MAX)]
    }

    /// Whether there is such an id.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0
            .iter()
            .any(|(inside, _, count)| id.checked_sub(*inside).is_some_and(|at| at < *count))
    }
}

/// What of this machine decides how a container is described.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) cgroups: CgroupKind,
    /// What a group swaps can be limited.
    pub(crate) counts_swap: bool,
    pub(crate) uids: IdMap,
    pub(crate) gids: IdMap,
    /// The last capability that the kernel knows, by number.
    pub(crate) last_capability: u32,
    pub(crate) seccomp: bool,
    pub(crate) apparmor: Option<&'static str>,
    /// Files about the temperature of each processor.
    pub(crate) thermal: Vec<String>,
    pub(crate) mounts: Vec<Mounted>,
}

impl Node {
    /// This one.
    pub(crate) fn read() -> Self {
        let mounts = mountinfo::read().unwrap_or_default();
        let cgroups = CgroupKind::of(&mounts);
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let last = text("/proc/sys/kernel/cap_last_cap").trim().parse();
        let (uids, gids) = (
            IdMap::parse(&text("/proc/self/uid_map")),
            IdMap::parse(&text("/proc/self/gid_map")),
        );
        Self {
            cgroups,
            counts_swap: cgroups::counts_swap(&mounts, cgroups),
            uids,
            gids,
            last_capability: last.unwrap_or(u32::MAX),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: apparmor::profile(),
            thermal: thermal(Path::new("/sys/devices/system/cpu")),
            mounts,
        }
    }

    /// Not root of the machine: nothing can be limited, and there may be one user alone.
    pub(crate) fn rootless(&self) -> bool {
        !self.uids.is_initial()
    }
}

/// Root, and in no user namespace. Without `/proc` nothing is known, and the ordinary case is assumed.
pub(crate) fn is_root_of_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map");
    map.map_or(true, |map| IdMap::parse(&map).is_initial()) && geteuid().is_root()
}

/// What Docker hides of each processor: side channels (moby, `oci/defaults.go`).
fn thermal(processors: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(processors)
        .into_iter()
        .flatten()
        .flatten();
    let throttle = |entry: std::fs::DirEntry| {
        let path = entry.path().join("thermal_throttle");
        path.exists().then(|| path.to_string_lossy().into_owned())
    };
    let mut paths: Vec<String> = entries.filter_map(throttle).collect();
    paths.sort();
    paths
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine of today with all that is looked for.
    pub(crate) fn node() -> Node {
        let all = IdMap::parse("0 0 4294967295");
        Node {
            cgroups: CgroupKind::V2,
            counts_swap: true,
            uids: all.clone(),
            gids: all,
            last_capability: 40,
            seccomp: true,
            apparmor: None,
            thermal: Vec::new(),
            mounts: Vec::new(),
        }
    }

    /// The ids of who is no root, in a namespace of one user.
    pub(crate) fn one() -> IdMap {
        IdMap::parse("0 1000 1")
    }

    #[test]
    fn ids_are_those_of_the_map() {
        let all = IdMap::parse("         0          0 4294967295\n");
        assert!(all.is_initial() && all.has(0) && all.has(65_534) && !all.has(u32::MAX));
        let one = IdMap::parse("0 1000 1\n");
        assert!(!one.is_initial() && one.has(0) && !one.has(1) && !one.has(1000));
        let two = IdMap::parse("0 1000 1\n1 100000 65536\n");
        assert!(two.has(65_536) && !two.has(65_537));
        assert!(!IdMap::parse("").has(0));
    }

    #[test]
    fn processors_with_a_thermometer_are_found() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(dir.path().join("cpu1/thermal_throttle")).expect("made");
        std::fs::create_dir_all(dir.path().join("cpu0")).expect("made");
        let found = thermal(dir.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("/cpu1/thermal_throttle"));
    }
}
