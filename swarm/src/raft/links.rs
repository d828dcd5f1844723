//! Which members were heard of lately, whoever called whom.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::types::RaftId;

/// Number of a list of members: the term and the index of the entry that it came with. A list with a
/// greater one is newer.
pub(crate) type ListNumber = (u64, u64);

#[derive(Debug, Default)]
struct Inner {
    heard: BTreeMap<RaftId, Instant>,
    led: Option<Instant>,
    list: ListNumber,
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
        self.inner().heard.insert(member, Instant::now());
    }

    /// Whether it was heard of in this time.
    pub(crate) fn is_heard(&self, member: RaftId, within: Duration) -> bool {
        let inner = self.inner();
        let at = inner.heard.get(&member);
        at.is_some_and(|at| at.elapsed() <= within)
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
}
