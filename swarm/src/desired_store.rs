//! Where the desired state lives, for everything of a manager but the disk or the log itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use weft_cluster::{ClusterState, Entry, Leadership, ProposeError};

/// A boxed future, so that the trait stays usable behind a pointer.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Holds the desired state. Every entry that it took is durable before [`Self::propose`] returns.
pub(crate) trait DesiredStore: fmt::Debug + Send + Sync + 'static {
    /// The newest state that this manager knows. On the leader it is the newest there is.
    fn read(&self) -> Arc<ClusterState>;

    /// The same as it changes, newest only.
    fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>>;

    /// Whether this manager leads, as it changes. Who leads plans; nobody else does.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Why changes are not stored at present, for people; nothing while they are.
    fn trouble(&self) -> watch::Receiver<Option<String>>;

    /// Makes an entry part of the state; returns the state with it. Goes on when it is no longer
    /// waited for.
    ///
    /// # Errors
    /// Nothing was changed, and why.
    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Arc<ClusterState>, ProposeError>>;

    /// Lets go of the disk, after what is being written now; later proposals are refused as
    /// [`ProposeError::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}
