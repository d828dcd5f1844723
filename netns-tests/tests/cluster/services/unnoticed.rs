//! Clients that ask without a pause, long requests among them, while tasks are updated, rolled back,
//! scaled and moved: none of them notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_lab::{Crowd, Patience, Stop};
use weft_netns_tests::{Cluster, LIMIT, eventually, figure, get, within};

use super::serve;
use crate::swarm;

const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// Between two looks for a failure.
const LOOK: Duration = Duration::from_millis(10);

/// The clients, and what they are asked for next.
struct Walk {
    crowd: Crowd,
    cluster: Cluster,
    replicas: usize,
}

impl Walk {
    /// So many replicas on three nodes, and so many clients outside whose longest answers take this.
    fn begin(replicas: usize, clients: usize, longest: Duration) -> Self {
        let cluster = swarm(3);
        serve(&cluster, replicas, &[]);
        let client = cluster.outside();
        let addresses = NODES.map(|node| cluster.at(node, 8000));
        for to in addresses {
            eventually("the node answers", || get(&client, to));
        }
        let crowd = Crowd::start(&client, &addresses, clients, longest).expect("clients");
        let walk = Self {
            cluster,
            crowd,
            replicas,
        };
        walk.unnoticed("the beginning");
        walk
    }

    /// Runs a command of which the clients notice nothing.
    #[track_caller]
    fn does(&self, words: &[&str]) {
        self.cluster.weft("node1", words).done();
        self.unnoticed(&words.join(" "));
    }

    /// Runs a command that changes the service, and waits for the end of what it began: with many
    /// long requests that takes longer than a command may.
    #[track_caller]
    fn updates(&self, words: &[&str], state: &str) {
        let words = [words, &["--detach", "web"]].concat();
        self.cluster.weft("node1", &words).done();
        let state_is = || super::update_status(&self.cluster, "State");
        let limit = LIMIT * u32::try_from(self.replicas).expect("few");
        within(limit, state, || match state_is() {
            now if now == state => Ok(()),
            now => Err(now),
        });
        self.unnoticed(&words.join(" "));
    }

    /// Every request that was under way is answered.
    #[track_caller]
    fn unnoticed(&self, what: &str) {
        let patience = Patience::new(LIMIT, &Stop::default());
        self.crowd.settle(&patience).expect("clients go on");
        let failures = self.crowd.take_failures();
        assert!(
            failures.is_empty(),
            "{what}: {} failed, such as {:?}; {}",
            failures.len(),
            failures.first(),
            self.cluster.weft("node1", &["service", "ps", "web"]).out
        );
        figure(&format!("{what}: {} requests", self.crowd.answered()));
    }

    /// Everything, one after the other.
    fn whole(self) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.explain(&over));
            let _over = AtEnd(&over);
            self.steps();
        });
        self.crowd.stop();
    }

    /// Has the cluster say what it knows of the first failure while it knows it.
    fn explain(&self, over: &AtomicBool) {
        loop {
            let last = over.load(Ordering::Relaxed);
            if let Some(failure) = self.crowd.first_failure() {
                return self.cluster.note_moment(&failure);
            }
            if last {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn steps(&self) {
        let (all, few) = (format!("web={}", self.replicas), "web=2");
        let stop_first = ["service", "update", "--env-add", "VERSION=2"];
        self.updates(&stop_first, "completed");
        let start_first = [
            "service",
            "update",
            "--env-add",
            "VERSION=3",
            "--update-order",
            "start-first",
        ];
        self.updates(&start_first, "completed");
        self.updates(&["service", "rollback"], "rollback_completed");
        self.does(&["service", "scale", few]);
        self.does(&["service", "scale", &all]);
        let availability = ["node", "update", "--availability"];
        self.does(&[&availability[..], &["drain", "node3"]].concat());
        eventually("nothing runs on a drained node", || {
            let rows = self.cluster.rows(&["node", "ps", "node3"]);
            let runs = rows.iter().filter(|row| row["State"] == "Running").count();
            if runs == 0 { Ok(()) } else { Err(rows) }
        });
        self.unnoticed("node3 is drained");
        self.does(&[&availability[..], &["active", "node3"]].concat());
        self.does(&["service", "scale", few]);
        self.does(&["service", "scale", &all]);
    }
}

/// Says that the test is over, however it ends.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_request_fails_while_five_tasks_are_updated_rolled_back_scaled_and_moved() {
    Walk::begin(5, 40, Duration::from_secs(1)).whole();
}

/// One in place of one, then many beside few: what has just started looks idle to balancers.
#[test]
fn programs_that_listen_late_get_no_clients_before_they_do() {
    let cluster = swarm(2);
    serve(&cluster, 1, &["--update-order", "start-first"]);
    let client = cluster.outside();
    let addresses = ["node1", "node2"].map(|node| cluster.at(node, 8000));
    for to in addresses {
        eventually("the node answers", || get(&client, to));
    }
    let crowd = Crowd::start(&client, &addresses, 10, Duration::ZERO).expect("clients");
    let late = format!(
        "/bin/sh -c 'sleep 0.7; exec {} demo-http --port 80'",
        cluster.program()
    );
    let update = ["service", "update", "--args", &late, "web"];
    let patience = Patience::new(LIMIT, &Stop::default());
    for words in [&update[..], &["service", "scale", "web=12"]] {
        cluster.weft("node1", words).done();
        crowd.settle(&patience).expect("clients go on");
        let failures = crowd.take_failures();
        assert!(failures.is_empty(), "{words:?}: {failures:?}");
    }
    crowd.stop();
}

#[test]
#[ignore = "second tier: 200 clients with requests of 3 s, of 15 tasks, take minutes"]
fn no_request_of_two_hundred_clients_fails_while_fifteen_tasks_come_and_go() {
    Walk::begin(15, 200, Duration::from_secs(3)).whole();
}
