//! What still has to be told: each change is sent a limited number of times, freshest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use weft_model::id::NodeId;

use super::entries::EntryKey;

/// Name of a change: whose entry. The content is looked up when it is sent, so it is never stale.
pub(crate) type ChangeKey = (NodeId, EntryKey);

#[derive(Debug, Clone, Copy)]
struct Queued {
    sent: u32,
    order: u64,
}

/// Retransmit queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: BTreeMap<ChangeKey, Queued>,
    next_order: u64,
}

/// `4 * ceil(log10(n + 1))`: how often one node sends one change in a cluster of `n` others.
pub(crate) fn retransmit_limit(n: usize) -> u32 {
    let mut digits = 0;
    let mut power = 1_usize;
    while power < n.saturating_add(1) {
        power = power.saturating_mul(10);
        digits += 1;
    }
    4 * digits.max(1)
}

impl Queue {
    /// Adds a change, or starts it afresh.
    pub(crate) fn push(&mut self, key: ChangeKey) {
        self.next_order += 1;
        self.items.insert(
            key,
            Queued {
                sent: 0,
                order: self.next_order,
            },
        );
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn has_fresh(&self) -> bool {
        self.items.values().any(|q| q.sent == 0)
    }

    /// Everything to send, least often sent first, newest first among equals.
    pub(crate) fn in_order(&self) -> Vec<ChangeKey> {
        let mut all: Vec<_> = self.items.iter().collect();
        all.sort_unstable_by_key(|(_, q)| (q.sent, Reverse(q.order)));
        all.into_iter().map(|(k, _)| k.clone()).collect()
    }

    /// Notes that `key` went out once more; forgets it at `limit`.
    pub(crate) fn sent(&mut self, key: &ChangeKey, limit: u32) {
        if let Some(q) = self.items.get_mut(key) {
            q.sent += 1;
            if q.sent >= limit {
                self.items.remove(key);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &ChangeKey) {
        self.items.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_follows_memberlist() {
        assert_eq!(retransmit_limit(0), 4);
        assert_eq!(retransmit_limit(2), 4);
        assert_eq!(retransmit_limit(10), 8);
        assert_eq!(retransmit_limit(99), 8);
        assert_eq!(retransmit_limit(100), 12);
        assert_eq!(retransmit_limit(usize::MAX), 80);
    }

    #[test]
    fn least_sent_first_and_forgotten_at_the_limit() {
        let key = |s: &str| (NodeId::from(s), (1, s.to_owned()));
        let mut q = Queue::default();
        q.push(key("a"));
        q.push(key("b"));
        assert_eq!(q.in_order(), [key("b"), key("a")]);
        q.sent(&key("b"), 2);
        assert_eq!(q.in_order(), [key("a"), key("b")]);
        q.sent(&key("b"), 2);
        assert_eq!(q.in_order(), [key("a")]);
        assert!(q.has_fresh());
        q.remove(&key("a"));
        assert!(q.is_empty());
    }
}
