//! Limits of tasks, where the kernel has them.

use std::path::PathBuf;

use weft_netns_tests::{Cluster, eventually};

use super::{becomes, create, remove, text};

/// Of `--limit-pids 20`, with the shim and process 1 beside the task's own.
const PROCESSES: &str = "22";

pub(super) fn hold(cluster: &Cluster) {
    let flags = ["--constraint", "node.hostname==node3"];
    let limits = ["--limit-memory", "64M", "--limit-pids", "20"];
    let flags = [&flags[..], &limits, &["--limit-cpu", "0.2"]].concat();
    create(cluster, "small", &flags, &["sleep", "1000"]);
    let row = becomes(cluster, "small", "Running");
    let groups = groups("node3", text(&row, "ID"));
    // Version 1, version 2, or both: where a tree can limit it, it does.
    let memory = ["memory.limit_in_bytes", "memory.max"];
    let memory = limits_in(&groups, &memory);
    let processes = limits_in(&groups, &["pids.max"]);
    // Microseconds of a tenth of a second; version 2 names both.
    let mut processor = limits_in(&groups, &["cpu.cfs_quota_us", "cpu.max"]);
    processor.retain(|limit| limit != "-1" && !limit.starts_with("max"));
    for limit in &mut processor {
        limit.truncate(limit.find(' ').unwrap_or(limit.len()));
    }
    for (flag, found, wanted) in [
        ("--limit-memory", &memory, "67108864"),
        ("--limit-pids", &processes, PROCESSES),
        ("--limit-cpu", &processor, "20000"),
    ] {
        let log = cluster.lab().log("node3").expect("a node");
        let log = std::fs::read_to_string(log).unwrap_or_default();
        if log.contains(&format!("{flag} does not hold on this machine")) {
            assert_eq!(found, &[""; 0], "{flag}");
        } else {
            assert_eq!(found, &[wanted], "{flag}: {groups:?}");
        }
    }
    if !processor.is_empty() {
        let busy = [
            "exec",
            "small.1",
            "timeout",
            "0.5",
            "sh",
            "-c",
            "while :; do :; done",
        ];
        let said = cluster.weft("node1", &busy);
        assert_eq!(said.code, 124, "{said:?}");
        let files = groups.iter().map(|group| group.join("cpu.stat"));
        let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
        let held: Vec<String> = texts
            .filter(|text| text.contains("nr_throttled") && !text.contains("nr_throttled 0\n"))
            .collect();
        assert!(!held.is_empty(), "a busy loop was not held up: {groups:?}");
    }
    if !processes.is_empty() {
        let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 1 & done; echo all";
        let said = cluster.weft("node1", &["exec", "small.1", "sh", "-c", script]);
        assert!(said.code != 0 && !said.out.contains("all"), "{said:?}");
        assert!(said.err.contains("ork"), "{said:?}");
    }
    remove(cluster, "small");
    eventually("nothing is left of its groups", || {
        let left: Vec<&PathBuf> = groups.iter().filter(|group| group.exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

/// The folders of a task in all trees of control groups that this machine has.
fn groups(node: &str, task: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let trees = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let trees = trees.filter_map(|line| line.split(' ').nth(4));
    let groups = trees.map(|tree| PathBuf::from(tree).join("weft").join(node).join(task));
    groups.filter(|group| group.exists()).collect()
}

/// What files of these names say, but for those that say that there is no limit.
fn limits_in(groups: &[PathBuf], names: &[&str]) -> Vec<String> {
    let files = groups
        .iter()
        .flat_map(|group| names.iter().map(|name| group.join(name)));
    let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
    let limits = texts.map(|text| text.trim().to_owned());
    // Version 1 has a number of pages close to the largest one for no limit of memory.
    let none = |limit: &String| limit == "max" || limit.len() > 18;
    let mut limits: Vec<String> = limits.filter(|limit| !none(limit)).collect();
    // A tree may be mounted more than once.
    limits.dedup();
    limits
}
