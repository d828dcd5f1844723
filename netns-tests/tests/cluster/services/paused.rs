//! Updates to programs that do not do what they should.

use serde_json::Value;
use weft_netns_tests::{Cluster, LIMIT, eventually, figure, get, within};

use super::{serve, update_status};
use crate::swarm;

/// It says which task failed and how, leaves all others as they are, and says the way back.
#[test]
fn a_paused_update_says_why_at_which_task_and_what_to_do() {
    let cluster = swarm(2);
    serve(
        &cluster,
        3,
        &["--update-monitor", "2s", "--restart-delay", "30s"],
    );
    let to = cluster.at("node1", 8000);
    eventually("it answers", || get(&cluster.outside(), to));
    let broken = ["service", "update", "--args", "/bin/sh -c 'exit 3'", "web"];
    let said = cluster.weft("node1", &broken);
    assert_eq!(said.code, 1, "{said:#?}");
    let failed = update_status(&cluster, "TaskID");
    let why = format!(
        "service update paused: update paused due to failure or early termination of task {failed}: \
         task: non-zero exit (3); see \"weft service ps web\", then go back with \"weft service \
         rollback web\""
    );
    assert!(said.err.contains(&why), "{why} is missing: {said:#?}");
    assert_eq!(update_status(&cluster, "State"), "paused");

    let rows = cluster.rows(&["service", "ps", "--no-trunc", "web"]);
    let its = rows.iter().find(|row| row["ID"] == failed.as_str());
    let its = its.expect("history has it");
    assert_eq!(
        its["Slot"], rows[0]["Slot"],
        "its slot is shown first: {rows:#?}"
    );
    let error = its["Error"].as_str().unwrap_or_default();
    assert!(error.contains("non-zero exit (3)"), "{its}");
    let runs = |rows: &[Value]| rows.iter().filter(|row| row["State"] == "Running").count();
    assert_eq!(runs(&rows), 2, "the others are as they were: {rows:#?}");
    for _ in 0..10 {
        get(&cluster.outside(), to).expect("they serve");
    }

    let said = cluster.weft("node1", &["service", "rollback", "web"]).ok();
    assert!(said.contains("converged"), "{said}");
    assert_eq!(update_status(&cluster, "State"), "rollback_completed");
    assert_eq!(cluster.tasks("web").len(), 3);
}

/// Processes of `stubborn` with this word in their command.
fn processes(cluster: &Cluster, word: &str) -> usize {
    let said = cluster.run("node1", None, &["pgrep", "-xf", &format!("sleep {word}")]);
    said.out.lines().count()
}

/// Nobody waits for it longer than its grace period, and none of it is left.
#[test]
fn programs_that_do_not_end_are_killed_and_replaced() {
    let cluster = swarm(1);
    let stubborn = |seconds: &str| format!("trap '' TERM; while :; do sleep {seconds}; done");
    let mut words = vec!["service", "create", "--name", "web", "--replicas", "2"];
    words.extend(["--stop-grace-period", "1s", "--update-monitor", "0s"]);
    let first = stubborn("7001");
    words.extend(["host", "/bin/sh", "-c", &first]);
    cluster.weft("node1", &words).done();
    eventually("both run", || match processes(&cluster, "7001") {
        2 => Ok(()),
        other => Err(other),
    });
    let next = format!("/bin/sh -c \"{}\"", stubborn("7002"));
    let update = ["service", "update", "-d", "--args", &next, "web"];
    cluster.weft("node1", &update).done();
    eventually("all are replaced", || {
        match update_status(&cluster, "State") {
            state if state == "completed" => Ok(()),
            other => Err(other),
        }
    });
    eventually("nothing of the old ones is left", || {
        match ["7001", "7002"].map(|word| processes(&cluster, word)) {
            [0, 2] => Ok(()),
            other => Err(other),
        }
    });
    let rows = cluster.rows(&["service", "ps", "--no-trunc", "web"]);
    let ended: Vec<&Value> = rows
        .iter()
        .filter(|row| row["State"] == "Shutdown")
        .collect();
    assert_eq!(ended.len(), 2, "{rows:#?}");
    for row in ended {
        assert_eq!(row["ExitCode"], 137, "{row}");
    }
}

/// An update in the middle of one: what is asked for last is what there is.
#[test]
fn the_last_of_two_updates_is_what_runs() {
    let cluster = swarm(2);
    serve(&cluster, 4, &["--update-delay", "500ms"]);
    for version in ["VERSION=2", "VERSION=3"] {
        let update = ["service", "update", "-d", "--env-add", version, "web"];
        cluster.weft("node1", &update).done();
        eventually("it has begun", || {
            let rows = cluster.rows(&["service", "ps", "web"]);
            let ended = rows.iter().filter(|row| row["DesiredState"] == "Shutdown");
            if ended.count() > 0 {
                Ok(())
            } else {
                Err(rows.clone())
            }
        });
    }
    super::becomes(&cluster, 4, "VERSION=3", &["node1", "node2"]);
}

#[test]
#[ignore = "second tier: five hundred programs on one machine"]
fn five_hundred_services_that_are_made_at_once_all_run() {
    let cluster = swarm(3);
    let socket = cluster.lab().socket("node1").expect("an agent");
    let host = format!("unix://{}", socket.display());
    let script = format!(
        "seq 500 | xargs -P 20 -I {{}} {} -H {host} service create -d --name s{{}} host sleep 100000",
        cluster.program()
    );
    let said = cluster.run("node1", None, &["sh", "-c", &script]).ok();
    assert_eq!(said.lines().count(), 500);
    let ((), took) = within(6 * LIMIT, "all run", || {
        let rows = cluster.rows(&["service", "ls"]);
        let whole = rows.iter().filter(|row| row["Replicas"] == "1/1").count();
        if whole == 500 { Ok(()) } else { Err(whole) }
    });
    figure(&format!("500 services run {took:.1?} after they were made"));
    let on = |node: &str| {
        let rows = cluster.rows(&["node", "ps", node]);
        rows.iter().filter(|row| row["State"] == "Running").count()
    };
    let spread = ["node1", "node2", "node3"].map(on);
    assert!(
        spread.iter().all(|count| (166..=167).contains(count)),
        "{spread:?}"
    );
}
