//! What fits: the largest packets of a network, and of the way to each VTEP.

use std::net::IpAddr;

use weft_wire::frame::TCP;
use weft_wire::{GsoKind, IpInfo, VnetHdr, Vni};

use crate::answer::Answer;
use crate::switch::Switch;

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

/// A packet, or a segment of a super-frame, that the way to its VTEP does not carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    /// What it carries, bytes of inner IP packet.
    pub mtu: u16,
    /// What the gateway tells the sender; nothing on a network without a gateway of that family.
    pub answer: Option<Answer>,
}

impl Switch {
    /// Largest inner packet to `vtep` on a network, in bytes; nothing on an unknown network.
    #[must_use]
    pub fn mtu_to(&self, vni: Vni, vtep: IpAddr) -> Option<u16> {
        let mtu = self.networks.get(&vni)?.mtu;
        // Where all ways are alike, which is the rule, there is nothing to look up.
        if self.narrow.is_empty() {
            return Some(mtu);
        }
        let way = self.narrow.get(&vtep.to_canonical());
        Some(way.map_or(mtu, |way| mtu.min(*way)))
    }

    /// Largest packet that can be one packet, and no super-frame, in a datagram from `vtep`, in
    /// bytes. TCP above it is divided into segments of this size; anything else is judged by what
    /// the underlay can deliver at all, as the sender may know a wider way than this node does.
    #[must_use]
    pub fn mtu_from(&self, vni: Vni, vtep: IpAddr, info: &IpInfo) -> Option<u16> {
        let mtu = self.mtu_to(vni, vtep)?;
        Some(if info.proto == TCP {
            mtu
        } else {
            mtu.max(self.receives)
        })
    }

    /// Whether a packet, or a segment of a super-frame, is larger than the way to `vtep` carries, or
    /// than the network does where both ends are on this node: then it is dropped as `Oversized`,
    /// and the answer goes to its sender.
    ///
    /// The answer does not depend on the DF bit of IPv4: nothing is fragmented here, and a sender
    /// that learns the MTU does it itself (RFC 791 leaves it to any hop, RFC 1191 section 6.1 to
    /// the sender).
    #[must_use]
    pub fn too_big(
        &self,
        vni: Vni,
        vtep: Option<IpAddr>,
        info: &IpInfo,
        vnet: &VnetHdr,
    ) -> Option<TooBig> {
        let mtu = match vtep {
            Some(vtep) => self.mtu_to(vni, vtep)?,
            None => self.networks.get(&vni)?.mtu,
        };
        if largest_packet(info, vnet) <= usize::from(mtu) {
            return None;
        }
        let network = self.networks.get(&vni)?;
        let mut gateways = network.gateways.iter();
        let answer = gateways
            .find(|ip| ip.is_ipv4() == info.is_ipv4())
            .map(|ip| Answer::TooBig {
                mac: network.gateway_mac(),
                ip: *ip,
                mtu,
            });
        Some(TooBig { mtu, answer })
    }
}

/// Bytes of a packet, or of the largest segment of a super-frame.
fn largest_packet(info: &IpInfo, vnet: &VnetHdr) -> usize {
    if vnet.gso() == GsoKind::None {
        info.ip_len()
    } else {
        let headers = info.payload - info.l3;
        headers + info.payload_len().min(usize::from(vnet.gso_size))
    }
}

#[cfg(test)]
mod tests;
