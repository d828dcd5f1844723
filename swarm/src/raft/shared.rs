//! What the parts of a running log share.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use weft_cluster::{ClusterState, Leadership};
use weft_model::id::NodeId;

use super::arrival::Arrival;
use super::file::RaftFile;
use super::links::Links;
use super::pipeline::{Pipeline, Taking};
use super::types::{Raft, RaftId};
use super::view::{SILENCE, View};

/// See the module.
pub(super) struct Shared {
    pub(super) file: Arc<RaftFile>,
    pub(super) states: watch::Sender<Arc<ClusterState>>,
    pub(super) pipeline: Pipeline,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) view: watch::Sender<View>,
    /// openraft, while it runs: it ends when the disk fails, and is begun again.
    pub(super) raft: watch::Sender<Option<Raft>>,
    pub(super) links: Arc<Links>,
    /// Of a snapshot of the leader's.
    pub(super) arrival: watch::Sender<Arrival>,
    pub(super) stop: watch::Sender<bool>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("member", &self.file.member)
            .field("leadership", &*self.leadership.borrow())
            .field("view", &*self.view.borrow())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(file: Arc<RaftFile>, links: Arc<Links>) -> Self {
        let state = Arc::clone(&file.known().applied.state);
        Self {
            file,
            states: watch::Sender::new(Arc::clone(&state)),
            pipeline: Pipeline::new(state),
            leadership: watch::Sender::new(Leadership::Follower { leader: None }),
            view: watch::Sender::new(View::default()),
            raft: watch::Sender::new(None),
            links,
            arrival: watch::Sender::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// The newest state that is stored.
    pub(super) fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.states.borrow())
    }

    pub(super) fn stops(&self) -> bool {
        *self.stop.borrow()
    }

    /// Whether this member has the only vote, by the newest list that it has.
    pub(super) fn is_alone(&self) -> bool {
        let known = self.file.known();
        known.members().voter_ids().eq([self.file.member])
    }

    /// Who leads, as far as it was heard of lately.
    pub(super) fn leader(&self) -> Option<RaftId> {
        let leader = self.view.borrow().leader?;
        let is_there = leader == self.file.member || self.links.is_heard(leader, SILENCE);
        is_there.then_some(leader)
    }

    /// Which node that is.
    pub(super) fn node_of(&self, member: RaftId) -> Option<NodeId> {
        let view = self.view.borrow();
        let member = view.members.membership().get_node(&member);
        member.map(|member| member.node.clone())
    }

    /// This manager leads in this term from now on: all before is applied.
    pub(super) fn lead(&self, term: u64) {
        self.pipeline.open(self.state());
        let now = Leadership::Leader { term };
        let is_new = self.leadership.send_if_modified(|leadership| {
            let is_new = *leadership != now;
            *leadership = now;
            is_new
        });
        if is_new {
            tracing::info!(term, "this manager leads the swarm");
        }
    }

    /// It does not lead, or not any more; `leader` does.
    pub(super) fn follow(&self, leader: Option<NodeId>) {
        let now = Leadership::Follower {
            leader: leader.clone(),
        };
        if *self.leadership.borrow() == now {
            return;
        }
        // First those who wait: whoever hears of it asks elsewhere.
        let state = self.state();
        self.pipeline.shut(Taking::NotLed(leader.clone()), state);
        self.leadership.send_replace(now);
        match leader {
            Some(leader) => tracing::info!(%leader, "another manager leads the swarm"),
            None => tracing::warn!("the swarm has no leader that this manager knows of"),
        }
    }

    /// Those who wait plan again, and so does who has seen what was taken back.
    pub(super) fn take_back(&self) {
        self.pipeline.reset(self.state());
        self.states.send_modify(|_| {});
    }
}
