//! Tasks take connections while their checks pass, and are replaced when they do not.

use std::net::SocketAddr;

use serde_json::Value;
use weft_netns_tests::{Cluster, ask_from, eventually, get};

use crate::swarm;

/// Starts one task of the HTTP server, without waiting for it.
fn serve(cluster: &Cluster, name: &str, flags: &[&str], before: &str, port: &str) {
    let script = format!("{before}exec {} demo-http --port {port}", cluster.program());
    let mut words = vec!["service", "create", "-d", "--name", name];
    words.extend(["--network", "front", "--restart-delay", "0s"]);
    words.extend(flags);
    words.extend(["host", "/bin/sh", "-c", &script]);
    cluster.weft("node1", &words).done();
}

/// What `service ps` says of the tasks of a service, the newest first.
fn rows(cluster: &Cluster, name: &str) -> Vec<Value> {
    cluster.rows(&["service", "ps", "--no-trunc", name])
}

fn becomes(cluster: &Cluster, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || {
        let rows = rows(cluster, name);
        let first = rows.first().filter(|row| row["State"] == state);
        first.cloned().ok_or(rows)
    })
}

#[test]
fn a_task_serves_while_its_command_passes_and_is_replaced_when_it_fails() {
    let cluster = swarm(2);
    cluster.network("front");
    let good = cluster.dir().join("good");
    let check = format!("test -e {} || {{ echo not good; exit 1; }}", good.display());
    let flags = ["-p", "8000:80", "--health-cmd", &check];
    let pace = ["--health-interval", "200ms", "--health-timeout", "5s"];
    let patience = ["--health-retries", "2", "--health-start-period", "1h"];
    let faster = ["--health-start-interval", "100ms"];
    let flags = [&flags[..], &pace, &patience, &faster].concat();
    serve(&cluster, "web", &flags, "", "80");
    becomes(&cluster, "web", "Starting");
    let (outside, to) = (cluster.outside(), cluster.at("node2", 8000));
    let asker = cluster.lab().add_netns("node1", "asker");
    let asker = asker.expect("a namespace");
    let path = asker.display().to_string();
    let words = ["network", "connect", "--name", "asker", "front", &path];
    cluster.weft("node1", &words).done();
    let named = || {
        let words = [cluster.program(), "demo-dns", "tasks.web"];
        let said = cluster.run("node1", Some(&asker), &words);
        let is_found = said.code == 0 && !said.out.trim().is_empty();
        if is_found { Ok(said.out) } else { Err(said) }
    };
    // Its program answers by now, and nobody is sent there.
    let said = eventually("a failure is told", || {
        let task = rows(&cluster, "web").remove(0);
        let message = task["Message"].as_str().filter(|m| m.contains("not good"));
        message.map(str::to_owned).ok_or(task.clone())
    });
    assert_eq!(said, "starting: exit code 1: not good");
    assert!(get(&outside, to).is_err(), "it takes connections too early");
    let early = named();
    assert!(early.is_err(), "it has a name too early: {early:?}");
    assert_eq!(rows(&cluster, "web")[0]["State"], "Starting");

    std::fs::write(&good, "").expect("write");
    let first = becomes(&cluster, "web", "Running");
    answers(&cluster, to);
    eventually("it has a name", named);

    let from = cluster.addr("outside");
    let failed = std::thread::scope(|scope| {
        // Who waits for an answer when it gets sick has it before the task is stopped.
        let asked = scope.spawn(|| ask_from(&outside, from, to, "/slow/1500"));
        // The request is there by the time that the second check fails.
        std::fs::remove_file(&good).expect("remove");
        let failed = eventually("the first task is replaced", || {
            let rows = rows(&cluster, "web");
            let old = rows.iter().find(|row| row["ID"] == first["ID"]);
            let old = old.filter(|row| row["State"] == "Failed");
            old.cloned().ok_or(rows.clone())
        });
        let answer = asked.join().expect("a thread");
        answer.expect("an answer of a task that is replaced");
        failed
    });
    let error = failed["Error"].as_str().expect("a text");
    assert!(
        error.contains("dockerexec: unhealthy container"),
        "{failed}"
    );
    std::fs::write(&good, "").expect("write");
    let second = becomes(&cluster, "web", "Running");
    assert_ne!(second["ID"], first["ID"]);
    answers(&cluster, to);
    // An agent that starts again does not ask its tasks to begin anew.
    let node = second["Node"].as_str().expect("a name").to_owned();
    cluster.restart_agent(&node);
    eventually("its API answers", || {
        let said = cluster.weft(&node, &["info"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    answers(&cluster, to);
    assert_eq!(becomes(&cluster, "web", "Running")["ID"], second["ID"]);
}

fn answers(cluster: &Cluster, to: SocketAddr) {
    let outside = cluster.outside();
    eventually("the published port answers", || get(&outside, to));
}

#[test]
fn a_task_that_is_asked_by_its_port_is_ready_when_it_runs() {
    let cluster = swarm(1);
    cluster.network("front");
    let (client, _) = cluster.guest("node1", "client", "front");
    serve(
        &cluster,
        "late",
        &["--ready", "http:81/"],
        "sleep 2; ",
        "81",
    );
    becomes(&cluster, "late", "Starting");
    becomes(&cluster, "late", "Running");
    // The program listened before anybody was told that it runs.
    let to = SocketAddr::new(cluster.vip("late", "front"), 81);
    eventually("it is in the tables", || get(&client, to));
    // Nobody listens there: it never runs, and says why.
    serve(&cluster, "never", &["--ready", "tcp:99"], "", "81");
    becomes(&cluster, "never", "Starting");
    let refused = ["service", "create", "-d", "--name", "x", "--ready", "tcp"];
    let refused = [&refused[..], &["host", "/bin/true"]].concat();
    cluster.weft("node1", &refused).refused(&["names no port"]);
    assert_eq!(rows(&cluster, "never")[0]["State"], "Starting");
}

#[test]
fn a_task_that_ends_too_often_is_not_started_again() {
    let cluster = swarm(1);
    let mut words = vec!["service", "create", "-d", "--name", "ends"];
    words.extend(["--restart-max-attempts", "2", "--restart-delay", "0s"]);
    words.extend(["host", "/bin/sh", "-c", "exit 3"]);
    cluster.weft("node1", &words).done();
    let warned = eventually("it is given up", || {
        let said = cluster.weft("node1", &["service", "ls"]);
        if said.err.contains("--restart-max-attempts 2 is reached") {
            Ok(said.err)
        } else {
            Err(said)
        }
    });
    assert!(warned.contains("task: non-zero exit (3)"), "{warned}");
    let rows = rows(&cluster, "ends");
    assert_eq!(rows.len(), 3, "{rows:#?}");
    for row in &rows {
        assert_eq!(row["State"], "Failed", "{row}");
        assert_eq!(row["Error"], "\"task: non-zero exit (3)\"", "{row}");
    }
}
