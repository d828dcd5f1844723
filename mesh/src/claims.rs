//! Connections of clients outside, as replicas of this node see them: no two may look the same.
//!
//! A client may use one source port towards two nodes. The flow that came to this node is kept by
//! the worker that reads `weft0`, the one that came to the other node by the worker that reads the
//! replica's port ([`crate::Origin::Mesh`]); neither sees the table of the other. Both claim the
//! addresses and ports that the replica is to see before they use them.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use crate::key::Key;

/// Places for claims. Two connections that meet in one place by chance only cost the second its
/// client's own port, so a few times the flows that a node has will do: 512 KiB.
const PLACES: usize = 1 << 22;

/// Which connections are taken, for all workers of a node; lock-free, and no memory until the first.
pub struct Claims {
    hasher: FixedState,
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Claims {
    /// None yet. Draw the seed at random: clients choose their ports.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            words: OnceLock::new(),
        }
    }

    /// Takes a connection; false when somebody has it. Whoever got true gives it back. O(1).
    pub(crate) fn claim(&self, key: &Key) -> bool {
        self.place(key)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::AcqRel) & bit == 0)
    }

    /// Gives a connection back that was claimed.
    pub(crate) fn release(&self, key: &Key) {
        if let Some((word, bit)) = self.place(key) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    fn place(&self, key: &Key) -> Option<(&AtomicU64, u64)> {
        let words = self.words.get_or_init(|| {
            let words = std::iter::repeat_with(AtomicU64::default);
            words.take(PLACES / 64).collect()
        });
        #[expect(clippy::cast_possible_truncation, reason = "less than PLACES")]
        let place = (self.hasher.hash_one(key) % PLACES as u64) as usize;
        Some((words.get(place / 64)?, 1 << (place % 64)))
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use weft_wire::{FiveTuple, Vni};

    use super::*;
    use crate::key::Scope;

    #[test]
    fn a_connection_has_one_owner_at_a_time() {
        let claims = Claims::new(7);
        let key = |dport| Key {
            scope: Scope::network(Vni::new(4096).unwrap()),
            tuple: FiveTuple {
                src: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)),
                dst: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                sport: 80,
                dport,
                proto: 6,
            },
        };
        assert!(claims.claim(&key(33_000)));
        assert!(!claims.claim(&key(33_000)));
        claims.release(&key(33_000));
        assert!(claims.claim(&key(33_000)));
        // Chance meetings are rare.
        let met = (1..=10_000)
            .filter(|port| !claims.claim(&key(*port)))
            .count();
        assert!(met < 100, "{met}");
    }
}
