//! A replica that refuses is left out, is shown as left out, and comes back by a probe.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings, Task, eventually, get};
use weft_sys::netns::Netns;

use crate::PROGRAM;
use crate::published::rows_at;

/// A swarm with service `web`: a task's program ends while its file of [`switch`] is there, and
/// the task goes on.
fn cluster(front_end: &str) -> (Cluster, Vec<Task>) {
    let settings = Settings {
        nodes: 2,
        agent_args: ["--mesh", front_end].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    let off = cluster.dir().join("off");
    let script = format!(
        "p=; while :; do \
           if [ -e {}.$WEFT_TASK_NAME ]; then [ -z \"$p\" ] || {{ kill $p; wait $p; p=; }}; \
           else [ -n \"$p\" ] || {{ {PROGRAM} demo-http --port 80 & p=$!; }}; fi; \
           sleep 0.05; \
         done",
        off.display()
    );
    let words = [
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "-p",
        "8000:80",
    ];
    let command = ["host", "sh", "-c", &script];
    cluster
        .weft("node1", &[&words[..], &command].concat())
        .done();
    let tasks = cluster.tasks("web");
    (cluster, tasks)
}

fn switch(cluster: &Cluster, task: &Task) -> PathBuf {
    cluster.dir().join(format!("off.{}", task.name))
}

/// Whether the task's program listens, asked inside its sandbox.
fn listens(cluster: &Cluster, task: &Task) -> bool {
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    let to = SocketAddr::from(([127, 0, 0, 1], 80));
    let connected = sandbox.run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)));
    connected.expect("a thread").is_ok()
}

/// What node1 says of a task.
fn row(cluster: &Cluster, task: &Task) -> Value {
    let rows = rows_at(cluster, "node1", &["why", "8000"]);
    let row = rows.into_iter().find(|r| r["Name"] == *task.name);
    row.expect("a row of the task")
}

fn of_replica(cluster: &Cluster, figure: &str, task: &Task) -> u64 {
    let labels = format!(
        "service=\"web\",replica=\"{}\",node=\"{}\",network=\"ingress\"",
        task.name, task.node
    );
    cluster.metric("node1", &format!("weft_replica_{figure}{{{labels}}}"))
}

fn probes(cluster: &Cluster, outcome: &str) -> u64 {
    cluster.metric(
        "node1",
        &format!("weft_mesh_probes_total{{outcome=\"{outcome}\"}}"),
    )
}

