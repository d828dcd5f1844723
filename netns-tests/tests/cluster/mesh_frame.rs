//! Published ports through the frame front end: replicas see their clients.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_lab::{FAR_ADDRESS, FAR_ADDRESS_V6, OUTSIDE};
use weft_netns_tests::{Cluster, Settings, Task, ask_from, eventually, get, hold, hold_from};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Asks from `from` until every task has answered; then each answer names the client as `seen`.
fn all_tasks_see(
    client: &Netns,
    from: IpAddr,
    to: SocketAddr,
    tasks: &[Task],
    seen: impl Fn(&str) -> bool,
) {
    let mut missing: BTreeSet<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
    eventually("every task answers", || {
        let answer = ask_from(client, from, to, "/").map_err(|e| e.to_string())?;
        missing.retain(|name| !answer.contains(&format!(" {name} ")));
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{to}: {missing:?} did not answer"))
        }
    });
    for _ in 0..4 * tasks.len() {
        let answer = ask_from(client, from, to, "/client").expect("an answer");
        assert!(seen(answer.trim()), "{to} from {from}: {answer:?}");
    }
}

/// The address that a namespace sends from.
pub(crate) fn own_address(cluster: &Cluster) -> IpAddr {
    let said = cluster
        .run(
            OUTSIDE,
            None,
            &[
                "ip",
                "-j",
                "route",
                "get",
                &cluster.addr("node1").to_string(),
            ],
        )
        .ok();
    let routes: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let text = routes[0]["prefsrc"].as_str().expect("a source");
    text.parse().expect("an address")
}

pub(crate) fn over_ipv6(nodes: u8) -> Cluster {
    let settings = Settings {
        nodes,
        ipv6: true,
        ..Settings::default()
    };
    Cluster::swarm(PROGRAM, &settings)
}

#[test]
fn replicas_see_their_clients_whichever_node_these_came_through() {
    replicas_see_their_clients(&swarm(3), FAR_ADDRESS.into());
}

#[test]
fn replicas_see_their_clients_of_ipv6_whichever_node_these_came_through() {
    replicas_see_their_clients(&over_ipv6(3), FAR_ADDRESS_V6.into());
}

/// `far` is an address of the machine outside that is on nobody's link.
fn replicas_see_their_clients(cluster: &Cluster, far: IpAddr) {
    let tasks = cluster.web(3);
    let nodes: Vec<&str> = tasks.iter().map(|t| t.node.as_str()).collect();
    assert_eq!(nodes, NODES, "one on each node");
    let client = cluster.outside();
    let own = own_address(cluster);
    for node in NODES {
        let to = cluster.at(node, 8000);
        all_tasks_see(&client, own, to, &tasks, |seen| seen == own.to_string());
    }

    // A client of a network that two of the nodes have no way to: answers return by the first.
    for node in ["node2", "node3"] {
        let family = if far.is_ipv6() { "-6" } else { "-4" };
        cluster
            .run(node, None, &["ip", family, "route", "del", "default"])
            .done();
    }
    let to = cluster.at("node1", 8000);
    all_tasks_see(&client, far, to, &tasks, |seen| seen == far.to_string());
    // The nodes themselves come through the listeners, and are seen as one of them.
    let node1 = cluster.netns("node1", None);
    let ingress = |seen: &str| seen.starts_with("10.0.0.");
    for local in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let to = SocketAddr::new(local, 8000);
        all_tasks_see(&node1, local, to, &tasks, ingress);
    }

    let row = &cluster.rows(&["mesh", "ls"])[0];
    assert_eq!(row["FrontEnd"], "frame", "{row}");
    let accepted: u64 = row["Accepted"]
        .to_string()
        .trim_matches('"')
        .parse()
        .expect("a number");
    assert!(accepted >= 20, "{row}");

    // Much at once: whole super-frames, also back.
    let wanted = 20_000_000;
    for _ in &tasks {
        let bytes = ask_from(&client, far, to, &format!("/bytes/{wanted}")).expect("bytes");
        assert_eq!(bytes.len(), wanted);
    }
    for node in NODES {
        for reason in ["spoofed_ip", "other_network", "not_a_flow", "unknown_mac"] {
            assert_eq!(cluster.drops(node, reason), 0, "{node}: {reason}");
        }
    }
}

