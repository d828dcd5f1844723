//! Steps that shape the cluster: swarm, network, service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use weft_lab::Task;

use super::walk::Walk;

/// Name of the demo's network.
pub(super) const NETWORK: &str = "front";

/// Port that is published on every node.
pub(super) const PORT: u16 = 8000;

const LIMIT: Duration = Duration::from_secs(20);

/// The demo's service as it is now.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// Running tasks, in the order of their nodes.
    pub(super) tasks: Vec<Task>,
    /// Virtual address on the demo's network.
    pub(super) vip: IpAddr,
}

/// A namespace that no service owns, attached by hand.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) node: String,
    pub(super) netns: PathBuf,
}

pub(super) fn swarm(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("A swarm")?;
    let manager = walk.lab().node_addr("node1")?.to_string();
    walk.weft("node1", &["swarm", "init", "--advertise-addr", &manager])?;
    let token = walk.weft("node1", &["swarm", "join-token", "-q", "worker"])?;
    let remote = format!("{manager}:2377");
    for node in walk.nodes.clone().iter().skip(1) {
        let addr = walk.lab().node_addr(node)?.to_string();
        walk.weft(
            node,
            &[
                "swarm",
                "join",
                "--token",
                token.trim(),
                "--advertise-addr",
                &addr,
                &remote,
            ],
        )?;
    }
    walk.require("three nodes are ready", |walk| {
        walk.eventually(LIMIT, |walk| {
            let nodes = walk.swarm.nodes()?;
            let ready = nodes.iter().filter(|(_, ready)| *ready).count();
            ensure!(ready == 3, "{ready} of 3 nodes are ready");
            Ok(())
        })
    })?;
    walk.weft("node1", &["node", "ls"])?;
    Ok(())
}

pub(super) fn network(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("An overlay network")?;
    walk.weft("node1", &["network", "create", NETWORK])?;
    walk.weft("node1", &["network", "ls"])?;
    Ok(())
}

pub(super) fn service(walk: &mut Walk<'_, '_>) -> anyhow::Result<Service> {
    walk.transcript.section("A service of three tasks")?;
    let program = walk.program.clone();
    let publish = format!("{PORT}:80");
    walk.weft(
        "node1",
        &[
            "service",
            "create",
            "--name",
            "web",
            "--replicas",
            "3",
            "--network",
            NETWORK,
            "--publish",
            &publish,
            "host",
            &program,
            "demo-http",
            "--port",
            "80",
        ],
    )?;
    let service = walk.require("every node runs one task", |walk| {
        walk.eventually(LIMIT, |walk| {
            let service = look(walk)?;
            let nodes: BTreeSet<_> = service.tasks.iter().map(|t| &t.node).collect();
            ensure!(
                service.tasks.len() == 3 && nodes.len() == 3,
                "{} tasks run, on {nodes:?}",
                service.tasks.len()
            );
            Ok(service)
        })
    })?;
    walk.weft("node1", &["service", "ls"])?;
    walk.weft("node1", &["service", "ps", "web"])?;
    Ok(service)
}

pub(super) fn scale(walk: &mut Walk<'_, '_>) -> anyhow::Result<Service> {
    walk.transcript.section("Two tasks are enough")?;
    walk.transcript
        .say("Meanwhile two clients of each node read large answers, slowly.")?;
    walk.weft("node1", &["service", "scale", "web=2"])?;
    let service = walk.require("two tasks run", |walk| {
        walk.eventually(LIMIT, |walk| {
            let service = look(walk)?;
            ensure!(
                service.tasks.len() == 2,
                "{} tasks run",
                service.tasks.len()
            );
            Ok(service)
        })
    })?;
    walk.weft("node1", &["service", "ps", "web"])?;
    Ok(service)
}

/// Attaches a namespace of its own on the node that runs no task.
pub(super) fn connect(walk: &mut Walk<'_, '_>, service: &Service) -> anyhow::Result<Guest> {
    walk.transcript
        .section("Any network namespace can join, without a service")?;
    let node = walk
        .nodes
        .iter()
        .find(|node| !service.tasks.iter().any(|task| task.node == **node))
        .context("every node runs a task")?
        .clone();
    let netns = walk.lab().add_netns(&node, "guest")?;
    let path = netns.display().to_string();
    walk.transcript
        .say(&format!("{node} has a new network namespace {path}."))?;
    walk.weft(
        &node,
        &["network", "connect", "--name", "guest", NETWORK, &path],
    )?;
    Ok(Guest { node, netns })
}

/// What the cluster says about the service.
fn look(walk: &Walk<'_, '_>) -> anyhow::Result<Service> {
    Ok(Service {
        tasks: walk.swarm.tasks("web")?,
        vip: walk.swarm.vip("web", NETWORK)?,
    })
}
