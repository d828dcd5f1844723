//! Which replica takes a new connection.

mod affinity;
mod estimate;
mod rng;
#[cfg(test)]
mod tests;
mod view;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_wire::Instant;

pub use self::rng::Rng;
use self::view::View;
use crate::load::ServiceLoad;
use crate::replica::Replica;

/// How replicas are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// By the connections that are open to them cluster-wide, as they are likely to be by now: this
    /// node's own, and what the others reported, which counts for less the
    /// older it is compared with the life of a connection. Full least connections while reports
    /// are fresh or of unknown age, least own connections when there are none, and all between.
    #[default]
    Adaptive,
    /// The one with the fewest connections, reports taken for true.
    LeastConnections,
    /// The one with the fewest connections of this node.
    LeastOwn,
    /// The better of two random ones by this node's own connections.
    TwoChoices,
}

/// Which connections of a client stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// None: each goes where the load is least.
    #[default]
    None,
    /// All from one client address go to one replica (rendezvous hashing): every node
    /// chooses the same one, and when a replica goes, only its own clients move.
    ClientAddress,
}

/// What limits a choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// The time.
    pub now: Instant,
    /// Who asks, for [`Affinity::ClientAddress`].
    pub client: Option<IpAddr>,
    /// The client speaks IPv6, so the replica's address has to be one.
    pub ipv6: bool,
    /// Replicas on this node go first, until they have so much more to do than the least loaded
    /// one that [`Balancer::spill_percent`] is passed.
    pub local_first: bool,
    /// Keys of replicas that this connection was already offered to.
    pub tried: &'a [u64],
}

/// Chooses replicas. Pure: all that changes is in its arguments and in the shared counters.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// How replicas are compared.
    pub policy: Policy,
    /// Which connections of a client stay together. Goes before load and locality.
    pub affinity: Affinity,
    /// A replica that became ready less than this ago takes a part of its share that grows with
    /// time. Zero gives it the whole at once.
    pub slow_start: Duration,
    /// A local replica is preferred while it has no more than this much of the load of the least
    /// loaded one, and one connection on top.
    pub spill_percent: u16,
    /// The service's counters.
    pub load: Arc<ServiceLoad>,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            affinity: Affinity::default(),
            slow_start: Duration::from_secs(10),
            spill_percent: 125,
            load: Arc::default(),
        }
    }
}

impl Balancer {
    /// Index of the replica that takes a new connection, if any can. No allocation; O(replicas),
    /// and some 36 times that while more than half of them are ejected.
    #[must_use]
    pub fn pick(&self, replicas: &[Replica], choice: Choice<'_>, rng: &mut Rng) -> Option<usize> {
        let view = View::new(self, replicas, choice, rng);
        self.pick_among(&view.healthy(), rng).or_else(|| {
            // One that failed before is still better than none.
            self.pick_among(&view.everyone(), rng)
        })
    }

    fn pick_among(&self, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
        if self.affinity == Affinity::ClientAddress
            && let Some(client) = view.choice.client
        {
            return affinity::pick(client, view.candidates());
        }
        match self.policy {
            Policy::TwoChoices => view.two_choices(rng),
            Policy::Adaptive | Policy::LeastConnections | Policy::LeastOwn => {
                view.least_loaded(self.spill_percent, rng)
            }
        }
    }
}
