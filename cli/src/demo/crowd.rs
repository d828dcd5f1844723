//! Clients outside that ask the published port of nodes and do not stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use weft_lab::OUTSIDE;
use weft_lab::tools::get::fetch;

use super::cluster::PORT;
use super::walk::Walk;

/// A request without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(10);

/// What all of them have seen until now.
#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    requests: AtomicU32,
    failures: AtomicU32,
}

/// A client of each node, until it is dropped.
#[derive(Debug)]
pub(super) struct Crowd {
    seen: Arc<Seen>,
}

impl Crowd {
    pub(super) fn new(walk: &Walk<'_, '_>, nodes: &[&str]) -> anyhow::Result<Self> {
        let seen = Arc::<Seen>::default();
        for node in nodes {
            let target = SocketAddr::new(walk.lab().node_addr(node)?, PORT);
            let outside = walk.lab().netns(OUTSIDE, None)?;
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let entered = outside.run_in(|| ask(target, &seen));
                if entered.is_err() {
                    seen.failures.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Ok(Self { seen })
    }

    /// Checks that every request was answered, and that there were some since the last look.
    pub(super) fn notices_nothing(&self, walk: &mut Walk<'_, '_>) -> anyhow::Result<()> {
        self.sees_no_error(walk, "clients of the workers notice nothing")
    }

    /// The same with another claim.
    pub(super) fn sees_no_error(&self, walk: &mut Walk<'_, '_>, claim: &str) -> anyhow::Result<()> {
        let before = self.seen.requests.load(Ordering::Relaxed);
        let seen = Arc::clone(&self.seen);
        walk.check(claim, |walk| {
            walk.eventually(PATIENCE, |_| {
                let more = seen.requests.load(Ordering::Relaxed) - before;
                ensure!(more >= 20, "{more} requests were answered");
                Ok(())
            })?;
            let requests = seen.requests.load(Ordering::Relaxed);
            let failures = seen.failures.load(Ordering::Relaxed);
            ensure!(failures == 0, "{failures} of {requests} requests failed");
            walk.transcript
                .say(&format!("0 of {requests} requests until now failed."))?;
            Ok(())
        })?;
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(target: SocketAddr, seen: &Seen) {
    while !seen.stop.load(Ordering::Relaxed) {
        if fetch(target, "/", PATIENCE).is_err() {
            seen.failures.fetch_add(1, Ordering::Relaxed);
        }
        seen.requests.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
}
