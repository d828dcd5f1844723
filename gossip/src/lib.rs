//! Gossip: who is in the cluster (SWIM membership, crate `foca`) and what each node says of itself
//! (netdb: tables of entries, each owned by one node).
//!
//! [`Gossip`] is a poll machine: call a `handle_*` method, drain [`Gossip::poll_transmit`],
//! [`Gossip::poll_stream`] and [`Gossip::poll_event`] until they return `None`, then wait for
//! [`Gossip::next_deadline`]. Time is the time since the process started; the seed is given.
//!
//! Three ways bring a change to everyone: datagrams to a few random members (first hop at once,
//! relayed by all who learn something new), SWIM's own probes for membership, and a pairwise
//! comparison over a stream, which repairs whatever the datagrams lost.

#![forbid(unsafe_code)]

mod entries;
mod identity;
mod member;
mod membership;
mod message;
mod netdb;
mod paths;
mod protocol;
mod queue;
mod register;
mod roll;
mod said;
#[cfg(test)]
mod sim;
mod view;

use std::time::Duration;

pub use identity::Identity;
pub use member::{Member, MemberState};
pub use netdb::{MAX_KEY, MAX_VALUE, PutError};
pub use paths::Blocked;
pub use protocol::{Event, Forgery, ForgeryKind, Gossip, StreamRequest, Transmit};
pub use register::Members;
pub use view::NetdbView;

/// Largest datagram that [`Gossip`] hands out, in bytes, before it is sealed.
///
/// With 41 bytes of seal the whole stays below 1400 bytes of UDP payload.
pub const MAX_DATAGRAM: usize = 1350;

/// Largest stream message, in bytes, before it is sealed.
pub const MAX_STREAM_MESSAGE: usize = 4 << 20;

/// Timing of [`Gossip`]. The defaults withdraw a dead node everywhere within 2 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Each node probes one member in each such period.
    pub probe_period: Duration,
    /// A direct probe that stays unanswered this long is tried through three other members.
    pub probe_rtt: Duration,
    /// A member that answers no probe has this long to object before it counts as down.
    ///
    /// It is asked directly several times in that span, so that loss alone condemns nobody.
    pub suspicion: Duration,
    /// Between two rounds of gossip while there is something to tell.
    pub gossip_period: Duration,
    /// Members told in each round.
    pub fanout: usize,
    /// Between two comparisons over a stream in a small cluster; grows with log2 of the size.
    pub sync_period: Duration,
    /// How long a deleted entry is remembered.
    pub tombstone_life: Duration,
    /// How long the hidden entries of a failed node are kept.
    pub failed_life: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(150),
            probe_rtt: Duration::from_millis(60),
            suspicion: Duration::from_millis(700),
            gossip_period: Duration::from_millis(100),
            fanout: 3,
            sync_period: Duration::from_secs(5),
            tombstone_life: Duration::from_secs(30 * 60),
            failed_life: Duration::from_secs(24 * 3600),
        }
    }
}

/// Why a datagram or stream message was not accepted. The caller counts it and goes on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Longer than [`MAX_DATAGRAM`] or [`MAX_STREAM_MESSAGE`].
    #[error("gossip message of {got} bytes from a peer is longer than the limit of {limit}")]
    TooLong {
        /// Its length.
        got: usize,
        /// The limit that applies.
        limit: usize,
    },
    /// Does not decode.
    #[error("gossip message does not decode: {0}")]
    Malformed(String),
    /// Decodes, but SWIM does not accept it.
    #[error("membership message was refused: {0}")]
    Refused(String),
    /// Not from a member's address, or in the name of who is not there.
    #[error("gossip message from {from} is not a member's")]
    Stranger {
        /// Where it came from.
        from: std::net::SocketAddr,
    },
}

impl From<prost::DecodeError> for InputError {
    fn from(e: prost::DecodeError) -> Self {
        Self::Malformed(e.to_string())
    }
}
