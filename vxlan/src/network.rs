//! What a worker knows of one overlay network.

use std::net::{IpAddr, Ipv4Addr};

use weft_wire::{Mac, Vni, mac_for_ip};

/// One overlay network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkEntry {
    /// Its VXLAN identifier.
    pub vni: Vni,
    /// Largest inner IP packet, bytes: what ports are set to. The way to a VTEP may carry less.
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
