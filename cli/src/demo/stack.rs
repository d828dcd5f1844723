//! `weft demo --stack`: the voting app of six services as containers. It is deployed, changed and removed,
//! its data outlives its containers, and a secret becomes another one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use weft_lab::OUTSIDE;
use weft_lab::image::{
    Archive, RESULT_PORT, VISUALIZER_PORT, VOTE_PORT, VOTING_SERVICES, busybox, voting, voting_file,
};

use super::cluster;
use super::walk::Walk;

/// For all containers of the stack.
const LIMIT: Duration = Duration::from_secs(60);

const STACK: &str = "vote";

/// What images are named after. There is no registry: they are loaded, and nodes hand them on.
const REGISTRY: &str = "10.77.0.254:5000";

/// Where packages put the programs that start containers.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Says what this machine lacks for containers, before anything is made.
///
/// # Errors
/// It does.
pub(super) fn needs() -> anyhow::Result<()> {
    let mut runtimes = PLACES
        .iter()
        .flat_map(|place| ["runc", "crun"].map(|name| Path::new(place).join(name)));
    ensure!(
        runtimes.any(|path| path.is_file()),
        "the demo of stacks needs a runtime of containers: install it with `apt-get install runc` (or \
         your system's package of that name) and run it again"
    );
    busybox().map(drop)
}

pub(super) fn walk(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    cluster::swarm(walk)?;
    let dir = walk.lab().dir().join("stack");
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    images(walk, &dir)?;
    let shown = dir.join("shown");
    let _visualizer = visualizer(walk, &shown)?;
    let stack = File::new(walk, dir, &shown)?;
    deployed(walk, &stack)?;
    votes(walk)?;
    picture(walk)?;
    again(walk, &stack)?;
    secret(walk, &stack)?;
    removed(walk)
}

/// The file of the stack, and those beside it.
struct File {
    dir: PathBuf,
    text: String,
}

impl File {
    fn new(walk: &Walk<'_, '_>, dir: PathBuf, shown: &Path) -> anyhow::Result<Self> {
        let text = voting_file(REGISTRY, Path::new(&walk.program), shown)?;
        Ok(Self { dir, text })
    }

