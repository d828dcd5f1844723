//! A node that cannot run containers.

use weft_netns_tests::{Cluster, Settings, eventually};

use super::{in_a_box, load, named, rows};
use crate::PROGRAM;

/// Programs of the node run all the same, and whoever wants a container is told what is missing.
#[test]
fn a_node_without_a_runtime_runs_host_tasks_and_says_what_is_missing() {
    let settings = Settings {
        nodes: 1,
        agent_args: vec!["--runtime".to_owned(), "/no/such/runtime".to_owned()],
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    load(&cluster, "node1", &in_a_box());
    let words = ["service", "create", "--name", "plain", "--update-monitor"];
    let words = [&words[..], &["0s", "host", "sleep", "1000"]].concat();
    cluster.weft("node1", &words).done();

    let image = named("box:1");
    let words = ["service", "create", "-d", "--name", "boxed", &image];
    cluster.weft("node1", &words).done();
    let row = eventually("its task says why it waits", || {
        let rows = rows(&cluster, "boxed");
        let told = |row: &&serde_json::Value| {
            let error = row["Error"].as_str().unwrap_or_default();
            error.contains("no container runtime on 1 node")
        };
        rows.iter().find(told).cloned().ok_or(rows.clone())
    });
    assert_eq!(row["State"], "Pending", "{row}");
    let said = cluster.weft("node1", &["service", "ls"]);
    assert!(said.err.contains("container runtime"), "{said:?}");
    // `doctor` may find other things too, and fail by them.
    let said = cluster.weft("node1", &["doctor"]);
    let found = format!("{}{}", said.out, said.err);
    assert!(found.contains("/no/such/runtime"), "{found}");
    let plain = rows(&cluster, "plain");
    assert!(
        plain.len() == 1 && plain[0]["State"] == "Running",
        "{plain:?}"
    );
}
