//! What a flow is found by.

use weft_wire::{FiveTuple, IpInfo, Mac};

/// One direction of a flow, within its network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) scope: u32,
    pub(crate) tuple: FiveTuple,
}

impl Key {
    /// The key of a packet.
    #[inline]
    pub(crate) const fn of(scope: u32, info: &IpInfo) -> Self {
        Self {
            scope,
            tuple: info.five_tuple(),
        }
    }
}

/// Scope of what comes from a node: the IPv4 address in its Ethernet address. No VNI is as large.
pub(crate) const fn scope_of(via: Mac) -> u32 {
    let [_, _, a, b, c, d] = via.0;
    u32::from_be_bytes([a, b, c, d]) | 1 << 24
}
