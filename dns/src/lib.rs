//! Names of a cluster: what a sandbox's query is answered with, and how names of the outside
//! world are looked up on its behalf.
//!
//! ```text
//!  agent: assignment + gossip ──► ZoneBuilder ──► Zone (immutable snapshot; shares what stays)
//!                                                  │
//!  query bytes, ClientView, seed ──► answer() ─────┤──► Reply(bytes)
//!                                                  ├──► Forward ──► Forwarder ──► Send / Reply
//!                                                  └──► Drop
//! ```
//!
//! [`answer`] is a pure function of a [`Zone`]. [`Forwarder`] is a machine that is told what
//! happened and when, and says what to send; its caller owns sockets, clock and randomness.
//! The wire format is left to `hickory-proto`.

#![forbid(unsafe_code)]

mod answer;
mod builder;
mod cache;
mod exchange;
mod forwarder;
mod forwarder_config;
mod lookup;
mod name;
mod reply;
mod shards;
mod shares;
mod upstreams;
mod zone;

pub use answer::{Answer, Ask, DropCause, answer};
pub use builder::{
    BadName, EndpointNames, ResolutionMode, ServiceNames, UnknownNetwork, ZoneBuilder,
};
pub use cache::CacheLimits;
pub use exchange::Token;
pub use forwarder::{Action, Forwarder, NotAQuery, ReplyError, Transmit};
pub use forwarder_config::ForwarderConfig;
pub use reply::{Outcome, Reply, Transport, refusal};
pub use shares::Tenant;
pub use zone::{ClientView, ServicePort, Zone};

/// Lifetime of the answers made from a [`Zone`], in seconds.
///
/// Swarm says 600, and clients then keep talking to addresses of replaced tasks. Five seconds
/// spare a busy client most queries and bound how long it can be wrong.
pub const LOCAL_TTL_SECS: u32 = 5;

/// Largest datagram that is promised to and accepted from others by EDNS (RFC 6891), in bytes;
/// what fits an Ethernet path without fragments.
pub const EDNS_PAYLOAD_BYTES: u16 = 1232;

/// Largest datagram sent to a client however much it asks for, in bytes. The way to a client is
/// the loopback of its own sandbox, so this is wider than [`EDNS_PAYLOAD_BYTES`].
pub const UDP_REPLY_MAX_BYTES: u16 = 4096;

/// Largest query that is accepted, in bytes.
pub const QUERY_MAX_BYTES: usize = 4096;
