//! One task on each node, and a node that loses its power.

use weft_netns_tests::eventually;

use super::lines::{cells, converged_on, is_running};
use super::{Row, create, rows, runs};
use crate::swarm;

#[test]
#[ignore = "second tier: it waits until a node is given up, and until it is back"]
fn a_node_without_power_keeps_its_row_and_has_a_new_task_when_it_returns() {
    let mut cluster = swarm(3);
    let (id, lines) = create(&cluster, "--mode=global");
    let nodes = cluster.rows(&["node", "ls"]);
    let text = |at: usize, field: &str| nodes[at][field].as_str().expect("a text").to_owned();
    let ids: Vec<String> = (0..nodes.len()).map(|at| text(at, "ID")).collect();
    converged_on(&lines, &ids, &id);
    let lines = cluster.typed("node1", &["service", "ls"]);
    let row = [&id[..12], "web", "global", "3/3", "host", "*:8000->80/tcp"];
    assert_eq!(cells(&lines[1]), row);
    let lines = cluster.typed("node1", &["service", "ps", "web"]);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (at, id) in ids.iter().enumerate() {
        let name = format!("web.{id}");
        let line = lines.iter().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{name} has no row: {lines:#?}"));
        let node = text(at, "Hostname");
        is_running(line, &name, Some(node.as_str()));
    }

    let there = |rows: &[Row]| -> Vec<(String, String, String)> {
        let there = rows.iter().filter(|row| row.node == "node3");
        there
            .map(|row| (row.indent.clone(), row.desired.clone(), row.state.clone()))
            .collect()
    };
    let state = |indent: &str, desired: &str, state: &str| {
        (indent.to_owned(), desired.to_owned(), state.to_owned())
    };
    cluster.lab_mut().kill_node("node3").expect("it is up");
    eventually("its task is shown as it was last seen", || {
        let rows = rows(&cluster);
        let others = rows.iter().filter(|row| runs(row)).count();
        if there(&rows) == [state("", "Shutdown", "Running")] && others == 2 {
            Ok(())
        } else {
            Err(rows)
        }
    });
    cluster.lab_mut().start_node("node3").expect("it is down");
    eventually("a new task runs above the one that failed", || {
        let rows = rows(&cluster);
        let wanted = [
            state("", "Running", "Running"),
            state(" \\_ ", "Shutdown", "Failed"),
        ];
        if there(&rows) == wanted {
            Ok(())
        } else {
            Err(rows)
        }
    });
    // Wide enough for the error: a narrower table breaks names.
    let lines = cluster.typed_on("node1", &["service", "ps", "web"], (200, 50));
    let old = lines.iter().find(|line| line.contains(" \\_ web."));
    assert!(old.is_some(), "{lines:#?}");
    let old = cells(old.expect("the one that failed"));
    assert_eq!(old[3..5], ["node3", "Shutdown"], "{lines:#?}");
    assert!(
        old[5].starts_with("Failed ") && old[5].ends_with(" ago"),
        "{old:?}"
    );
    assert_eq!(old[6], "\"task: non-zero exit (255)\"");
}
