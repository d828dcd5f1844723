//! Three managers: who leads, who follows, and what goes on when they are gone.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::cluster::{self, NETWORK, PORT};
use super::crowd::Crowd;
use super::leaving;
use super::members::{LIMIT, MANAGERS, NO_LEADER, WORKERS, lists};
use super::walk::Walk;

/// A worker that is promoted answers within so long.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Changes are taken again within so long after a leader's death; the demo's machines share one.
const GOAL: Duration = Duration::from_secs(3);

const NOT_A_MANAGER: &str = "This node is not a swarm manager.";

pub(super) fn walk(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    swarm(walk)?;
    cluster::network(walk)?;
    service(walk)?;
    let crowd = Crowd::new(walk, &WORKERS)?;
    promote_and_demote(walk)?;
    let leader = leader_dies(walk)?;
    crowd.notices_nothing(walk)?;
    let rest = if leader == "node2" { "node3" } else { "node2" };
    quorum_is_lost(walk, &leader, rest)?;
    crowd.notices_nothing(walk)?;
    all_come_back(walk, &leader, rest)?;
    crowd.notices_nothing(walk)?;
    leaving::walk(walk, &crowd)
}

fn swarm(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("Three managers and two workers")?;
    let first = walk.lab().node_addr("node1")?.to_string();
    walk.weft("node1", &["swarm", "init", "--advertise-addr", &first])?;
    let remote = format!("{first}:2377");
    tokens(walk, &remote)?;
    for (role, nodes) in [("manager", &MANAGERS[1..]), ("worker", &WORKERS[..])] {
        let token = walk.weft("node1", &["swarm", "join-token", "-q", role])?;
        for node in nodes {
            let addr = walk.lab().node_addr(node)?.to_string();
            let words = ["swarm", "join", "--token", token.trim()];
            let more = ["--advertise-addr", addr.as_str(), remote.as_str()];
            walk.weft(node, &[&words[..], &more].concat())?;
        }
    }
    walk.require("five nodes are ready, and three managers answer", |walk| {
        walk.eventually(LIMIT, |walk| {
            let members = walk.swarm.members("node1")?;
            let ready = members.iter().filter(|member| member.ready).count();
            ensure!(ready == 5, "{ready} of 5 nodes are ready");
            walk.swarm.wait_managers(3)
        })
    })?;
    walk.weft("node1", &["node", "ls"])?;
    walk.check("a worker neither shows nor changes the swarm", |walk| {
        walk.refused("node4", &["node", "ls"], NOT_A_MANAGER)
    })?;
    Ok(())
}

/// Each role has a token of its own, which can be another one from now on.
fn tokens(walk: &mut Walk<'_, '_>, remote: &str) -> anyhow::Result<()> {
    let old = walk.weft("node1", &["swarm", "join-token", "-q", "manager"])?;
    walk.weft("node1", &["swarm", "join-token", "--rotate", "manager"])?;
    walk.check("the old token makes nobody a manager", |walk| {
        let addr = walk.lab().node_addr("node2")?.to_string();
        let words = ["swarm", "join", "--token", old.trim()];
        let more = ["--advertise-addr", addr.as_str(), remote];
        let join = [&words[..], &more].concat();
        let says = "A valid join token is necessary to join this cluster";
        walk.refused("node2", &join, says)
    })?;
    Ok(())
}

/// Two tasks, on the workers, so that none ends with a manager.
fn service(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("A service on the workers")?;
    let drain = ["node", "update", "--availability", "drain"];
    walk.weft("node1", &[&drain[..], &MANAGERS].concat())?;
    let (program, publish) = (walk.program.clone(), format!("{PORT}:80"));
    let create = ["service", "create", "--name", "web", "--replicas", "2"];
    let network = ["--network", NETWORK, "--publish", publish.as_str()];
    let task = ["host", program.as_str(), "demo-http", "--port", "80"];
    walk.weft("node1", &[&create[..], &network, &task].concat())?;
    for node in WORKERS {
        let target = format!("{}:{PORT}/", walk.lab().node_addr(node)?);
        walk.require(&format!("{node} answers the outside"), |walk| {
            walk.eventually(LIMIT, |walk| {
                walk.tool_quietly(weft_lab::OUTSIDE, None, &["demo-get", &target])
            })
        })?;
    }
    Ok(())
}

