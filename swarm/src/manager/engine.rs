//! What all parts of a manager share: the store, the authority, and how commands become changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::RngExt as _;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use weft_cluster::{
    Change, ClusterState, CommandError, Entropy, Leadership, Planned, ProposeError,
};
use weft_model::id::NodeId;
use weft_sys::clock::unix_ms;

use super::assignments::Assignments;
use super::ca::{Authority, HeldAuthority};
use super::health::{Health, Timing};
use super::lock::Lock;
use super::past::PastManagers;
use super::questions::Questions;
use super::sessions::Sessions;
use super::vitals::VitalsBook;
use crate::desired_store::DesiredStore;
use crate::door::{Door, Quiet};
use crate::identity::Identity;
use crate::raft::RaftStore;

/// Commands that lose against other writers this often have met a defect.
const MAX_ATTEMPTS: usize = 64;

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) node: NodeId,
    pub(super) cluster: String,
    pub(super) store: Arc<dyn DesiredStore>,
    /// The log that managers share, which the store is outside of some tests.
    pub(super) raft: Arc<RaftStore>,
    /// Roles change one after the other.
    pub(super) roles: tokio::sync::Mutex<()>,
    pub(super) ca: HeldAuthority,
    /// The key of what this manager keeps on disk.
    pub(super) lock: Arc<Lock>,
    pub(super) timing: Timing,
    pub(super) health: Health,
    /// What nodes say of themselves.
    pub(super) vitals: VitalsBook,
    /// Of all nodes.
    pub(super) assignments: Assignments,
    /// Open session of each node.
    pub(super) sessions: Sessions,
    /// To nodes that listen.
    pub(super) questions: Questions,
    /// The newest certificate of the manager itself.
    pub(super) own: watch::Sender<Arc<Identity>>,
    /// What it shows to who connects, and whom it lets in.
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) door: Arc<Door>,
    pub(super) quiet: Lines,
    /// Managers that are none any more, and do not know it.
    pub(super) past: PastManagers,
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
        self.store.read()
    }

    /// Who certifies nodes.
    ///
    /// # Errors
    /// This manager does not have the state yet, or a damaged one.
    pub(super) fn authority(&self) -> Result<Arc<Authority>, CommandError> {
        self.ca.of(&self.state())
    }

    /// Roots that count and vouch for a chain of certificates, by digest: first the one that made it.
    pub(super) fn vouching(&self, chain: &[CertificateDer<'_>]) -> Vec<String> {
        match self.authority() {
            Ok(authority) => authority.vouching(chain),
            // A manager that has just been made one knows what its node was told.
            Err(_) => self.own.borrow().roots().vouching(chain),
        }
    }

    /// Whether one of these root certificates counts (by digest); without a state nobody knows.
    pub(super) fn counts(&self, roots: &[String]) -> bool {
        let state = self.state();
        let Some(secrets) = &state.secrets else {
            return true;
        };
        let mut trusted = secrets.roots.trusted();
        trusted.any(|root| roots.contains(&root.digest))
    }

    /// How often a node has to say that it lives.
    pub(super) fn heartbeat(&self) -> Duration {
        self.timing.by(&self.state()).heartbeat
    }

    /// The manager that decides at present, as far as this one knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        match &*self.store.leadership().borrow() {
            Leadership::Leader { .. } => Some(self.node.clone()),
            Leadership::Follower { leader } => leader.clone(),
        }
    }

    /// Where the manager is reached that decides at present, when that is another one.
    pub(super) fn leader_addr(&self) -> Option<SocketAddr> {
        let leader = self.leader().filter(|leader| *leader != self.node)?;
        self.state().nodes.get(&leader)?.manager_addr()
    }

    /// Whether this manager may do what only the leader does.
    ///
    /// # Errors
    /// It may not: who may, for people.
    pub(super) fn check_leads(&self) -> Result<(), CommandError> {
        match &*self.store.leadership().borrow() {
            Leadership::Leader { .. } => Ok(()),
            Leadership::Follower { leader } => Err(self.not_leader(leader.clone())),
        }
    }

    /// What is told when `leader` decides, or nobody.
    pub(super) fn not_leader(&self, leader: Option<NodeId>) -> CommandError {
        let state = self.state();
        let known = leader.as_ref().and_then(|id| state.nodes.get(id));
        let text = match known {
            Some(node) => {
                let (name, addr) = (&node.description.hostname, node.manager_addr());
                let at = addr.map_or_else(String::new, |addr| format!(" ({addr})"));
                format!("this manager does not lead the swarm: node {name}{at} does, ask there")
            }
            None => ProposeError::NotLeader { leader }.to_string(),
        };
        CommandError::not_led(text)
    }

    /// Why something was not stored, for people.
    pub(super) fn not_proposed(&self, error: ProposeError) -> CommandError {
        match error {
            ProposeError::NotLeader { leader } => self.not_leader(leader),
            // The same would be too long later, too.
            error @ ProposeError::TooLarge { .. } => CommandError::bad(error.to_string()),
            error => CommandError::unavailable(error.to_string()),
        }
    }

    /// Plans on the newest state, and plans again when someone else was faster. What others have
    /// proposed counts, stored or not; an answer waits until it is.
    pub(super) async fn run<T>(
        &self,
        plan: impl Fn(&ClusterState, u64, &mut Entropy) -> Result<Planned<T>, CommandError>,
    ) -> Result<T, CommandError> {
        for _ in 0..MAX_ATTEMPTS {
            let head = self.store.head();
            let (value, done) = match plan(&head.state, unix_ms(), &mut entropy()) {
                Ok(planned) if planned.changes.is_empty() => {
                    (Ok(planned.value), self.store.settled(&head).await)
                }
                Ok(planned) => {
                    let done = self.store.propose(&head, planned.changes).await;
                    (Ok(planned.value), done)
                }
                // It may be for something that is not stored yet.
                Err(error) => (Err(error), self.store.settled(&head).await),
            };
            match done {
                Ok(()) => return value,
                Err(ProposeError::Stale(_)) => {}
                Err(error) => return Err(self.not_proposed(error)),
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
}
