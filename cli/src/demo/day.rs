//! A team's first day with services: replicas more and fewer, one on each node, a node without power, a
//! manager in maintenance; and [the update](super::day_update) that nobody notices.

use anyhow::{Context, ensure};
use weft_lab::OUTSIDE;

use super::cluster::{self, PORT};
use super::crowd::Crowd;
use super::day_rows::{Bars, LIMIT, by_node, converged, converged_on_nodes, is_id, rows, spread};
use super::day_update;
use super::walk::Walk;

/// The nodes that clients ask: all of them.
const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// What `service ls` prints when there is nothing to list.
const NOTHING: [&str; 6] = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"];

pub(super) fn walk(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    cluster::swarm(walk)?;
    more_and_fewer(walk)?;
    removed(walk)?;
    one_on_each_node(walk)?;
    without_power(walk)?;
    removed(walk)?;
    let crowd = two_again(walk)?;
    drained(walk)?;
    active_again(walk)?;
    crowd.sees_no_error(walk, "clients saw no error while it was drained and scaled")?;
    day_update::walk(walk, &crowd)?;
    drop(crowd);
    removed(walk)?;
    refused(walk)
}

/// `service create` of the demo's server, as it is before it is updated.
fn create(walk: &mut Walk<'_, '_>, how: &str) -> anyhow::Result<Vec<String>> {
    let (program, publish) = (walk.program.clone(), format!("{PORT}:80"));
    let create = [
        "service",
        "create",
        "--name=web",
        how,
        "-p",
        publish.as_str(),
    ];
    let task = ["host", program.as_str(), "demo-http", "--port", "80"];
    let version = ["--version", "1"];
    let lines = walk.typed("node1", &[&create[..], &task, &version].concat())?;
    let (id, rest) = lines.split_first().context("it shows nothing")?;
    ensure!(is_id(id), "{id:?} is no id");
    Ok(rest.to_vec())
}

fn two(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.require(
        "docker's lines: an id, a bar for each task, converged",
        |walk| {
            let lines = create(walk, "--replicas=2")?;
            converged(&lines, &[], 2, Bars::Full)
        },
    )
}

fn scale(walk: &mut Walk<'_, '_>, count: usize) -> anyhow::Result<()> {
    let (target, says) = (format!("web={count}"), format!("web scaled to {count}"));
    walk.require(
        &format!("{count} tasks converge, with a bar each"),
        |walk| {
            let lines = walk.typed("node1", &["service", "scale", &target])?;
            converged(&lines, &[says.as_str()], count, Bars::Full)
        },
    )
}

fn ps(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.weft("node1", &["service", "ps", "web"]).map(drop)
}

fn more_and_fewer(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("A service of two replicas")?;
    two(walk)?;
    walk.weft("node1", &["service", "ls"])?;
    ps(walk)?;
    walk.check("two nodes have one each", |walk| spread(walk, &[1, 1]))?;

    walk.transcript.section("More of them, and fewer")?;
    scale(walk, 3)?;
    ps(walk)?;
    walk.check("the third one is on the third node", |walk| {
        spread(walk, &[1, 1, 1])
    })?;
    scale(walk, 9)?;
    ps(walk)?;
    walk.check("three are on each node", |walk| spread(walk, &[3, 3, 3]))?;
    scale(walk, 2)?;
    walk.check(
        "two are left, on two nodes, and no rows of others",
        |walk| {
            walk.eventually(LIMIT, |walk| {
                let count = rows(walk, "node1")?.len();
                ensure!(count == 2, "there are {count} rows");
                Ok(())
            })?;
            spread(walk, &[1, 1])
        },
    )?;
    ps(walk)
}

fn removed(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("The service is removed")?;
    walk.check("its name is all that is said", |walk| {
        let said = walk.weft("node1", &["service", "rm", "web"])?;
        ensure!(said == "web\n", "it said {said:?}");
        Ok(())
    })?;
    walk.check("nobody knows it any more", |walk| {
        walk.refused("node1", &["service", "ps", "web"], "no such service: web")?;
        let said = walk.weft("node1", &["service", "ls"])?;
        let words: Vec<&str> = said.split_whitespace().collect();
        ensure!(words == NOTHING, "it said {said:?}");
        Ok(())
    })?;
    Ok(())
}

fn one_on_each_node(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("One task on each node")?;
    walk.require("docker's lines: a bar for each node", |walk| {
        let lines = create(walk, "--mode=global")?;
        converged_on_nodes(&lines, NODES.len())
    })?;
    walk.check("three of three are told", |walk| {
        let said = walk.weft("node1", &["service", "ls"])?;
        let told = said.contains("global") && said.contains(" 3/3 ");
        ensure!(told, "{said:?} tells something else");
        Ok(())
    })?;
    ps(walk)?;
    walk.check("each node has one, named by the node", |walk| {
        for row in spread(walk, &[1, 1, 1])? {
            let node = row.name.strip_prefix("web.");
            ensure!(
                node.is_some_and(|id| id.len() == 25 && is_id(id)),
                "{row:?}"
            );
        }
        Ok(())
    })?;
    Ok(())
}

