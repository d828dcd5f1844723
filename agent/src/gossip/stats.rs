//! Counters of gossip.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_gossip::InputError;

use super::seal::OpenError;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of gossip since the agent started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) struct GossipStats {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> GossipStats {
                GossipStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Datagrams sent.
    datagrams_out,
    /// Bytes in them, seal included.
    bytes_out,
    /// Datagrams received, good or bad.
    datagrams_in,
    /// Bytes in them.
    bytes_in,
    /// Conversations over TCP that came to their end.
    streams,
    /// Conversations that failed: not reachable, too slow, too many.
    streams_failed,
    /// Datagrams that the kernel did not take.
    send_errors,
    /// Dropped: no sealed message, too long, or not decodable after opening.
    malformed,
    /// Dropped: sealed with a key that this node does not hold.
    unknown_key,
    /// Dropped: sealed with another key or for another cluster, or changed on the way.
    forged,
    /// Dropped: well-formed but against the protocol.
    refused,
    /// Dropped: not from a member, or not from where that member is.
    strangers,
    /// Claims that no node can have made of itself, and what others said in this node's name.
    lies,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn not_opened(&self, error: OpenError) {
        let counter = match error {
            OpenError::Malformed => &self.malformed,
            OpenError::UnknownEpoch => &self.unknown_key,
            OpenError::Forged => &self.forged,
        };
        add(counter, 1);
    }

    pub(crate) fn not_accepted(&self, error: &InputError) {
        let counter = match error {
            InputError::TooLong { .. } | InputError::Malformed(_) => &self.malformed,
            InputError::Refused(_) => &self.refused,
            InputError::Stranger { .. } => &self.strangers,
        };
        add(counter, 1);
    }
}
