//! Where the desired state lives, for everything of a manager but the disk or the log itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use weft_cluster::{Change, ClusterState, Leadership, ProposeError};

/// A boxed future, so that the trait stays usable behind a pointer.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What plans are made on: the newest state, with all that was proposed and is still on its way to the
/// disk.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// That state.
    pub(crate) state: Arc<ClusterState>,
    /// Another number when what was on its way was taken back: versions alone would not tell.
    pub(crate) line: u64,
}

/// Holds the desired state. Changes that it took are durable before [`Self::propose`] returns.
pub(crate) trait DesiredStore: fmt::Debug + Send + Sync + 'static {
    /// The newest state that this manager knows. On the leader it is the newest there is.
    fn read(&self) -> Arc<ClusterState>;

    /// The same as it changes, newest only.
    fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>>;

    /// Whether this manager leads, as it changes. Who leads plans; nobody else does.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Why changes are not stored at present, for people; nothing while they are.
    fn trouble(&self) -> watch::Receiver<Option<String>>;

    /// What to plan on.
    fn head(&self) -> Head;

    /// Makes changes that were planned on a head part of the state. Goes on when it is no longer
    /// waited for.
    ///
    /// # Errors
    /// Nothing was changed, and why; or nobody knows, [`ProposeError::Undecided`].
    fn propose(&self, on: &Head, changes: Vec<Change>) -> BoxFuture<'_, Result<(), ProposeError>>;

    /// Waits until all of a head is stored: only then may be answered what was decided by it.
    ///
    /// # Errors
    /// Some of it was taken back, or may yet be.
    fn settled(&self, on: &Head) -> BoxFuture<'_, Result<(), ProposeError>>;

    /// Waits for the proof that this manager led after the call had begun: more than half of the
    /// managers said so. What [`Self::read`] gives then has all that anybody was told is stored.
    ///
    /// # Errors
    /// It does not lead, or too few managers answer.
    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), ProposeError>>;

    /// Lets go of the disk, after what is being written now; later proposals are refused as
    /// [`ProposeError::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}
