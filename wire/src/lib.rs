//! Packet vocabulary of weft: what a frame says, how super-frames are split and merged, how
//! checksums are kept right, and why a frame was dropped.
//!
//! Header views come from `smoltcp::wire`; this crate adds what smoltcp has no word for. No
//! clock, no socket, no allocation on the packet path.

#![forbid(unsafe_code)]

mod drop_reason;
mod ids;

pub use drop_reason::DropReason;
pub use ids::{Instant, Mac, PortId, Vni};
