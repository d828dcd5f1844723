//! Orders as they go out to sessions: made once for each state, and the half that is the same for
//! all nodes encoded once.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tonic::Status;
use weft_cluster::{ClusterState, OrderBook};
use weft_model::id::NodeId;

use crate::convert::{SCHEMA, encode};
use crate::proto::SessionMessage;

/// The orders of all nodes.
#[derive(Debug, Default)]
pub(super) struct Assignments(Mutex<Encoded>);

#[derive(Debug, Default)]
struct Encoded {
    book: OrderBook,
    /// Version of the shared half, and its text.
    shared: Option<(u64, Bytes)>,
}

/// Versions of both halves that a session was sent last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    shared: Option<u64>,
    own: Option<u64>,
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.book.update(state);
        let Some(orders) = all.book.of(node) else {
            return Ok(News::Removed);
        };
        let now = Sent {
            shared: Some(orders.shared.version),
            own: Some(orders.own.version),
        };
        if now == *sent {
            return Ok(News::Nothing);
        }
        let mut message = SessionMessage {
            schema: SCHEMA,
            heartbeat_ms,
            shared_json: None,
            own_json: None,
        };
        if now.shared != sent.shared {
            let known = all.shared.as_ref();
            let text = match known.filter(|(of, _)| Some(*of) == now.shared) {
                Some((_, text)) => text.clone(),
                None => {
                    let text = Bytes::from(encode(&*orders.shared)?);
                    all.shared = Some((orders.shared.version, text.clone()));
                    text
                }
            };
            message.shared_json = Some(text);
        }
        drop(all);
        if now.own != sent.own {
            message.own_json = Some(encode(&*orders.own)?);
        }
        *sent = now;
        Ok(News::Message(message))
    }
}
