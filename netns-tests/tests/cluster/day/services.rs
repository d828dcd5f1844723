//! Services are made, scaled, listed and removed.

use weft_netns_tests::{Cluster, eventually};

use super::lines::{Bars, cells, converged, is_running};
use super::{create, rows, spread};
use crate::swarm;

const LS: [&str; 6] = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"];

const PS: [&str; 8] = [
    "ID",
    "NAME",
    "IMAGE",
    "NODE",
    "DESIRED STATE",
    "CURRENT STATE",
    "ERROR",
    "PORTS",
];

/// The table of `service ps`: so many tasks, each of which runs.
fn table(cluster: &Cluster, tasks: usize) {
    let lines = cluster.typed("node1", &["service", "ps", "web"]);
    let (headings, rows) = lines.split_first().expect("a table");
    assert_eq!(cells(headings), PS);
    assert_eq!(rows.len(), tasks, "{lines:#?}");
    for (line, slot) in rows.iter().zip(1..) {
        is_running(line, &format!("web.{slot}"), None);
    }
}

fn scale(cluster: &Cluster, count: usize, id: &str) {
    let target = format!("web={count}");
    let lines = cluster.typed("node1", &["service", "scale", &target]);
    let head = format!("web scaled to {count}");
    converged(&lines, &[head.as_str()], count, Bars::Full, id);
}

#[test]
fn services_are_made_scaled_and_removed_as_docker_prints_it() {
    let cluster = swarm(3);
    let (id, lines) = create(&cluster, "--replicas=2");
    converged(&lines, &[], 2, Bars::Full, &id);
    let lines = cluster.typed("node1", &["service", "ls"]);
    let row = [
        &id[..12],
        "web",
        "replicated",
        "2/2",
        "host",
        "*:8000->80/tcp",
    ];
    let found: Vec<Vec<&str>> = lines.iter().map(|line| cells(line)).collect();
    assert_eq!(found, [LS, row]);
    table(&cluster, 2);

    scale(&cluster, 3, &id);
    table(&cluster, 3);
    spread(&cluster, [1, 1, 1]);
    scale(&cluster, 9, &id);
    table(&cluster, 9);
    spread(&cluster, [3, 3, 3]);
    scale(&cluster, 2, &id);
    let left = eventually("two rows are left", || {
        let rows = rows(&cluster);
        if rows.len() == 2 { Ok(rows) } else { Err(rows) }
    });
    let nodes: Vec<&str> = left.iter().map(|row| row.node.as_str()).collect();
    assert_ne!(nodes[0], nodes[1], "they spread best");

    narrow_and_none(&cluster, &id);
    filters(&cluster, &id);

    assert_eq!(cluster.typed("node1", &["service", "rm", "web"]), ["web"]);
    let said = cluster.weft("node1", &["service", "ps", "web"]);
    said.refused(&["no such service: web"]);
    let lines = cluster.typed("node1", &["service", "ls"]);
    let found: Vec<Vec<&str>> = lines.iter().map(|line| cells(line)).collect();
    assert_eq!(found, [LS]);
}

/// A terminal without room for bars has lines that are rewritten, a pipe has lines that follow.
fn narrow_and_none(cluster: &Cluster, id: &str) {
    let words = ["service", "scale", "web=3"];
    let lines = cluster.typed_on("node1", &words, (110, 40));
    converged(&lines, &["web scaled to 3"], 3, Bars::None, id);
    let said = cluster.weft("node1", &["service", "scale", "web=4"]).ok();
    assert!(!said.contains('\x1b') && !said.contains('['), "{said}");
    let end = format!("\nverify: Service {id} converged\n");
    assert!(
        said.starts_with("web scaled to 4\noverall progress: ") && said.ends_with(&end),
        "{said}"
    );
    let whole = "overall progress: 4 out of 4 tasks";
    for line in [whole, "1/4: running", "4/4: running"] {
        let count = said.lines().filter(|found| *found == line).count();
        assert_eq!(count, 1, "{line}: {said}");
    }
}

/// Which rows filters of lists leave, and what they are refused with.
fn filters(cluster: &Cluster, id: &str) {
    let names = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let text = cluster.weft("node1", &words).ok();
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let short = &id[..12];
    let name = rows(cluster)[0].name.clone();
    let by_name = format!("service ps web -f name={name} --format {{{{.Name}}}}");
    let by_id = format!("service ls -f id={short} --format {{{{.Name}}}}");
    let by_node = "service ps web -f node=node2 -f desired-state=running --format {{.Node}}";
    for (words, wanted) in [
        (by_id.as_str(), &["web"][..]),
        (
            "service ls -f name=we -f mode=replicated -q --format {{.Name}}",
            &["web"],
        ),
        ("service ls -f label=tier --format {{.Name}}", &[]),
        ("service ls -f mode=global --format {{.Name}}", &[]),
        (by_name.as_str(), &[name.as_str()]),
        ("node ls -f role=manager --format {{.Hostname}}", &["node1"]),
        ("node ls -f name=node3 --format {{.Hostname}}", &["node3"]),
        ("network ls -f name=gres --format {{.Name}}", &["ingress"]),
        (
            "network ls -f type=builtin -f driver=overlay --format {{.Name}}",
            &[],
        ),
        (
            "mesh ls -f service=web -f port=8000 --format {{.Port}}",
            &["8000"],
        ),
        ("mesh ls -f port=80 --format {{.Port}}", &[]),
    ] {
        assert_eq!(names(words), wanted, "{words}");
    }
    let found = names(by_node);
    assert!(
        !found.is_empty() && found.iter().all(|node| node == "node2"),
        "{found:?}"
    );
    for (words, says) in [
        (
            ["service", "ls"],
            "invalid filter 'nosuch': there is id, label, mode, name",
        ),
        (
            ["node", "ls"],
            "invalid filter 'nosuch': there is id, name, role",
        ),
        (
            ["network", "ls"],
            "invalid filter 'nosuch': there is dangling, driver",
        ),
        (
            ["node", "ps"],
            "invalid filter 'nosuch': there is id, name, node",
        ),
        (
            ["mesh", "ls"],
            "invalid filter 'nosuch': there is mode, port",
        ),
    ] {
        let said = cluster.weft("node1", &[&words[..], &["-f", "nosuch=1"]].concat());
        said.refused(&[says]);
    }
}
