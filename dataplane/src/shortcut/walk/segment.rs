//! A TCP segment, or a super-frame of several, as a value and as a frame.

use std::net::IpAddr;

use etherparse::{PacketBuilder, TcpHeader};
use weft_wire::frame::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Mac, VnetHdr, vnet};

/// Bytes of headers of IPv4 and TCP.
const IP_AND_TCP: u32 = 20 + 20;
/// The same with Ethernet.
const HEADERS: u32 = 14 + IP_AND_TCP;

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) flow: FiveTuple,
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// Bytes of data.
    pub(super) data: u32,
    /// Bytes of data in each packet of a super-frame; 0 where it is one packet.
    pub(super) size: u16,
}

impl Segment {
    /// Whether it neither opens nor ends anything.
    pub(super) fn is_plain(&self) -> bool {
        self.flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
    }

    /// Sequence number after its last byte of data.
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.data)
    }

    /// Bytes of the frame.
    pub(super) fn len(&self) -> u64 {
        u64::from(HEADERS + self.data)
    }

    /// Bytes of the IP packet, or of the largest one that it is cut into.
    pub(super) fn largest_packet(&self) -> u32 {
        let cut = if self.size == 0 {
            self.data
        } else {
            self.data.min(self.size.into())
        };
        IP_AND_TCP + cut
    }

    pub(super) fn vnet(&self) -> VnetHdr {
        if self.size == 0 {
            return VnetHdr::NONE;
        }
        VnetHdr {
            gso_type: vnet::GSO_TCPV4,
            gso_size: self.size,
            ..VnetHdr::NONE
        }
    }

    pub(super) fn frame(&self, src_mac: Mac, dst_mac: Mac) -> Vec<u8> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.flow.src, self.flow.dst) else {
            panic!("IPv4 alone");
        };
        let has = |flag| self.flags & flag != 0;
        let mut tcp = TcpHeader::new(self.flow.sport, self.flow.dport, self.seq, 64_000);
        (tcp.fin, tcp.syn, tcp.rst) = (has(TCP_FIN), has(TCP_SYN), has(TCP_RST));
        tcp.ack = has(TCP_ACK);
        tcp.acknowledgment_number = self.ack;
        let ethernet = PacketBuilder::ethernet2(src_mac.0, dst_mac.0);
        let ip = ethernet.ipv4(src.octets(), dst.octets(), 64);
        let mut frame = Vec::new();
        ip.tcp_header(tcp)
            .write(&mut frame, &vec![7; self.data as usize])
            .unwrap();
        frame
    }
}
