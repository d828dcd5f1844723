//! Packet vocabulary of weft: what a frame says, how super-frames are split and merged, how
//! checksums are kept right, and why a frame was dropped.
//!
//! Header views come from `smoltcp::wire`; this crate adds what smoltcp has no word for. No
//! clock, no socket, no allocation on the packet path.
//!
//! [`frame::parse`] is the door: it proves every length once, and hands out offsets
//! ([`IpInfo`]) that all other modules index with. They take addresses and ports
//! from the frame, not from the offsets' owner, so they stay right after a [`rewrite`].

#![forbid(unsafe_code)]

pub mod checksum;
mod drop_reason;
pub mod ecn;
mod five_tuple;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod gro;
pub mod gso;
mod ids;
pub mod loopback;
pub mod offload;
mod parts;
pub mod quoted;
pub mod reply;
pub mod rewrite;
#[cfg(test)]
mod samples;
pub mod superframe;
pub mod tunnel_gso;
pub mod vnet;
pub mod vxlan;

pub use drop_reason::DropReason;
pub use five_tuple::FiveTuple;
pub use frame::{ArpInfo, Fragment, Frame, IpInfo};
pub use ids::{Instant, Mac, PortId, Vni, mac_for_ip};
pub use parts::{Part, Parts};
pub use vnet::{GsoKind, VnetHdr};

/// Reads a big-endian 16-bit field.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big-endian 32-bit field.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a big-endian 16-bit field.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a big-endian 32-bit field.
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// A length that is known to fit, because no IP packet is longer than 65,535 bytes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers pass lengths inside one IP packet"
)]
pub(crate) const fn len16(len: usize) -> u16 {
    debug_assert!(len <= 0xffff);
    len as u16
}
