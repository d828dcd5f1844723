//! Orders as they go out to sessions: each hears what is another thing than what it was sent last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;
use tonic::Status;
use weft_cluster::{ClusterState, OrderBook};
use weft_model::assignment::{Own, PayloadContent};
use weft_model::id::{NodeId, PayloadId};

use super::shared_feed::SharedFeed;
use super::turns::{Turn, Turns};
use crate::convert::{SCHEMA, encode};
use crate::orders::{MAX_PAYLOAD_BYTES, MAX_PAYLOADS, used};
use crate::proto::SessionMessage;

/// Bytes of secrets and configs that go out with one message, which base64 makes 8 MiB, and how many:
/// with all else they are less than [`crate::codec::MAX_FIELDS`]. How many bytes all messages may have that
/// are on their way is for [`Turns`].
const STEP_BYTES: usize = 6 << 20;
const STEP_PAYLOADS: usize = 1024;

/// The orders of all nodes.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    inner: Mutex<Inner>,
    /// Of all sessions that have secrets and configs to send.
    turns: Turns,
}

#[derive(Debug, Default)]
struct Inner {
    book: OrderBook,
    shared: SharedFeed,
}

/// What a session was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    last: Versions,
    /// Secrets and configs that its node holds, with the bytes of each.
    payloads: BTreeMap<PayloadId, usize>,
    /// Bytes of those that go out next, once it is their turn; 0 where its tasks need no more.
    wanted: usize,
    /// It is.
    turn: Option<Turn>,
}

/// What a session was sent last: versions of both halves and of the roots, and its period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Versions {
    shared: Option<u64>,
    own: Option<u64>,
    roots: Option<u64>,
    heartbeat_ms: u32,
}

/// Secrets and configs for one message.
#[derive(Debug, Default)]
struct Step<'a> {
    /// With the bytes of each.
    payloads: Vec<(&'a PayloadId, usize)>,
    /// Of all of them.
    bytes: usize,
}

/// What a session has to be told.
pub(super) enum News {
    /// The node is no member (any more).
    Removed,
    /// Nothing.
    Nothing,
    /// This, with the turn of the secrets and configs in it.
    Message(SessionMessage, Option<Turn>),
}

impl Sent {
    /// Bytes of secrets and configs that wait for their turn ([`Assignments::queue`]): the orders that need
    /// them are sent. 0 where there are none.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// It is their turn: the next news has them.
    pub(super) fn take_turn(&mut self, turn: Option<Turn>) {
        self.turn = turn;
    }

    /// The next of what these orders use and the node does not hold: so many bytes at most, or one.
    fn next<'a>(&self, own: &'a Own, book: &OrderBook, most: usize) -> Step<'a> {
        let mut step = Step::default();
        let held: usize = self.payloads.values().sum();
        for id in used(own) {
            if self.payloads.contains_key(id) {
                continue;
            }
            // Of one that was removed the node says that it has not come, as of one that it has no room
            // for: it would refuse the message.
            let Some(length) = book.payload_bytes(id) else {
                continue;
            };
            let count = self.payloads.len() + step.payloads.len();
            if count >= MAX_PAYLOADS || held + step.bytes + length > MAX_PAYLOAD_BYTES {
                continue;
            }
            let is_full = step.bytes + length > most || step.payloads.len() >= STEP_PAYLOADS;
            if is_full && !step.payloads.is_empty() {
                break;
            }
            step.payloads.push((id, length));
            step.bytes += length;
        }
        step
    }

    /// What these orders use and the node does not hold, as much as it is the turn of; the node will once it
    /// has the message. The rest is what is wanted from now on.
    fn step(&mut self, own: &Own, book: &OrderBook, turns: &Turns) -> Going {
        let mut going = Going {
            payloads: Vec::new(),
            turn: self.turn.take(),
        };
        let most = going.turn.as_ref().map_or(STEP_BYTES, Turn::bytes);
        let step = self.next(own, book, most);
        if step.payloads.is_empty() {
            going.turn = None;
        } else if going.turn.is_none() {
            going.turn = turns.try_take(step.bytes);
        }
        if going.turn.is_some() {
            for (id, length) in step.payloads {
                going.payloads.extend(book.payload(id));
                self.payloads.insert(id.clone(), length);
            }
        }
        self.wanted = self.next(own, book, STEP_BYTES).bytes;
        going
    }

    /// The node has these orders, and forgets what they do not use.
    fn prune(&mut self, own: &Own) {
        let used = used(own);
        self.payloads.retain(|id, _| used.contains(id));
    }
}

/// Secrets and configs that go out, with their turn.
#[derive(Debug, Default)]
struct Going {
    payloads: Vec<PayloadContent>,
    turn: Option<Turn>,
}

impl Assignments {
    /// What a node has to be told at that state, or a newer one, and takes note of it in `sent`.
    ///
    /// Orders wait for nobody: a node beats from its first message on. Secrets and configs that do not go
    /// along, as they are too many or it is the turn of others, follow alone; a task waits for its own. So
    /// the node also has forgotten what the orders before used, before it is sent what has no room beside.
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
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { book, shared } = &mut *inner;
        shared.note(&book.update(state))?;
        let now = Versions {
            shared: book.shared_version(),
            own: book.own_version(node),
            roots: state.secrets.as_ref().map(|s| s.roots.generation),
            heartbeat_ms,
        };
        if now.shared.is_none() || now.own.is_none() {
            return Ok(News::Removed);
        }
        if now == sent.last && sent.turn.is_none() {
            return Ok(News::Nothing);
        }
        let is_other = now.own != sent.last.own;
        let needs_own = is_other || sent.turn.is_some();
        let own = needs_own.then(|| book.own(node)).flatten();
        let mut going = Going::default();
        if let Some(own) = &own {
            // With the message it forgets what it does not use, and takes what comes along.
            if is_other {
                sent.prune(own);
            }
            going = sent.step(own, book, &self.turns);
        }
        if now == sent.last && going.payloads.is_empty() {
            return Ok(News::Nothing);
        }
        let delta = shared.delta(sent.last.shared, book)?.unwrap_or_default();
        drop(inner);
        let own_json = match own.filter(|_| is_other) {
            Some(own) => Some(encode(&own)?),
            None => None,
        };
        let roots = state
            .secrets
            .as_ref()
            .filter(|_| now.roots != sent.last.roots);
        sent.last = now;
        let message = SessionMessage {
            schema: SCHEMA,
            heartbeat_ms,
            shared_json: delta.full,
            own_json,
            shared_changes_json: delta.changes,
            roots_pem: roots.map(|secrets| secrets.roots.bundle()),
            payloads_json: encoded(&going.payloads)?,
        };
        Ok(News::Message(message, going.turn))
    }

    /// The turn of a session that wants to send so many bytes of secrets and configs, once it comes.
    /// Whoever drops this gives up the place.
    pub(super) fn queue(&self, wanted: usize) -> oneshot::Receiver<Turn> {
        self.turns.queue(wanted)
    }
}

fn encoded(payloads: &[PayloadContent]) -> Result<Vec<Vec<u8>>, Status> {
    payloads.iter().map(encode).collect()
}

#[cfg(test)]
mod tests;
