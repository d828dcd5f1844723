//! What a log of entries does to the desired state. Every manager that takes the same entries in the
//! same order has the same state and gives the same replies: nothing here reads a clock or draws a
//! random number. Whoever plans has done both, and their results are in the changes.

use serde::{Deserialize, Serialize};

use crate::{Change, ClusterState};

/// One entry of the log: changes, with the state that they were planned on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of that state.
    pub base: u64,
    /// All of them or none, in this order.
    pub changes: Vec<Change>,
}

/// What became of an entry. Both are answers of the log, none is a failure of it: an entry that is
/// stale has its place there too, and changes nothing on any manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// It is part of the state.
    Applied {
        /// Version of the state with it.
        version: u64,
    },
    /// It was planned on another state.
    Stale(Stale),
}

/// Changes that were planned on a state that is not the newest: plan again. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("update out of sequence: planned on version {planned}, the state is at {actual}")]
pub struct Stale {
    /// Version that they were planned on.
    pub planned: u64,
    /// Version of the state now.
    pub actual: u64,
}

impl Entry {
    /// Whether it was planned on this very state.
    ///
    /// # Errors
    /// It was not.
    pub fn check(&self, state: &ClusterState) -> Result<(), Stale> {
        if self.base == state.version {
            return Ok(());
        }
        Err(Stale {
            planned: self.base,
            actual: state.version,
        })
    }

    /// Makes it part of `state`, which is as it was when the entry is stale.
    pub fn apply(&self, state: &mut ClusterState) -> Reply {
        if let Err(stale) = self.check(state) {
            return Reply::Stale(stale);
        }
        state.apply(&self.changes);
        Reply::Applied {
            version: state.version,
        }
    }
}
