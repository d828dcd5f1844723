//! What a manager does by itself while it leads: it brings tasks in line with services and nodes, and
//! judges nodes. One that does not lead does nothing of this; it begins as soon as it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_cluster::{
    ClusterState, Entropy, Entry, Leadership, ProposeError, Waits, reconcile, set_impaired,
    set_node_state,
};
use weft_model::id::NodeId;
use weft_model::objects::NodeState;
use weft_sys::clock::unix_ms;

use super::engine::{Engine, entropy, stopped};

/// Pause after a change that could not be stored.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// Waits until this manager leads, or no longer does. The sender is in the store, which the engine
/// has.
async fn turned(leadership: &mut watch::Receiver<Leadership>, leads: bool) {
    drop(leadership.wait_for(|now| now.leads() == leads).await);
}

impl Engine {
    /// Plans whenever this manager leads, until it stops.
    pub(super) async fn lead_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut leadership = self.store.leadership();
        let terms = async {
            loop {
                turned(&mut leadership, true).await;
                tokio::select! {
                    biased;
                    () = turned(&mut leadership, false) => {
                        tracing::info!("this manager does not lead the swarm any more");
                    }
                    () = self.term() => {}
                }
            }
        };
        tokio::select! {
            () = terms => {}
            () = stopped(&mut stop) => {}
        }
    }

    /// One term of this manager, for as long as it is polled. What is being stored when it ends is
    /// stored or refused as a whole.
    async fn term(&self) {
        self.take_over().await;
        tokio::join!(self.reconcile_loop(), self.health_loop());
    }

    /// Who was ready under another leader, or before this process, counts as unknown until its session
    /// opens here; its tasks stay.
    async fn take_over(&self) {
        self.health.forget(Instant::now());
        self.vitals.forget();
        let state = self.state();
        let ready = state
            .nodes
            .values()
            .filter(|n| n.status.state == NodeState::Ready);
        for node in ready {
            let unknown = |s: &ClusterState, now, e: &mut Entropy| {
                // One that was faster than this loop is ready for good reason.
                let known = s.nodes.get(&node.id);
                let is_ready = known.is_some_and(|n| n.status.state == NodeState::Ready);
                if !is_ready || self.sessions.contains(&node.id) {
                    return Ok(Vec::new());
                }
                let why = "not heard of since the manager started";
                set_node_state(s, now, e, &node.id, NodeState::Unknown, why)
            };
            while let Err(error) = self.change(unknown).await {
                // The store says it in the log, once.
                tracing::debug!(node = %node.id, %error, "cannot mark the node unknown");
                tokio::time::sleep(STORAGE_RETRY).await;
            }
        }
    }

    /// Brings tasks in line with services and nodes, at every change and deadline.
    async fn reconcile_loop(&self) {
        // Nobody sets this clock.
        let started = Instant::now();
        let mut waits = Waits::default();
        // What the last pass was about, once what it changed is stored.
        let mut since: Option<Arc<ClusterState>> = None;
        let mut states = self.store.subscribe();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let (now, steady) = (unix_ms(), started.elapsed());
            waits.look(&state, now, steady);
            let changes = reconcile(&state, since.as_deref(), now, &waits, &mut entropy());
            if changes.is_empty() {
                since = Some(Arc::clone(&state));
                let wait = match waits.next_deadline(&state) {
                    Some(at) => at.saturating_sub(steady).max(Duration::from_millis(1)),
                    None => Duration::from_secs(3600),
                };
                // Both ends are fine: a newer state, or the deadline.
                drop(tokio::time::timeout(wait, states.changed()).await);
                continue;
            }
            let entry = Entry {
                base: state.version,
                changes,
            };
            match self.store.propose(entry).await {
                Ok(_) => since = Some(state),
                Err(ProposeError::Stale(_)) => {}
                Err(error) => {
                    // The store says it in the log, once.
                    tracing::debug!(%error, "what the orchestrator decided is not stored");
                    tokio::time::sleep(STORAGE_RETRY).await;
                }
            }
        }
    }

    /// Marks silent nodes down, and those that carry no traffic impaired.
    async fn health_loop(&self) {
        loop {
            tokio::time::sleep(self.timing.tick).await;
            self.mark_silent().await;
            self.mark_impaired().await;
        }
    }

    async fn mark_impaired(&self) {
        let (state, now) = (self.state(), Instant::now());
        self.sessions.retain(|id| state.nodes.contains_key(id));
        let differences = self.vitals.differences(&state, &self.node, now);
        for (node, why) in differences {
            let mark = |s: &ClusterState, now, e: &mut Entropy| {
                set_impaired(s, now, e, &node, why.as_deref())
            };
            match (self.change(mark).await, &why) {
                (Ok(()), Some(why)) => tracing::warn!(%node, why, "node carries no traffic"),
                (Ok(()), None) => tracing::info!(%node, "node carries traffic again"),
                // Removed meanwhile, or the disk: a later tick tries again.
                (Err(error), _) => tracing::debug!(%node, %error, "cannot mark the node"),
            }
        }
    }

    /// Gossip lost a node: it is marked down as soon as its heartbeat is overdue too, by whoever
    /// leads.
    pub(super) async fn hear_of_loss(&self, node: &NodeId) {
        if self.check_leads().is_ok() {
            self.health.hint(node);
            self.mark_silent().await;
        }
    }

    async fn mark_silent(&self) {
        for (node, why) in self.health.silent(&self.state(), Instant::now()) {
            let down = |s: &ClusterState, now, e: &mut Entropy| {
                set_node_state(s, now, e, &node, NodeState::Down, why)
            };
            match self.change(down).await {
                Ok(()) => tracing::warn!(%node, why, "node is down, its tasks move"),
                // Removed meanwhile, or the disk: the next tick tries again.
                Err(error) => tracing::debug!(%node, %error, "cannot mark the node down"),
            }
        }
    }
}
