//! A TCP or UDP packet as a value, and its frame as etherparse writes it.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketHeaders};
use weft_wire::frame::{TCP, TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Mac};

/// Everything that is not constant in the packets of these tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) src_mac: Mac,
    pub(crate) dst_mac: Mac,
    pub(crate) tuple: FiveTuple,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// IPv4 identification.
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// The frame, all checksums complete.
    pub(crate) fn build(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.src_mac.0, self.dst_mac.0);
        let ip = match (self.tuple.src, self.tuple.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = 20 + self.payload.len();
                let mut header = etherparse::Ipv4Header::new(
                    u16::try_from(len).unwrap(),
                    64,
                    etherparse::IpNumber(self.tuple.proto),
                    src.octets(),
                    dst.octets(),
                )
                .unwrap();
                header.identification = self.id;
                ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
            _ => panic!("mixed families"),
        };
        let mut frame = Vec::new();
        if self.tuple.proto != TCP {
            ip.udp(self.tuple.sport, self.tuple.dport)
                .write(&mut frame, &self.payload)
                .unwrap();
            return frame;
        }
        let mut tcp =
            etherparse::TcpHeader::new(self.tuple.sport, self.tuple.dport, self.seq, 64_000);
        let has = |flag| self.flags & flag != 0;
        (tcp.fin, tcp.syn, tcp.rst) = (has(TCP_FIN), has(TCP_SYN), has(TCP_RST));
        (tcp.psh, tcp.ack) = (has(TCP_PSH), has(TCP_ACK));
        tcp.acknowledgment_number = self.ack;
        ip.tcp_header(tcp).write(&mut frame, &self.payload).unwrap();
        frame
    }

    /// The packets that a network card would make of this one, `size` bytes of data in each.
    pub(crate) fn segments(&self, size: usize) -> Vec<Self> {
        let chunks: Vec<&[u8]> = self.payload.chunks(size).collect();
        let last = chunks.len().saturating_sub(1);
        let mut offset = 0;
        chunks
            .iter()
            .enumerate()
            .map(|(i, chunk)| {
                let mut segment = self.clone();
                segment.payload = chunk.to_vec();
                segment.id = self.id.wrapping_add(u16::try_from(i).unwrap());
                if self.tuple.proto == TCP {
                    segment.seq = self.seq.wrapping_add(offset);
                }
                if i < last {
                    segment.flags &= !(TCP_FIN | TCP_PSH);
                }
                offset += u32::try_from(chunk.len()).unwrap();
                segment
            })
            .collect()
    }
}

/// Asserts that two frames are the same. A TCP checksum of zero is also written as all ones.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], want: &[u8]) {
    let normal = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        let headers = PacketHeaders::from_ethernet_slice(&frame).expect("a packet");
        if let Some(etherparse::TransportHeader::Tcp(tcp)) = headers.transport {
            let at = frame.len() - headers.payload.slice().len() - tcp.header_len() + 16;
            if frame[at..at + 2] == [0xff, 0xff] {
                frame[at..at + 2].fill(0);
            }
        }
        frame
    };
    assert_eq!(normal(got), normal(want));
}
