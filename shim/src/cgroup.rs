//! A control group for each task, `/weft/NODE/TASK`, in the trees that this machine has: all of
//! version 1, all of version 2, or both beside each other.
//!
//! It keeps tasks apart from the agent: what a supervisor does to the agent's group does not hit
//! them. And it holds them to their limits. A machine without a tree that can be written to does
//! without, and says which limits do not hold.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::spec::Limits;

/// Controllers of version 1 whose trees are used.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Processes of a group that are not the task's: the shim and process 1.
const OWN_PROCESSES: u64 = 2;
/// Attempts to make a group that others take the ground from.
const RESERVE_TRIES: usize = 3;
/// Groups inside one that are looked at.
const MOST_GROUPS: usize = 4096;

/// Makes the group of a task, moves the calling process, and thereby its children, into it, and limits
/// it there. Returns a sentence for each limit that does not hold.
pub(crate) fn make(group: &Path, limits: &Limits) -> Vec<String> {
    let mut settings = settings(limits);
    let Some(group) = below_root(group) else {
        return settings.iter().map(Setting::lost).collect();
    };
    for tree in trees() {
        let needed = settings.iter().any(|s| tree.is_of(s.controller));
        if !needed && !tree.shows_all() {
            continue;
        }
        let dir = tree.path.join(group);
        let held = std::fs::create_dir_all(&dir).map(|()| tree.limit(group, &settings));
        let joined = held.and_then(|held| {
            std::fs::write(dir.join("cgroup.procs"), "0")?;
            Ok(held)
        });
        match joined {
            Ok(held) => settings.retain(|s| !held.contains(&s.controller)),
            Err(_) => remove_from(&tree.path, group),
        }
    }
    settings.iter().map(Setting::lost).collect()
}

/// Makes an empty group in every tree, as far as that is possible: who makes it for himself then finds the
/// groups above it there, which others remove when they are empty.
pub(crate) fn reserve(group: &Path) {
    let Some(group) = below_root(group) else {
        return;
    };
    for tree in every_tree() {
        let dir = tree.path.join(group);
        // Between two steps of this somebody may remove what was there.
        let mut tries = 0..RESERVE_TRIES;
        if !tries.any(|_| std::fs::create_dir_all(&dir).is_ok()) {
            // A tree that nobody here may write to: no task is in it.
        }
    }
}

/// Moves the calling process into the group of a task that runs, in every tree that has it: it is
/// held to what the task is held to.
pub(crate) fn join(group: &Path) {
    for folder in folders(group) {
        let procs = folder.join("cgroup.procs");
        if procs.exists() && std::fs::write(procs, "0").is_err() {
            // It stays where it was, as on a machine without such a tree.
        }
    }
}

/// Moves the calling process into the groups of another one, in every tree, also those that weft sets
/// nothing in: a container may have its devices from one of them. Where both are in the same already, as
/// where weft may make none, nothing is done.
///
/// # Errors
/// It is not held to all that the other one is held to.
pub(crate) fn join_those_of(pid: u32) -> io::Result<()> {
    let groups = |who: &str| std::fs::read_to_string(format!("/proc/{who}/cgroup"));
    let (own, theirs) = (groups("self")?, groups(&pid.to_string())?);
    for folder in moves(&every_tree(), &own, &theirs)? {
        let procs = folder.join("cgroup.procs");
        std::fs::write(&procs, "0").map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", procs.display()))
        })?;
    }
    Ok(())
}

/// The folders of the groups of the second one, as far as the first one is not in them. Lines are those
/// of cgroups(7): a number, controllers, and the path of the group.
fn moves(trees: &[Tree], own: &str, theirs: &str) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for line in theirs
        .lines()
        .filter(|line| !own.lines().any(|own| own == *line))
    {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            return Err(io::Error::other(format!(
                "unexpected line of a group: {line}"
            )));
        };
        let mut of_line = trees.iter().filter(|tree| match controllers {
            "" => tree.unified,
            some => !tree.unified && some.split(',').all(|one| tree.is_of(one)),
        });
        let Some(first) = of_line.next() else {
            // Mounted nowhere: nobody is held to anything there.
            continue;
        };
        let folder = std::iter::once(first)
            .chain(of_line)
            .find_map(|tree| tree.folder_of(Path::new(group)));
        let outside =
            || io::Error::other(format!("the group {group} is in none of the trees here"));
        folders.push(folder.ok_or_else(outside)?);
    }
    Ok(folders)
}