fn without_power(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("A node loses its power")?;
    walk.transcript
        .say("node3 is killed (SIGKILL, no goodbye).")?;
    walk.swarm.lab_mut().kill_node("node3")?;
    walk.check(
        "its task shall not run, and is shown as it was last seen",
        |walk| {
            walk.eventually(LIMIT, |walk| {
                let rows = rows(walk, "node1")?;
                let there = rows.iter().filter(|row| row.node == "node3");
                let states: Vec<_> = there.map(|row| row.states()).collect();
                ensure!(
                    states == [("Shutdown", "Running")] && by_node(&rows).len() == 2,
                    "{rows:#?}"
                );
                Ok(())
            })
        },
    )?;
    ps(walk)?;
    walk.transcript.say("node3 has power again.")?;
    walk.swarm.lab_mut().start_node("node3")?;
    walk.check(
        "a new task runs there, and what became of the old one is known",
        |walk| {
            walk.eventually(LIMIT, |walk| {
                let rows = rows(walk, "node1")?;
                let there = rows.iter().filter(|row| row.node == "node3");
                let there: Vec<_> = there
                    .map(|row| (row.is_old(), row.states(), row.error.as_str()))
                    .collect();
                let failed = "\"task: non-zero exit (255)\"";
                ensure!(
                    there
                        == [
                            (false, ("Running", "Running"), ""),
                            (true, ("Shutdown", "Failed"), failed)
                        ],
                    "{rows:#?}"
                );
                Ok(())
            })
        },
    )?;
    ps(walk)
}

/// The service, and clients who ask all nodes for it from now on.
fn two_again(walk: &mut Walk<'_, '_>) -> anyhow::Result<Crowd> {
    walk.transcript
        .section("Two replicas again, with clients")?;
    walk.require("three nodes are ready", |walk| walk.swarm.wait_nodes(3))?;
    two(walk)?;
    ps(walk)?;
    for node in NODES {
        let target = format!("{}:{PORT}/", walk.lab().node_addr(node)?);
        walk.require(&format!("{node} answers the outside"), |walk| {
            walk.eventually(LIMIT, |walk| {
                walk.tool_quietly(OUTSIDE, None, &["demo-get", &target])
            })
        })?;
    }
    walk.transcript
        .say("From now on clients outside ask each node, without a pause.")?;
    Crowd::new(walk, &NODES)
}

/// Says whether the manager gets tasks, and has that shown.
fn be(walk: &mut Walk<'_, '_>, availability: &str, shown: &str) -> anyhow::Result<()> {
    let words = ["node", "update", "--availability", availability, "node1"];
    walk.check(
        &format!("node1 is the leader, and {availability}"),
        |walk| {
            let said = walk.weft("node1", &words)?;
            ensure!(said == "node1\n", "it said {said:?}");
            let row = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}";
            let rows = walk.quietly("node1", &["node", "ls", "--format", row])?;
            let wanted = format!("node1 Ready {shown} Leader");
            ensure!(rows.lines().any(|row| row == wanted), "it lists {rows:?}");
            walk.weft("node1", &["node", "ls"])
        },
    )?;
    Ok(())
}

fn drained(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("The manager is drained")?;
    let before = rows(walk, "node1")?;
    let there = before.iter().filter(|row| row.node == "node1");
    let leave: Vec<String> = there.map(|row| row.name.clone()).collect();
    be(walk, "drain", "Drain")?;
    walk.check("what ran on it runs elsewhere, below is what was", |walk| {
        walk.eventually(LIMIT, |walk| {
            let rows = rows(walk, "node1")?;
            let counts = by_node(&rows);
            let moved = counts.values().sum::<usize>() == 2 && !counts.contains_key("node1");
            let told = |name: &String| {
                let mut old = rows.iter().filter(|row| row.is_old() && row.name == *name);
                old.any(|row| row.node == "node1" && row.states() == ("Shutdown", "Shutdown"))
            };
            ensure!(moved && leave.iter().all(told), "{rows:#?}");
            Ok(())
        })
    })?;
    ps(walk)?;
    scale(walk, 10)?;
    ps(walk)?;
    walk.check("none of the new ones is on it", |walk| {
        let rows = spread(walk, &[5, 5])?;
        ensure!(!by_node(&rows).contains_key("node1"), "{rows:#?}");
        Ok(())
    })?;
    Ok(())
}

fn active_again(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("And active again")?;
    be(walk, "active", "Active")?;
    scale(walk, 15)?;
    ps(walk)?;
    walk.check("the last five are on it", |walk| {
        let rows = spread(walk, &[5, 5, 5])?;
        let mut last = (11..=15).map(|slot| format!("web.{slot}"));
        let there = |name: String| {
            let mut here = rows.iter().filter(|row| row.runs() && row.name == name);
            here.any(|row| row.node == "node1")
        };
        ensure!(last.all(there), "{rows:#?}");
        Ok(())
    })?;
    Ok(())
}

fn refused(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    for node in NODES {
        let target = format!("{}:{PORT}/", walk.lab().node_addr(node)?);
        walk.check(&format!("nobody listens on {node} any more"), |walk| {
            walk.eventually(LIMIT, |walk| {
                let said = walk.tool_quietly(OUTSIDE, None, &["demo-get", &target]);
                ensure!(said.is_err(), "it answered {said:?}");
                Ok(())
            })
        })?;
    }
    Ok(())
}
