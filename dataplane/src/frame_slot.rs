//! Where a frame that came from a port is, and for how long.

use std::ops::Range;

use weft_wire::VnetHdr;

/// A frame in a slot of the send queue.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// Bytes of the slots, virtio header excluded.
    pub(crate) frame: Range<usize>,
    pub(crate) vnet: VnetHdr,
}

/// Whether the slot must stay untouched until the flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Kept,
    Free,
}
