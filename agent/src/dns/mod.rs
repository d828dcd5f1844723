//! DNS sockets: `127.0.0.11:53` in every sandbox, and the way to the host's resolvers.
//!
//! What to answer is decided by `weft_dns`, without sockets. Here:
//! - [`DnsServer`] holds the zone and serves sandboxes;
//! - `resolver` reads queries from one sandbox's sockets and writes replies;
//! - `outside` owns the one forwarding machine of the node, its sockets and its clock;
//! - [`resolv_conf`] finds the host's resolvers.
//!
//! Locks: `outside`'s and the table of sandboxes; neither is held across an await, and no code
//! takes both.

mod outside;
mod resolv_conf;
mod resolver;
mod server;
mod shared;
mod stats;
#[cfg(test)]
mod tests;

pub(crate) use server::DnsServer;
pub(crate) use stats::DnsStats;
