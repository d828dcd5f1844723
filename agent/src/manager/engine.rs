//! What all parts of a manager share: the store, the authority, and how commands become changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::sync::watch;
use weft_cluster::{
    Change, ClusterState, CommandError, DesiredStore as _, Entropy, Planned, ProposeError, Waits,
    reconcile, set_impaired, set_node_state,
};
use weft_model::id::NodeId;
use weft_model::objects::NodeState;
use weft_sys::clock::unix_ms;

use super::assignments::Assignments;
use super::ca::Authority;
use super::health::{Health, Timing};
use super::sessions::Sessions;
use super::store::RedbStore;
use super::vitals::VitalsBook;
use crate::door::{Door, Quiet};
use crate::session::Identity;

/// Commands that lose against other writers this often have met a defect.
const MAX_ATTEMPTS: usize = 64;
/// Pause after a reconciliation that could not be stored.
const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// Between two attempts to store again after the disk failed: the first pause, and the longest.
const MEND_MIN: Duration = Duration::from_millis(500);
const MEND_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) node: NodeId,
    pub(super) cluster: String,
    pub(super) store: RedbStore,
    pub(super) authority: Authority,
    pub(super) timing: Timing,
    pub(super) health: Health,
    /// What nodes say of themselves.
    pub(super) vitals: VitalsBook,
    /// Of all nodes.
    pub(super) assignments: Assignments,
    /// Open session of each node.
    pub(super) sessions: Sessions,
    /// The newest certificate of the manager itself.
    pub(super) own: watch::Sender<Arc<Identity>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) door: Arc<Door>,
    pub(super) quiet: Lines,
}

/// Log lines that others can provoke as often as they like.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) calls: Quiet,
    pub(super) joins: Quiet,
    pub(super) reports: Quiet,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            calls: Quiet::new("refused calls to the manager"),
            joins: Quiet::new("attempts to join without a valid token"),
            reports: Quiet::new("ignored reports of nodes"),
        }
    }
}

impl Lines {
    /// Tells of lines that were suppressed.
    pub(super) fn flush(&self) {
        for lines in [&self.calls, &self.joins, &self.reports] {
            lines.flush();
        }
    }
}

/// Waits until the manager stops; also when it is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

pub(super) fn entropy() -> Entropy {
    Entropy::from_seed(rand::rng().random())
}

impl Engine {
    pub(super) fn state(&self) -> Arc<ClusterState> {
        self.store.state()
    }

    /// Plans on the newest state, and plans again when someone else was faster.
    pub(super) async fn run<T>(
        &self,
        plan: impl Fn(&ClusterState, u64, &mut Entropy) -> Result<Planned<T>, CommandError>,
    ) -> Result<T, CommandError> {
        for _ in 0..MAX_ATTEMPTS {
            let state = self.state();
            let planned = plan(&state, unix_ms(), &mut entropy())?;
            if planned.changes.is_empty() {
                return Ok(planned.value);
            }
            match self.store.propose(state.version, planned.changes).await {
                Ok(_) => return Ok(planned.value),
                Err(ProposeError::Stale { .. }) => {}
                Err(error) => return Err(CommandError::unavailable(error.to_string())),
            }
        }
        Err(CommandError::unavailable("update out of sequence"))
    }

    /// As [`Engine::run`], for commands without an answer.
    pub(super) async fn change(
        &self,
        plan: impl Fn(&ClusterState, u64, &mut Entropy) -> Result<Vec<Change>, CommandError>,
    ) -> Result<(), CommandError> {
        self.run(|s, now, e| {
            Ok(Planned {
                changes: plan(s, now, e)?,
                value: (),
            })
        })
        .await
    }

    /// Brings tasks in line with services and nodes, at every change and deadline, until stopped.
    pub(super) async fn reconcile_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        // Nobody sets this clock.
        let started = Instant::now();
        let mut waits = Waits::default();
        // What the last pass was about, once what it changed is stored.
        let mut since: Option<Arc<ClusterState>> = None;
        let work = async {
            loop {
                let state = self.state();
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
                    drop(tokio::time::timeout(wait, self.store.watch(state.version)).await);
                } else {
                    match self.store.propose(state.version, changes).await {
                        Ok(_) => since = Some(state),
                        Err(ProposeError::Stale { .. }) => {}
                        Err(error) => {
                            // The store says it in the log, once.
                            tracing::debug!(%error, "what the orchestrator decided is not stored");
                            tokio::time::sleep(STORAGE_RETRY).await;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped(&mut stop) => {}
        }
    }

    /// Tries the disk again after it failed, until it stores again; until stopped.
    pub(super) async fn mend_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut trouble = self.store.trouble();
        let work = async {
            while trouble.wait_for(Option::is_some).await.is_ok() {
                let mut pause = MEND_MIN;
                loop {
                    tokio::time::sleep(pause).await;
                    if self.store.mend().await {
                        break;
                    }
                    pause = (pause * 2).min(MEND_MAX);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped(&mut stop) => {}
        }
    }

    /// Marks silent nodes down, and those that carry no traffic impaired, until stopped.
    pub(super) async fn health_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let work = async {
            loop {
                tokio::time::sleep(self.timing.tick).await;
                self.mark_silent().await;
                self.mark_impaired().await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped(&mut stop) => {}
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

    pub(super) async fn mark_silent(&self) {
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
