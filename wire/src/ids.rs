//! Identifiers and units of the packet path.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use smoltcp::wire::EthernetAddress as Mac;

/// VXLAN network identifier, 24 bits (RFC 7348 section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vni(u32);

impl Vni {
    /// Largest identifier.
    pub const MAX: u32 = 0x00ff_ffff;

    /// Takes a number that fits in 24 bits.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A port of the data plane on this node: one TAP. Never reused while the agent runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u32);

/// A moment: nanoseconds since the agent started. Given by the caller, never read here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `d`.
    #[must_use]
    pub const fn after(self, d: Duration) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "584 years of nanoseconds fit"
        )]
        Self(self.0.saturating_add(d.as_nanos() as u64))
    }
}

/// The hardware address that belongs to an address of an overlay network: `02:42:` and the four
/// IPv4 bytes, or the last four of IPv6 (Swarm's rule).
#[must_use]
pub const fn mac_for_ip(ip: IpAddr) -> Mac {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
    };
    Mac([0x02, 0x42, a, b, c, d])
}
