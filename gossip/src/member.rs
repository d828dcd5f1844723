//! How members of the cluster are seen from here.

use std::net::SocketAddr;

/// How a member is seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Missed a probe and has not yet objected; its entries still count.
    Suspect,
    /// Failed or cut off: its entries are hidden, and come back with it.
    Down,
    /// Said goodbye: its entries are gone.
    Left,
}

impl MemberState {
    /// Whether the member's entries count.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its gossip address.
    pub addr: SocketAddr,
    /// State.
    pub state: MemberState,
}