/// Makes a group inside that of a task, and moves the calling process into it, in the trees that show
/// where processes are. It has no limits but those of the task.
pub(crate) fn join_inside(group: &Path) {
    let Some(group) = below_root(group) else {
        return;
    };
    for tree in trees().iter().filter(|tree| tree.shows_all()) {
        let dir = tree.path.join(group);
        let made = std::fs::create_dir(&dir);
        if made
            .and_then(|()| std::fs::write(dir.join("cgroup.procs"), "0"))
            .is_err()
        {
            // Where the task has no group, nothing is in one.
        }
    }
}

/// Removes the group of a task that has ended, and those above it that are empty then, also in the trees
/// where only a container's runtime program makes them.
pub fn remove(group: &Path) {
    let Some(group) = below_root(group) else {
        return;
    };
    for tree in every_tree() {
        remove_below(&tree.path.join(group));
        remove_from(&tree.path, group);
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
pub(crate) fn remove_below(folder: &Path) {
    for inner in below(folder).iter().skip(1).rev() {
        if std::fs::remove_dir(inner).is_err() {
            // Somebody is in it: it stays, and the group with it.
        }
    }
}

/// A group's folder and those of the groups inside, each before what is in it. Other files there are the
/// kernel's own, which go with the group.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut looked = 0;
    while looked < found.len() && found.len() < MOST_GROUPS {
        let inside = std::fs::read_dir(&found[looked])
            .into_iter()
            .flatten()
            .flatten();
        let folders = inside.filter(|inner| inner.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|inner| inner.path()));
        looked += 1;
    }
    found
}

/// A group in every tree that is used.
pub(crate) fn folders(group: &Path) -> Vec<PathBuf> {
    let Some(group) = below_root(group) else {
        return Vec::new();
    };
    let trees = trees().into_iter();
    trees.map(|tree| tree.path.join(group)).collect()
}

/// A group as a path below the mount point of a tree. `None` for the root of the tree, which is nobody's,
/// and for what leads out of it.
fn below_root(group: &Path) -> Option<&Path> {
    let group = group.strip_prefix("/").unwrap_or(group);
    let plain = |part| matches!(part, Component::Normal(_));
    (group.components().next().is_some() && group.components().all(plain)).then_some(group)
}

