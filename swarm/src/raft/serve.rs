//! What the other members ask of this one.

use openraft::error::RaftError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse,
};
use weft_model::id::NodeId;

use super::links::ListNumber;
use super::store::RaftStore;
use super::types::{Raft, RaftId, Types};
use super::wire::{Installed, SnapshotOf};

/// Bytes of a snapshot at most.
const MAX_SNAPSHOT: u64 = 1 << 30;

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

impl RaftStore {
    /// Whether a manager may speak here: a member, or one with a newer list of members than the one
    /// that is known here, where it may have been added. One that was removed has an older list.
    pub(crate) fn may_speak(&self, node: &NodeId, list: ListNumber) -> bool {
        let view = self.shared.view.borrow();
        let is_member = view.members.nodes().any(|(_, member)| member.node == *node);
        is_member || list > self.shared.links.list()
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
        let done = raft.vote(request).await;
        done.map_err(|error| Unserved::Failed(error.to_string()))
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
        if offset.saturating_add(data.len() as u64) > MAX_SNAPSHOT {
            return Err(Unserved::TooLong);
        }
        self.shared.links.heard(vote.leader_id.node_id);
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
