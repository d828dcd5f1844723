//! Which members were heard of lately, whoever called whom, and which leader has ended its connections:
//! a process that ends closes them, and nobody has to wait until it was silent for long.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weft_model::id::NodeId;

use super::types::{LEASE, RaftId};

/// A leader that has ended its connections, as for another certificate, is back within this time if it
/// lives: that is a few round trips.
const REDIAL: Duration = Duration::from_millis(200);
/// More than its lease, for entries that were read from the network later than they came.
const LATE: Duration = Duration::from_millis(50);

/// Number of a list of members: the term and the index of the entry that it came with. A list with a
/// greater one is newer.
pub(crate) type ListNumber = (u64, u64);

#[derive(Debug, Default)]
struct Inner {
    heard: BTreeMap<RaftId, Instant>,
    /// Connections of other managers to this one, of those that have any.
    open: BTreeMap<NodeId, usize>,
    /// Leaders that ended their last connection, and when; until they are heard of.
    parted: BTreeMap<RaftId, (NodeId, Instant)>,
    led: Option<Instant>,
    list: ListNumber,
}

impl Inner {
    fn has_parted(&self, member: RaftId) -> bool {
        let parted = self.parted.get(&member);
        parted.is_some_and(|(_, at)| at.elapsed() >= REDIAL)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<Inner>);

impl Links {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has called, or answered.
    pub(crate) fn heard(&self, member: RaftId) {
        let mut inner = self.inner();
        inner.parted.remove(&member);
        inner.heard.insert(member, Instant::now());
    }

    /// Whether it was heard of in this time, and has not ended its connections since.
    pub(crate) fn is_heard(&self, member: RaftId, within: Duration) -> bool {
        let inner = self.inner();
        let at = inner.heard.get(&member);
        at.is_some_and(|at| at.elapsed() <= within) && !inner.has_parted(member)
    }

    /// Whether it was heard of once, and not in this time.
    pub(super) fn is_missed(&self, member: RaftId, within: Duration) -> bool {
        let inner = self.inner();
        let at = inner.heard.get(&member);
        at.is_some_and(|at| at.elapsed() > within)
    }

    /// A manager has opened a connection to this one.
    pub(super) fn opened(&self, node: &NodeId) {
        let mut inner = self.inner();
        *inner.open.entry(node.clone()).or_default() += 1;
        inner.parted.retain(|_, (parted, _)| parted != node);
    }

    /// One of its connections has ended; `leads` is what it is in the log, where it is the leader.
    pub(super) fn closed(&self, node: &NodeId, leads: Option<RaftId>) {
        let mut inner = self.inner();
        let left = inner
            .open
            .get(node)
            .map_or(0, |open| open.saturating_sub(1));
        if left > 0 {
            inner.open.insert(node.clone(), left);
            return;
        }
        inner.open.remove(node);
        if let Some(leader) = leads {
            inner.parted.insert(leader, (node.clone(), Instant::now()));
        }
    }

    /// When nobody gives a leader that has ended its connections the word any more; nothing while it has
    /// some.
    pub(super) fn succession(&self, leader: RaftId) -> Option<Instant> {
        let inner = self.inner();
        let (_, parted) = inner.parted.get(&leader)?;
        let heard = inner.heard.get(&leader)?;
        Some((*heard + LEASE + LATE).max(*parted + REDIAL))
    }

    /// There is a leader: this one, or a member that was heard of lately.
    pub(super) fn led(&self) {
        self.inner().led = Some(Instant::now());
    }

    /// Whether there was one in this time.
    pub(super) fn was_led(&self, within: Duration) -> bool {
        let at = self.inner().led;
        at.is_some_and(|at| at.elapsed() <= within)
    }

    /// The list of members that this one knows.
    pub(crate) fn list(&self) -> ListNumber {
        self.inner().list
    }

    /// There is a newer list; who is not on it is forgotten.
    pub(super) fn set_list(&self, list: ListNumber, is_on: impl Fn(RaftId) -> bool) {
        let mut inner = self.inner();
        if inner.list != list {
            inner.list = list;
            inner.heard.retain(|member, _| is_on(*member));
            inner.parted.retain(|member, _| is_on(*member));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_not_heard() {
        let links = Links::default();
        let limit = Duration::from_secs(1);
        assert!(!links.is_heard(7, limit));
        links.heard(7);
        tokio::time::advance(limit).await;
        assert!(links.is_heard(7, limit));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!links.is_heard(7, limit));
        links.heard(7);
        links.set_list((2, 9), |member| member != 7);
        assert!(!links.is_heard(7, limit), "it is no member any more");
        assert_eq!(links.list(), (2, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_has_parted_when_its_last_connection_ended_and_it_does_not_come_back() {
        let (links, node, limit) = (Links::default(), NodeId::from("n"), Duration::from_secs(5));
        let here = || (links.is_heard(7, limit), links.succession(7).is_some());
        links.opened(&node);
        links.opened(&node);
        links.heard(7);
        links.closed(&node, Some(7));
        assert_eq!(here(), (true, false), "it has another one");
        links.closed(&node, Some(7));
        assert_eq!(here(), (true, true), "it may be back in a moment");
        links.opened(&node);
        tokio::time::advance(REDIAL).await;
        assert_eq!(here(), (true, false), "it is back");

        links.heard(7);
        links.closed(&node, Some(7));
        let free = Instant::now() + LEASE + LATE;
        assert_eq!(links.succession(7), Some(free), "its lease holds");
        tokio::time::advance(REDIAL).await;
        assert_eq!(here(), (false, true));
        assert!(!links.is_missed(7, limit));
        tokio::time::advance(limit).await;
        assert!(links.is_missed(7, limit));
        links.heard(7);
        assert_eq!(here(), (true, false), "it is there after all");
        // One that does not lead calls nobody, and its connections say nothing.
        links.opened(&node);
        links.closed(&node, None);
        tokio::time::advance(REDIAL).await;
        assert_eq!(here(), (true, false));
        links.closed(&node, None);
        assert!(!links.is_missed(8, Duration::ZERO), "never heard of");
    }
}
