//! A second version of the program, and the first one again, while clients ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use weft_netns_tests::{Cluster, ask, eventually, figure, get};

use super::lines::{Bars, converged};
use super::{create, rows, runs};
use crate::swarm;

/// A request without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// What clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    fn ask(&self, cluster: &Cluster, node: &str) {
        let outside = cluster.outside();
        while !self.stop.load(Ordering::Relaxed) {
            match ask(&outside, cluster.at(node, 8000), PATIENCE) {
                Ok(_) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let failure = format!("{node}: {error}");
                    self.failures.lock().expect("no panic").push(failure);
                }
            }
        }
    }

    /// Asserts that requests were answered until now, and all of them.
    #[track_caller]
    fn no_error(&self, when: &str) {
        let answered = self.answered.swap(0, Ordering::Relaxed);
        let failures = self.failures.lock().expect("no panic");
        assert!(failures.is_empty() && answered > 0, "{when}: {failures:#?}");
        figure(&format!("{when}: {answered} requests were answered"));
    }
}

/// Ends the clients, also when the test fails: the scope waits for them.
struct Ends<'a>(&'a Seen);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Asserts that this version answers, whichever node is asked.
fn answers(cluster: &Cluster, version: &str) {
    let end = format!(" (version {version})\n");
    for node in NODES {
        for _ in 0..10 {
            let answer = get(&cluster.outside(), cluster.at(node, 8000));
            let answer = answer.expect(node);
            assert!(answer.ends_with(&end), "{node}: {answer}");
        }
    }
}

/// Types the update to the second version, and the way back, with so many replicas.
fn there_and_back(cluster: &Cluster, tasks: usize, id: &str, look: impl Fn(&str)) {
    let command = format!("{} demo-http --port 80 --version 2", cluster.program());
    let words = ["service", "update", "--args", &command, "web"];
    let lines = cluster.typed("node1", &words);
    converged(&lines, &["web"], tasks, Bars::Full, id);
    look("2");
    let lines = cluster.typed("node1", &["service", "rollback", "web"]);
    let head = ["web", "rollback: manually requested rollback"];
    converged(&lines, &head, tasks, Bars::Empty, id);
    look("1");
}

/// Asserts that each of so many tasks took the place of two.
fn replaced_twice(cluster: &Cluster, tasks: usize) {
    let rows = rows(cluster);
    assert_eq!(
        rows.iter().filter(|row| runs(row)).count(),
        tasks,
        "{rows:#?}"
    );
    for slot in 1..=tasks {
        let name = format!("web.{slot}");
        let of_slot = rows
            .iter()
            .filter(|row| row.name == name && row.indent == " \\_ ");
        let ended = of_slot.filter(|row| row.desired == "Shutdown" && row.state == "Shutdown");
        assert!(ended.count() >= 2, "{rows:#?}");
    }
}

#[test]
fn two_replicas_become_another_version_and_the_first_one_again() {
    let cluster = swarm(2);
    let (id, lines) = create(&cluster, "--replicas=2");
    converged(&lines, &[], 2, Bars::Full, &id);
    // Nobody has to watch the tasks here.
    let policy = ["--update-monitor", "0s", "--rollback-monitor", "0s"];
    let words = [&["service", "update", "-q"][..], &policy, &["web"]].concat();
    assert_eq!(cluster.typed("node1", &words), ["web"]);
    there_and_back(&cluster, 2, &id, |_| {});
    replaced_twice(&cluster, 2);
}

#[test]
#[ignore = "second tier: fifteen replicas are replaced twice, and watched"]
fn fifteen_replicas_are_updated_and_rolled_back_and_clients_see_no_error() {
    let cluster = swarm(3);
    let (id, lines) = create(&cluster, "--replicas=15");
    converged(&lines, &[], 15, Bars::Full, &id);
    answers(&cluster, "1");
    let said = cluster.typed("node1", &["node", "promote", "node2"]);
    assert_eq!(said, ["Node node2 promoted to a manager in the swarm."]);
    eventually("the promoted one lists the tasks", || {
        let said = cluster.weft("node2", &["service", "ps", "web"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });

    let seen = Seen::default();
    let in_the_middle = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _ends = Ends(&seen);
        for node in NODES.into_iter().cycle().take(6) {
            let (seen, cluster) = (&seen, &cluster);
            scope.spawn(move || seen.ask(cluster, node));
        }
        scope.spawn(|| watch(&cluster, &seen, &in_the_middle));
        there_and_back(&cluster, 15, &id, |version| {
            answers(&cluster, version);
            seen.no_error(&format!("on the way to version {version}"));
        });
    });
    let looks = in_the_middle.into_inner();
    assert!(looks > 0, "nobody saw old and new tasks side by side");
    replaced_twice(&cluster, 15);

    let said = cluster.typed("node1", &["node", "demote", "node2"]);
    assert_eq!(said, ["Manager node2 demoted in the swarm."]);
    eventually("the worker does not show the swarm any more", || {
        let said = cluster.weft("node2", &["node", "ls"]);
        if said.code == 0 { Err(said) } else { Ok(()) }
    });
    assert_eq!(cluster.typed("node1", &["service", "rm", "web"]), ["web"]);
}

/// `watch weft service ps web` on the promoted worker: counts looks at which some tasks, and not all,
/// had taken the place of others.
fn watch(cluster: &Cluster, seen: &Seen, in_the_middle: &AtomicUsize) {
    while !seen.stop.load(Ordering::Relaxed) {
        let text = cluster.weft("node2", &["service", "ps", "web"]).ok();
        let old = text.lines().filter(|line| line.contains(" \\_ ")).count();
        if (1..15).contains(&old) {
            in_the_middle.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
