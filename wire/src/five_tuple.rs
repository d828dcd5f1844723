//! What identifies a flow.

use std::net::IpAddr;

/// Addresses, ports and protocol of one direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FiveTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; identifier of an ICMP echo; 0 where there are no ports.
    pub sport: u16,
    /// Destination port; identifier of an ICMP echo; 0 where there are no ports.
    pub dport: u16,
    /// IP protocol number.
    pub proto: u8,
}

impl FiveTuple {
    /// The other direction of the same flow.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
        }
    }
}
