//! The way out of a sandbox, networks without one, and a restart of everything.

use std::net::SocketAddr;
use std::time::Duration;

use weft_lab::FAR_ADDRESS;
use weft_netns_tests::{ask, eventually, get};

use crate::swarm;

#[test]
fn ordinary_tasks_reach_the_outside_and_internal_ones_do_not() {
    let cluster = swarm(2);
    cluster.web(2);
    cluster
        .weft("node1", &["network", "create", "--internal", "back"])
        .done();
    let words = [
        "service",
        "create",
        "--name",
        "hidden",
        "--network",
        "back",
        "--replicas",
        "2",
        "host",
        cluster.program(),
        "demo-http",
        "--port",
        "80",
    ];
    cluster.weft("node1", &words).done();
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    for task in cluster.tasks("web") {
        let netns = cluster.netns(&task.node, Some(&task.netns));
        let answer = eventually("the outside answers", || get(&netns, far));
        let expected = format!("Hello from outside to {}\n", cluster.addr(&task.node));
        assert_eq!(answer, expected, "masqueraded as its node");
    }
    let hidden = cluster.tasks("hidden");
    assert_eq!(hidden.len(), 2, "{hidden:?}");
    for task in &hidden {
        let links = cluster
            .run(&task.node, Some(&task.netns), &["ip", "-o", "link"])
            .ok();
        assert!(
            links.contains(" eth0: ") && !links.contains(" eth1"),
            "{links}"
        );
        let routes = cluster
            .run(&task.node, Some(&task.netns), &["ip", "route"])
            .ok();
        assert!(!routes.contains("default"), "{routes}");
        let netns = cluster.netns(&task.node, Some(&task.netns));
        let tried = ask(&netns, far, Duration::from_secs(1));
        assert!(tried.is_err(), "{tried:?}");
        let node = SocketAddr::new(cluster.addr(&task.node), 8000);
        let tried = ask(&netns, node, Duration::from_secs(1));
        assert!(tried.is_err(), "{tried:?}");
    }
    // Inside it works.
    let netns = cluster.netns(&hidden[0].node, Some(&hidden[0].netns));
    eventually("internal tasks reach each other", || {
        get(&netns, SocketAddr::new(hidden[1].ip, 80))
    });

    // A box on both: the way out goes with the last network that has one, in either order.
    let path = cluster.lab().add_netns("node1", "box");
    let path = path.unwrap_or_else(|e| panic!("{e:#}"));
    let netns = path.display().to_string();
    let attach = |network: &str| {
        let words = ["network", "connect", "--name", "box", network, &netns];
        cluster.weft("node1", &words).done();
    };
    let detach = |network: &str| {
        let words = ["network", "disconnect", network, "box"];
        cluster.weft("node1", &words).done();
    };
    let has_way_out = || {
        let routes = cluster.run("node1", Some(&path), &["ip", "route"]).ok();
        routes.contains("default")
    };
    attach("front");
    attach("back");
    assert!(has_way_out());
    detach("front");
    assert!(!has_way_out(), "left to the internal network alone");
    attach("front");
    assert!(has_way_out(), "back on an ordinary one");
    detach("back");
    assert!(has_way_out(), "the internal one takes nothing along");
}

#[test]
fn everything_is_as_it_was_after_all_agents_restarted() {
    let cluster = swarm(3);
    let tasks = cluster.web(3);
    let (guest, printed) = cluster.guest("node2", "guest", "front");
    let client = cluster.outside();
    let nodes = ["node1", "node2", "node3"];
    for node in nodes {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    let objects = || {
        let mut services = cluster.rows(&["service", "ls"]);
        services
            .iter_mut()
            .for_each(|s| s["PortErrors"] = serde_json::Value::Null);
        (
            services,
            cluster.rows(&["network", "ls"]),
            cluster.vip("web", "front"),
            cluster.token(),
        )
    };
    let (before, pids) = (objects(), nodes.map(|n| cluster.task_pids(n)));
    for node in nodes {
        cluster
            .lab()
            .kill_agent(node)
            .unwrap_or_else(|e| panic!("{node}: {e:#}"));
    }
    eventually("the manager is back with its state", || {
        let said = cluster.weft("node1", &["service", "ls"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    cluster.wait_ready(3);
    eventually("the tasks run", || match cluster.tasks("web") {
        now if now == tasks => Ok(()),
        now => Err(now),
    });
    assert_eq!(objects(), before);
    assert_eq!(
        nodes.map(|n| cluster.task_pids(n)),
        pids,
        "the same processes"
    );
    for node in nodes {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    let vip = SocketAddr::new(before.2, 80);
    eventually("the guest is attached again", || get(&guest, vip));
    let own = printed["IP"].as_str().expect("an address");
    let task = &tasks[2];
    eventually("the guest is known by name again", || {
        match cluster.lookup(task, "guest", false) {
            Ok(found) if found == [own] => Ok(()),
            found => Err(found),
        }
    });
    let netns = cluster.netns(&task.node, Some(&task.netns));
    eventually("the way out is open", || {
        get(&netns, SocketAddr::new(FAR_ADDRESS.into(), 80))
    });
}