fn promote_and_demote(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript
        .section("A worker is promoted, and demoted")?;
    walk.weft("node1", &["node", "promote", "node4"])?;
    walk.check("it answers at once", |walk| {
        walk.eventually(AT_ONCE, |walk| walk.quietly("node4", &["node", "ls"]))?;
        walk.weft("node4", &["node", "ls"])
    })?;
    walk.weft("node1", &["node", "demote", "node4"])?;
    walk.check("it is a worker again", |walk| {
        walk.eventually(LIMIT, |walk| {
            let said = walk.quietly("node4", &["node", "ls"]);
            ensure!(said.is_err(), "it still answers");
            Ok(())
        })?;
        walk.refused("node4", &["node", "ls"], NOT_A_MANAGER)
    })?;
    Ok(())
}

/// The name of the one that leads then.
fn leader_dies(walk: &mut Walk<'_, '_>) -> anyhow::Result<String> {
    walk.transcript.section("The leader dies")?;
    walk.transcript
        .say("node1 is killed (SIGKILL, no goodbye).")?;
    walk.swarm.lab_mut().kill_node("node1")?;
    let two = ["node2", "node3"];
    walk.check("changes are taken again", |walk| {
        walk.eventually(GOAL, |walk| {
            let words = ["network", "create", "after"];
            let said = walk.quietly("node2", &words);
            match said {
                // Taken before, and the answer was lost.
                Err(error) if format!("{error:#}").contains("after already exists") => Ok(()),
                said => said.map(drop),
            }
        })
    })?;
    let leader = walk.swarm.wait_leader(&two)?;
    walk.swarm.ask(&leader);
    for (node, name) in two.into_iter().zip(["by-node2", "by-node3"]) {
        walk.check(&format!("{node} takes changes, whoever leads"), |walk| {
            walk.weft(node, &["network", "create", name])
        })?;
    }
    walk.check("the dead one is shown as such", |walk| {
        let rows = [
            "node1 Down Unreachable".to_owned(),
            format!("{leader} Ready Leader"),
        ];
        lists(walk, &leader, &rows)
    })?;
    walk.weft(&leader, &["node", "ls"])?;
    Ok(leader)
}

fn quorum_is_lost(walk: &mut Walk<'_, '_>, leader: &str, rest: &str) -> anyhow::Result<()> {
    walk.transcript
        .section("The second of three managers dies")?;
    walk.transcript.say(&format!("{rest} is killed too."))?;
    walk.swarm.lab_mut().kill_node(rest)?;
    walk.check("nothing can be changed any more", |walk| {
        walk.eventually(LIMIT, |walk| {
            let said = walk.quietly(leader, &["network", "create", "lost"]);
            let error = said.err().context("it was taken")?;
            ensure!(
                error.root_cause().to_string().contains(NO_LEADER),
                "{error:#}"
            );
            Ok(())
        })?;
        walk.refused(leader, &["service", "scale", "web=3"], NO_LEADER)
    })?;
    walk.check("what it last knew can be read", |walk| {
        let text = walk.weft(leader, &["node", "ls", "--stale"])?;
        let all = walk.nodes.iter().all(|node| text.contains(node.as_str()));
        ensure!(all, "nodes are missing");
        Ok(())
    })?;
    Ok(())
}

fn all_come_back(walk: &mut Walk<'_, '_>, leader: &str, rest: &str) -> anyhow::Result<()> {
    walk.transcript.section("One comes back, then the other")?;
    walk.transcript.say("node1 has power again.")?;
    walk.swarm.lab_mut().start_node("node1")?;
    walk.check("changes are taken again", |walk| {
        walk.eventually(LIMIT, |walk| {
            walk.quietly(leader, &["network", "create", "with-two"])
        })
    })?;
    walk.transcript.say(&format!("{rest} has power again."))?;
    walk.swarm.lab_mut().start_node(rest)?;
    walk.check("all three answer", |walk| {
        walk.eventually(LIMIT, |walk| {
            walk.swarm.wait_managers(3)?;
            walk.quietly(rest, &["network", "inspect", "with-two"])
        })
    })?;
    walk.weft(rest, &["node", "ls"])?;
    Ok(())
}
