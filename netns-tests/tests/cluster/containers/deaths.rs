//! Who dies with whom: a container with its shim and its node, and not with the agent.

use std::process::Command;

use weft_netns_tests::{Cluster, eventually, get};

use super::{are, becomes, create, processes, remove, rows, text};

/// Process 1 of containers of these services, as `ps` shows it.
const FOREVER: &str = "/bin/sh /bin/forever";
pub(super) const NINE: &str = "/bin/sh /bin/nine";

/// The flags that place a service on a node.
fn on(node: &str) -> [String; 2] {
    ["--constraint".to_owned(), format!("node.hostname=={node}")]
}

/// Starts one container on a node, which becomes the only process of its kind there, and returns it.
pub(super) fn one(cluster: &Cluster, name: &str, node: &str, program: &str, command: &str) -> u32 {
    let on = on(node);
    let flags = [on[0].as_str(), on[1].as_str()];
    create(cluster, name, &flags, "box:1", &[program]);
    becomes(cluster, name, "Running");
    are(cluster, node, command, 1)[0]
}

/// The next agent finds what runs; and the exit code of what ended meanwhile.
pub(super) fn of_an_agent_ends_no_container(cluster: &Cluster) {
    let forever = one(cluster, "stays", "node2", "/bin/forever", FOREVER);
    let nine = one(cluster, "goes", "node2", "/bin/nine", NINE);
    let stays = becomes(cluster, "stays", "Running");
    let goes = becomes(cluster, "goes", "Running");
    let served = cluster.at("node2", 8000);
    let before = cluster.lab().kill_agent("node2").expect("it ran");
    // Nobody but its shim is there to see it.
    let nine = nine.to_string();
    cluster.run("node2", None, &["kill", "-TERM", &nine]).done();
    eventually("the next agent runs", || {
        match cluster.lab().agent_pid("node2").expect("a node") {
            Some(pid) if pid != before => Ok(()),
            other => Err(other),
        }
    });
    let ended = eventually("the exit code is told", || {
        let rows = rows(cluster, "goes");
        let old = rows.iter().find(|row| row["ID"] == goes["ID"]);
        let old = old.filter(|row| row["State"] == "Failed");
        old.cloned().ok_or(rows.clone())
    });
    assert!(
        text(&ended, "Error").contains("task: non-zero exit (9)"),
        "{ended}"
    );
    assert_eq!(processes(cluster, "node2", FOREVER), [forever]);
    assert_eq!(becomes(cluster, "stays", "Running")["ID"], stays["ID"]);
    // It is still entered, its output is still read, and those that serve go on.
    let said = eventually("it is adopted", || {
        let said = cluster.weft("node1", &["exec", "stays.1", "echo", "here"]);
        if said.code == 0 { Ok(said) } else { Err(said) }
    });
    assert_eq!(said.out, "here\n");
    eventually("its containers serve", || get(&cluster.outside(), served));
    remove(cluster, "goes");
    remove(cluster, "stays");
    are(cluster, "node2", FOREVER, 0);
    are(cluster, "node2", NINE, 0);
}

pub(super) fn of_a_shim_ends_its_container_alone(cluster: &Cluster) {
    let beside = one(cluster, "beside", "node3", "/bin/forever", FOREVER);
    let inside = one(cluster, "orphan", "node3", "/bin/nine", NINE);
    let first = becomes(cluster, "orphan", "Running");
    let status = format!("/proc/{inside}/status");
    let script = ["sed", "-n", "s/^PPid:[^0-9]*//p", &status];
    let shim = cluster.run("node3", None, &script).ok();
    let shim = shim.trim();
    assert!(shim.parse::<u32>().is_ok_and(|pid| pid > 1), "{shim:?}");
    cluster.run("node3", None, &["kill", "-KILL", shim]).done();

    let failed = eventually("it has failed", || {
        let rows = rows(cluster, "orphan");
        let old = rows.iter().find(|row| row["ID"] == first["ID"]);
        let old = old.filter(|row| row["State"] == "Failed");
        old.cloned().ok_or(rows.clone())
    });
    assert_eq!(text(&failed, "Node"), "node3");
    let next = eventually("another one runs", || {
        let found = processes(cluster, "node3", NINE);
        match found.as_slice() {
            [next] if *next != inside => Ok(*next),
            _ => Err(found),
        }
    });
    assert_ne!(next, inside);
    assert_eq!(processes(cluster, "node3", FOREVER), [beside]);
    remove(cluster, "orphan");
    remove(cluster, "beside");
    are(cluster, "node3", NINE, 0);
}

/// A node's containers are in its own namespace of processes.
pub(super) fn of_a_node_ends_all_of_its_containers(cluster: &mut Cluster) {
    // Told from those of other labs on this machine by the word in its command.
    let mark = format!("mark-{}", std::process::id());
    let on = on("node3");
    let script = format!(": {mark}; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let flags = [on[0].as_str(), on[1].as_str()];
    create(cluster, "marked", &flags, "box:1", &["sh", "-c", &script]);
    becomes(cluster, "marked", "Running");
    let marked = || {
        let script = format!("^sh -c : {mark};");
        let said = Command::new("pgrep").args(["-f", &script]).output();
        let said = said.expect("pgrep").stdout;
        String::from_utf8_lossy(&said).lines().count()
    };
    assert_eq!(marked(), 1, "this machine sees it");
    cluster.lab_mut().kill_node("node3").expect("it was up");
    eventually("nothing of it is left", || match marked() {
        0 => Ok(()),
        left => Err(left),
    });
    // The others serve.
    for node in ["node1", "node2"] {
        let to = cluster.at(node, 8000);
        eventually("the others answer", || get(&cluster.outside(), to));
    }
}
