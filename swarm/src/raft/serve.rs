//! What the other members ask of this one.

use std::time::Duration;

use openraft::error::RaftError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse,
};
use weft_model::id::NodeId;

use super::links::ListNumber;
use super::store::RaftStore;
use super::types::{LEASE, Raft, RaftId, Types, Vote};
use super::wire::{Installed, SnapshotOf};

/// Bytes of a snapshot at most.
const MAX_SNAPSHOT: u64 = 1 << 30;
/// Elections in a row to get above another's term. One that is farther away has its term known from
/// its answer, and the next election is above it.
const STANDS: usize = 3;

/// A manager that has heard of no leader for so long may not know those that were made since. It is more
/// than an election takes: while the leader is known, so is every manager that there is.
const BEHIND: Duration = Duration::from_secs(10);

/// Why a call is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unserved {
    /// The disk has failed, or the manager stops.
    #[error("the log of this manager does not run at present")]
    NotRunning,
    /// openraft's words.
    #[error("{0}")]
    Failed(String),
    /// More than any state has.
    #[error("a snapshot may have {most} bytes", most = MAX_SNAPSHOT)]
    TooLong,
}

/// A part of a snapshot.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) of: SnapshotOf,
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) done: bool,
}

/// Stands for election in a term above that of `asked`. openraft takes the one after its own vote,
/// which is most often one or two below.
async fn stand_above(raft: &Raft, asked: Vote) {
    for _ in 0..STANDS {
        if raft.trigger().elect().await.is_err() {
            return;
        }
        let vote = raft.with_raft_state(|state| *state.vote_ref()).await;
        if vote.is_err() || vote.is_ok_and(|vote| vote > asked) {
            return;
        }
    }
}

impl RaftStore {
    /// Whether a manager may speak here: a member, or one with a newer list of members than the one
    /// that is known here, where it may have been added. One that was removed has an older list.
    pub(crate) fn may_speak(&self, node: &NodeId, list: ListNumber) -> bool {
        let view = self.shared.view.borrow();
        let is_member = view.members.nodes().any(|(_, member)| member.node == *node);
        is_member || list > self.shared.links.list()
    }

    /// Whether managers may speak here that are none by the state: they may have been made since.
    pub(crate) fn is_behind(&self) -> bool {
        !self.shared.links.was_led(BEHIND)
    }

    fn running(&self) -> Result<Raft, Unserved> {
        self.raft().ok_or(Unserved::NotRunning)
    }

    /// Takes entries of a leader, or a sign that it lives.
    ///
    /// # Errors
    /// openraft's.
    pub(crate) async fn append(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> Result<AppendEntriesResponse<RaftId>, Unserved> {
        let raft = self.running()?;
        self.shared.links.heard(request.vote.leader_id.node_id);
        let done = raft.append_entries(request).await;
        done.map_err(|error| Unserved::Failed(error.to_string()))
    }

    /// Gives its vote, or does not.
    ///
    /// # Errors
    /// openraft's.
    pub(crate) async fn vote(
        &self,
        request: VoteRequest<RaftId>,
    ) -> Result<VoteResponse<RaftId>, Unserved> {
        let raft = self.running()?;
        self.shared.links.heard(request.vote.leader_id.node_id);
        let (asked, last) = (request.vote, request.last_log_id);
        let done = raft.vote(request).await;
        let answer = done.map_err(|error| Unserved::Failed(error.to_string()))?;
        if !answer.vote_granted && answer.last_log_id > last && !self.has_leader() {
            // Who asked lacks entries and cannot win here. To wait for the own time to stand, and
            // then perhaps for another one as the same term is taken, would be most of the time
            // without a leader.
            stand_above(&raft, asked).await;
        }
        Ok(answer)
    }

    /// Whether a leader was heard of within its lease.
    pub(crate) fn has_leader(&self) -> bool {
        let shared = &self.shared;
        let leader = shared.view.borrow().leader;
        leader.is_some_and(|leader| {
            leader == shared.file.member || shared.links.is_heard(leader, LEASE)
        })
    }

    /// Takes a part of a snapshot.
    ///
    /// # Errors
    /// It is too long, or openraft's.
    pub(crate) async fn install(&self, part: Part) -> Result<Installed, Unserved> {
        let raft = self.running()?;
        let Part {
            of: SnapshotOf { vote, meta },
            offset,
            data,
            done,
        } = part;
        let end = offset.saturating_add(data.len() as u64);
        if end > MAX_SNAPSHOT {
            return Err(Unserved::TooLong);
        }
        self.shared.links.heard(vote.leader_id.node_id);
        let of = &meta.snapshot_id;
        let arrival = &self.shared.arrival;
        arrival.send_if_modified(|arrival| arrival.note(of, end));
        let request = InstallSnapshotRequest {
            vote,
            meta,
            offset,
            data,
            done,
        };
        match raft.install_snapshot(request).await {
            Ok(answer) => Ok(Installed::Answer(answer)),
            Err(RaftError::APIError(error)) => Ok(Installed::Refused(error)),
            Err(RaftError::Fatal(error)) => Err(Unserved::Failed(error.to_string())),
        }
    }
}
