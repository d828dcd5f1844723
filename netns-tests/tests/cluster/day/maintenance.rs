//! The manager is drained, gets no new tasks, and gets all of them once it is active again.

use weft_netns_tests::{Cluster, eventually};

use super::lines::{Bars, converged};
use super::{create, rows, runs, spread};
use crate::swarm;

fn be(cluster: &Cluster, availability: &str, shown: &str) {
    let words = ["node", "update", "--availability", availability, "node1"];
    assert_eq!(cluster.typed("node1", &words), ["node1"]);
    let row = "{{.Hostname}} {{.Availability}} {{.ManagerStatus}}";
    let lines = cluster.typed("node1", &["node", "ls", "--format", row]);
    let first = format!("node1 {shown} Leader");
    assert_eq!(lines, [first.as_str(), "node2 Active", "node3 Active"]);
}

fn scale(cluster: &Cluster, count: usize, id: &str) {
    let target = format!("web={count}");
    let lines = cluster.typed("node1", &["service", "scale", &target]);
    let head = format!("web scaled to {count}");
    converged(&lines, &[head.as_str()], count, Bars::Full, id);
}

#[test]
fn tasks_leave_a_drained_manager_and_new_ones_come_when_it_is_active() {
    let cluster = swarm(3);
    // One on each node, so that one has to leave.
    let (id, lines) = create(&cluster, "--replicas=3");
    converged(&lines, &[], 3, Bars::Full, &id);
    let before = spread(&cluster, [1, 1, 1]);
    let leaves = before
        .iter()
        .find(|row| row.node == "node1")
        .expect("a task");

    be(&cluster, "drain", "Drain");
    eventually(
        "the task has moved, and its row is below the new one",
        || {
            let rows = rows(&cluster);
            let mut of_slot = rows.iter().filter(|row| row.name == leaves.name);
            let moved = of_slot
                .next()
                .is_some_and(|row| runs(row) && row.node != "node1");
            let old = of_slot.next().is_some_and(|row| {
                row.indent == " \\_ "
                    && row.node == "node1"
                    && row.desired == "Shutdown"
                    && row.state == "Shutdown"
            });
            if moved && old { Ok(()) } else { Err(rows) }
        },
    );
    scale(&cluster, 10, &id);
    spread(&cluster, [0, 5, 5]);

    be(&cluster, "active", "Active");
    spread(&cluster, [0, 5, 5]);
    scale(&cluster, 15, &id);
    let rows = spread(&cluster, [5, 5, 5]);
    for slot in 11..=15 {
        let name = format!("web.{slot}");
        let row = rows.iter().find(|row| row.name == name).expect("a task");
        assert_eq!(row.node, "node1", "{rows:#?}");
    }
}
