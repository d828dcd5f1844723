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
    /// The period at the last look, and since when. Nodes beat by the one before until they hear of it:
    /// their silence counts from then on.
    period: Option<(Duration, Instant)>,
}

impl Inner {
    const fn new(now: Instant) -> Self {
        Self {
            heard: BTreeMap::new(),
            looked: now,
            period: None,
        }
    }
}

impl Health {
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            inner: Mutex::new(Inner::new(now)),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a start: what was heard before this manager led says nothing.
    pub(super) fn forget(&self, now: Instant) {
        *self.inner() = Inner::new(now);
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
        let known = inner
            .period
            .filter(|(period, _)| *period == timing.heartbeat);
        let (_, since) = *inner
            .period
            .insert(known.unwrap_or((timing.heartbeat, now)));
        inner.heard.retain(|id, _| state.nodes.contains_key(id));
        let mut silent = Vec::new();
        for node in state.nodes.values() {
            let heard = inner.heard.entry(node.id.clone()).or_insert(Heard {
                at: now,
                hinted: false,
            });
            let silence = now.saturating_duration_since(heard.at.max(since));
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
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

    use weft_cluster::{
        Entropy, InitCluster, NodeDescription, RootPair, init_cluster, set_node_state,
    };
    use weft_model::objects::{Cluster, ClusterSpec, Meta, Platform, Resources};

    use super::*;

    /// With that period of heartbeats.
    fn beating(state: &mut ClusterState, heartbeat_period: Duration) {
        state.cluster = Some(Cluster {
            id: "c".to_owned(),
            meta: Meta::default(),
            spec: ClusterSpec {
                dispatcher: Dispatcher { heartbeat_period },
                ..ClusterSpec::default()
            },
            default_address_pools: Vec::new(),
            subnet_prefix_len: 24,
            data_path_port: 4789,
            removed: Arc::default(),
        });
    }

    #[test]
    fn patience_follows_the_period_that_a_person_sets() {
        let with = |seconds| {
            let mut state = ClusterState::default();
            beating(&mut state, Duration::from_secs(seconds));
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

    /// One node, whose session is open.
    fn with_node(node: &NodeId) -> ClusterState {
        let addr = Ipv4Addr::LOCALHOST.into();
        let command = InitCluster {
            cluster_id: "c".to_owned(),
            node_id: node.clone(),
            node: NodeDescription {
                hostname: "n1".to_owned(),
                engine_version: "0.1.0".to_owned(),
                addr,
                data_path_addr: addr,
                gossip_port: 7946,
                manager_addr: None,
                platform: Platform::default(),
                resources: Resources::default(),
            },
            default_address_pools: Vec::new(),
            subnet_prefix_len: None,
            data_path_port: None,
            autolock: false,
            reserved: Vec::new(),
            root: RootPair::default(),
        };
        let (mut state, mut entropy) = (ClusterState::default(), Entropy::from_seed([7; 32]));
        let made = init_cluster(&state, 1, &mut entropy, command).unwrap();
        state.apply(&made.changes);
        let ready = set_node_state(&state, 1, &mut entropy, node, NodeState::Ready, "").unwrap();
        state.apply(&ready);
        state
    }

    #[test]
    fn a_shorter_period_loses_nobody_who_has_not_heard_of_it() {
        let node = NodeId::from_entropy(1);
        let (mut state, start) = (with_node(&node), Instant::now());
        let health = Health::new(Timing::default(), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        beating(&mut state, Duration::from_secs(60));
        assert!(health.silent(&state, start).is_empty());
        health.heard(&node, start);
        assert!(health.silent(&state, at(30)).is_empty());
        // It has beaten as it was told, half a minute ago.
        beating(&mut state, Duration::from_secs(1));
        health.hint(&node);
        for seconds in 31..=32 {
            assert!(health.silent(&state, at(seconds)).is_empty(), "{seconds}");
        }
        let lost = health.silent(&state, at(33));
        assert_eq!(lost.len(), 1, "gossip has lost it as well");
        health.heard(&node, at(33));
        for seconds in 34..=36 {
            assert!(health.silent(&state, at(seconds)).is_empty(), "{seconds}");
        }
        let lost = health.silent(&state, at(37));
        assert_eq!(lost, [(node, "heartbeat failure")], "by the new period");
    }
}
