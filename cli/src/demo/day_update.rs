//! The update that nobody notices, and the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use weft_lab::OUTSIDE;

use super::cluster::PORT;
use super::crowd::Crowd;
use super::day_rows::{Bars, LIMIT, Row, converged, rows, running};
use super::walk::Walk;

/// Replicas of the service.
const TASKS: usize = 15;

/// The worker that is promoted, for whoever watches from there.
const WATCHER: &str = "node2";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Tasks that are replaced when the table is shown.
const SOME: std::ops::RangeInclusive<usize> = 4..=11;

/// Requests to each node that tell which version answers.
const ASKED: &str = "12";

pub(super) fn walk(walk: &mut Walk<'_, '_>, crowd: &Crowd) -> anyhow::Result<()> {
    promoted(walk)?;
    answers(walk, "1")?;
    updated(walk)?;
    answers(walk, "2")?;
    crowd.sees_no_error(walk, "clients saw no error in the update")?;
    rolled_back(walk)?;
    answers(walk, "1")?;
    crowd.sees_no_error(walk, "nor on the way back")?;
    demoted(walk)
}

fn promoted(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("A worker is promoted, to watch")?;
    walk.require("it lists the tasks", |walk| {
        let said = walk.weft("node1", &["node", "promote", WATCHER])?;
        let says = format!("Node {WATCHER} promoted to a manager in the swarm.\n");
        ensure!(said.starts_with(&says), "it said {said:?}");
        walk.eventually(LIMIT, |walk| rows(walk, WATCHER))
    })?;
    Ok(())
}

/// Checks that every answer is of that version of the program, whichever node is asked.
fn answers(walk: &mut Walk<'_, '_>, version: &str) -> anyhow::Result<()> {
    walk.check(
        &format!("version {version} answers, on every node"),
        |walk| {
            for node in walk.nodes.clone() {
                let target = format!("{}:{PORT}/", walk.lab().node_addr(&node)?);
                let words = ["demo-get", "--times", ASKED, &target];
                let text = walk.tool_quietly(OUTSIDE, None, &words)?;
                let end = format!(" (version {version})");
                let other = text.lines().find(|line| !line.ends_with(&end));
                ensure!(other.is_none(), "{node} was answered {other:?}");
            }
            Ok(())
        },
    )?;
    Ok(())
}

fn updated(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript
        .section("Fifteen replicas become the second version")?;
    walk.transcript
        .say(&format!("Somebody watches on {WATCHER}."))?;
    let program = shlex::try_quote(&walk.program)?.into_owned();
    let command = format!("{program} demo-http --port 80 --version 2");
    let watch = Watch::begin(walk)?;
    walk.require("fifteen tasks converge, with a bar each", |walk| {
        let words = ["service", "update", "--args", &command, "web"];
        let lines = walk.typed("node1", &words)?;
        converged(&lines, &["web"], TASKS, Bars::Full)
    })?;
    walk.check("old and new tasks were seen side by side", |walk| {
        let table = watch.end()?;
        let shown = ["weft", "service", "ps", "web"];
        walk.transcript.command(WATCHER, &shown)?;
        Ok(walk.transcript.output(&table)?)
    })?;
    walk.check(
        "every task has taken the place of one that was shut down",
        |walk| {
            let rows = running(walk, TASKS)?;
            replaced(&rows, 1)
        },
    )?;
    Ok(())
}

/// Checks that below each task at least so many are that it, and others before it, took the place of.
fn replaced(rows: &[Row], least: usize) -> anyhow::Result<()> {
    for row in rows.iter().filter(|row| row.runs()) {
        let of_slot = rows
            .iter()
            .filter(|old| old.is_old() && old.name == row.name);
        let ended = of_slot.filter(|old| old.states() == ("Shutdown", "Shutdown"));
        let count = ended.count();
        ensure!(count >= least, "{} took the place of {count}", row.name);
    }
    Ok(())
}

fn rolled_back(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("And become the first one again")?;
    walk.require("fifteen bars run down", |walk| {
        let lines = walk.typed("node1", &["service", "rollback", "web"])?;
        let head = ["web", "rollback: manually requested rollback"];
        converged(&lines, &head, TASKS, Bars::Empty)
    })?;
    walk.weft(WATCHER, &["service", "ps", "web"])?;
    walk.check("two tasks of each slot were shut down", |walk| {
        let rows = running(walk, TASKS)?;
        replaced(&rows, 2)
    })?;
    Ok(())
}

fn demoted(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("The worker is one again")?;
    walk.check("it neither shows nor changes the swarm", |walk| {
        let said = walk.weft("node1", &["node", "demote", WATCHER])?;
        let says = format!("Manager {WATCHER} demoted in the swarm.\n");
        ensure!(said.starts_with(&says), "it said {said:?}");
        walk.eventually(LIMIT, |walk| {
            let said = walk.quietly(WATCHER, &["node", "ls"]);
            ensure!(said.is_err(), "it still answers");
            Ok(())
        })?;
        let says = "This node is not a swarm manager.";
        walk.refused(WATCHER, &["node", "ls"], says)
    })?;
    Ok(())
}

/// `watch weft service ps web`, on the node that was promoted.
struct Watch {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<anyhow::Result<Option<String>>>,
}

impl Watch {
    fn begin(walk: &Walk<'_, '_>) -> anyhow::Result<Self> {
        let before = rows(walk, WATCHER)?
            .iter()
            .filter(|row| row.is_old())
            .count();
        let mut command = walk.command(WATCHER, &["service", "ps", "web"])?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let looks = std::thread::spawn(move || -> anyhow::Result<Option<String>> {
            let mut found = None;
            while !stopped.load(Ordering::Relaxed) {
                let output = command.output()?;
                let err = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "it was refused: {err}");
                let table = String::from_utf8_lossy(&output.stdout).into_owned();
                let old = table.lines().filter(|line| line.contains(" \\_ ")).count();
                if SOME.contains(&old.saturating_sub(before)) && found.is_none() {
                    found = Some(table);
                }
                std::thread::sleep(LOOK);
            }
            Ok(found)
        });
        Ok(Self { stop, looks })
    }

    /// What was seen in the middle.
    fn end(self) -> anyhow::Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.looks.join();
        let looks = looks.map_err(|_| anyhow::anyhow!("the one who watched panicked"))?;
        looks?.context("nobody saw it in the middle")
    }
}
