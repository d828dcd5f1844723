//! Whether a replica that was left out answers again: asked by the node itself, from its own
//! address on the ingress network, before any client is sent there.
//!
//! ```text
//!  targets ──► Prober::begin ──► Stack (smoltcp) ──► SYN ──► replica
//!  Health ◄── answered, refused, silent ◄── Stack ◄── SYN-ACK, RST, nothing
//! ```
//!
//! A probe is half a handshake: the SYN-ACK is answered with a reset, so the program behind the
//! port never gets to see a connection. Its source port is below those of clients, so no answer
//! can be taken for that of a flow.

mod stack;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weft_wire::Instant;

pub use self::stack::{NodeAddress, PROBE_PORTS};
use self::stack::{Outcome, Stack};
use crate::balancer::Rng;
use crate::ejection::{Failure, Health};
use crate::load::ReplicaLoad;

/// How long a replica has to answer: long enough for the SYN to be repeated once, after a second.
const PATIENCE: Duration = Duration::from_secs(2);
/// Probes at once.
const AT_ONCE: usize = 64;
/// Time between the beginnings of two probes: a hundred in a second at most.
const PACE: Duration = Duration::from_millis(10);

/// A replica to ask.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// Its address on the ingress network, and the port that is published.
    pub to: SocketAddr,
    /// Whom the answer is about.
    pub load: Arc<ReplicaLoad>,
}

/// What came of probes, since the prober was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProbeCounters {
    /// Probes begun.
    pub sent: u64,
    /// Those that were answered.
    pub passed: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that nobody answered in time.
    pub silent: u64,
}

#[derive(Debug)]
struct Running {
    target: ProbeTarget,
    id: stack::Id,
    until: Instant,
}

/// Probes replicas whose back-off is over, one probe for each, a bounded number at a time.
///
/// A poll machine: [`Self::begin`], [`Self::handle_frame`], then [`Self::poll_transmit`] until
/// there is nothing more, then [`Self::settle`]. Time is an argument, the seed too.
#[derive(Debug)]
pub struct Prober {
    stack: Option<Stack>,
    seed: u64,
    rng: Rng,
    running: Vec<Running>,
    next_at: Instant,
    counters: ProbeCounters,
}

impl Prober {
    /// Without an address, and so without anything to do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            stack: None,
            seed,
            rng: Rng::new(seed),
            running: Vec::new(),
            next_at: Instant(0),
            counters: ProbeCounters::default(),
        }
    }

    /// Says where probes come from. Probes from another address are given up, without a verdict.
    pub fn set_address(&mut self, now: Instant, address: Option<NodeAddress>) {
        if self.stack.as_ref().map(Stack::address) == address {
            return;
        }
        self.running.clear();
        self.stack = address.map(|address| Stack::new(now, address, self.seed));
    }

    /// True when a replica at that address can be asked.
    #[must_use]
    pub fn can_reach(&self, ip: IpAddr) -> bool {
        let own = self.stack.as_ref().map(Stack::address);
        own.is_some_and(|own| own.ip.is_ipv4() == ip.is_ipv4())
    }

    /// Probes a replica, when its back-off is over, it is not being probed, and there is room.
    pub fn begin(&mut self, now: Instant, target: &ProbeTarget) {
        let due = target.load.health().needs_probe(now);
        if !due || now < self.next_at || self.running.len() >= AT_ONCE {
            return;
        }
        let known = |r: &Running| Arc::ptr_eq(&r.target.load, &target.load);
        if !self.can_reach(target.to.ip()) || self.running.iter().any(known) {
            return;
        }
        let id = self
            .stack
            .as_mut()
            .and_then(|stack| stack.connect(now, target.to));
        let Some(id) = id else { return };
        self.next_at = now.after(PACE);
        self.counters.sent += 1;
        self.running.push(Running {
            target: target.clone(),
            id,
            until: now.after(PATIENCE),
        });
    }

    /// Takes in a frame for the node's own address.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        if let Some(stack) = &mut self.stack {
            stack.handle_frame(now, frame);
        }
    }

    /// The next frame to send. Its hardware destination is for `neighbor` to say; without one it is
    /// dropped.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        neighbor: impl Fn(IpAddr) -> Option<weft_wire::Mac>,
    ) -> Option<Vec<u8>> {
        self.stack.as_mut()?.poll_transmit(now, neighbor)
    }

    /// Ends the probes that were answered, or have waited for long enough, and tells their
    /// replicas' [`Health`]. What this has to send, the next [`Self::poll_transmit`] returns.
    pub fn settle(&mut self, now: Instant) {
        let Some(stack) = &mut self.stack else { return };
        let (counters, rng) = (&mut self.counters, &mut self.rng);
        self.running.retain(|probe| {
            let health: &Health = probe.target.load.health();
            let outcome = match stack.outcome(probe.id) {
                Outcome::Waiting if now < probe.until => return true,
                outcome => outcome,
            };
            match outcome {
                Outcome::Answered => {
                    counters.passed += 1;
                    health.note_success();
                }
                Outcome::Refused => {
                    counters.refused += 1;
                    health.note_failure(now, rng.next_u64(), Failure::Refused);
                }
                Outcome::Waiting => {
                    counters.silent += 1;
                    health.note_failure(now, rng.next_u64(), Failure::Silent);
                }
            }
            stack.close(probe.id);
            false
        });
    }

    /// Probes under way.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running.len()
    }

    /// What came of all so far.
    #[must_use]
    pub const fn counters(&self) -> ProbeCounters {
        self.counters
    }
}
