//! Steps that move packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use weft_lab::OUTSIDE;

use super::cluster::{Guest, PORT, Service};
use super::walk::Walk;

const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the transfer between two tasks.
const TRANSFER: u64 = 256 << 20;

/// Requests that show how a service spreads them.
const MANY: u32 = 12;

pub(super) fn between_tasks(walk: &mut Walk<'_, '_>, service: &Service) -> anyhow::Result<()> {
    walk.transcript
        .section("Tasks on different nodes reach each other over VXLAN")?;
    let (from, to) = match service.tasks.as_slice() {
        [first, second, ..] => (first.clone(), second.clone()),
        _ => anyhow::bail!("two tasks are needed"),
    };
    walk.transcript.say(&format!(
        "From {} on {} to {} on {}, {}:",
        from.name, from.node, to.name, to.node, to.ip
    ))?;
    let ip = to.ip.to_string();
    let inside = Some(("web", from.netns.as_path()));
    walk.check("the other task answers pings", |walk| {
        walk.eventually(LIMIT, |walk| {
            walk.tool_quietly(
                &from.node,
                Some(&from.netns),
                &["demo-ping", "--count", "1", &ip],
            )
        })?;
        walk.tool(&from.node, inside, &["demo-ping", "--count", "3", &ip])
    })?;
    let target = format!("{ip}:80/bytes/{TRANSFER}");
    walk.check("every byte of a TCP transfer arrived", |walk| {
        let text = walk.tool(&from.node, inside, &["demo-get", "--count", &target])?;
        let whole = format!("{TRANSFER} bytes in ");
        ensure!(text.starts_with(&whole), "{text:?} is not {TRANSFER} bytes");
        Ok(())
    })?;
    Ok(())
}

pub(super) fn published_port(walk: &mut Walk<'_, '_>, title: &str) -> anyhow::Result<()> {
    walk.transcript.section(title)?;
    for node in walk.nodes.clone() {
        let target = format!("{}:{PORT}/", walk.lab().node_addr(&node)?);
        let local = format!("127.0.0.1:{PORT}/");
        walk.check(&format!("{node} answers the outside"), |walk| {
            walk.eventually(LIMIT, |walk| {
                greeting(&walk.tool_quietly(OUTSIDE, None, &["demo-get", &target])?)
            })?;
            greeting(&walk.tool(OUTSIDE, None, &["demo-get", &target])?)
        })?;
        walk.check(&format!("{node} answers itself"), |walk| {
            for target in [&target, &local] {
                walk.eventually(LIMIT, |walk| {
                    greeting(&walk.tool_quietly(&node, None, &["demo-get", target])?)
                })?;
            }
            greeting(&walk.tool(&node, None, &["demo-get", &local])?)
        })?;
    }
    let first = format!("{}:{PORT}/", walk.lab().node_addr("node1")?);
    walk.check("requests are spread over the replicas", |walk| {
        let times = MANY.to_string();
        let text = walk.tool_quietly(OUTSIDE, None, &["demo-get", "--times", &times, &first])?;
        spread(walk, &text, 2)
    })?;
    Ok(())
}

pub(super) fn virtual_address(
    walk: &mut Walk<'_, '_>,
    service: &Service,
    guest: &Guest,
) -> anyhow::Result<()> {
    walk.transcript
        .section("The virtual address of the service")?;
    let target = format!("{}:80/", service.vip);
    let inside = Some(("guest", guest.netns.as_path()));
    walk.check("the guest is answered by the replicas", |walk| {
        walk.eventually(LIMIT, |walk| {
            greeting(&walk.tool_quietly(&guest.node, Some(&guest.netns), &["demo-get", &target])?)
        })?;
        let times = MANY.to_string();
        let text = walk.tool(
            &guest.node,
            inside,
            &["demo-get", "--times", &times, &target],
        )?;
        spread(walk, &text, 2)
    })?;
    let task = service.tasks.first().context("no task runs")?.clone();
    walk.check("a task reaches its own service", |walk| {
        let inside = Some(("web", task.netns.as_path()));
        greeting(&walk.tool(&task.node, inside, &["demo-get", &target])?)
    })?;
    Ok(())
}

pub(super) fn outside(
    walk: &mut Walk<'_, '_>,
    service: &Service,
    far: IpAddr,
) -> anyhow::Result<()> {
    walk.transcript
        .section("Tasks reach the world through the gateway bridge")?;
    let task = service.tasks.first().context("no task runs")?.clone();
    let node_addr = walk.lab().node_addr(&task.node)?;
    walk.transcript.say(&format!(
        "{far} is on no network of the cluster; it says whom it sees:"
    ))?;
    let target = format!("{far}:80/");
    walk.check("the outside sees the task as its node", |walk| {
        let inside = Some(("web", task.netns.as_path()));
        let text = walk.tool(&task.node, inside, &["demo-get", &target])?;
        ensure!(
            text.trim() == format!("Hello from outside to {node_addr}"),
            "it said {:?}",
            text.trim()
        );
        Ok(())
    })?;
    Ok(())
}

fn greeting(text: &str) -> anyhow::Result<()> {
    ensure!(
        text.starts_with("Hello from web."),
        "the answer was {:?}",
        text.trim()
    );
    Ok(())
}

/// Counts who answered.
fn spread(walk: &mut Walk<'_, '_>, text: &str, at_least: usize) -> anyhow::Result<()> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines() {
        greeting(line)?;
        *counts.entry(line).or_default() += 1;
    }
    for (line, count) in &counts {
        walk.transcript.output(&format!("{count:>4} x {line}"))?;
    }
    ensure!(
        counts.len() >= at_least,
        "{} replicas answered {MANY} requests",
        counts.len()
    );
    Ok(())
}
