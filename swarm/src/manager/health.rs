//! When each node was heard of last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_cluster::ClusterState;
use weft_model::id::NodeId;
use weft_model::objects::{Dispatcher, NodeState};

/// Periods of the session protocol.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a node says that it lives.
    pub(crate) heartbeat: Duration,
    /// A node that was not heard of for this long is down.
    pub(crate) grace: Duration,
    /// The same, when gossip reports the node failed.
    pub(crate) hinted_grace: Duration,
    /// The same, for a node whose session is not open yet: it just joined, or the manager just
    /// started. Longer than the pause between two attempts of a node to connect.
    pub(crate) first_grace: Duration,
    /// How long changes are collected before nodes get new orders.
    pub(crate) debounce: Duration,
    /// How often silence is looked for.
    pub(crate) tick: Duration,
    /// How long a TLS handshake may take.
    pub(crate) handshake: Duration,
    /// How long a connection without a node certificate lasts.
    pub(crate) stranger_life: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            grace: Duration::from_millis(3500),
            hinted_grace: Duration::from_millis(1500),
            first_grace: Duration::from_secs(20),
            debounce: Duration::from_millis(20),
            tick: Duration::from_millis(100),
            handshake: Duration::from_secs(5),
            stranger_life: Duration::from_secs(30),
        }
    }
}

impl Timing {
    /// With the period of heartbeats that a person has set, if one has, and patience by it.
    pub(super) fn by(self, state: &ClusterState) -> Self {
        let cluster = state.cluster.as_ref();
        let period = cluster.map(|cluster| cluster.spec.dispatcher.heartbeat_period);
        let Some(heartbeat) = period.filter(|period| *period != Dispatcher::HEARTBEAT) else {
            return self;
        };
        let grace = heartbeat * 7 / 2;
        Self {
            heartbeat,
            grace,
            hinted_grace: heartbeat * 3 / 2,
            first_grace: self.first_grace.max(grace),
            ..self
        }
    }
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    /// Gossip says that the node failed, since it was last heard of.
    hinted: bool,
}

/// Last heartbeats. After a start of the manager every node counts as just heard of.
#[derive(Debug)]
pub(super) struct Health {
    timing: Timing,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    heard: BTreeMap<NodeId, Heard>,
    looked: Instant,
}

impl Health {
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            inner: Mutex::new(Inner {
                heard: BTreeMap::new(),
                looked: now,
            }),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a start: what was heard before this manager led says nothing.
    pub(super) fn forget(&self, now: Instant) {
        *self.inner() = Inner {
            heard: BTreeMap::new(),
            looked: now,
        };
    }

    pub(super) fn heard(&self, node: &NodeId, now: Instant) {
        let heard = Heard {
            at: now,
            hinted: false,
        };
        self.inner().heard.insert(node.clone(), heard);
    }

    /// How long ago the node was heard of; very long, where it never was.
    pub(super) fn silence(&self, node: &NodeId, now: Instant) -> Duration {
        let inner = self.inner();
        let heard = inner.heard.get(node);
        heard.map_or(Duration::MAX, |heard| {
            now.saturating_duration_since(heard.at)
        })
    }

    pub(super) fn hint(&self, node: &NodeId) {
        if let Some(heard) = self.inner().heard.get_mut(node) {
            heard.hinted = true;
        }
    }

    /// Nodes that have been silent for too long, with the reason.
    pub(super) fn silent(&self, state: &ClusterState, now: Instant) -> Vec<(NodeId, &'static str)> {
        let timing = self.timing.by(state);
        let mut inner = self.inner();
        // When this process itself stood still, silence says nothing about the nodes.
        let gap = now.saturating_duration_since(inner.looked);
        inner.looked = now;
        if gap > timing.grace / 2 {
            for heard in inner.heard.values_mut() {
                heard.at += gap;
            }
        }
        inner.heard.retain(|id, _| state.nodes.contains_key(id));
        let mut silent = Vec::new();
        for node in state.nodes.values() {
            let heard = inner.heard.entry(node.id.clone()).or_insert(Heard {
                at: now,
                hinted: false,
            });
            let silence = now.saturating_duration_since(heard.at);
            let grace = match node.status.state {
                NodeState::Ready => timing.grace,
                NodeState::Unknown => timing.first_grace,
                NodeState::Down => continue,
            };
            if silence > grace {
                silent.push((node.id.clone(), "heartbeat failure"));
            } else if heard.hinted && silence > timing.hinted_grace {
                silent.push((
                    node.id.clone(),
                    "gossip lost the node, and its heartbeat is overdue",
                ));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_model::objects::{Cluster, ClusterSpec, Meta};

    use super::*;

    #[test]
    fn patience_follows_the_period_that_a_person_sets() {
        let with = |seconds| {
            let mut state = ClusterState::default();
            state.cluster = Some(Cluster {
                id: "c".to_owned(),
                meta: Meta::default(),
                spec: ClusterSpec {
                    dispatcher: Dispatcher {
                        heartbeat_period: Duration::from_secs(seconds),
                    },
                    ..ClusterSpec::default()
                },
                default_address_pools: Vec::new(),
                subnet_prefix_len: 24,
                data_path_port: 4789,
            });
            Timing::default().by(&state)
        };
        let usual = with(1);
        assert_eq!(usual.grace, Timing::default().grace);
        let slow = with(10);
        assert_eq!(slow.heartbeat, Duration::from_secs(10));
        assert_eq!(slow.grace, Duration::from_secs(35));
        assert_eq!(slow.first_grace, Duration::from_secs(35));
        assert_eq!(slow.hinted_grace, Duration::from_secs(15));
        assert_eq!(slow.tick, usual.tick);
    }
}
