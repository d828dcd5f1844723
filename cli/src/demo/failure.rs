//! A node dies, and the service goes on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use weft_lab::OUTSIDE;
use weft_lab::tools::dns::{Found, lookup};
use weft_lab::tools::get::fetch;

use super::cluster::{Guest, PORT, Service};
use super::transcript::seconds;
use super::walk::Walk;

/// Everything has to have forgotten the node by then.
const LIMIT: Duration = Duration::from_secs(15);

/// The design's goal for the time until a dead node is withdrawn.
const GOAL: Duration = Duration::from_secs(2);

/// A request without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Clients of each node: while one waits for an answer that never comes, the others go on.
const CLIENTS: usize = 8;

/// Requests have to succeed for so long before the trouble counts as over.
const QUIET: Duration = Duration::from_secs(2);

/// What clients saw.
#[derive(Default)]
struct Seen {
    requests: u32,
    failures: u32,
    /// Start of the last request that failed, after the node was killed.
    last_failure: Option<Duration>,
}

pub(super) fn kill_a_node(
    walk: &mut Walk<'_, '_>,
    service: &Service,
    guest: &Guest,
) -> anyhow::Result<()> {
    walk.transcript.section("A node dies")?;
    let victim = service
        .tasks
        .iter()
        .find(|task| task.node != "node1" && task.node != guest.node)
        .context("no task runs on a worker")?
        .clone();
    let survivors: Vec<String> = walk
        .nodes
        .iter()
        .filter(|node| **node != victim.node)
        .cloned()
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let mut clients = Vec::new();
    for node in &survivors {
        let target = SocketAddr::new(walk.lab().node_addr(node)?, PORT);
        let mut asking = Vec::new();
        for _ in 0..CLIENTS {
            let outside = walk.lab().netns(OUTSIDE, None)?;
            let stop = Arc::clone(&stop);
            asking.push(std::thread::spawn(move || {
                outside.run_in(|| ask_until(target, started, &stop))
            }));
        }
        clients.push((target, asking));
    }

    walk.transcript.say(&format!(
        "Clients outside keep asking {}. Now {} is killed, with {} on it (SIGKILL, no goodbye).",
        survivors.join(" and "),
        victim.node,
        victim.name
    ))?;
    let killed = started.elapsed();
    walk.swarm.lab_mut().kill_node(&victim.node)?;
    let forgotten = walk.check("its task is withdrawn from the names", |walk| {
        until_forgotten(walk, guest, victim.ip)
    })?;
    let withdrawn = Instant::now();
    while withdrawn.elapsed() < QUIET && walk.going_on().is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    report(walk, clients, killed)?;
    if let Some(took) = forgotten {
        let verdict = if took <= GOAL { "within" } else { "beyond" };
        walk.transcript.say(&format!(
            "Time until withdrawal: {} ({verdict} the goal of {}).",
            seconds(took),
            seconds(GOAL)
        ))?;
    }
    aftermath(walk, &victim.node, &survivors)
}

/// One request after the other until told to stop. Failures before the kill count too: there
/// should be none.
fn ask_until(target: SocketAddr, origin: Instant, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = origin.elapsed();
        seen.requests += 1;
        if fetch(target, "/", PATIENCE).is_err() {
            seen.failures += 1;
            seen.last_failure = Some(begun);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

/// Asks for `tasks.web` from the guest until the dead task is gone from the answer.
fn until_forgotten(
    walk: &mut Walk<'_, '_>,
    guest: &Guest,
    dead: IpAddr,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let netns = walk.lab().netns(&guest.node, Some(&guest.netns))?;
    let server = SocketAddr::from(([127, 0, 0, 11], 53));
    loop {
        let found = netns.run_in(|| lookup(server, "tasks.web", false))?;
        match found {
            Ok(Found::Addresses(all)) if !all.contains(&dead) => return Ok(started.elapsed()),
            Ok(Found::NoSuchName) => return Ok(started.elapsed()),
            _ if started.elapsed() > LIMIT => {
                bail!("tasks.web still names {dead} after {} s", LIMIT.as_secs())
            }
            _ => {}
        }
        walk.going_on()?;
        std::thread::sleep(Duration::from_millis(10));
    }
}

type Client = JoinHandle<std::io::Result<Seen>>;

fn report(
    walk: &mut Walk<'_, '_>,
    clients: Vec<(SocketAddr, Vec<Client>)>,
    killed: Duration,
) -> anyhow::Result<()> {
    for (target, asking) in clients {
        let mut all = Seen::default();
        for client in asking {
            let seen = match client.join() {
                Ok(seen) => seen?,
                Err(_) => bail!("a client panicked"),
            };
            all.requests += seen.requests;
            all.failures += seen.failures;
            all.last_failure = all.last_failure.max(seen.last_failure);
        }
        let Seen {
            requests,
            failures,
            last_failure,
        } = all;
        let trouble = last_failure.map_or(Duration::ZERO, |at| at.saturating_sub(killed));
        let claim = format!("requests to {target} succeed again");
        walk.check(&claim, |walk| {
            let until = if failures == 0 {
                String::new()
            } else {
                format!(", the last one begun {} after the kill", seconds(trouble))
            };
            walk.transcript.say(&format!(
                "{failures} of {requests} requests to {target} failed{until}."
            ))?;
            ensure!(
                trouble < LIMIT && requests > failures,
                "they never recovered"
            );
            Ok(())
        })?;
    }
    Ok(())
}

fn aftermath(walk: &mut Walk<'_, '_>, dead: &str, survivors: &[String]) -> anyhow::Result<()> {
    walk.check("the manager knows that the node is down", |walk| {
        walk.eventually(LIMIT, |walk| {
            let states = walk.quietly(
                "node1",
                &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"],
            )?;
            let wanted = format!("{dead} Down");
            ensure!(
                states.lines().any(|line| line == wanted),
                "node ls says {:?}",
                states.lines().collect::<Vec<_>>()
            );
            Ok(())
        })
    })?;
    walk.check("its task runs on another node", |walk| {
        walk.eventually(LIMIT, |walk| {
            let tasks = walk.swarm.tasks("web")?;
            let alive = tasks.iter().filter(|t| t.node != dead).count();
            ensure!(alive == 2, "{alive} of 2 tasks run on nodes that live");
            Ok(())
        })
    })?;
    walk.weft("node1", &["node", "ls"])?;
    walk.weft("node1", &["service", "ps", "web"])?;
    for node in survivors {
        let target = format!("{}:{PORT}/", walk.lab().node_addr(node)?);
        walk.check(&format!("{node} still answers"), |walk| {
            walk.eventually(LIMIT, |walk| {
                walk.tool_quietly(OUTSIDE, None, &["demo-get", "--times", "10", &target])
            })?;
            walk.tool(OUTSIDE, None, &["demo-get", &target])
        })?;
    }
    Ok(())
}
