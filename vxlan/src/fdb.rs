//! What the tables hold of an address: where it is, and whose.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use weft_wire::{Mac, PortId};

/// Hasher of the tables. Its seed is fixed, because this crate draws no random numbers; the keys
/// come from the control plane, not from packets.
pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;
pub(crate) type Set<K> = HashSet<K, FixedState>;

/// An address as a key that is quicker to hash than its bytes. The IPv4-mapped form of an IPv4 address
/// has the same number (RFC 4291 section 2.5.5.2).
#[inline]
pub(crate) const fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// What a hardware address stands for. Where two claim the same address, the greater one has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    Remote(SocketAddr),
    Local(PortId),
    Virtual,
    Gateway,
}

impl Place {
    /// Its kind, as a number with the same order.
    pub(crate) const fn strength(self) -> u8 {
        match self {
            Self::Remote(_) => 1,
            Self::Local(_) => 2,
            Self::Virtual => 3,
            Self::Gateway => 4,
        }
    }
}

/// Whose an address of a network is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) mac: Mac,
    /// Of that hardware address.
    pub(crate) place: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4291_s2_5_5_2_an_ipv4_address_has_the_number_of_its_mapped_form() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(number(ip("192.0.2.7")), number(ip("::ffff:192.0.2.7")));
        assert_ne!(number(ip("192.0.2.7")), number(ip("192.0.2.8")));
        assert_ne!(number(ip("192.0.2.7")), number(ip("::192.0.2.7")));
    }
}
