//! A service becomes another image, and the first one again, while clients ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use weft_lab::image::web;
use weft_netns_tests::{Cluster, Settings, ask, eventually, figure, get};

use super::{NODES, cluster, day, load, made, named};

/// How long a client waits for each step of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients saw.
#[derive(Default)]
pub(super) struct Seen {
    stop: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    pub(super) fn ask(&self, cluster: &Cluster, node: &str) {
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
    pub(super) fn no_error(&self, when: &str) {
        let answered = self.answered.swap(0, Ordering::Relaxed);
        let failures = self.failures.lock().expect("no panic");
        assert!(failures.is_empty() && answered > 0, "{when}: {failures:#?}");
        figure(&format!("{when}: {answered} requests were answered"));
    }
}

/// Ends the clients, also when the test fails: the scope waits for them.
pub(super) struct Ends<'a>(pub(super) &'a Seen);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Asserts that this version answers, whichever node is asked.
fn answers(cluster: &Cluster, version: &str) {
    let end = format!(" (version {version})\n");
    for node in NODES {
        eventually(
            &format!("version {version} alone answers by {node}"),
            || {
                for _ in 0..6 {
                    let answer = get(&cluster.outside(), cluster.at(node, 8000));
                    let answer = answer.map_err(|error| error.to_string())?;
                    if !answer.ends_with(&end) {
                        return Err(answer);
                    }
                }
                Ok(())
            },
        );
    }
}

/// `web` runs already, of the first image; both images are loaded.
pub(super) fn another_image_and_back_without_a_failed_request(cluster: &Cluster, clients: usize) {
    answers(cluster, "1");
    let seen = Seen::default();
    std::thread::scope(|scope| {
        let _ends = Ends(&seen);
        for node in NODES.into_iter().cycle().take(clients) {
            let seen = &seen;
            scope.spawn(move || seen.ask(cluster, node));
        }
        let image = named("web:2");
        let said = cluster.weft("node1", &["service", "update", "--image", &image, "web"]);
        assert!(
            said.code == 0 && said.out.contains("converged"),
            "{said:#?}"
        );
        answers(cluster, "2");
        seen.no_error("on the way to another image");
        let said = cluster.weft("node1", &["service", "rollback", "web"]);
        assert!(
            said.code == 0 && said.out.contains("converged"),
            "{said:#?}"
        );
        answers(cluster, "1");
        seen.no_error("on the way back");
    });
}

#[test]
#[ignore = "second tier: two hundred clients, which take the machine for themselves"]
fn two_hundred_clients_do_not_notice_another_image() {
    let settings = Settings {
        alone: true,
        ..Settings::default()
    };
    let cluster = cluster(&settings);
    cluster.network("front");
    for version in ["1", "2"] {
        load(
            &cluster,
            "node1",
            &made(web(&format!("web:{version}"), version)),
        );
    }
    day::a_service_answers_on_every_node(&cluster);
    another_image_and_back_without_a_failed_request(&cluster, 200);
}
