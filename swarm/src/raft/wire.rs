//! What managers say to each other beside openraft's own messages.

use openraft::error::InstallSnapshotError;
use openraft::raft::InstallSnapshotResponse;
use serde::{Deserialize, Serialize};

use super::types::{RaftId, SnapshotMeta, Vote};

/// Of which snapshot a part is, and who sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotOf {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

/// What becomes of a part of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Installed {
    /// It is there; with the last one, all of it is on the disk.
    Answer(InstallSnapshotResponse<RaftId>),
    /// It does not follow what is there.
    Refused(InstallSnapshotError),
}
