//! The voting app in its public shape: six services, two networks, and a vote that goes all the way.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;
use weft_lab::image::{
    RESULT_PORT, VISUALIZER_PORT, VOTE_PORT, VOTING_SERVICES, voting, voting_file,
};
use weft_netns_tests::{Cluster, eventually};

use super::super::debian::redis;
use super::super::{NODES, REGISTRY, load, made};
use super::{asked, counts, deploy, inside, lines, nothing_is_left, remove, try_inside};

const STACK: &str = "vstack";

/// A process that goes with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // What it started goes with its machine, at the latest.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A visualizer on the manager's node, which may talk to it: tasks may not.
fn visualizer(cluster: &Cluster, folder: &Path) -> Ends {
    std::fs::create_dir(folder).expect("a folder");
    let socket = cluster
        .lab()
        .socket("node1")
        .expect("the node has an agent");
    let manager = format!("unix://{}", socket.display());
    let listen = format!("unix://{}", folder.join("weft.sock").display());
    let words = [
        cluster.program(),
        "-H",
        &manager,
        "visualizer",
        "--listen",
        &listen,
    ];
    let mut command = cluster
        .lab()
        .command("node1", &words)
        .expect("the node is up");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("weft can be run");
    Ends(child)
}

pub(super) fn a_vote_goes_all_the_way(cluster: &Cluster) {
    for image in made(voting()) {
        if image.name() != "redis:1" {
            load(cluster, "node1", &image);
        }
    }
    // The real one.
    load(cluster, "node1", &made(redis("redis:1")));
    let shown = cluster.dir().join("shown");
    let _visualizer = visualizer(cluster, &shown);
    let program = Path::new(cluster.program());
    let file = voting_file(REGISTRY, program, &shown).expect("a file");
    let said = deploy(cluster, STACK, &file);
    let networks =
        ["backend", "default", "frontend"].map(|name| format!("Creating network {STACK}_{name}"));
    let services = VOTING_SERVICES.map(|name| format!("Creating service {STACK}_{name}"));
    let wanted: BTreeSet<&str> = networks
        .iter()
        .chain(&services)
        .map(String::as_str)
        .collect();
    assert_eq!(lines(&said), wanted, "{said}");
    let all = VOTING_SERVICES.map(|name| (name, if name == "vote" { "2/2" } else { "1/1" }));
    counts(cluster, STACK, &all);
    votes_are_counted(cluster);
    each_network_has_its_own(cluster);
    the_picture_has_all_six(cluster);
    remove(cluster, STACK);
    nothing_is_left(cluster, STACK);
}

fn votes_are_counted(cluster: &Cluster) {
    for slot in 1..=2 {
        eventually("redis answers", || {
            let script = "printf 'PING\\r\\nQUIT\\r\\n' | timeout 5 nc redis 6379";
            let said = try_inside(cluster, &format!("{STACK}_vote.{slot}"), script);
            if said.out.starts_with("+PONG") {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
    for (node, vote) in NODES.into_iter().zip(["a", "b", "a"]) {
        let at = cluster.at(node, VOTE_PORT);
        eventually("the page is there", || {
            let page = asked(cluster, at, "/").map_err(|error| error.to_string())?;
            if page.starts_with("Cats (a) or dogs (b)?") {
                Ok(())
            } else {
                Err(page)
            }
        });
        let said = asked(cluster, at, &format!("/?vote={vote}")).expect("a vote");
        assert!(said.starts_with(&format!("Voted {vote} on ")), "{said}");
    }
    for node in NODES {
        eventually(&format!("{node} shows what was voted"), || {
            let page = asked(cluster, cluster.at(node, RESULT_PORT), "/");
            let page = page.map_err(|error| error.to_string())?;
            if page == "a: 2, b: 1\n" {
                Ok(())
            } else {
                Err(page)
            }
        });
    }
}

/// Who is on one network alone does not know the names of the other one.
fn each_network_has_its_own(cluster: &Cluster) {
    for (from, knows, misses) in [("vote", "redis", "db"), ("result", "db", "redis")] {
        let task = cluster.tasks(&format!("{STACK}_{from}")).remove(0);
        let found = cluster.lookup(&task, knows, false);
        let vip = cluster.vip(
            &format!("{STACK}_{knows}"),
            &format!(
                "{STACK}_{}",
                if knows == "redis" {
                    "frontend"
                } else {
                    "backend"
                }
            ),
        );
        assert_eq!(found, Ok(vec![vip.to_string()]), "{from} looks for {knows}");
        let found = cluster.lookup(&task, misses, false);
        assert!(found.is_err(), "{from} looks for {misses}: {found:?}");
    }
    let said = inside(
        cluster,
        &format!("{STACK}_db.1"),
        "cat /var/lib/postgresql/data/votes",
    );
    assert_eq!(said.lines().count(), 3, "{said}");
}

fn the_picture_has_all_six(cluster: &Cluster) {
    let at = cluster.at("node2", VISUALIZER_PORT);
    let page = eventually("the page is there", || asked(cluster, at, "/"));
    assert!(page.contains("<title>weft"), "{page}");
    let state = eventually("it knows the swarm", || {
        let text = asked(cluster, at, "/api/state").map_err(|error| error.to_string())?;
        let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if state["Nodes"].is_array() {
            Ok(state)
        } else {
            Err(text)
        }
    });
    let named = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list").iter();
        let names = list.map(|row| row["Name"].as_str().unwrap_or_default().to_owned());
        names.collect()
    };
    let services = named(&state["Services"]);
    for service in VOTING_SERVICES {
        assert!(
            services.contains(&format!("{STACK}_{service}")),
            "{services:?}"
        );
    }
    assert_eq!(
        named(&state["Nodes"]),
        BTreeSet::from(NODES.map(str::to_owned))
    );
    let nodes = state["Nodes"].as_array().expect("a list").iter();
    let tasks = nodes.flat_map(|node| node["Tasks"].as_array().into_iter().flatten());
    let votes = tasks.filter(|task| task["Service"] == "vstack_vote" && task["State"] == "running");
    assert_eq!(votes.count(), 2, "{state}");
    let told = state.to_string();
    assert!(!told.contains("POSTGRES"), "{told}");
    // It reads, and nothing else.
    assert!(asked(cluster, at, "/v1/services").is_err());
}
