//! When each node was heard of last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_cluster::ClusterState;
use weft_model::id::NodeId;
use weft_model::objects::{Dispatcher, NodeState};

/// Heartbeats in one period of the usual length: where there are more nodes, periods are longer, in whole
/// steps so that they seldom change.
const BEATS: usize = 200;
/// The longest period, in usual ones: it is Docker's.
const SLOWEST: u32 = 5;

/// Periods of the session protocol.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a node of a cluster that is not large says that it lives.
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
    /// With the period of heartbeats that a person has set, or the one that suits so many nodes, and
    /// patience by it.
    pub(super) fn by(self, state: &ClusterState) -> Self {
        let cluster = state.cluster.as_ref();
        let period = cluster.map(|cluster| cluster.spec.dispatcher.heartbeat_period);
        let set = period.filter(|period| *period != Dispatcher::HEARTBEAT);
        let crowd = u32::try_from(state.nodes.len().div_ceil(BEATS)).unwrap_or(u32::MAX);
        let heartbeat = match (set, crowd.clamp(1, SLOWEST)) {
            (Some(set), _) => set,
            (None, 1) => return self,
            (None, crowd) => self.heartbeat * crowd,
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
    /// Nodes that are ready by the state, and have not called since this manager leads. In no log: each
    /// leader finds out by itself. Never changed or read while `inner` is held.
    unheard: watch::Sender<BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct Inner {
    heard: BTreeMap<NodeId, Heard>,
    /// Managers that the log has not heard of for as long as a node may be silent.
    missed: BTreeSet<NodeId>,
    looked: Instant,
    /// The period at the last look, and since when. Nodes beat by the one before until they hear of it:
    /// their silence counts from then on.
    period: Option<(Duration, Instant)>,
}

impl Inner {
    const fn new(now: Instant) -> Self {
        Self {
            heard: BTreeMap::new(),
            missed: BTreeSet::new(),
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
            unheard: watch::Sender::default(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a start: what was heard before this manager led says nothing. `unheard` says which nodes
    /// are ready by the state and have no session here; one that opens meanwhile it sees, or
    /// [`Self::heard`] tells after it.
    pub(super) fn take_over(&self, now: Instant, unheard: impl FnOnce() -> BTreeSet<NodeId>) {
        *self.inner() = Inner::new(now);
        self.unheard.send_modify(|nodes| *nodes = unheard());
    }

    /// Another manager leads: it is the one to hear of nodes.
    pub(super) fn follow(&self) {
        self.unheard.send_modify(BTreeSet::clear);
    }

    /// Whether a node that is ready by the state has not called since this manager leads.
    pub(super) fn is_unheard(&self, node: &NodeId) -> bool {
        self.unheard.borrow().contains(node)
    }

    /// All of them, as they call.
    pub(super) fn unheard(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.unheard.subscribe()
    }

    pub(super) fn heard(&self, node: &NodeId, now: Instant) {
        let heard = Heard {
            at: now,
            hinted: false,
        };
        self.inner().heard.insert(node.clone(), heard);
        self.unheard.send_if_modified(|nodes| nodes.remove(node));
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

    /// Managers that the log has not heard of for the grace of a node: one that died before this manager led
    /// has been silent for longer than this manager has listened. It counts at the next look.
    pub(super) fn miss(&self, managers: BTreeSet<NodeId>) {
        self.inner().missed = managers;
    }

    /// Nodes that have been silent for too long, with the reason.
    pub(super) fn silent(&self, state: &ClusterState, now: Instant) -> Vec<(NodeId, &'static str)> {
        let timing = self.timing.by(state);
        let unheard = self.unheard.borrow().clone();
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
        let Inner { heard, missed, .. } = &mut *inner;
        let mut silent = Vec::new();
        for node in state.nodes.values() {
            let Some(heard) = heard.get(&node.id) else {
                let from_now = Heard {
                    at: now,
                    hinted: false,
                };
                heard.insert(node.id.clone(), from_now);
                continue;
            };
            let silence = now.saturating_duration_since(heard.at.max(since));
            let grace = match node.status.state {
                NodeState::Ready if !unheard.contains(&node.id) => timing.grace,
                NodeState::Ready | NodeState::Unknown => timing.first_grace,
                NodeState::Down => continue,
            };
            if silence > grace {
                silent.push((node.id.clone(), "heartbeat failure"));
            } else if heard.hinted && silence > timing.hinted_grace {
                silent.push((
                    node.id.clone(),
                    "gossip lost the node, and its heartbeat is overdue",
                ));
            } else if missed.contains(&node.id) && silence > timing.hinted_grace {
                silent.push((
                    node.id.clone(),
                    "the managers lost the node, and its heartbeat is overdue",
                ));
            }
        }
        if heard.len() > state.nodes.len() {
            heard.retain(|id, _| state.nodes.contains_key(id));
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use weft_cluster::{
        Entropy, InitCluster, NodeDescription, RootPair, init_cluster, join, set_node_state,
    };
    use weft_model::objects::{
        Availability, Cluster, ClusterSpec, Meta, Platform, Resources, Role,
    };

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

    #[test]
    fn many_nodes_beat_less_often_and_as_often_as_dockers_at_least() {
        let mut state = with_node(&NodeId::from_entropy(1));
        let period = |state: &ClusterState| Timing::default().by(state).heartbeat.as_secs();
        let mut periods = Vec::new();
        let mut entropy = Entropy::from_seed([8; 32]);
        for n in 2..=1201_u128 {
            let [.., high, low] = n.to_be_bytes();
            let addr = Ipv4Addr::new(192, 168, high, low).into();
            let node = NodeDescription {
                hostname: format!("n{n}"),
                ..described(addr)
            };
            let id = NodeId::from_entropy(n);
            let joined = join(&state, 1, &mut entropy, id, Role::Worker, &node).unwrap();
            state.apply(&joined.changes);
            if periods.last() != Some(&period(&state)) {
                periods.push(period(&state));
            }
        }
        assert_eq!(periods, [1, 2, 3, 4, 5]);
        let timing = Timing::default().by(&state);
        assert_eq!(timing.grace, Duration::from_millis(17_500));
        assert!(timing.first_grace >= timing.grace);
        beating(&mut state, Duration::from_secs(2));
        assert_eq!(period(&state), 2, "as a person wants it");
    }

    /// It died before this one led, so that its silence is older than what is heard here.
    #[test]
    fn a_manager_that_the_log_misses_is_down_without_the_time_of_one_that_joins() {
        let node = NodeId::from_entropy(1);
        let (state, start) = (with_node(&node), Instant::now());
        let health = Health::new(Timing::default(), start);
        let at = |ms| start + Duration::from_millis(ms);
        health.take_over(start, || BTreeSet::from([node.clone()]));
        assert!(health.silent(&state, start).is_empty());
        health.miss(BTreeSet::from([node.clone()]));
        for ms in [500, 1000, 1500] {
            assert!(health.silent(&state, at(ms)).is_empty(), "{ms}");
        }
        // The log has heard of it.
        health.miss(BTreeSet::new());
        assert!(health.silent(&state, at(2000)).is_empty());
        health.miss(BTreeSet::from([node.clone()]));
        assert_eq!(health.silent(&state, at(2100)).len(), 1);
        // Its session opens: managers are nodes as others then.
        health.heard(&node, at(2200));
        assert!(health.silent(&state, at(3000)).is_empty());
    }

    fn described(addr: IpAddr) -> NodeDescription {
        NodeDescription {
            hostname: "n1".to_owned(),
            engine_version: "0.1.0".to_owned(),
            addr,
            data_path_addr: addr,
            gossip_port: 7946,
            manager_addr: None,
            platform: Platform::default(),
            resources: Resources::default(),
            runtimes: Vec::new(),
        }
    }

    /// One node, whose session is open.
    fn with_node(node: &NodeId) -> ClusterState {
        let addr = Ipv4Addr::LOCALHOST.into();
        let command = InitCluster {
            cluster_id: "c".to_owned(),
            node_id: node.clone(),
            node: described(addr),
            default_address_pools: Vec::new(),
            // Room for a thousand nodes on the ingress network.
            subnet_prefix_len: Some(16),
            data_path_port: None,
            autolock: false,
            availability: Availability::Active,
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

    #[test]
    fn who_was_ready_under_another_leader_has_the_time_of_one_that_joins() {
        let node = NodeId::from_entropy(1);
        let (state, start) = (with_node(&node), Instant::now());
        let health = Health::new(Timing::default(), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = health.unheard();
        health.take_over(start, || BTreeSet::from([node.clone()]));
        assert!(health.is_unheard(&node) && told.has_changed().unwrap());
        for seconds in 0..=20 {
            assert!(health.silent(&state, at(seconds)).is_empty(), "{seconds}");
        }
        assert_eq!(health.silent(&state, at(21)).len(), 1);
        told.mark_unchanged();
        health.heard(&node, at(21));
        assert!(!health.is_unheard(&node) && told.has_changed().unwrap());
        told.mark_unchanged();
        health.heard(&node, at(22));
        assert!(!told.has_changed().unwrap(), "heartbeats wake nobody");
        for seconds in 22..=25 {
            assert!(health.silent(&state, at(seconds)).is_empty(), "{seconds}");
        }
        assert_eq!(health.silent(&state, at(26)).len(), 1, "as all others now");
        health.take_over(at(27), || BTreeSet::from([node.clone()]));
        health.follow();
        assert!(!health.is_unheard(&node));
    }
}
