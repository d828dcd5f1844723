//! From orders, gossip and the ports of this node to what the data plane, DNS and the listeners
//! use. Pure: no sockets, no files, no clock; only the counters of `loads` are shared with workers.
//!
//! [`tables::Compiler`] is given whole states and keeps what it made of the last ones: what has not
//! changed is shared with the tables before.

mod believed;
mod families;
mod gaps;
pub(crate) mod heard;
pub(crate) mod known;
pub(crate) mod loads;
pub(crate) mod mtus;
mod published_ports;
pub(crate) mod reports;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod tables;
pub(crate) mod there;
