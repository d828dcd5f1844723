//! What a flow is found by.

use weft_wire::FiveTuple;

/// One direction of a flow, within its network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) scope: u32,
    pub(crate) tuple: FiveTuple,
}
