//! Where the desired state lives: one file today, a replicated log later.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use weft_model::id::NodeId;

use super::object::Change;
use super::state::ClusterState;

/// A boxed future, so that the trait stays usable behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a proposal did not make it into the state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Someone else changed the state since it was read: plan again. Nothing changed.
    #[error("update out of sequence: planned on version {planned}, the state is at {actual}")]
    Stale {
        /// Version that the changes were planned on.
        planned: u64,
        /// Version of the state now.
        actual: u64,
    },
    /// The store cannot write (disk full, no quorum). Nothing changed.
    #[error("cannot store the change: {0}")]
    Storage(String),
}

/// Holds the desired state. Every accepted proposal is durable before `propose` returns.
pub trait DesiredStore: Send + Sync + 'static {
    /// The newest state that this store knows.
    fn state(&self) -> Arc<ClusterState>;

    /// Waits until the state is newer than version `seen`, and returns it.
    fn watch(&self, seen: u64) -> BoxFuture<'_, Arc<ClusterState>>;

    /// Applies `changes` that were planned on version `base`, all or nothing; returns the new
    /// state.
    fn propose(
        &self,
        base: u64,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Arc<ClusterState>, ProposeError>>;

    /// Managers that hold a copy, the leader first.
    fn members(&self) -> Vec<NodeId>;
}
