//! The first day: an image is loaded on one node, and a service of it answers on all.

use std::collections::BTreeSet;

use weft_netns_tests::{Cluster, eventually, get};

use super::{NODES, named, text};

pub(super) fn a_service_answers_on_every_node(cluster: &Cluster) {
    let image = named("web:1");
    let mut words = vec!["service", "create", "--name", "web", "--replicas", "3"];
    words.extend(["--network", "front", "-p", "8000:80"]);
    words.extend(["--update-monitor", "0s", "--rollback-monitor", "0s"]);
    words.extend(["--hostname", "web-{{.Task.Slot}}", "-e", "COLOUR=blue"]);
    words.push(&image);
    let said = cluster.weft("node1", &words);
    assert_eq!(said.code, 0, "{said:#?}");
    assert!(said.out.contains(" converged\n"), "{said:#?}");

    let hello = |slot: u32| format!("Hello from web-{slot} (version 1)\n");
    for node in NODES {
        let mut heard = BTreeSet::new();
        eventually(&format!("all three answer by {node}"), || {
            let answer = get(&cluster.outside(), cluster.at(node, 8000));
            heard.insert(answer.map_err(|error| error.to_string())?);
            if heard.len() == 3 {
                Ok(())
            } else {
                Err(format!("{heard:?}"))
            }
        });
        assert_eq!(heard, BTreeSet::from([1, 2, 3].map(hello)), "{node}");
    }
    it_is_pinned(cluster);
    names_are_known_inside(cluster);
    its_container_is_told(cluster);
}

/// What was loaded on the node behind the command is what all nodes run.
fn it_is_pinned(cluster: &Cluster) {
    let service = cluster.inspect("service", "web");
    let image = &service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
    let image = image.as_str().expect("a name");
    let pinned = image.strip_prefix(&format!("{}@sha256:", named("web:1")));
    assert!(pinned.is_some_and(|hex| hex.len() == 64), "{image}");
    let rows = cluster.rows(&["service", "ls"]);
    assert_eq!(text(&rows[0], "Image"), named("web:1"), "{rows:?}");
}

fn names_are_known_inside(cluster: &Cluster) {
    let task = cluster.tasks("web").remove(0);
    for name in ["web", "tasks.web"] {
        let wanted = if name == "web" { 1 } else { 3 };
        let found = eventually(&format!("{name} is known"), || {
            let found = cluster.lookup(&task, name, false)?;
            if found.len() == wanted {
                Ok(found)
            } else {
                Err(format!("{found:?}"))
            }
        });
        assert_eq!(found.len(), wanted);
    }
    // By the resolver of the image's own programs, through what stands in its resolv.conf.
    let words = ["exec", "web.1", "wget", "-q", "-O", "-", "http://web/"];
    let said = cluster.weft("node1", &words).ok();
    assert!(said.starts_with("Hello from web-"), "{said}");
    let said = cluster.weft("node1", &["exec", "web.2", "hostname"]).ok();
    assert_eq!(said, "web-2\n");
    let words = ["exec", "web.2", "cat", "/etc/hosts"];
    let said = cluster.weft("node1", &words).ok();
    assert!(said.contains("web-2"), "{said}");
}

/// `docker inspect TASK` has the id that a container has.
fn its_container_is_told(cluster: &Cluster) {
    let rows = cluster.rows(&["service", "ps", "--no-trunc", "web"]);
    let task = cluster.inspect("task", text(&rows[0], "ID"));
    let container = &task["Status"]["ContainerStatus"];
    let id = container["ContainerID"].as_str().unwrap_or_default();
    let is_hex = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_hex, "{container}");
    assert!(container["PID"].as_u64() > Some(0), "{container}");
}
