//! Drops of ports that are gone. What a task did not get, or could not send, in its last moments is asked
//! for when it is no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_dataplane::{DropCounters, PortCounters};
use weft_wire::DropReason;

/// The sum of their counters, by reason.
#[derive(Debug, Default)]
pub(crate) struct EarlierDrops {
    /// Of those at which nobody counts any more.
    sum: DropCounters,
    /// Of those that a worker may still have.
    fading: Vec<Arc<PortCounters>>,
}

impl EarlierDrops {
    /// A port is gone.
    pub(crate) fn add(&mut self, counters: Arc<PortCounters>) {
        self.settle();
        self.fading.push(counters);
    }

    /// Reasons that happened, with their counts.
    pub(crate) fn counts(&mut self) -> Vec<(DropReason, u64)> {
        self.settle();
        let fading = self.fading.iter().flat_map(|port| port.drops.iter());
        let mut counts: BTreeMap<DropReason, u64> = self.sum.iter().collect();
        for (reason, packets) in fading {
            *counts.entry(reason).or_default() += packets;
        }
        counts.into_iter().collect()
    }

    /// Takes into the sum what nobody else has any more.
    fn settle(&mut self) {
        let sum = &self.sum;
        self.fading.retain_mut(|port| {
            let last = Arc::get_mut(port).is_some();
            if last {
                for (reason, packets) in port.drops.iter() {
                    sum.add_many(reason, packets);
                }
            }
            !last
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_late_counts_and_nothing_counts_twice() {
        let mut earlier = EarlierDrops::default();
        assert!(earlier.counts().is_empty());
        let ports = [0, 1].map(|_| Arc::new(PortCounters::default()));
        for port in &ports {
            port.drops.add(DropReason::TapFull);
            earlier.add(Arc::clone(port));
        }
        assert_eq!(earlier.counts(), [(DropReason::TapFull, 2)]);
        // A worker has not seen the new tables yet.
        let [first, second] = ports;
        first.drops.add(DropReason::NotAFlow);
        drop(first);
        let both = [(DropReason::TapFull, 2), (DropReason::NotAFlow, 1)];
        let is_both = |earlier: &mut EarlierDrops| {
            let counts = earlier.counts();
            counts.len() == 2 && both.iter().all(|count| counts.contains(count))
        };
        assert!(is_both(&mut earlier));
        assert_eq!(earlier.fading.len(), 1, "what is settled takes no room");
        drop(second);
        for _ in 0..2 {
            assert!(is_both(&mut earlier));
        }
        assert!(earlier.fading.is_empty());
    }
}
