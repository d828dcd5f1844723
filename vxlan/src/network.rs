//! What a worker knows of one overlay network.

use std::net::{IpAddr, Ipv4Addr};

use weft_wire::{GsoKind, IpInfo, Mac, VnetHdr, Vni, mac_for_ip};

/// Bytes that VXLAN adds to an inner IP packet over IPv4: Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
pub const OVERHEAD_V4: u16 = 50;
/// The same over IPv6, whose header has 40 bytes.
pub const OVERHEAD_V6: u16 = 70;

/// Largest inner IP packet, in bytes, that fits in one datagram on an underlay whose MTU is
/// `underlay_mtu`; 0 when none does.
#[must_use]
pub const fn inner_mtu(underlay_mtu: u16, ipv6_underlay: bool) -> u16 {
    underlay_mtu.saturating_sub(if ipv6_underlay {
        OVERHEAD_V6
    } else {
        OVERHEAD_V4
    })
}

/// One overlay network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkEntry {
    /// Its VXLAN identifier.
    pub vni: Vni,
    /// Largest inner IP packet, bytes.
    pub mtu: u16,
    /// Addresses that the data plane itself answers for, one per subnet. They answer ARP, ND and
    /// ping, and route nothing.
    pub gateways: Vec<IpAddr>,
}

impl NetworkEntry {
    /// Hardware address of the gateway: the same on every node.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        let first = self.gateways.first().copied();
        mac_for_ip(first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// Whether a packet, or a segment of a super-frame, is larger than the MTU.
    #[must_use]
    pub fn too_big(&self, info: &IpInfo, vnet: &VnetHdr) -> bool {
        let largest = if vnet.gso() == GsoKind::None {
            info.ip_len()
        } else {
            let headers = info.payload - info.l3;
            headers + info.payload_len().min(usize::from(vnet.gso_size))
        };
        largest > usize::from(self.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7348_s4_3_overhead() {
        assert_eq!(inner_mtu(1500, false), 1450);
        assert_eq!(inner_mtu(1500, true), 1430);
        assert_eq!(inner_mtu(40, false), 0);
    }

    #[test]
    fn the_gateway_has_one_hardware_address_for_all_subnets() {
        let network = NetworkEntry {
            vni: Vni::new(1).unwrap(),
            mtu: 1450,
            gateways: vec!["10.0.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        };
        assert_eq!(network.gateway_mac(), Mac([2, 0x42, 10, 0, 1, 1]));
    }
}
