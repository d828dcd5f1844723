//! Ports with `mode=host`, and what `weft mesh ls` and `weft why` say of ports.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Stdio;

use serde_json::Value;
use weft_netns_tests::{Cluster, eventually, get};

use crate::published::rows_at;
use crate::{PROGRAM, swarm};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

fn create(cluster: &Cluster, name: &str, options: &[&str]) {
    let words = [
        &["service", "create", "--name", name],
        options,
        &["host", PROGRAM, "demo-http", "--port", "80"],
    ]
    .concat();
    cluster.weft("node1", &words).done();
}

fn row(cluster: &Cluster, node: &str, port: u16) -> Option<Value> {
    let rows = rows_at(cluster, node, &["mesh", "ls"]);
    rows.into_iter().find(|r| r["Port"] == port)
}

#[test]
fn a_port_of_one_node_goes_to_that_nodes_own_task() {
    let cluster = swarm(3);
    let publish = "published=8000,target=80,mode=host";
    create(&cluster, "web", &["--replicas", "2", "-p", publish]);
    let tasks = cluster.tasks("web");
    let with: BTreeSet<&str> = tasks.iter().map(|t| t.node.as_str()).collect();
    assert_eq!(with.len(), 2, "{tasks:?}");
    let client = cluster.outside();
    let own_task_answers = |task: &weft_netns_tests::Task| {
        let to = cluster.at(&task.node, 8000);
        let wanted = format!("Hello from {} on {}\n", task.name, task.node);
        eventually("the node's own task answers", || match get(&client, to) {
            Ok(answer) if answer == wanted => Ok(()),
            other => Err(other),
        });
        for _ in 0..5 {
            assert_eq!(get(&client, to).expect("an answer"), wanted);
        }
    };
    for task in &tasks {
        own_task_answers(task);
        let row = row(&cluster, &task.node, 8000).expect("a row");
        assert_eq!(row["Mode"], "host");
        assert_eq!(row["Replicas"], "1/1");
    }
    let without = NODES.into_iter().find(|n| !with.contains(n)).expect("one");
    let refused = get(&client, cluster.at(without, 8000)).expect_err("no task is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(row(&cluster, without, 8000).is_none());
    let said = cluster.weft(without, &["why", "8000"]).ok();
    let says = "service web publishes port 8000 with mode=host, and has no task on this node";
    assert!(said.contains(says), "{said}");

    // More tasks than nodes: one of them says why it does not run.
    let words = ["service", "scale", "-d", "web=4"];
    cluster.weft("node1", &words).done();
    eventually("the third node opens the port", || {
        get(&client, cluster.at(without, 8000))
    });
    eventually("the fourth task says why it waits", || {
        let words = ["service", "ps", "--no-trunc", "web"];
        let rows = rows_at(&cluster, "node1", &words);
        let waiting = rows.iter().find(|r| r["State"] == "Pending");
        match waiting.map(|r| r["Error"].to_string()) {
            Some(error) if error.contains("host-mode port already in use on 3 nodes") => Ok(()),
            _ => Err(rows),
        }
    });
    let shown = cluster.rows(&["service", "ps", "web"]);
    assert_eq!(shown[0]["Ports"], "*:8000->80/tcp", "{shown:?}");

    // The port goes with its task.
    cluster.weft("node1", &["service", "scale", "web=1"]).done();
    let left = cluster.tasks("web");
    for node in NODES.into_iter().filter(|n| *n != left[0].node) {
        eventually("the port is closed", || {
            match get(&client, cluster.at(node, 8000)) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
                other => Err(other),
            }
        });
    }
    own_task_answers(&left[0]);
    // An ingress port of the same number would meet it.
    let words = [
        "service", "create", "--name", "other", "-p", "8000:80", "host", "sleep", "1",
    ];
    cluster.weft("node1", &words).refused(&[
        "port '8000' is already in use by service 'web'",
        "as a host-published port",
    ]);
    let metric = "weft_mesh_accepted_connections_total{service=\"web\",published=\"8000\",protocol=\"tcp\",host_ip=\"\"}";
    assert!(cluster.metric(&left[0].node, metric) >= 6);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn ports_and_names_say_who_answers_and_why_not() {
    let cluster = swarm(2);
    let mut strangers: Vec<_> = ["8000", "9999"]
        .into_iter()
        .map(|port| {
            let words = [PROGRAM, "demo-http", "--port", port, "--name", "stranger"];
            let command = cluster.lab().command("node2", &words);
            let mut command = command.expect("node2 is up");
            command.stdin(Stdio::null()).spawn().expect("a process")
        })
        .collect();
    let client = cluster.outside();
    for port in [8000, 9999] {
        eventually("the stranger answers", || {
            get(&client, cluster.at("node2", port))
        });
    }
    cluster.network("front");
    create(
        &cluster,
        "web",
        &["--replicas", "2", "--network", "front", "-p", "8000:80"],
    );
    let tasks = cluster.tasks("web");
    eventually("the port answers", || {
        get(&client, cluster.at("node1", 8000))
    });
    for _ in 0..9 {
        get(&client, cluster.at("node1", 8000)).expect("an answer");
    }
    let here = eventually("the figures are there", || {
        match row(&cluster, "node1", 8000) {
            Some(row) if row["Accepted"].as_u64() >= Some(10) && row["Active"] == 0 => Ok(row),
            other => Err(other),
        }
    });
    assert_eq!(here["State"], "listening (frame)");
    assert_eq!(here["Replicas"], "2/2");
    assert_eq!(here["Service"], "web");
    assert!(here["BytesIn"].as_u64() > Some(0) && here["BytesOut"].as_u64() > Some(0));
    let busy = eventually("the holder is named", || {
        match row(&cluster, "node2", 8000) {
            Some(row) if row["HeldBy"].as_str().is_some_and(|h| h.contains("(pid ")) => Ok(row),
            other => Err(other),
        }
    });
    let state = busy["State"].as_str().expect("a text");
    assert!(state.starts_with("busy: weft-under-test (pid "), "{busy}");
    let said = cluster.weft("node1", &["service", "ls"]);
    let warning =
        "weft: warning: service web: port 8000/tcp on node node2 is held by weft-under-test";
    assert!(said.err.contains(warning), "{said:#?}");
    let quiet = cluster.weft("node1", &["mesh", "ls", "-q"]).ok();
    assert_eq!(quiet, "8000/tcp\n");

    let said = cluster.weft("node1", &["why", "8000"]).ok();
    assert!(
        said.contains(
            "port 8000/tcp of service web is accepted by node1 and goes to one of 2 replicas"
        ),
        "{said}"
    );
    let mut names: Vec<String> = tasks.iter().map(|t| t.name.clone()).collect();
    names.sort();
    let rows = rows_at(&cluster, "node1", &["why", "8000"]);
    let found: Vec<&str> = rows.iter().filter_map(|r| r["Name"].as_str()).collect();
    assert_eq!(found, names, "{rows:?}");
    let accepted: u64 = rows.iter().filter_map(|r| r["Accepted"].as_u64()).sum();
    assert!(accepted >= 10, "{rows:?}");
    assert!(
        rows.iter()
            .all(|r| r["Takes"] == "yes" && r["Network"] == "ingress")
    );
    let said = cluster.weft("node2", &["why", "8000/tcp"]).ok();
    assert!(
        said.contains("is not accepted by node2: weft-under-test (pid "),
        "{said}"
    );

    let said = cluster.weft("node2", &["why", "9999"]).ok();
    assert!(said.contains("no service publishes port 9999"), "{said}");
    assert!(said.contains("holds 9999/tcp on this node"), "{said}");
    let said = cluster.weft("node1", &["why", "9998/udp"]).ok();
    assert!(said.contains("no program of this node holds it"), "{said}");

    let vip = cluster.vip("web", "front").to_string();
    let said = cluster.weft("node2", &["why", "web"]).ok();
    assert!(
        said.contains(&format!("web is {vip} on network front")),
        "{said}"
    );
    let said = cluster.weft("node2", &["why", &vip]).ok();
    let whose = format!("{vip} is the address of service web on network front");
    assert!(said.starts_with(&whose), "{said}");
    let said = cluster
        .weft("node2", &["why", &tasks[0].ip.to_string()])
        .ok();
    assert!(
        said.contains(&format!("is endpoint {}", tasks[0].name)),
        "{said}"
    );
    cluster
        .weft("node2", &["why", "10.0.1.250"])
        .refused(&["nobody has the address 10.0.1.250 of network front"]);
    let said = cluster.weft("node1", &["why", &tasks[0].name]).ok();
    assert!(said.contains("is one endpoint, "), "{said}");
    cluster
        .weft("node1", &["why", "nope"])
        .refused(&["no service or endpoint is called nope", "weft service ls"]);

    // A task that cannot run has a row with its reason.
    let words = [
        "-d",
        "--replicas",
        "3",
        "-p",
        "published=8200,target=80,mode=host",
    ];
    create(&cluster, "tight", &words);
    eventually("the waiting task says why", || {
        // Known to the node a moment after it was made.
        let said = cluster.weft("node1", &["why", "tight", "--format", "{{.Takes}}"]);
        let why = "host-mode port already in use";
        let told = said.out.lines().filter(|l| l.contains(why)).count();
        if told == 1 { Ok(()) } else { Err(said) }
    });
    let name = &names[0];
    let node = &tasks
        .iter()
        .find(|t| t.name == *name)
        .expect("it is there")
        .node;
    let healthy = format!(
        "weft_replica_healthy{{service=\"web\",replica=\"{name}\",node=\"{node}\",network=\"ingress\"}}"
    );
    assert_eq!(cluster.metric("node1", &healthy), 1);
    let open =
        "weft_mesh_port_open{service=\"web\",published=\"8000\",protocol=\"tcp\",host_ip=\"\"}";
    assert_eq!(
        (cluster.metric("node1", open), cluster.metric("node2", open)),
        (1, 0)
    );
    for (stranger, port) in strangers.iter_mut().zip(["8000", "9999"]) {
        let pattern = format!("demo-http --port {port}");
        let pid = cluster.run("node2", None, &["pgrep", "-f", &pattern]).ok();
        cluster.run("node2", None, &["kill", pid.trim()]).done();
        stranger.wait().expect("it was started here");
    }
    eventually("the port heals", || match row(&cluster, "node2", 8000) {
        Some(row) if row["State"] == "listening (frame)" => Ok(()),
        other => Err(other),
    });
}
