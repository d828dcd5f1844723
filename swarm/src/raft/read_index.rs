//! Proof for a read that it is the newest: Raft's read index (the thesis of Ongaro, section 6.4). The
//! leader asks the others whether it still is one, after the read was asked for; no clock counts.

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::time::{Instant, sleep, timeout};
use weft_cluster::{Leadership, ProposeError};

use super::shared::Shared;
use super::view::SILENCE;

/// Between two attempts: openraft gives the others the time of one heartbeat to answer.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until a quorum has said that this member leads, and until all is applied that was committed
/// before. A leader that is not answered for as long as [`SILENCE`] is none.
///
/// # Errors
/// [`ProposeError::NotLeader`]
pub(super) async fn confirm(shared: &Shared) -> Result<(), ProposeError> {
    let until = Instant::now() + SILENCE;
    loop {
        if let Leadership::Follower { leader } = &*shared.leadership.borrow() {
            return Err(ProposeError::NotLeader {
                leader: leader.clone(),
            });
        }
        if shared.is_alone() {
            // Nobody else decides; it led, so its state is whole, also while the disk fails.
            return Ok(());
        }
        let nobody = ProposeError::NotLeader { leader: None };
        let raft = shared.raft.borrow().clone();
        let Some(raft) = raft else {
            return Err(nobody);
        };
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, raft.ensure_linearizable()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))))
                if left > PAUSE =>
            {
                sleep(PAUSE).await;
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                let leader = forward.leader_id.and_then(|leader| shared.node_of(leader));
                return Err(ProposeError::NotLeader { leader });
            }
            Ok(Err(RaftError::APIError(_) | RaftError::Fatal(_))) | Err(_) => return Err(nobody),
        }
    }
}
