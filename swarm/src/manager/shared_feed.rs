//! The half of the orders that every node is told, as bytes: encoded once for all sessions, and
//! handed to each as the difference to what it has.

use std::collections::VecDeque;

use bytes::Bytes;
use tonic::Status;
use weft_cluster::{OrderBook, SharedNews};

use crate::convert::encode;

/// Changes that are kept for sessions that are behind, in number and in bytes. A session that is
/// further behind gets the whole.
const MAX_STEPS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Changes that go out together with the whole have at most this part of its bytes, or
/// [`SMALL`]: then the whole is encoded anew.
const PART: usize = 4;
const SMALL: usize = 64 << 10;

/// One change, encoded.
#[derive(Debug)]
struct Step {
    base: u64,
    version: u64,
    json: Bytes,
}

/// What a session has to be sent.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// The whole, at some version.
    pub(super) full: Option<Bytes>,
    /// What happened since, or since the version that the session has.
    pub(super) changes: Vec<Bytes>,
}

/// The whole as it was encoded last, and the last changes, each on top of the one before.
#[derive(Debug, Default)]
pub(super) struct SharedFeed {
    full: Option<(u64, Bytes)>,
    steps: VecDeque<Step>,
    /// Of all steps.
    bytes: usize,
}

impl SharedFeed {
    /// Takes note of what an update of the book has brought.
    ///
    /// # Errors
    /// It cannot be encoded; sessions get the whole then.
    pub(super) fn note(&mut self, news: &SharedNews) -> Result<(), Status> {
        match news {
            SharedNews::Same => return Ok(()),
            SharedNews::Anew => self.clear(),
            SharedNews::Changed(change) => {
                if self.steps.back().is_some_and(|s| s.version != change.base) {
                    self.clear();
                }
                let json = Bytes::from(encode(&**change)?);
                self.bytes += json.len();
                self.steps.push_back(Step {
                    base: change.base,
                    version: change.version,
                    json,
                });
            }
        }
        while self.steps.len() > MAX_STEPS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.bytes -= oldest.json.len();
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Changes from version `known` to version `now`; nothing where some are not there any more.
    fn since(&self, known: u64, now: u64) -> Option<Vec<Bytes>> {
        if known == now {
            return Some(Vec::new());
        }
        if self.steps.back()?.version != now {
            return None;
        }
        let first = self.steps.iter().rposition(|step| step.base == known)?;
        let steps = self.steps.range(first..);
        Some(steps.map(|step| step.json.clone()).collect())
    }

    /// What a session has to be sent that has the version `known`, or nothing, for the one of the
    /// book; nothing where there is no cluster.
    ///
    /// # Errors
    /// The whole cannot be encoded.
    pub(super) fn delta(
        &mut self,
        known: Option<u64>,
        book: &OrderBook,
    ) -> Result<Option<Delta>, Status> {
        let Some(now) = book.shared_version() else {
            return Ok(None);
        };
        if let Some(changes) = known.and_then(|known| self.since(known, now)) {
            let full = None;
            return Ok(Some(Delta { full, changes }));
        }
        if let Some((version, full)) = &self.full
            && let Some(changes) = self.since(*version, now)
            && changes.iter().map(Bytes::len).sum::<usize>() <= SMALL.max(full.len() / PART)
        {
            let full = Some(full.clone());
            return Ok(Some(Delta { full, changes }));
        }
        let Some(shared) = book.shared() else {
            return Ok(None);
        };
        let full = Bytes::from(encode(&shared)?);
        self.full = Some((now, full.clone()));
        Ok(Some(Delta {
            full: Some(full),
            changes: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use weft_model::assignment::change::SharedChange;
    use weft_model::id::NodeId;

    use super::*;
    use crate::manager::vitals::tests::nodes;

    fn step(feed: &mut SharedFeed, base: u64, bytes: usize) {
        let mut change = SharedChange {
            base,
            version: base + 1,
            ..SharedChange::default()
        };
        change.nodes.gone = vec![NodeId("x".repeat(bytes))];
        feed.note(&SharedNews::Changed(Box::new(change))).unwrap();
    }

    #[test]
    fn who_is_not_too_far_behind_gets_the_changes() {
        let mut feed = SharedFeed::default();
        for base in 5..9 {
            step(&mut feed, base, 10);
        }
        let count = |feed: &SharedFeed, known| feed.since(known, 9).map(|changes| changes.len());
        let counts: Vec<_> = (4..=10).map(|known| count(&feed, known)).collect();
        let expected = [None, Some(4), Some(3), Some(2), Some(1), Some(0), None];
        assert_eq!(counts, expected);
        assert!(feed.since(5, 8).is_none(), "that is not the last version");
        // They are bounded, in bytes and in number.
        for base in 9..12 {
            step(&mut feed, base, MAX_BYTES / 2);
        }
        assert_eq!(feed.since(11, 12).map(|c| c.len()), Some(1));
        assert!(feed.since(9, 12).is_none());
        for base in 12..12 + 2 * MAX_STEPS as u64 {
            step(&mut feed, base, 1);
        }
        assert_eq!(feed.steps.len(), MAX_STEPS);
        // One that is missing makes all before it useless.
        step(&mut feed, 9000, 1);
        assert_eq!(feed.steps.len(), 1);
        let bytes: usize = feed.steps.iter().map(|s| s.json.len()).sum();
        assert_eq!(feed.bytes, bytes);
        feed.note(&SharedNews::Anew).unwrap();
        assert!(feed.steps.is_empty() && feed.bytes == 0);
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_tell() {
        let mut book = OrderBook::default();
        book.update(&nodes(&["a"]));
        let delta = SharedFeed::default().delta(None, &book).unwrap();
        assert!(delta.is_none());
    }
}
