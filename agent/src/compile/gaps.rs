//! Services in a gap: none of their replicas takes connections, and some are wanted. Clients wait
//! for the next one (`weft_mesh::Service::in_gap`), and hear at once when there is little hope.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_model::assignment::ServiceView;
use weft_model::id::ServiceId;
use weft_model::objects::ServiceMode;
use weft_wire::Instant;

/// A service that has no replica for so long is down, and is not being updated: longer than a task
/// may take to drain, to end by its stop grace period, to start and to become healthy, as a rule.
const LONGEST: Duration = Duration::from_secs(60);

/// The gaps of this moment, and since when they are.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Without a moment until the next [`Gaps::end_long`].
    open: BTreeMap<ServiceId, Option<Instant>>,
    /// Those that last for too long: nobody waits any more.
    over: BTreeSet<ServiceId>,
    /// Those that became so, and whose tables are those of before.
    news: BTreeSet<ServiceId>,
}

/// Whether replicas that take connections for long are wanted. How many a global service has its
/// tasks say: `known` are there, ready or not.
pub(super) fn is_wanted(service: &ServiceView, known: bool) -> bool {
    match service.mode {
        ServiceMode::Replicated { replicas } => replicas > 0,
        ServiceMode::Global => known,
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => false,
    }
}

impl Gaps {
    /// Takes in whether a service has none that takes connections although some are wanted. True
    /// while its clients are to wait.
    pub(super) fn note(&mut self, service: &ServiceId, gap: bool) -> bool {
        if !gap {
            self.open.remove(service);
            self.over.remove(service);
            return false;
        }
        if self.over.contains(service) {
            return false;
        }
        self.open.entry(service.clone()).or_default();
        true
    }

    /// Ends gaps that last for too long. True where there are some whose tables have to be made
    /// again.
    pub(crate) fn end_long(&mut self, now: Instant) -> bool {
        for (service, since) in &mut self.open {
            let since = since.get_or_insert(now);
            if now.since(*since) >= LONGEST {
                self.over.insert(service.clone());
                self.news.insert(service.clone());
            }
        }
        self.open.retain(|service, _| !self.over.contains(service));
        !self.news.is_empty()
    }

    /// Services whose gap lasted for too long since the last tables.
    pub(super) fn take_news(&mut self) -> BTreeSet<ServiceId> {
        std::mem::take(&mut self.news)
    }

    /// Forgets services that are not in `keep`.
    pub(super) fn retain(&mut self, keep: impl Fn(&ServiceId) -> bool) {
        self.open.retain(|service, _| keep(service));
        self.over.retain(|service| keep(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_with_a_replica_or_by_time_and_then_stays_over() {
        let mut gaps = Gaps::default();
        let web = ServiceId::from("web");
        let at = |seconds| Instant(1).after(Duration::from_secs(seconds));
        assert!(gaps.note(&web, true));
        assert!(!gaps.end_long(at(0)), "it begins here");
        assert!(!gaps.end_long(at(59)));
        // A replica came, and has ended.
        assert!(!gaps.note(&web, false));
        assert!(gaps.note(&web, true));
        assert!(!gaps.end_long(at(70)));
        assert!(!gaps.end_long(at(129)));
        assert!(gaps.note(&web, true), "made again for another reason");
        assert!(gaps.end_long(at(130)));
        assert!(gaps.end_long(at(131)), "until somebody takes it");
        assert_eq!(gaps.take_news(), BTreeSet::from([web.clone()]));
        assert!(!gaps.end_long(at(131)));
        assert!(!gaps.note(&web, true), "it goes on being down");
        assert!(!gaps.end_long(at(1000)));
        assert!(!gaps.note(&web, false));
        assert!(gaps.note(&web, true), "a new one");
        gaps.retain(|_| false);
        assert!(gaps.open.is_empty() && gaps.over.is_empty());
    }
}
