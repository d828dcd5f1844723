//! Frames for tests, made and judged by etherparse: a second opinion that shares no code with
//! this crate.

use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, LinkHeader, NetHeaders, PacketHeaders,
    TcpHeader, TransportHeader, UdpHeader,
};

use crate::frame::{self, ICMP, ICMPV6, TCP, UDP};
use crate::{Frame, GsoKind, IpInfo, VnetHdr, be16, checksum, put16, vnet};

pub(crate) const SRC_MAC: [u8; 6] = [2, 0x42, 10, 0, 0, 2];
pub(crate) const DST_MAC: [u8; 6] = [2, 0x42, 10, 0, 0, 3];
pub(crate) const SRC4: [u8; 4] = [10, 0, 0, 2];
pub(crate) const DST4: [u8; 4] = [10, 0, 0, 3];
pub(crate) const SRC6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
pub(crate) const DST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 3];

/// A packet to be built.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) v6: bool,
    pub(crate) proto: u8,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn tcp(payload: usize) -> Self {
        Self {
            v6: false,
            proto: TCP,
            sport: 40000,
            dport: 80,
            seq: 0xffff_f000,
            ack: 77,
            flags: frame::TCP_ACK,
            // NOP, NOP, timestamps: what Linux sends.
            options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4],
            id: 0xfffe,
            payload: (0..payload).map(|i| (i * 7 + i / 251) as u8).collect(),
        }
    }

    pub(crate) fn udp(payload: usize) -> Self {
        Self {
            proto: UDP,
            ..Self::tcp(payload)
        }
    }

    pub(crate) fn ping(payload: usize) -> Self {
        Self {
            proto: ICMP,
            ..Self::tcp(payload)
        }
    }

    pub(crate) fn over_v6(mut self) -> Self {
        self.v6 = true;
        if self.proto == ICMP {
            self.proto = ICMPV6;
        }
        self
    }

    fn transport(&self) -> TransportHeader {
        let echo = IcmpEchoHeader {
            id: self.sport,
            seq: 1,
        };
        match self.proto {
            TCP => {
                let mut tcp = TcpHeader::new(self.sport, self.dport, self.seq, 501);
                tcp.acknowledgment_number = self.ack;
                let has = |flag| self.flags & flag != 0;
                tcp.fin = has(frame::TCP_FIN);
                tcp.syn = has(frame::TCP_SYN);
                tcp.rst = has(frame::TCP_RST);
                tcp.psh = has(frame::TCP_PSH);
                tcp.ack = has(frame::TCP_ACK);
                tcp.urg = has(frame::TCP_URG);
                tcp.ece = has(frame::TCP_ECE);
                tcp.cwr = has(frame::TCP_CWR);
                tcp.set_options_raw(&self.options).unwrap();
                TransportHeader::Tcp(tcp)
            }
            UDP => TransportHeader::Udp(UdpHeader {
                source_port: self.sport,
                destination_port: self.dport,
                length: (8 + self.payload.len()) as u16,
                checksum: 0,
            }),
            ICMP => TransportHeader::Icmpv4(Icmpv4Header::new(Icmpv4Type::EchoRequest(echo))),
            _ => TransportHeader::Icmpv6(Icmpv6Header::new(Icmpv6Type::EchoRequest(echo))),
        }
    }

    /// The frame, with complete checksums.
    pub(crate) fn build(&self) -> Vec<u8> {
        let transport = self.transport();
        let len = transport.header_len() + self.payload.len();
        let net = if self.v6 {
            NetHeaders::Ipv6(
                Ipv6Header {
                    traffic_class: 2,
                    flow_label: Ipv6FlowLabel::try_new(0xabcde).unwrap(),
                    payload_length: len as u16,
                    next_header: IpNumber(self.proto),
                    hop_limit: 64,
                    source: SRC6,
                    destination: DST6,
                },
                Default::default(),
            )
        } else {
            let mut ip = Ipv4Header::new(len as u16, 64, IpNumber(self.proto), SRC4, DST4).unwrap();
            ip.identification = self.id;
            ip.dont_fragment = true;
            NetHeaders::Ipv4(ip, Default::default())
        };
        let ethernet = Ethernet2Header {
            source: SRC_MAC,
            destination: DST_MAC,
            ether_type: if self.v6 {
                EtherType::IPV6
            } else {
                EtherType::IPV4
            },
        };
        write(&ethernet, net, transport, &self.payload)
    }

    /// The frame as a kernel hands it over for splitting into segments of `gso_size` bytes.
    pub(crate) fn build_super(&self, gso_size: u16) -> (Vec<u8>, VnetHdr) {
        let mut frame = self.build();
        let mut vnet = make_partial(&mut frame);
        vnet.gso_size = gso_size;
        vnet.gso_type = match (self.proto, self.v6) {
            (TCP, false) => vnet::GSO_TCPV4,
            (TCP, true) => vnet::GSO_TCPV6,
            _ => vnet::GSO_UDP_L4,
        };
        assert_ne!(vnet.gso(), GsoKind::None);
        (frame, vnet)
    }
}

