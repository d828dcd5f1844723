//! What a flow is found by.

use weft_wire::{FiveTuple, IpInfo, Mac, Vni};

/// Where a five-tuple has its meaning: on a network, at `weft0`, or behind another node.
///
/// One word that tells the three apart, as it is hashed and compared with each frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Scope(u32);

impl Scope {
    /// At `weft0`: what clients of published ports send.
    pub(crate) const MESH: Self = Self(u32::MAX);

    /// On a network.
    #[inline]
    pub(crate) const fn network(vni: Vni) -> Self {
        Self(vni.get())
    }

    /// Sent on by another node, whose Ethernet address on the ingress network has its IPv4 address
    /// there. No VNI has bit 24, and addresses of one network differ below it.
    #[inline]
    pub(crate) const fn behind(node: Mac) -> Self {
        let [_, _, a, b, c, d] = node.0;
        Self(u32::from_be_bytes([a, b, c, d]) | 1 << 24)
    }

    /// The network, where it is one.
    pub(crate) fn vni(self) -> Option<Vni> {
        Vni::new(self.0)
    }
}

/// One direction of a flow, within its scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) scope: Scope,
    pub(crate) tuple: FiveTuple,
}

impl Key {
    /// The key of a packet.
    #[inline]
    pub(crate) const fn of(scope: Scope, info: &IpInfo) -> Self {
        Self {
            scope,
            tuple: info.five_tuple(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use weft_wire::mac_for_ip;

    use super::*;

    #[test]
    fn a_scope_is_one_thing_only() {
        let networks = [0, 1, 4096, (1 << 24) - 1].map(|n| Vni::new(n).unwrap());
        let node = |ip: [u8; 4]| Scope::behind(mac_for_ip(IpAddr::V4(Ipv4Addr::from(ip))));
        let nodes = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 255, 0, 1], [0, 0, 16, 0]].map(node);
        for vni in networks {
            assert_eq!(Scope::network(vni).vni(), Some(vni));
            assert!(!nodes.contains(&Scope::network(vni)));
        }
        for (at, scope) in nodes.iter().enumerate() {
            assert_eq!((scope.vni(), Scope::MESH.vni()), (None, None));
            assert!(*scope != Scope::MESH && !nodes[at + 1..].contains(scope));
        }
    }

    #[test]
    fn a_key_is_no_larger_than_its_parts() {
        assert_eq!(size_of::<Key>(), size_of::<FiveTuple>() + 4);
    }
}
