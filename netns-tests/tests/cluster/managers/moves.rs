//! Nodes move to another address: they take it up, begin again with it, and what runs there stays.

use std::net::{IpAddr, SocketAddr};

use weft_netns_tests::{Cluster, eventually, get};

use super::{drain, lists, with_managers};

/// Gives a machine one more address.
fn add(cluster: &Cluster, node: &str, addr: IpAddr) {
    let cidr = format!("{addr}/24");
    let words = ["ip", "addr", "add", &cidr, "dev", "eth0"];
    cluster.run(node, None, &words).done();
}

/// Waits until the agent of a node has begun again with an address.
#[track_caller]
fn has_taken_up(cluster: &Cluster, node: &str, addr: IpAddr) {
    let words = [
        "info",
        "--format",
        "{{.Swarm.NodeAddr}} {{.Swarm.Connected}}",
    ];
    let wanted = format!("{addr} true\n");
    eventually(&format!("{node} is at {addr}"), || {
        let said = cluster.weft(node, &words);
        if said.out == wanted {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
#[ignore = "second tier: agents that begin again, and managers that are moved, have tests in the first one"]
fn a_worker_and_a_manager_move_to_another_address() {
    let cluster = with_managers(4, 3);
    drain(&cluster, &["node1", "node2", "node3"]);
    let tasks = cluster.web(1);
    let pids = cluster.task_pids("node4");
    let client = cluster.outside();
    let moved = |node: &str, addr: IpAddr| {
        let addr = addr.to_string();
        let words = ["node", "update", "--advertise-addr", &addr, node];
        cluster.weft("node1", &words).done();
    };
    let all = [
        "node1 Ready Leader",
        "node2 Ready Reachable",
        "node3 Ready Reachable",
        "node4 Ready",
    ];

    // It says what it waits for, until the machine has the address.
    let there = IpAddr::from([10, 77, 0, 44]);
    moved("node4", there);
    eventually("the node says what is missing", || {
        let said = cluster.weft("node4", &["info"]);
        let words = format!("this node is to be reached at {there}, and the machine does not have");
        if said.out.contains(&words) {
            Ok(())
        } else {
            Err(said)
        }
    });
    add(&cluster, "node4", there);
    has_taken_up(&cluster, "node4", there);
    lists(&cluster, "node1", &all);
    let node = cluster.inspect("node", "node4");
    assert_eq!(node["Status"]["Addr"], there.to_string(), "{node}");
    assert_eq!(node["DataPathAddr"], there.to_string(), "{node}");
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node4"), pids);
    for at in [SocketAddr::new(there, 8000), cluster.at("node1", 8000)] {
        eventually(&format!("{at} answers"), || get(&client, at));
    }

    let there = IpAddr::from([10, 77, 0, 33]);
    add(&cluster, "node3", there);
    moved("node3", there);
    has_taken_up(&cluster, "node3", there);
    lists(&cluster, "node1", &all);
    let node = cluster.inspect("node", "node3");
    let addr = SocketAddr::new(there, 2377).to_string();
    assert_eq!(node["ManagerStatus"]["Addr"], addr, "{node}");
    cluster
        .weft("node3", &["network", "create", "after"])
        .done();
    eventually("the way by it is whole", || {
        get(&client, cluster.at("node3", 8000))
    });
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node4"), pids);
}
