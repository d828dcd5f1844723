//! Managers of the swarm's past that still run, as after a restore beside them: this manager's state has
//! them for none, and they call its log as if it had.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft_model::id::NodeId;

/// One that was just demoted calls on for a moment, until it has the certificate of a worker.
const LASTING: Duration = Duration::from_secs(10);
/// Who has not called for so long runs no more.
const OVER: Duration = Duration::from_secs(60);
/// So many are kept in mind.
const MOST: usize = 32;

#[derive(Debug)]
struct Calls {
    from: IpAddr,
    first: Instant,
    last: Instant,
}

/// Those whose calls were refused lately.
#[derive(Debug, Default)]
pub(super) struct PastManagers(Mutex<BTreeMap<NodeId, Calls>>);

impl PastManagers {
    fn calls(&self) -> MutexGuard<'_, BTreeMap<NodeId, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One has called, and was refused.
    pub(super) fn called(&self, node: &NodeId, from: IpAddr, now: Instant) {
        let mut calls = self.calls();
        calls.retain(|_, calls| now.saturating_duration_since(calls.last) <= OVER);
        if calls.len() >= MOST && !calls.contains_key(node) {
            return;
        }
        let known = calls.entry(node.clone()).or_insert(Calls {
            from,
            first: now,
            last: now,
        });
        (known.from, known.last) = (from, now);
    }

    /// Those that go on calling, and from where.
    pub(super) fn lasting(&self, now: Instant) -> Vec<(NodeId, IpAddr)> {
        let calls = self.calls();
        let lasting = calls.iter().filter(|(_, calls)| {
            now.saturating_duration_since(calls.last) <= OVER
                && calls.last.saturating_duration_since(calls.first) >= LASTING
        });
        lasting
            .map(|(node, calls)| (node.clone(), calls.from))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_calling_is_told_of_until_it_ends() {
        let (past, start) = (PastManagers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (node, from) = (NodeId::from("n1"), IpAddr::from([192, 0, 2, 1]));
        past.called(&node, from, at(0));
        past.called(&node, from, at(1));
        let demoted = past.lasting(at(30));
        assert!(demoted.is_empty(), "it has the certificate of a worker");
        past.called(&node, from, at(31));
        assert_eq!(past.lasting(at(31)), [(node.clone(), from)]);
        assert_eq!(past.lasting(at(91)), [(node.clone(), from)]);
        assert!(past.lasting(at(92)).is_empty(), "it has been stopped");
        past.called(&node, from, at(100));
        assert!(past.lasting(at(100)).is_empty(), "another life");
    }
}
