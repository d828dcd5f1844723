//! How much what runs on a node waits.

use std::sync::atomic::{AtomicU16, Ordering};

/// The pressure of one node, shared by the counters of all replicas on it.
///
/// The agent keeps one of these for each node and hands it to every
/// [`ReplicaLoad`](crate::ReplicaLoad) of a replica there.
#[derive(Debug, Default)]
pub struct NodePressure(AtomicU16);

impl NodePressure {
    /// All the time, in the unit of [`Self::get`].
    pub const MAX: u16 = 10_000;

    /// The part of the last seconds in which some task of the node waited for CPU, memory or I/O
    /// (`/proc/pressure`, the worst `avg10` of `some`), in hundredths of a percent; 0 where nobody
    /// says so.
    #[must_use]
    pub fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it; more than [`Self::MAX`] is as much as that.
    pub fn set(&self, pressure: u16) {
        let pressure = pressure.min(Self::MAX);
        // Read by every worker: written only when there is something to change.
        if self.get() != pressure {
            self.0.store(pressure, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_longer_than_all_the_time() {
        let node = NodePressure::default();
        assert_eq!(node.get(), 0);
        node.set(1234);
        assert_eq!(node.get(), 1234);
        node.set(u16::MAX);
        assert_eq!(node.get(), NodePressure::MAX);
    }
}