    /// Writes a file, and returns its path as it is typed.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

fn images(walk: &mut Walk<'_, '_>, dir: &Path) -> anyhow::Result<()> {
    walk.transcript.section("Images")?;
    walk.transcript.say(
        "Five small ones are made here, of busybox and shell scripts that stand for the voting app. \
         They are loaded on node1; the other nodes get them from there.",
    )?;
    for image in voting()? {
        let name = format!("{REGISTRY}/{}", image.name());
        let file = dir.join(format!("{}.tar", image.name().replace(':', "-")));
        Archive::of(&image.named(&name))?.write_file(&file)?;
        let path = file.display().to_string();
        walk.weft("node1", &["image", "load", "-q", "-i", &path])?;
    }
    Ok(())
}

/// A process that ends with the walk.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // What it started goes with its machine, at the latest.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A visualizer that may talk to the manager, for the one in the stack: tasks may not.
fn visualizer(walk: &mut Walk<'_, '_>, shown: &Path) -> anyhow::Result<Ends> {
    std::fs::create_dir(shown).with_context(|| format!("cannot make {}", shown.display()))?;
    let manager = format!("unix://{}", walk.lab().socket("node1")?.display());
    let listen = format!("unix://{}", shown.join("weft.sock").display());
    walk.transcript.say(
        "No task may talk to weftd. On node1 this tells the visualizer of the stack what it shows:",
    )?;
    walk.transcript
        .command("node1", &["weft", "visualizer", "--listen", &listen])?;
    let program = walk.program.clone();
    let words = [
        program.as_str(),
        "-H",
        &manager,
        "visualizer",
        "--listen",
        &listen,
    ];
    let mut command: Command = walk.lab().command("node1", &words)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("this program cannot be run")?;
    Ok(Ends(child))
}

/// Rows that a command prints as JSON.
fn rows(walk: &Walk<'_, '_>, words: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = walk.quietly("node1", &[words, &["--format", "json"]].concat())?;
    let rows = text.lines().map(serde_json::from_str::<Value>);
    Ok(rows.collect::<Result<Vec<Value>, _>>()?)
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Ids of the tasks that shall run, by their service.
fn tasks(walk: &Walk<'_, '_>) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut tasks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(walk, &["stack", "ps", "--no-trunc", STACK])? {
        if text(&row, "DesiredState") == "Running" {
            let name = text(&row, "Name");
            let service = name.split_once('.').map_or(name, |(service, _)| service);
            let of_it = tasks.entry(service.to_owned()).or_default();
            of_it.insert(text(&row, "ID").to_owned());
        }
    }
    Ok(tasks)
}

/// Waits until every service has all of its tasks.
fn all_run(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.eventually(LIMIT, |walk| {
        let rows = rows(walk, &["stack", "services", STACK])?;
        let short = rows.iter().find(|row| {
            let (running, wanted) = text(row, "Replicas").split_once('/').unwrap_or_default();
            running.is_empty() || running != wanted
        });
        ensure!(
            rows.len() == VOTING_SERVICES.len() && short.is_none(),
            "{} services, and this one lacks tasks: {short:?}",
            rows.len()
        );
        Ok(())
    })
}

fn deployed(walk: &mut Walk<'_, '_>, stack: &File) -> anyhow::Result<()> {
    walk.transcript.section("A stack of six services")?;
    walk.transcript
        .say("Two networks, a volume, three published ports; vote has two replicas:")?;
    let path = stack.write("voting.yml", &stack.text)?;
    walk.require("three networks and six services are made", |walk| {
        let said = walk.weft("node1", &["stack", "deploy", "-c", &path, STACK])?;
        let made = |what: &str| {
            let begins = format!("Creating {what} {STACK}_");
            said.lines()
                .filter(|line| line.starts_with(&begins))
                .count()
        };
        let found = (made("network"), made("service"));
        ensure!(found == (3, 6), "it made {found:?} of them");
        Ok(())
    })?;
    walk.require("all containers run", all_run)?;
    walk.weft("node1", &["stack", "ls"])?;
    walk.weft("node1", &["stack", "services", STACK])?;
    walk.weft("node1", &["stack", "ps", STACK])?;
    Ok(())
}

/// What a client outside gets from a port of a node; shown.
fn get(walk: &mut Walk<'_, '_>, node: &str, port: u16, path: &str) -> anyhow::Result<String> {
    let target = format!("{}:{port}{path}", walk.lab().node_addr(node)?);
    walk.tool(OUTSIDE, None, &["demo-get", &target])
}

/// Waits for it, and does not show it.
fn wait_for(
    walk: &mut Walk<'_, '_>,
    node: &str,
    port: u16,
    path: &str,
    wanted: &str,
) -> anyhow::Result<String> {
    let target = format!("{}:{port}{path}", walk.lab().node_addr(node)?);
    walk.eventually(LIMIT, |walk| {
        let said = walk.tool_quietly(OUTSIDE, None, &["demo-get", &target])?;
        ensure!(said.contains(wanted), "it said {said:?}");
        Ok(said)
    })
}

fn votes(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript
        .section("A vote goes all the way: vote, redis, worker, db, result")?;
    for node in walk.nodes.clone() {
        walk.require(&format!("{node} has the page"), |walk| {
            wait_for(walk, &node, VOTE_PORT, "/", "Cats (a) or dogs (b)?")
        })?;
    }
    walk.require("the queue is known by its name", |walk| {
        let script = "printf 'PING\\r\\nQUIT\\r\\n' | nc redis 6379";
        let task = format!("{STACK}_vote.1");
        walk.eventually(LIMIT, |walk| {
            let said = walk.quietly("node1", &["exec", &task, "sh", "-c", script])?;
            ensure!(said.starts_with("+PONG"), "it said {said:?}");
            Ok(())
        })
    })?;
    for (node, vote) in [("node1", "a"), ("node2", "b"), ("node3", "a")] {
        walk.check(&format!("{node} takes a vote"), |walk| {
            let said = get(walk, node, VOTE_PORT, &format!("/?vote={vote}"))?;
            ensure!(said.starts_with("Voted "), "it said {said:?}");
            Ok(())
        })?;
    }
    counted(walk, "each node shows the result")
}

fn counted(walk: &mut Walk<'_, '_>, claim: &str) -> anyhow::Result<()> {
    walk.check(claim, |walk| {
        for node in walk.nodes.clone() {
            wait_for(walk, &node, RESULT_PORT, "/", "a: 2, b: 1")?;
            get(walk, &node, RESULT_PORT, "/")?;
        }
        Ok(())
    })?;
    Ok(())
}

fn picture(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("The swarm on a page")?;
    let node = "node3";
    let addr = walk.lab().node_addr(node)?;
    walk.transcript.say(&format!(
        "A browser outside would show it at http://{addr}:{VISUALIZER_PORT}/."
    ))?;
    walk.check("the page is there, and knows all six services", |walk| {
        wait_for(walk, node, VISUALIZER_PORT, "/", "<title>weft")?;
        let state = wait_for(walk, node, VISUALIZER_PORT, "/api/state", "\"Nodes\"")?;
        let state: Value = serde_json::from_str(&state)?;
        let services = state["Services"].as_array().context("no services")?;
        let names: BTreeSet<&str> = services.iter().map(|row| text(row, "Name")).collect();
        let wanted = VOTING_SERVICES.map(|name| format!("{STACK}_{name}"));
        let missing = wanted.iter().find(|name| !names.contains(name.as_str()));
        ensure!(missing.is_none(), "{missing:?} is not there");
        Ok(())
    })?;
    Ok(())
}

fn again(walk: &mut Walk<'_, '_>, stack: &File) -> anyhow::Result<()> {
    walk.transcript.section("Deployed again")?;
    let before = tasks(walk)?;
    let path = stack.write("voting.yml", &stack.text)?;
    let deploy = ["stack", "deploy", "-c", path.as_str(), STACK];
    walk.check("the same file replaces no container", |walk| {
        walk.weft("node1", &deploy)?;
        ensure!(tasks(walk)? == before, "there are other tasks");
        Ok(())
    })?;
    let birds = "    environment:\n      OPTION_A: Birds\n    ports:\n      - 5000:80\n";
    let other = stack
        .text
        .replacen("    ports:\n      - 5000:80\n", birds, 1);
    stack.write("voting.yml", &other)?;
    walk.transcript
        .say("One variable more for vote, in the file:")?;
    walk.transcript
        .output("  environment:\n    OPTION_A: Birds")?;
    walk.check("what would change is told", |walk| {
        let words = ["stack", "deploy", "--dry-run", "-c", path.as_str(), STACK];
        let said = walk.weft("node1", &words)?;
        ensure!(said.contains(&format!("{STACK}_vote")), "it said {said:?}");
        ensure!(tasks(walk)? == before, "there are other tasks");
        Ok(())
    })?;
    walk.require("the tasks of vote are replaced, and no others", |walk| {
        walk.weft("node1", &deploy)?;
        walk.eventually(LIMIT, |walk| {
            let now = tasks(walk)?;
            for (service, old) in &before {
                let new = now.get(service).context("a service is gone")?;
                if service.ends_with("_vote") {
                    ensure!(new.is_disjoint(old), "{service} has an old task");
                } else {
                    ensure!(new == old, "{service} has other tasks");
                }
            }
            Ok(())
        })?;
        all_run(walk)
    })?;
    walk.check("its page has changed", |walk| {
        wait_for(walk, "node2", VOTE_PORT, "/", "Birds (a) or dogs (b)?")?;
        get(walk, "node2", VOTE_PORT, "/")
    })?;
    Ok(())
}

/// Waits until the database sees this as its secret.
fn sees(walk: &mut Walk<'_, '_>, wanted: &str) -> anyhow::Result<()> {
    let task = format!("{STACK}_db.1");
    let words = ["exec", &task, "cat", "/run/secrets/db-pass"];
    walk.eventually(LIMIT, |walk| {
        let said = walk.quietly("node1", &words)?;
        ensure!(said == wanted, "it is another one");
        Ok(())
    })?;
    walk.weft("node1", &words).map(drop)
}

fn secret(walk: &mut Walk<'_, '_>, stack: &File) -> anyhow::Result<()> {
    walk.transcript.section("A secret, and its successor")?;
    let service = format!("{STACK}_db");
    let first = stack.write("first", "correct horse\n")?;
    walk.weft("node1", &["secret", "create", "db-pass", &first])?;
    walk.check("the database has it as a file in memory", |walk| {
        let words = [
            "service",
            "update",
            "-d",
            "--secret-add",
            "db-pass",
            &service,
        ];
        walk.weft("node1", &words)?;
        sees(walk, "correct horse\n")
    })?;
    counted(walk, "its volume has kept every vote")?;
    walk.check(
        "nobody is shown it, and it is not removed while it is used",
        |walk| {
            let said = walk.weft("node1", &["secret", "inspect", "db-pass"])?;
            ensure!(
                !said.contains("correct") && !said.contains("\"Data\""),
                "it is shown"
            );
            let words = ["secret", "rm", "db-pass"];
            walk.refused(
                "node1",
                &words,
                "secret 'db-pass' is in use by the following service",
            )
        },
    )?;
    let second = stack.write("second", "battery staple\n")?;
    walk.weft("node1", &["secret", "create", "db-pass-2", &second])?;
    walk.check("a rolling update puts another one in its place", |walk| {
        let mut words = vec!["service", "update", "-d", "--secret-rm", "db-pass"];
        words.extend(["--secret-add", "source=db-pass-2,target=db-pass", &service]);
        walk.weft("node1", &words)?;
        sees(walk, "battery staple\n")
    })?;
    walk.check("nobody uses the old one any more", |walk| {
        walk.weft("node1", &["secret", "rm", "db-pass"])?;
        walk.weft("node1", &["secret", "ls"])
    })?;
    Ok(())
}

fn removed(walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
    walk.transcript.section("The stack is removed")?;
    walk.check("when the command ends, nothing of it is left", |walk| {
        walk.weft("node1", &["stack", "rm", STACK])?;
        for kind in ["service", "network"] {
            let rows = rows(walk, &[kind, "ls"])?;
            let begins = format!("{STACK}_");
            let left = rows
                .iter()
                .find(|row| text(row, "Name").starts_with(&begins));
            ensure!(left.is_none(), "there is {left:?}");
        }
        walk.weft("node1", &["stack", "ls"])
    })?;
    walk.check("but for its volume, which has the votes", |walk| {
        let said = walk.weft("node1", &["volume", "ls", "-q"])?;
        let name = format!("{STACK}_db-data");
        ensure!(said.lines().any(|line| line == name), "it said {said:?}");
        Ok(())
    })?;
    walk.weft("node1", &["secret", "rm", "db-pass-2"]).map(drop)
}
