//! What a manager does by itself while it leads: it brings tasks in line with services and nodes, and
//! judges nodes. One that does not lead does nothing of this; it begins as soon as it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_cluster::{
    ClusterState, Entropy, Leadership, ProposeError, Waits, reconcile, set_impaired, set_node_state,
};
use weft_model::id::NodeId;
use weft_model::objects::NodeState;
use weft_sys::clock::unix_ms;

use super::engine::{Engine, entropy, stopped};
use crate::desired_store::Head;

/// Pause after a change that could not be stored.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// Waits until this manager leads, and says in which term; nothing when the store is gone.
async fn begins(leadership: &mut watch::Receiver<Leadership>) -> Option<u64> {
    let now = leadership.wait_for(Leadership::leads).await.ok()?;
    now.term()
}

/// Waits until it does not lead in this term any more; in the next one it may.
async fn ends(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    drop(leadership.wait_for(|now| now.term() != Some(term)).await);
}

/// The state that a pass may go on from: nothing when what that one saw was taken back, or another
/// manager led since.
fn earlier<'a>(since: Option<&'a Head>, head: &Head) -> Option<&'a ClusterState> {
    let since = since.filter(|since| since.line == head.line)?;
    Some(&since.state)
}

impl Engine {
    /// Plans whenever this manager leads, until it stops.
    pub(super) async fn lead_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut leadership = self.store.leadership();
        let terms = async {
            while let Some(term) = begins(&mut leadership).await {
                tokio::select! {
                    biased;
                    () = ends(&mut leadership, term) => {
                        tracing::info!(term, "this manager's term as the leader is over");
                    }
                    () = self.term() => {}
                }
                self.health.follow();
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
        self.take_over();
        tokio::join!(
            self.reconcile_loop(),
            self.health_loop(),
            self.members_loop()
        );
    }

    /// Who was ready under another leader, or before this process, counts as unknown until its session
    /// opens here; its tasks stay. The log is not told: nearly all of them call within a second.
    fn take_over(&self) {
        self.vitals.forget();
        self.health.take_over(Instant::now(), || {
            let state = self.state();
            // One that was faster than this is ready for good reason.
            let ready = state.nodes.values().filter(|node| {
                node.status.state == NodeState::Ready && !self.sessions.contains(&node.id)
            });
            ready.map(|node| node.id.clone()).collect()
        });
    }

    /// Brings tasks in line with services and nodes, at every change and deadline.
    async fn reconcile_loop(&self) {
        // Nobody sets this clock.
        let started = Instant::now();
        let mut waits = Waits::default();
        // What the last pass was about, once what it changed is stored.
        let mut since: Option<Head> = None;
        let mut states = self.store.subscribe();
        let mut unheard = self.health.unheard();
        loop {
            waits.hear(&unheard.borrow_and_update());
            // Whatever the head has becomes a state, or is taken back, and that is told as well.
            states.mark_unchanged();
            let head = self.store.head();
            let (now, steady) = (unix_ms(), started.elapsed());
            waits.look(&head.state, now, steady);
            let earlier = earlier(since.as_ref(), &head);
            let changes = reconcile(&head.state, earlier, now, &waits, &mut entropy());
            if changes.is_empty() {
                let wait = match waits.next_deadline(&head.state) {
                    Some(at) => at.saturating_sub(steady).max(Duration::from_millis(1)),
                    None => Duration::from_secs(3600),
                };
                since = Some(head);
                waits.passed();
                let news = async {
                    tokio::select! {
                        _ = states.changed() => {}
                        _ = unheard.changed() => {}
                    }
                };
                // All ends are fine: a newer state, a node that calls, or the deadline.
                drop(tokio::time::timeout(wait, news).await);
                continue;
            }
            match self.store.propose(&head, changes).await {
                Ok(()) => {
                    since = Some(head);
                    waits.passed();
                }
                Err(ProposeError::Stale(_)) => {}
                Err(error @ ProposeError::TooLarge { .. }) => {
                    tracing::error!(%error, "what the orchestrator decided does not go into the log");
                    tokio::time::sleep(STORAGE_RETRY).await;
                }
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
        let state = self.state();
        let grace = self.timing.by(&state).grace;
        self.health.miss(self.raft.missed(grace));
        for (node, why) in self.health.silent(&state, Instant::now()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_goes_on_from_what_was_not_taken_back() {
        let head = |version, line| {
            let mut state = ClusterState::default();
            state.version = version;
            Head {
                state: Arc::new(state),
                line,
            }
        };
        let since = head(4, 1);
        let version = |since, now: &Head| earlier(since, now).map(|state| state.version);
        assert_eq!(version(Some(&since), &head(7, 1)), Some(4));
        assert_eq!(version(Some(&since), &since), Some(4));
        assert_eq!(version(Some(&since), &head(4, 2)), None, "the same number");
        assert_eq!(version(None, &since), None);
    }
}
