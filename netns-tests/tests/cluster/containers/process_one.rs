//! Process 1 of a container that asks for one (`--init`), and what of weft's own is beside it.

use weft_netns_tests::{Cluster, eventually};

use super::{becomes, create, remove, rows, text};

/// Bytes of memory beside a container, of what it shares its part.
const MOST_BYTES: u64 = 1_000_000;

pub(super) fn is_weft_s_own_where_it_is_asked_for(cluster: &Cluster) {
    // Orphans come to process 1; the program itself ends by its own choice.
    let script = "trap 'exit 9' TERM; (sleep 0.2 &); while :; do sleep 0.1; done";
    let flags = ["--init", "--user", "65534", "--restart-condition", "none"];
    create(cluster, "first", &flags, "box:1", &["sh", "-c", script]);
    becomes(cluster, "first", "Running");
    let exec = |words: &[&str]| {
        let words = [&["exec", "first.1"], words].concat();
        cluster.weft("node1", &words).ok()
    };
    assert_eq!(exec(&["cat", "/proc/1/comm"]), "docker-init\n");
    // Of the program, of that user, and with what it was asked to be.
    let child = "read program rest < /proc/1/task/1/children; cat /proc/$program/cmdline";
    let program = exec(&["sh", "-c", child]);
    assert!(program.starts_with("sh\0-c\0trap"), "{program:?}");
    assert_eq!(exec(&["id", "-u"]), "65534\n");
    eventually("the orphan has ended, and nothing is left of it", || {
        let states = exec(&["sh", "-c", "cat /proc/[0-9]*/stat"]);
        let is_left = |line: &&str| line.contains(") Z ");
        match states.lines().find(is_left) {
            Some(line) => Err(line.to_owned()),
            None => Ok(()),
        }
    });
    // Its file is the node's, and stays as it is for all that root of the container could do.
    let script = "echo x 2>/dev/null > /sbin/docker-init; echo $?";
    let words = ["exec", "-u", "0", "first.1", "sh", "-c", script];
    let said = cluster.weft("node1", &words).ok();
    assert_ne!(said, "0\n", "it was written");
    it_is_small(cluster, text(&rows(cluster, "first")[0], "Node"));

    // What process 1 is asked, the program is: its end is that of the container.
    let words = ["exec", "-u", "0", "first.1", "kill", "-TERM", "1"];
    cluster.weft("node1", &words).done();
    let row = becomes(cluster, "first", "Failed");
    let error = text(&row, "Error");
    assert!(error.contains("task: non-zero exit (9)"), "{row}");
    remove(cluster, "first");
}

/// The shim is one small program without libraries, not the agent once more.
fn it_is_small(cluster: &Cluster, node: &str) {
    let script = "for p in $(pgrep -f ^weft-shim); do cat /proc/$p/smaps_rollup; done";
    let said = cluster.run(node, None, &["sh", "-c", script]).ok();
    let parts = said.lines().filter_map(|line| {
        let size = line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?;
        size.trim().parse::<u64>().ok()
    });
    let sizes: Vec<u64> = parts.map(|size| size * 1024).collect();
    assert!(!sizes.is_empty(), "no shim on {node}");
    let each = sizes.iter().sum::<u64>() / u64::try_from(sizes.len()).expect("few");
    assert!(
        each < MOST_BYTES,
        "{each} bytes beside a container: {sizes:?}"
    );
}
