//! The connections to other nodes that this one has: of each node one for questions, and a few that
//! contents come by.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use weft_model::id::NodeId;
use weft_swarm::{Identity, NodeTls};

use super::circle::{Circle, Peer};
use super::line::{Content, Found, Line};
use super::turn::{Rank, Said};

/// Contents of one node that come at a time: what others want of it goes on beside.
const TRANSFERS: usize = 8;
/// A connection that was quiet for so long the other side may be about to close.
const STALE: Duration = Duration::from_secs(5);
/// How long a node that could not be reached is not asked again.
const AWAY: Duration = Duration::from_secs(5);

/// All of them. Of its locks `slots` and `tls` are never held together, nor with that of a slot.
#[derive(Debug, Default)]
pub(super) struct Lines {
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    /// Of the newest identity that was seen.
    tls: Mutex<Option<(Arc<Identity>, NodeTls)>>,
}

/// Of one node. Its locks are taken in this order: `questions`, then `away`.
#[derive(Debug)]
struct Slot {
    /// For questions, and when the last one was answered.
    questions: tokio::sync::Mutex<Option<(Line, Instant)>>,
    transfers: Arc<Semaphore>,
    /// Until when it is not asked.
    away: Mutex<Option<Instant>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            questions: tokio::sync::Mutex::default(),
            transfers: Arc::new(Semaphore::new(TRANSFERS)),
            away: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step, so what is in them stays whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A content on its way, with its place among those of the node.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) content: Content,
    _place: OwnedSemaphorePermit,
}

/// What is asked by the connection for questions.
#[derive(Debug, Clone)]
enum Question<'a> {
    Look(&'a str),
    Turn(&'a str, Rank),
    Text(&'a str),
}

#[derive(Debug)]
enum Answer {
    Look(Found),
    Turn(Said),
    Text(Option<String>),
}

impl Lines {
    /// TLS by the certificates of this moment.
    ///
    /// # Errors
    /// They are damaged, or the key is that of a manager which is locked.
    pub(super) fn tls(&self, identity: &Arc<Identity>) -> Result<NodeTls> {
        let mut held = lock(&self.tls);
        if let Some((of, tls)) = &*held
            && Arc::ptr_eq(of, identity)
        {
            return Ok(tls.clone());
        }
        let tls = NodeTls::new(identity).map_err(Error::other)?;
        *held = Some((Arc::clone(identity), tls.clone()));
        Ok(tls)
    }

    fn slot(&self, node: &NodeId) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        Arc::clone(slots.entry(node.clone()).or_default())
    }

    /// Forgets nodes that are no members any more, and ends connections to them.
    pub(super) fn keep(&self, circle: &dyn Circle) {
        lock(&self.slots).retain(|node, _| circle.is_member(node));
    }

    async fn open(&self, circle: &dyn Circle, peer: &Peer, slot: &Slot) -> Result<Line> {
        let away = *lock(&slot.away);
        if away.is_some_and(|until| Instant::now() < until) {
            return Err(Error::new(
                ErrorKind::HostUnreachable,
                "it did not answer a moment ago",
            ));
        }
        let tls = self.tls(&circle.identity())?;
        let opened = Line::open(&tls, circle.source(), peer).await;
        let until = opened.is_err().then(|| Instant::now() + AWAY);
        *lock(&slot.away) = until;
        opened
    }

    async fn ask(
        &self,
        circle: &dyn Circle,
        peer: &Peer,
        question: Question<'_>,
    ) -> Result<Answer> {
        let slot = self.slot(&peer.node);
        let mut held = slot.questions.lock().await;
        // It goes back only after an answer: what was given up in the middle cannot be asked again.
        let open = held
            .take()
            .filter(|(line, used)| line.is_open() && used.elapsed() < STALE);
        let mut line = match open {
            Some((line, _)) => line,
            None => self.open(circle, peer, &slot).await?,
        };
        let answer = match question {
            Question::Look(path) => Answer::Look(line.look(path).await?),
            Question::Turn(path, rank) => Answer::Turn(line.turn(path, rank).await?),
            Question::Text(path) => Answer::Text(line.text(path).await?),
        };
        *held = Some((line, Instant::now()));
        Ok(answer)
    }

    /// Where a content is.
    ///
    /// # Errors
    /// The node does not answer in time, or nothing that is understood.
    pub(super) async fn look(&self, circle: &dyn Circle, peer: &Peer, path: &str) -> Result<Found> {
        match self.ask(circle, peer, Question::Look(path)).await? {
            Answer::Look(found) => Ok(found),
            other => Err(mixed_up(&other)),
        }
    }

    /// What a node does about an image; `rank` is its place in the order.
    ///
    /// # Errors
    /// As of [`Lines::look`].
    pub(super) async fn turn(
        &self,
        circle: &dyn Circle,
        peer: &Peer,
        path: &str,
        rank: Rank,
    ) -> Result<Said> {
        match self.ask(circle, peer, Question::Turn(path, rank)).await? {
            Answer::Turn(said) => Ok(said),
            other => Err(mixed_up(&other)),
        }
    }

    /// A short text; nothing where the node knows none.
    ///
    /// # Errors
    /// As of [`Lines::look`].
    pub(super) async fn text(
        &self,
        circle: &dyn Circle,
        peer: &Peer,
        path: &str,
    ) -> Result<Option<String>> {
        match self.ask(circle, peer, Question::Text(path)).await? {
            Answer::Text(text) => Ok(text),
            other => Err(mixed_up(&other)),
        }
    }

    /// A content from a byte on, by a connection of its own; nothing where the node does not have it
    /// any more, or has too much to do.
    ///
    /// # Errors
    /// As of [`Lines::look`].
    pub(super) async fn take(
        &self,
        circle: &dyn Circle,
        peer: &Peer,
        path: &str,
        offset: u64,
    ) -> Result<Option<Transfer>> {
        let slot = self.slot(&peer.node);
        let place = Arc::clone(&slot.transfers).acquire_owned().await;
        let place = place.map_err(Error::other)?;
        let line = self.open(circle, peer, &slot).await?;
        let content = line.take(path, offset).await?;
        Ok(content.map(|content| Transfer {
            content,
            _place: place,
        }))
    }
}

/// Questions of one kind have answers of that kind.
fn mixed_up(answer: &Answer) -> Error {
    Error::other(format!("an answer to another question: {answer:?}"))
}
