//! Programs that people run: nginx before clients, redis with data that must not be lost.

use weft_netns_tests::{Cluster, Settings, eventually};

use super::debian::{nginx, redis};
use super::{
    are, becomes, cluster, create, day, load, made, named, processes, remove, rows, update,
};

/// Its process, as `ps` shows it: it says where it listens.
const REDIS: &str = "redis-server .*";

#[test]
fn nginx_serves_on_three_nodes_and_redis_keeps_its_data() {
    let mut cluster = cluster(&Settings::default());
    cluster.network("front");
    for version in ["1", "2"] {
        let image = nginx(&format!("web:{version}"), version);
        load(&cluster, "node1", &made(image));
    }
    load(&cluster, "node1", &made(redis("redis:7")));
    day::a_service_answers_on_every_node(&cluster);
    update::another_image_and_back_without_a_failed_request(&cluster, 20);
    remove(&cluster, "web");
    data_outlives(&mut cluster);
}

#[test]
#[ignore = "second tier: two hundred clients, which take the machine for themselves"]
fn two_hundred_clients_do_not_notice_another_nginx() {
    let settings = Settings {
        alone: true,
        ..Settings::default()
    };
    let cluster = cluster(&settings);
    cluster.network("front");
    for version in ["1", "2"] {
        let image = nginx(&format!("web:{version}"), version);
        load(&cluster, "node1", &made(image));
    }
    day::a_service_answers_on_every_node(&cluster);
    update::another_image_and_back_without_a_failed_request(&cluster, 200);
}

/// What redis answers.
fn ask(cluster: &Cluster, words: &[&str]) -> String {
    eventually("redis answers", || {
        let words = [&["exec", "redis.1", "redis-cli"][..], words].concat();
        let said = cluster.weft("node1", &words);
        // While it reads its file it says LOADING, and the client ends well.
        if said.code == 0 && !said.out.is_empty() && !said.out.contains("LOADING") {
            Ok(said.out)
        } else {
            Err(said)
        }
    })
}

/// The death of the task, of the agent beside it, and of its node.
fn data_outlives(cluster: &mut Cluster) {
    let mount = "type=volume,source=redis-data,target=/data";
    let there = "node.hostname==node3";
    let flags = ["--mount", mount, "--constraint", there];
    create(cluster, "redis", &flags, "redis:7", &[]);
    becomes(cluster, "redis", "Running");
    assert_eq!(ask(cluster, &["set", "greeting", "hello"]), "OK\n");

    let first = are(cluster, "node3", REDIS, 1)[0];
    let pid = first.to_string();
    cluster.run("node3", None, &["kill", "-KILL", &pid]).done();
    let next = eventually("another one runs", || {
        match processes(cluster, "node3", REDIS).as_slice() {
            [next] if *next != first => Ok(*next),
            other => Err(other.to_vec()),
        }
    });
    assert_eq!(ask(cluster, &["get", "greeting"]), "hello\n");
    assert_eq!(ask(cluster, &["incr", "count"]), "1\n");

    cluster.restart_agent("node3");
    assert_eq!(ask(cluster, &["incr", "count"]), "2\n");
    assert_eq!(processes(cluster, "node3", REDIS), [next]);

    cluster.lab_mut().kill_node("node3").expect("it was up");
    cluster.lab_mut().start_node("node3").expect("it is off");
    cluster.wait_ready(3);
    eventually("it runs again", || {
        let rows = rows(cluster, "redis");
        let runs = rows.first().is_some_and(|row| row["State"] == "Running");
        let there = processes(cluster, "node3", REDIS).len();
        if runs && there == 1 {
            Ok(())
        } else {
            Err(rows)
        }
    });
    assert_eq!(ask(cluster, &["get", "greeting"]), "hello\n");
    assert_eq!(ask(cluster, &["incr", "count"]), "3\n");
    let image = named("redis:7");
    let shown = cluster.rows(&["service", "ls"]);
    assert_eq!(shown[0]["Image"], image.as_str(), "{shown:?}");
}
