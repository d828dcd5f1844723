//! What people get wrong about services: each mistake has a sentence of its own that says the mend, and
//! nothing is half-done.

use weft_netns_tests::{Said, eventually};

use super::serve;
use crate::swarm;

/// Words of a command, and what its refusal has to say.
const REFUSED: &[(&[&str], &[&str])] = &[
    (
        &["service", "create", "--mode", "foo", "host", "true"],
        &["--mode", "foo", "replicated", "global"],
    ),
    (
        &[
            "service",
            "create",
            "--mode",
            "global",
            "--replicas",
            "2",
            "host",
            "true",
        ],
        &[
            "replicas can only be used with replicated or replicated-job mode",
            "--replicas",
        ],
    ),
    (
        &["service", "create", "--max-concurrent", "2", "host", "true"],
        &[
            "max-concurrent can only be used with replicated-job mode",
            "--max-concurrent",
        ],
    ),
    (
        &[
            "service",
            "create",
            "--mode",
            "global",
            "--replicas-max-per-node",
            "2",
            "host",
            "true",
        ],
        &["replicas-max-per-node can only be used with replicated or replicated-job mode"],
    ),
    (
        &["service", "create", "--network", "nonet", "host", "true"],
        &["no such network: nonet"],
    ),
    (
        &[
            "service",
            "create",
            "--constraint",
            "node.role>worker",
            "host",
            "true",
        ],
        &["constraint \"node.role>worker\"", "==, !="],
    ),
    (
        &[
            "service",
            "create",
            "--stop-grace-period",
            "8760h",
            "host",
            "true",
        ],
        &["stop grace period", "24 hours"],
    ),
    (
        &[
            "service",
            "create",
            "--update-max-failure-ratio",
            "1.5",
            "host",
            "true",
        ],
        &["--update-max-failure-ratio", "from 0 to 1"],
    ),
    (
        &[
            "service",
            "update",
            "--update-max-failure-ratio=-0.1",
            "web",
        ],
        &["--update-max-failure-ratio", "from 0 to 1"],
    ),
    (
        &["service", "update", "--update-delay", "8760h", "web"],
        &["--update-delay", "24 hours"],
    ),
    (
        &["service", "update", "--rollback-monitor", "8760h", "web"],
        &["--rollback-monitor", "24 hours"],
    ),
    (
        &["service", "update", "--update-delay", "soon", "web"],
        &["--update-delay", "invalid duration"],
    ),
    (
        &["service", "update", "--update-order", "sideways", "web"],
        &["--update-order", "stop-first", "start-first"],
    ),
    (
        &["service", "update", "--update-parallelism=-1", "web"],
        &["--update-parallelism"],
    ),
    (
        &[
            "service",
            "update",
            "--rollback-failure-action",
            "rollback",
            "web",
        ],
        &["--rollback-failure-action", "pause", "continue"],
    ),
    (
        &["service", "update", "--rollback", "--force", "web"],
        &["other flags may not be combined with --rollback"],
    ),
    (
        &[
            "service",
            "update",
            "--no-healthcheck",
            "--health-cmd",
            "true",
            "web",
        ],
        &["--no-healthcheck conflicts with --health-* options"],
    ),
    (
        &["service", "update", "--network-add", "nonet", "web"],
        &["no such network: nonet"],
    ),
    (&["service", "update", "web"], &["nothing to change"]),
    (
        &["service", "rollback", "web"],
        &["service web does not have a previous spec"],
    ),
    (
        &["service", "update", "--force", "nobody"],
        &["no such service: nobody"],
    ),
    (&["service", "scale", "web=10001"], &["10000"]),
];

/// A command that changed nothing and says why.
#[track_caller]
fn refuses(said: &Said, words: &[&str]) {
    assert_ne!(said.code, 0, "{said:#?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is missing: {said:#?}");
    }
}

#[test]
fn mistakes_have_sentences_and_change_nothing() {
    let cluster = swarm(1);
    serve(&cluster, 1, &[]);
    let (before, task) = (cluster.inspect("service", "web"), cluster.tasks("web"));
    for (command, words) in REFUSED {
        refuses(&cluster.weft("node1", command), words);
    }
    assert_eq!(cluster.inspect("service", "web"), before);
    assert_eq!(cluster.tasks("web"), task);
    assert_eq!(cluster.rows(&["service", "ls"]).len(), 1);
}

/// All tasks at once, in docker's way of saying it.
#[test]
fn a_parallelism_of_none_is_all_at_once() {
    let cluster = swarm(1);
    serve(&cluster, 3, &[]);
    let old = cluster.tasks("web");
    let update = ["service", "update", "--update-parallelism", "0", "--force"];
    cluster
        .weft("node1", &[&update[..], &["web"]].concat())
        .done();
    let new = cluster.tasks("web");
    assert_eq!(new.len(), 3);
    assert!(new.iter().all(|task| !old.contains(task)), "{new:?}");
}

/// Who changes what he read must not undo what somebody else changed since; nor is a service of another
/// mode after an update.
#[test]
fn an_update_of_what_is_not_so_any_more_is_refused() {
    let cluster = swarm(1);
    serve(&cluster, 1, &[]);
    let read = cluster.inspect("service", "web");
    cluster
        .weft(
            "node1",
            &["service", "update", "-d", "--attach=true", "web"],
        )
        .done();
    let now = cluster.inspect("service", "web");
    let post = |version: &serde_json::Value, body: &serde_json::Value| {
        let body = body.to_string();
        let head = format!(
            "POST /v1/services/web/update?version={version} HTTP/1.1\r\nhost: x\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        cluster.api("node1", format!("{head}{body}").as_bytes())
    };
    let late = post(
        &read["Version"]["Index"],
        &serde_json::json!({ "Spec": read["Spec"] }),
    );
    assert!(
        late.contains(" 409 ") && late.contains("update out of sequence"),
        "{late}"
    );
    let mut global = now["Spec"].clone();
    global["Mode"] = serde_json::json!({ "Global": {} });
    let other = post(
        &now["Version"]["Index"],
        &serde_json::json!({ "Spec": global }),
    );
    assert!(
        other.contains("service mode change is not allowed"),
        "{other}"
    );
    assert_eq!(cluster.inspect("service", "web"), now);
}

#[test]
fn tasks_that_no_node_may_have_say_so_and_run_once_one_may() {
    let cluster = swarm(2);
    let mut words = vec!["service", "create", "-d", "--name", "picky"];
    words.extend([
        "--constraint",
        "node.labels.disk==ssd",
        "host",
        "sleep",
        "1000",
    ]);
    cluster.weft("node1", &words).done();
    let why = "no suitable node (scheduling constraints not satisfied on 2 nodes)";
    eventually("it says why", || {
        let rows = cluster.rows(&["service", "ps", "--no-trunc", "picky"]);
        let says = |row: &serde_json::Value| row["Error"].as_str().is_some_and(|e| e.contains(why));
        if rows.iter().any(says) {
            Ok(())
        } else {
            Err(rows)
        }
    });
    let label = ["node", "update", "--label-add", "disk=ssd", "node2"];
    cluster.weft("node1", &label).done();
    eventually("it runs there", || {
        let rows = cluster.rows(&["service", "ps", "picky"]);
        let runs = |row: &serde_json::Value| row["State"] == "Running" && row["Node"] == "node2";
        if rows.iter().any(runs) {
            Ok(())
        } else {
            Err(rows)
        }
    });
}