/// Puts the pseudo-header's sum into the checksum field, as a kernel with checksum offload does.
pub(crate) fn make_partial(frame: &mut [u8]) -> VnetHdr {
    let info = info(frame);
    let offset = info.checksum_offset().unwrap();
    let pseudo = checksum::pseudo_header(info.src, info.dst, info.proto, info.len - info.l4);
    put16(frame, info.l4 + offset, pseudo);
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        hdr_len: 1,
        csum_start: info.l4 as u16,
        csum_offset: offset as u16,
        ..VnetHdr::NONE
    }
}

pub(crate) fn info(frame: &[u8]) -> IpInfo {
    match frame::parse(frame).unwrap() {
        Frame::Ip(info) => info,
        Frame::Arp(_) => panic!("not an IP packet"),
    }
}

/// The same frame with all checksums computed by etherparse.
pub(crate) fn canonical(frame: &[u8]) -> Vec<u8> {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(LinkHeader::Ethernet2(ethernet)) = headers.link else {
        panic!("no Ethernet header");
    };
    write(
        &ethernet,
        headers.net.unwrap(),
        headers.transport.unwrap(),
        headers.payload.slice(),
    )
}

fn write(
    ethernet: &Ethernet2Header,
    net: NetHeaders,
    mut transport: TransportHeader,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = ethernet.to_bytes().to_vec();
    match net {
        NetHeaders::Ipv4(mut ip, extensions) => {
            assert!(extensions.is_empty());
            ip.header_checksum = ip.calc_header_checksum();
            transport.update_checksum_ipv4(&ip, payload).unwrap();
            out.extend_from_slice(&ip.to_bytes());
        }
        NetHeaders::Ipv6(ip, extensions) => {
            assert!(extensions.is_empty());
            transport.update_checksum_ipv6(&ip, payload).unwrap();
            out.extend_from_slice(&ip.to_bytes());
        }
        NetHeaders::Arp(_) => panic!("not an IP packet"),
    }
    transport.write(&mut out).unwrap();
    out.extend_from_slice(payload);
    out
}

/// Asserts that every checksum in the frame is what etherparse computes. A TCP checksum of zero
/// and of all ones are the same number.
#[track_caller]
pub(crate) fn assert_canonical(frame: &[u8]) {
    assert_same(frame, &canonical(frame));
}

#[track_caller]
pub(crate) fn assert_same(left: &[u8], right: &[u8]) {
    let (mut left, mut right) = (left.to_vec(), right.to_vec());
    for frame in [&mut left, &mut right] {
        let info = info(frame);
        if let Some(offset) = info.checksum_offset()
            && info.proto != UDP
            && be16(frame, info.l4 + offset) == 0
        {
            put16(frame, info.l4 + offset, 0xffff);
        }
    }
    assert_eq!(left, right);
}