#[test]
fn connections_go_on_when_the_agent_of_the_replicas_node_is_killed() {
    replicas_agent_is_killed(&swarm(2));
}

#[test]
fn connections_of_ipv6_go_on_when_the_agent_of_the_replicas_node_is_killed() {
    replicas_agent_is_killed(&over_ipv6(2));
}

fn replicas_agent_is_killed(cluster: &Cluster) {
    let tasks = cluster.web(2);
    let client = cluster.outside();
    let far_task = tasks.iter().find(|t| t.node == "node2").expect("on node2");
    let mut held = eventually("a task on the other node answers", || {
        let held = hold(&client, cluster.at("node1", 8000)).map_err(|e| e.to_string())?;
        if held.answer.contains(&far_task.name) {
            Ok(held)
        } else {
            Err(held.answer)
        }
    });
    cluster
        .lab()
        .kill_agent("node2")
        .expect("the agent is killed");
    eventually("the connection goes on", || {
        held.again().map_err(|e| e.to_string())
    });
    for _ in 0..20 {
        held.again().expect("it goes on and on");
    }
}

#[test]
fn with_the_socket_front_end_the_node_accepts_and_leaves_no_rules() {
    let settings = Settings {
        nodes: 1,
        agent_args: ["--mesh", "socket"].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    let tasks = cluster.web(1);
    let client = cluster.outside();
    let own = own_address(&cluster);
    let to = cluster.at("node1", 8000);
    all_tasks_see(&client, own, to, &tasks, |seen| seen.starts_with("10.0.0."));
    let table = cluster
        .run("node1", None, &["nft", "list", "table", "inet", "weft"])
        .ok();
    assert!(!table.contains("published"), "{table}");
}

#[test]
fn connections_outlive_the_agent_that_their_clients_came_through() {
    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let client = cluster.outside();
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let open = |from: &Netns, to: SocketAddr, task: &Task| {
        eventually("the task answers", || {
            let held = hold(from, to).map_err(|e| e.to_string())?;
            if held.answer.contains(&task.name) {
                Ok(held)
            } else {
                Err(held.answer)
            }
        })
    };
    // To a replica on this node and on the other one; through a published port and a virtual address.
    let mut held: Vec<_> = tasks
        .iter()
        .flat_map(|task| {
            [
                open(&client, cluster.at("node1", 8000), task),
                open(&guest, vip, task),
            ]
        })
        .collect();
    for round in 0..2 {
        cluster
            .lab()
            .kill_agent("node1")
            .expect("the agent is killed");
        for (at, held) in held.iter_mut().enumerate() {
            held.again()
                .unwrap_or_else(|e| panic!("connection {at} after restart {round}: {e}"));
        }
        // The next agent has to be there before it is killed, too.
        eventually("the agent answers", || {
            let said = cluster.weft("node1", &["service", "ls"]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
    }
}

#[test]
fn a_client_may_use_one_port_towards_every_node() {
    let cluster = swarm(3);
    let task = cluster.web(1).remove(0);
    let client = cluster.outside();
    let nodes = NODES.map(|node| cluster.at(node, 8000));
    for to in nodes {
        eventually("the node answers", || get(&client, to));
    }
    let here = cluster.at(&task.node, 8000);
    let there: Vec<_> = nodes.into_iter().filter(|to| *to != here).collect();
    // The replica sees clients of each node at ports of that node's.
    for port in [33_000, 40_000, 1200] {
        // Ports that are not waiting for their last segments yet.
        for (shift, first) in [(0u16, true), (1, false)] {
            let mut held = Vec::new();
            let mut connect = |to| {
                let connection = hold_from(&client, port + shift, to);
                held.push(connection.unwrap_or_else(|e| panic!("{port} to {to}: {e}")));
            };
            if first {
                connect(here);
            }
            for to in &there {
                connect(*to);
            }
            if !first {
                connect(here);
            }
            for connection in &mut held {
                connection.again().expect("an answer on every connection");
            }
        }
    }
}