/// Asks until the task has answered.
fn answers(client: &Netns, to: SocketAddr, task: &Task) {
    eventually("the task answers", || {
        let answer = get(client, to).map_err(|e| e.to_string())?;
        if answer.contains(&format!(" {} ", task.name)) {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

fn leaves_and_comes_back(cluster: &Cluster, client: &Netns, task: &Task) {
    let to = cluster.at("node1", 8000);
    let off = switch(cluster, task);
    std::fs::write(&off, "").expect("a file");
    eventually("the program has ended", || {
        if listens(cluster, task) {
            Err(())
        } else {
            Ok(())
        }
    });
    let before = probes(cluster, "passed");
    eventually("the replica is ejected", || {
        get(client, to).expect("another replica takes the connection");
        let row = row(cluster, task);
        let why_not = row["WhyNot"].as_str().unwrap_or_default();
        if why_not.starts_with("ejected") && why_not.contains(": refused ") {
            Ok(())
        } else {
            Err(row)
        }
    });
    assert_eq!(of_replica(cluster, "ejected", task), 1);
    assert_eq!(of_replica(cluster, "healthy", task), 0);
    assert!(of_replica(cluster, "ejections_total", task) >= 1);
    let ports = rows_at(cluster, "node1", &["mesh", "ls"]);
    assert_eq!(ports[0]["Replicas"], "1/2", "{ports:?}");
    assert_eq!(ports[0]["Ejected"], 1, "{ports:?}");
    let retried = of_replica(cluster, "retried_connections_total", task);
    let all = of_replica(cluster, "refused_connections_total", task);
    assert_eq!(retried, all, "each went on to the other replica");
    assert!(retried >= 3, "{retried}");

    // Only probes from here on, though clients go on.
    let refused = of_replica(cluster, "refused_connections_total", task);
    let accepted = of_replica(cluster, "accepted_connections_total", task);
    let probed = probes(cluster, "refused");
    eventually("it refuses two probes", || {
        get(client, to).expect("another replica takes the connection");
        match probes(cluster, "refused") - probed {
            n if n >= 2 => Ok(()),
            n => Err(n),
        }
    });
    std::fs::remove_file(&off).expect("it is there");
    eventually("it is back", || {
        let row = row(cluster, task);
        if row["Takes"] == "yes" {
            Ok(())
        } else {
            Err(row)
        }
    });
    assert_eq!(probes(cluster, "passed"), before + 1);
    assert_eq!(of_replica(cluster, "ejected", task), 0);
    let after = of_replica(cluster, "refused_connections_total", task);
    assert_eq!(after, refused, "no client was its trial");
    let after = of_replica(cluster, "accepted_connections_total", task);
    assert_eq!(after, accepted, "no client was its trial");
    answers(client, to, task);
}

fn replicas_leave_and_come_back(front_end: &str) {
    let (cluster, tasks) = cluster(front_end);
    let client = cluster.outside();
    for task in &tasks {
        answers(&client, cluster.at("node1", 8000), task);
    }
    // One on the node that the client asks, and one on the other.
    for task in &tasks {
        leaves_and_comes_back(&cluster, &client, task);
    }
    let port = &rows_at(&cluster, "node1", &["mesh", "ls"])[0];
    assert_eq!(
        (&port["Failed"], &port["Ejected"]),
        (&0.into(), &0.into()),
        "{port}"
    );
    let sum = |figure| -> u64 {
        let of_each = tasks.iter().map(|task| of_replica(&cluster, figure, task));
        of_each.sum()
    };
    assert_eq!(port["Retried"], sum("retried_connections_total"), "{port}");
    let connect = port["Connect"].as_str().unwrap_or_default();
    assert!(connect.ends_with(" ms"), "{port}");
    assert!(sum("rx_bytes_total") > 1000 && sum("tx_bytes_total") > 1000);
    assert_eq!(sum("connects_total"), sum("accepted_connections_total"));
    for task in &tasks {
        let row = row(&cluster, task);
        let connect = row["Connect"].as_str().unwrap_or_default();
        assert!(connect.ends_with(" ms"), "{row}");
    }
}

#[test]
fn a_replica_that_refuses_comes_back_by_a_probe() {
    replicas_leave_and_come_back("frame");
}

#[test]
#[ignore = "second tier: the other front end has it in the first tier"]
fn a_replica_that_refuses_comes_back_by_a_probe_behind_the_socket_front_end() {
    replicas_leave_and_come_back("socket");
}

/// Runs nft inside a task's sandbox.
fn nft(cluster: &Cluster, task: &Task, words: &[&str]) {
    let said = cluster.run(&task.node, Some(&task.netns), &[&["nft"], words].concat());
    assert_eq!(said.code, 0, "{said:?}");
}

/// What happens to a replica whose machine swallows packets, as one does that is cut off or frozen.
#[test]
#[ignore = "second tier: it waits out an ejection, as the one that refuses does"]
fn a_replica_that_is_silent_comes_back_by_a_probe() {
    let (cluster, tasks) = cluster("frame");
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    for task in &tasks {
        answers(&client, to, task);
        nft(&cluster, task, &["add table inet silent"]);
        let chain = "add chain inet silent in { type filter hook input priority 0; }";
        nft(&cluster, task, &[chain]);
        let rule = "add rule inet silent in tcp dport 80 drop";
        nft(&cluster, task, &[rule]);
        let (passed, probed) = (probes(&cluster, "passed"), probes(&cluster, "silent"));
        // A SYN that nobody answers costs its client a second; many ask at once.
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    eventually("the replica is ejected", || {
                        get(&client, to).expect("another replica takes the connection");
                        let row = row(&cluster, task);
                        let why_not = row["WhyNot"].as_str().unwrap_or_default();
                        if why_not.starts_with("ejected") && why_not.contains("did not answer") {
                            Ok(())
                        } else {
                            Err(row)
                        }
                    });
                });
            }
        });
        assert_eq!(of_replica(&cluster, "ejected", task), 1);
        let retried = of_replica(&cluster, "retried_connections_total", task);
        eventually("it answers no probe", || {
            get(&client, to).expect("another replica takes the connection");
            match probes(&cluster, "silent") - probed {
                0 => Err(()),
                _ => Ok(()),
            }
        });
        let after = of_replica(&cluster, "retried_connections_total", task);
        assert_eq!(after, retried, "no client was its trial");
        nft(&cluster, task, &["delete table inet silent"]);
        eventually("it is back", || {
            let row = row(&cluster, task);
            if row["Takes"] == "yes" {
                Ok(())
            } else {
                Err(row)
            }
        });
        assert_eq!(probes(&cluster, "passed"), passed + 1);
        answers(&client, to, task);
    }
    let port = &rows_at(&cluster, "node1", &["mesh", "ls"])[0];
    assert_eq!(port["Failed"], 0, "{port}");
}
