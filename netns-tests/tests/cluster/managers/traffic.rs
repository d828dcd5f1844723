//! Clients that do not stop while managers come and go: what they see is what the data plane noticed.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weft_lab::tools::dns::{Found, lookup};
use weft_netns_tests::{Cluster, ask, eventually, figure, get, hold};
use weft_sys::netns::Netns;

/// A step of a client that takes longer has failed: much longer than any that is served.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(25);

/// Where sandboxes ask for names.
const RESOLVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    requests: u32,
    longest: Duration,
    /// The first failure, which ends it.
    failure: Option<String>,
}

/// Clients of the service `web` that go on until they are asked what they saw.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<(String, JoinHandle<Seen>)>,
}

impl Traffic {
    /// Clients of the published port of these nodes, each with a connection that is kept and with new
    /// ones, and of the virtual address and the name in a sandbox of the first of them.
    #[track_caller]
    pub(super) fn start(cluster: &Cluster, doors: &[&str]) -> Self {
        let mut traffic = Self {
            stop: Arc::default(),
            clients: Vec::new(),
        };
        for node in doors {
            let (client, to) = (cluster.outside(), cluster.at(node, 8000));
            eventually("the node answers", || get(&client, to));
            let mut held = hold(&client, to).expect("an answer");
            traffic.add(format!("a connection to {node}"), move || held.again());
            traffic.add(format!("requests to {node}"), move || {
                ask(&client, to, PATIENCE).map(drop)
            });
        }
        let node = doors.first().expect("a node");
        let (guest, _) = cluster.guest(node, "guest", "front");
        let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
        eventually("the virtual address answers", || get(&guest, vip));
        eventually("the name is known", || resolve(&guest));
        let names = guest.try_clone().expect("a descriptor");
        traffic.add(format!("names on {node}"), move || resolve(&names));
        let mut held = hold(&guest, vip).expect("an answer");
        traffic.add(
            format!("a connection to the virtual address on {node}"),
            move || held.again(),
        );
        traffic.add(
            format!("requests to the virtual address on {node}"),
            move || ask(&guest, vip, PATIENCE).map(drop),
        );
        traffic
    }

    fn add<E: Debug>(
        &mut self,
        name: String,
        mut step: impl FnMut() -> Result<(), E> + Send + 'static,
    ) {
        let stop = Arc::clone(&self.stop);
        let client = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stop.load(Ordering::Relaxed) && seen.failure.is_none() {
                let begun = Instant::now();
                seen.failure = step().err().map(|error| format!("{error:?}"));
                seen.requests += 1;
                seen.longest = seen.longest.max(begun.elapsed());
                std::thread::sleep(PACE);
            }
            seen
        });
        self.clients.push((name, client));
    }

    /// Ends them: none has failed.
    #[track_caller]
    pub(super) fn noticed_nothing(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (name, client) in std::mem::take(&mut self.clients) {
            let seen = client.join().expect("a client");
            assert!(seen.failure.is_none(), "{name}: {seen:?}");
            assert!(seen.requests > 0, "{name}: {seen:?}");
            figure(&format!(
                "{name}: {} requests, none failed, the longest took {:.2} s",
                seen.requests,
                seen.longest.as_secs_f64()
            ));
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // A test that fails elsewhere must not leave clients behind.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asks for the tasks of `web` from inside a sandbox.
fn resolve(netns: &Netns) -> Result<(), String> {
    let found = netns.run_in(|| lookup(RESOLVER, "tasks.web", false));
    match found {
        Ok(Ok(Found::Addresses(all))) if !all.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
