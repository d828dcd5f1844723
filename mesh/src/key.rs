//! What a flow is found by.

use weft_wire::{FiveTuple, Mac};

/// One direction of a flow, within its network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) scope: u32,
    pub(crate) tuple: FiveTuple,
}

/// Scope of what comes from a node: the IPv4 address in its Ethernet address. No VNI is as large.
pub(crate) const fn scope_of(via: Mac) -> u32 {
    let [_, _, a, b, c, d] = via.0;
    u32::from_be_bytes([a, b, c, d]) | 1 << 24
}
