//! Orders as they go out to sessions: each hears what is another thing than what it was sent last.

use std::sync::{Mutex, PoisonError};

use tonic::Status;
use weft_cluster::{ClusterState, OrderBook};
use weft_model::id::NodeId;

use super::shared_feed::SharedFeed;
use crate::convert::{SCHEMA, encode};
use crate::proto::SessionMessage;

/// The orders of all nodes.
#[derive(Debug, Default)]
pub(super) struct Assignments(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    book: OrderBook,
    shared: SharedFeed,
}

/// What a session was sent last: versions of both halves and of the roots, and its period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    shared: Option<u64>,
    own: Option<u64>,
    roots: Option<u64>,
    heartbeat_ms: u32,
}

/// What a session has to be told.
pub(super) enum News {
    /// The node is no member (any more).
    Removed,
    /// Nothing.
    Nothing,
    /// This.
    Message(SessionMessage),
}

impl Assignments {
    /// What a node has to be told at that state, or a newer one, and takes note of it in `sent`.
    ///
    /// # Errors
    /// An object that cannot be encoded.
    pub(super) fn news(
        &self,
        state: &ClusterState,
        node: &NodeId,
        sent: &mut Sent,
        heartbeat_ms: u32,
    ) -> Result<News, Status> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { book, shared } = &mut *inner;
        shared.note(&book.update(state))?;
        let now = Sent {
            shared: book.shared_version(),
            own: book.own_version(node),
            roots: state.secrets.as_ref().map(|s| s.roots.generation),
            heartbeat_ms,
        };
        if now.shared.is_none() || now.own.is_none() {
            return Ok(News::Removed);
        }
        if now == *sent {
            return Ok(News::Nothing);
        }
        let delta = shared.delta(sent.shared, book)?.unwrap_or_default();
        let own = (now.own != sent.own).then(|| book.own(node)).flatten();
        drop(inner);
        let own_json = match own {
            Some(own) => Some(encode(&own)?),
            None => None,
        };
        let roots = state.secrets.as_ref().filter(|_| now.roots != sent.roots);
        *sent = now;
        Ok(News::Message(SessionMessage {
            schema: SCHEMA,
            heartbeat_ms,
            shared_json: delta.full,
            own_json,
            shared_changes_json: delta.changes,
            roots_pem: roots.map(|secrets| secrets.roots.bundle()),
            payloads_json: Vec::new(),
        }))
    }
}
