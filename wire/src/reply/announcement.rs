//! What tells neighbours, unasked, that an address has another Ethernet address now.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    NdiscNeighborFlags, NdiscRepr,
};

use super::{ethernet, ipv6};
use crate::Mac;
use crate::frame::ETHERNET_LEN;

/// Bytes that hold either announcement.
pub const ANNOUNCEMENT_LEN: usize = ETHERNET_LEN + 40 + 32;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Announces to everybody that `ip` is at `mac`: a gratuitous ARP reply (RFC 5944 section 4.6), or
/// an unsolicited neighbor advertisement with the override flag (RFC 4861 section 7.2.6). Kernels
/// correct the entries that they have, and make none.
pub fn announcement(ip: IpAddr, mac: Mac, out: &mut [u8; ANNOUNCEMENT_LEN]) -> usize {
    match ip {
        IpAddr::V4(ip) => {
            ethernet(out, mac, Mac([0xff; 6]), EthernetProtocol::Arp);
            ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: mac.into(),
                source_protocol_addr: ip,
                target_hardware_addr: Mac([0xff; 6]).into(),
                target_protocol_addr: ip,
            }
            .emit(&mut ArpPacket::new_unchecked(&mut out[ETHERNET_LEN..]));
            ETHERNET_LEN + 28
        }
        IpAddr::V6(ip) => {
            const PAYLOAD: usize = 32;
            let to = Mac([0x33, 0x33, 0, 0, 0, 1]);
            ethernet(out, mac, to, EthernetProtocol::Ipv6);
            ipv6(out, ip, ALL_NODES, IpProtocol::Icmpv6, PAYLOAD);
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags: NdiscNeighborFlags::OVERRIDE,
                target_addr: ip,
                lladdr: Some(mac.into()),
            })
            .emit(
                &ip,
                &ALL_NODES,
                &mut Icmpv6Packet::new_unchecked(&mut out[ETHERNET_LEN + 40..]),
                &ChecksumCapabilities::default(),
            );
            ETHERNET_LEN + 40 + PAYLOAD
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::frame::{ICMPV6, dst_mac, parse, src_mac};
    use crate::samples::assert_canonical;
    use crate::{ArpInfo, Frame};

    const MAC: Mac = Mac([2, 0xaa, 0, 0, 0, 9]);

    #[test]
    fn an_arp_reply_of_ones_own_to_everybody() {
        let mut out = [0; ANNOUNCEMENT_LEN];
        let ip = IpAddr::from([10, 0, 1, 9]);
        let len = announcement(ip, MAC, &mut out);
        assert_eq!((src_mac(&out), dst_mac(&out)), (MAC, Mac([0xff; 6])));
        let expected = ArpInfo {
            request: false,
            sender_mac: MAC,
            sender_ip: Ipv4Addr::new(10, 0, 1, 9),
            target_ip: Ipv4Addr::new(10, 0, 1, 9),
        };
        assert_eq!(parse(&out[..len]), Ok(Frame::Arp(expected)));
    }

    #[test]
    fn a_neighbor_advertisement_that_nobody_asked_for() {
        let mut out = [0; ANNOUNCEMENT_LEN];
        let ip: IpAddr = "fd00::9".parse().unwrap();
        let len = announcement(ip, MAC, &mut out);
        assert_canonical(&out[..len]);
        let Ok(Frame::Ip(info)) = parse(&out[..len]) else {
            panic!("no packet");
        };
        assert_eq!((info.src, info.dst), (ip, IpAddr::V6(ALL_NODES)));
        assert_eq!((info.proto, info.icmp_type), (ICMPV6, 136));
        // Override alone (RFC 4861 section 4.4).
        assert_eq!(out[info.l4 + 4], 0b0010_0000);
        assert_eq!(out[info.l4 + 24..info.l4 + 26], [2, 1]);
        assert_eq!(out[info.l4 + 26..info.l4 + 32], MAC.0);
    }
}
