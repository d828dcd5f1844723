//! `weft service logs`: of all tasks, as they write, and of those that never ran.

use weft_netns_tests::{Cluster, eventually};

use super::{MANAGERS, NOT_A_MANAGER, WORKER, becomes, create, remove, rows, text};

pub(super) fn is_read_from_any_manager(cluster: &Cluster) {
    let go = cluster.dir().join("go");
    let script = format!(
        "echo one; echo two; echo oops >&2; while [ ! -e {} ]; do sleep 0.05; done; echo last",
        go.display()
    );
    let flags = ["--replicas", "2", "--restart-condition", "none"];
    create(cluster, "talk", &flags, &["sh", "-c", &script]);
    let expected = eventually("both tasks run", || {
        let rows = rows(cluster, "talk");
        let running = rows.iter().filter(|row| row["State"] == "Running");
        if running.count() < 2 {
            return Err(rows);
        }
        let lines = rows.iter().flat_map(|row| {
            let (slot, node) = (&row["Slot"], text(row, "Node"));
            ["one", "two"].map(|line| format!("talk.{slot}@{node}    | {line}"))
        });
        Ok(lines.collect::<Vec<String>>())
    });
    let words = ["service", "logs", "--no-task-ids", "talk"];
    for manager in MANAGERS {
        eventually("all that was written is read", || {
            let said = cluster.weft(manager, &words);
            let mut lines: Vec<&str> = said.out.lines().collect();
            lines.sort_unstable();
            if lines == expected && said.err.matches("| oops").count() == 2 {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
    // The last line of each task, wherever it was written.
    let words_of_one = ["service", "logs", "--raw", "-n", "1", "talk"];
    let last = cluster.weft("node1", &words_of_one);
    let counted = last.out.lines().count() + last.err.lines().count();
    assert_eq!(counted, 2, "{last:?}");
    cluster.weft(WORKER, &words).refused(&[NOT_A_MANAGER]);
    as_it_is_written(cluster, &go);
    remove(cluster, "talk");
    never_written(cluster);
}

/// A task is followed to its end, by way of the manager that does not lead.
fn as_it_is_written(cluster: &Cluster, go: &std::path::Path) {
    let task = rows(cluster, "talk").remove(0);
    let words = ["service", "logs", "-f", "--raw", text(&task, "ID")];
    let said = std::thread::scope(|scope| {
        let following = scope.spawn(|| cluster.weft("node2", &words));
        std::fs::write(go, "").expect("write");
        following.join().expect("it ends with the task")
    });
    assert_eq!(said.ok(), "one\ntwo\nlast\n");
}

fn never_written(cluster: &Cluster) {
    let flags = ["--restart-condition", "none"];
    create(cluster, "typo", &flags, &["/usr/bin/no-such-program"]);
    becomes(cluster, "typo", "Rejected");
    let said = cluster.weft("node2", &["service", "logs", "typo"]);
    assert_eq!((said.code, &*said.out), (0, ""), "{said:?}");
    for word in ["was rejected: ", "/usr/bin/no-such-program"] {
        assert!(said.err.contains(word), "{word} is missing: {said:?}");
    }
    remove(cluster, "typo");
}
