//! A node whose `weftd` becomes another program while containers serve.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use weft_lab::image::web;
use weft_netns_tests::{Cluster, Settings, eventually, get};

use super::deaths::{NINE, one};
use super::update::{Ends, Seen};
use super::{becomes, create, in_a_box, load, made, needs_runtime, processes, remove, rows, text};
use crate::PROGRAM;

/// The node that is upgraded.
const NODE: &str = "node2";

/// Process 1 of the container that serves, as `ps` shows it.
const SERVE: &str = "/bin/sh /bin/serve";

/// Counts, one line after the other.
const LINES: &str = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done";

/// A program on a node that ends with this.
struct Started(Child);

impl Started {
    /// What it runs on the node: the only child of what entered that.
    fn inner(&self) -> Option<u32> {
        let pid = self.0.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // What it runs ends with the node.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Copies the program under test. Not here: what this process has open to be written to, programs that
/// other tests start meanwhile may have open too, and then it cannot be run.
fn copy(to: &Path) {
    let said = Command::new("cp").arg(PROGRAM).arg(to).status();
    assert!(said.expect("cp").success(), "cp to {}", to.display());
}

fn signal(pid: u32, signal: &str) {
    let pid = pid.to_string();
    let said = Command::new("kill").args([signal, &pid]).status();
    assert!(said.expect("kill").success(), "kill {signal} {pid}");
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// What the service has written: numbers without a gap, from 0. The last one.
#[track_caller]
fn counted(cluster: &Cluster) -> usize {
    let words = ["service", "logs", "--raw", "lines"];
    let said = cluster.weft("node1", &words).ok();
    for (number, line) in said.lines().enumerate() {
        assert_eq!(line, number.to_string(), "{said}");
    }
    said.lines().count()
}

/// Puts a new file in the place of the program, asks the agent to end, and starts the new one with the
/// same words, as `systemctl restart weftd` does after `cp`.
fn upgrade(cluster: &Cluster, program: &Path, meanwhile: impl FnOnce()) -> Started {
    let old = cluster.lab().agent_pid(NODE).expect("a node");
    let old = old.expect("an agent");
    let words = std::fs::read(format!("/proc/{old}/cmdline")).expect("it runs");
    let words = String::from_utf8(words).expect("text");
    // Process 1 of the node would go with its agent, or start it: it is not to notice.
    let init = status(old, "PPid:").and_then(|pid| pid.parse().ok());
    signal(init.expect("a parent"), "-STOP");
    let new = program.with_extension("new");
    copy(&new);
    std::fs::rename(&new, program).expect("in its place");
    signal(old, "-TERM");
    eventually("the old one has ended", || match status(old, "State:") {
        Some(state) if !state.starts_with('Z') => Err(state),
        _ => Ok(()),
    });
    meanwhile();
    let weftd = cluster.weftd();
    let words = words.trim_end_matches('\0').split('\0').skip(1);
    let words: Vec<&str> = std::iter::once(weftd.as_str()).chain(words).collect();
    let log = File::create(cluster.dir().join("upgraded.log")).expect("a log");
    let mut command = cluster.lab().command(NODE, &words).expect("a node");
    command.stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a copy"));
    command.stderr(log);
    Started(command.spawn().expect("it is entered"))
}

#[test]
#[ignore = "second tier: copies of a large program, and a cluster of its own"]
fn a_new_program_takes_over_what_the_old_one_has_started() {
    needs_runtime();
    let files = tempfile::tempdir().expect("a folder");
    let program = files.path().join("weft");
    copy(&program);
    let cluster = Cluster::swarm(&program.display().to_string(), &Settings::default());
    cluster.network("front");
    load(&cluster, "node1", &made(web("web:1", "1")));
    load(&cluster, "node1", &in_a_box());
    let there = ["--constraint", "node.hostname==node2"];
    let flags = [&there[..], &["--network", "front", "-p", "8000:80"]].concat();
    create(&cluster, "web", &flags, "web:1", &[]);
    create(&cluster, "lines", &there, "box:1", &["sh", "-c", LINES]);
    let serves = becomes(&cluster, "web", "Running");
    let counts = becomes(&cluster, "lines", "Running");
    let nine = one(&cluster, "goes", NODE, "/bin/nine", NINE).to_string();
    let goes = becomes(&cluster, "goes", "Running");
    for node in ["node1", "node3"] {
        let to = cluster.at(node, 8000);
        eventually("it serves", || get(&cluster.outside(), to));
    }
    let container = processes(&cluster, NODE, SERVE);
    assert_eq!(container.len(), 1);

    let seen = Seen::default();
    let upgraded = std::thread::scope(|scope| {
        let _ends = Ends(&seen);
        for node in ["node1", "node3"] {
            let (seen, cluster) = (&seen, &cluster);
            scope.spawn(move || seen.ask(cluster, node));
        }
        let upgraded = upgrade(&cluster, &program, || {
            // Nobody but its shim is there to see it.
            cluster.run(NODE, None, &["kill", "-TERM", &nine]).done();
        });
        eventually("the new one answers", || {
            let said = cluster.weft(NODE, &["info"]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
        let ended = eventually("the exit code is told", || {
            let rows = rows(&cluster, "goes");
            let old = rows.iter().find(|row| row["ID"] == goes["ID"]);
            let old = old.filter(|row| row["State"] == "Failed");
            old.cloned().ok_or(rows.clone())
        });
        let why = "task: non-zero exit (9)";
        assert!(text(&ended, "Error").contains(why), "{ended}");
        seen.no_error("while a node had another weftd");
        upgraded
    });
    let pid = upgraded.inner().expect("it runs");
    let runs = std::fs::metadata(format!("/proc/{pid}/exe")).expect("a program");
    let file = program.metadata().expect("a program");
    assert_eq!((runs.dev(), runs.ino()), (file.dev(), file.ino()));

    assert_eq!(processes(&cluster, NODE, SERVE), container);
    let same = |name: &str| becomes(&cluster, name, "Running")["ID"].clone();
    assert_eq!(same("web"), serves["ID"]);
    assert_eq!(same("lines"), counts["ID"]);
    let before = counted(&cluster);
    assert!(before > 0);
    eventually("it goes on to be heard", || match counted(&cluster) {
        count if count > before => Ok(()),
        count => Err(count),
    });
    let said = cluster.weft("node1", &["exec", "web.1", "echo", "here"]);
    assert_eq!(said.ok(), "here\n");
    // The new one can end what it did not start.
    remove(&cluster, "web");
    eventually("it has ended", || match processes(&cluster, NODE, SERVE) {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}
