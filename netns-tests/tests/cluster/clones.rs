//! Data directories that were copied: two machines with one identity.

use weft_netns_tests::{Cluster, Settings, eventually};

use crate::PROGRAM;

#[test]
fn a_copied_data_directory_is_refused_by_name_and_the_first_node_goes_on() {
    let settings = Settings {
        nodes: 3,
        ..Settings::default()
    };
    let cluster = Cluster::bare(PROGRAM, &settings);
    cluster.init("node1");
    cluster.join("node2", &cluster.token()).done();
    cluster.wait_ready(2);
    // node3 is started on a copy of the disk of node2.
    let dir = cluster.lab().dir();
    let copy = format!(
        "cp -a {0}/node2/data/certs {0}/node2/data/swarm.json {0}/node2/data/format {0}/node3/data/",
        dir.display()
    );
    cluster.run("node3", None, &["sh", "-c", &copy]).done();
    cluster.lab().kill_agent("node3").expect("an agent to kill");

    let row = eventually("the clone is shown", || {
        let rows = cluster.rows(&["node", "ls"]);
        let row = rows.iter().find(|row| row["Hostname"] == "node2").cloned();
        match row {
            Some(row) if row["Status"] == "Ready (cloned)" => Ok(row),
            other => Err(other),
        }
    });
    let message = row["Message"].as_str().expect("a text");
    assert!(message.contains("10.77.0.2 has the session"), "{row}");
    assert!(message.contains("10.77.0.3"), "{row}");
    let node = cluster.inspect("node", "node2");
    assert_eq!(node["Cloned"]["Second"], "10.77.0.3", "{node}");
    let says = |node: &str, wanted: &str| {
        eventually(&format!("{node} says {wanted}"), || {
            let said = cluster.weft(node, &["info"]);
            if said.out.contains(wanted) {
                Ok(())
            } else {
                Err(said)
            }
        });
    };
    says("node1", "node node2 is there twice");
    says("node3", "has a session from 10.77.0.2 already");
    says("node3", "ErrorAt");
    let doctor = cluster.weft("node3", &["doctor"]).out;
    assert!(doctor.contains("do what it says"), "{doctor}");

    let words = ["info", "--format", "{{.Swarm.Connected}}"];
    assert_eq!(cluster.weft("node2", &words).ok(), "true\n");
    assert_eq!(cluster.weft("node3", &words).ok(), "false\n");
}