/// A limit, as files of both versions say it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    flag: &'static str,
    /// Name and content, in the order in which they are written.
    v1: Vec<(&'static str, String)>,
    v2: Vec<(&'static str, String)>,
    /// A file of either version that not every machine has.
    perhaps: Option<(&'static str, &'static str, [String; 2])>,
}

impl Setting {
    fn lost(&self) -> String {
        format!(
            "{} does not hold on this machine: no tree of control groups with the controller {} can \
             be written to (mount one at /sys/fs/cgroup, with that controller enabled)",
            self.flag, self.controller
        )
    }
}

fn settings(limits: &Limits) -> Vec<Setting> {
    let cpu = (limits.nano_cpus > 0).then(|| {
        // 100 ms, as docker has it. The kernel takes no quota below 1 ms.
        let period: u64 = if limits.nano_cpus < 10_000_000 {
            1_000_000
        } else {
            100_000
        };
        let quota = u128::from(limits.nano_cpus) * u128::from(period) / 1_000_000_000;
        Setting {
            controller: "cpu",
            flag: "--limit-cpu",
            v1: vec![
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            v2: vec![("cpu.max", format!("{quota} {period}"))],
            perhaps: None,
        }
    });
    let memory = limits.memory_bytes;
    let memory = (memory > 0).then(|| Setting {
        controller: "memory",
        flag: "--limit-memory",
        v1: vec![("memory.limit_in_bytes", memory.to_string())],
        v2: vec![("memory.max", memory.to_string())],
        // As much again of swap, as docker has it; version 1 counts both together.
        perhaps: Some((
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
            [memory.saturating_mul(2).to_string(), memory.to_string()],
        )),
    });
    let pids = (limits.pids > 0).then(|| {
        let most = limits.pids.saturating_add(OWN_PROCESSES).to_string();
        Setting {
            controller: "pids",
            flag: "--limit-pids",
            v1: vec![("pids.max", most.clone())],
            v2: vec![("pids.max", most)],
            perhaps: None,
        }
    });
    [cpu, memory, pids].into_iter().flatten().collect()
}

/// A tree of control groups.
#[derive(Debug, PartialEq, Eq)]
struct Tree {
    path: PathBuf,
    /// The group that is seen at that place: not always the first one of all.
    root: PathBuf,
    unified: bool,
    /// What it can limit, where it is of version 1; one of version 2 says it in a file.
    controllers: Vec<String>,
}

impl Tree {
    /// Where a group is seen that is named from the first one on; `None` where it is not seen here.
    fn folder_of(&self, group: &Path) -> Option<PathBuf> {
        let inside = group.strip_prefix(&self.root).ok()?;
        let leads_out = inside.components().any(|part| part == Component::ParentDir);
        (!leads_out).then(|| self.path.join(inside))
    }

    fn is_of(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// True where every task has its group. Other trees of version 1 are left alone where they have
    /// nothing to limit.
    fn shows_all(&self) -> bool {
        self.unified || self.is_of("pids")
    }

    /// Puts limits on a group that is there; those that hold are returned, by their controllers.
    fn limit(&self, group: &Path, settings: &[Setting]) -> Vec<&'static str> {
        let dir = self.path.join(group);
        let held = settings.iter().filter(|setting| {
            if !self.unified && !self.is_of(setting.controller) {
                return false;
            }
            if self.unified && self.enable(group, setting.controller).is_err() {
                return false;
            }
            let files = if self.unified {
                &setting.v2
            } else {
                &setting.v1
            };
            let put = |(name, text): &(&str, String)| std::fs::write(dir.join(name), text).is_ok();
            let held = files.iter().all(put);
            if let Some((v1, v2, [with, alone])) = &setting.perhaps {
                let (name, text) = if self.unified {
                    (v2, alone)
                } else {
                    (v1, with)
                };
                // A kernel that does not count swap has no such file.
                drop(std::fs::write(dir.join(name), text));
            }
            held
        });
        held.map(|setting| setting.controller).collect()
    }

    /// cgroups(7), version 2: a group has the controllers that each one above it hands down.
    fn enable(&self, group: &Path, controller: &str) -> io::Result<()> {
        let mut above: Vec<&Path> = group.ancestors().skip(1).collect();
        above.reverse();
        for part in above {
            let dir = self.path.join(part);
            let down = std::fs::read_to_string(dir.join("cgroup.subtree_control"))?;
            if !down.split_whitespace().any(|have| have == controller) {
                std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        Ok(())
    }
}

/// The unified tree, and those of version 1 that limit something or count processes.
fn trees() -> Vec<Tree> {
    used(every_tree())
}

/// Those that weft sets something in, with what that is.
fn used(mut trees: Vec<Tree>) -> Vec<Tree> {
    for tree in &mut trees {
        let known = |controller: &String| CONTROLLERS.contains(&controller.as_str());
        tree.controllers.retain(known);
    }
    trees.retain(|tree| tree.unified || !tree.controllers.is_empty());
    trees
}

/// Every tree that is mounted.
fn every_tree() -> Vec<Tree> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    trees_in(&mounts)
}

/// proc_pid_mountinfo(5): the fields after ` - ` are the kind, the source and its options.
fn trees_in(mounts: &str) -> Vec<Tree> {
    let tree = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (unified, controllers) = match kind.next()? {
            "cgroup2" => (true, Vec::new()),
            "cgroup" => {
                let options = kind.nth(1)?.split(',');
                (false, options.map(str::to_owned).collect())
            }
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        let (root, path) = (mount.next()?, mount.next()?);
        // Octal escapes stand for blanks: not a place where anybody mounts this.
        (!path.contains('\\')).then(|| Tree {
            path: PathBuf::from(path),
            root: PathBuf::from(root),
            unified,
            controllers,
        })
    };
    mounts.lines().filter_map(tree).collect()
}

#[cfg(test)]
mod tests;
