//! What an Ethernet frame says, with every length proved once.
//!
//! Frames reach 65,549 bytes: an Ethernet header and a super-packet whose IP length field is
//! full. Nothing is copied; [`IpInfo`] holds offsets into the frame.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet,
    Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

use crate::{DropReason, FiveTuple, Mac, be16};

/// Length of an Ethernet header, bytes.
pub const ETHERNET_LEN: usize = 14;
/// Longest frame: an Ethernet header and 65,535 bytes of IP packet.
pub const MAX_FRAME_LEN: usize = ETHERNET_LEN + 65_535;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flag FIN.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag PSH.
pub const TCP_PSH: u8 = 0x08;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;
/// TCP flag URG.
pub const TCP_URG: u8 = 0x20;
/// TCP flag ECE.
pub const TCP_ECE: u8 = 0x40;
/// TCP flag CWR.
pub const TCP_CWR: u8 = 0x80;

/// Extension headers walked before a packet is called malformed.
const MAX_EXTENSIONS: usize = 8;

/// A frame of a kind that weft carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// ARP for IPv4 over Ethernet.
    Arp(ArpInfo),
    /// An IP packet.
    Ip(IpInfo),
}

impl Frame {
    /// The IP packet; nothing for ARP.
    #[inline]
    #[must_use]
    pub const fn ip(&self) -> Option<&IpInfo> {
        match self {
            Self::Ip(info) => Some(info),
            Self::Arp(_) => None,
        }
    }
}

/// An ARP packet (RFC 826).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpInfo {
    /// True for a request, false for any other operation.
    pub request: bool,
    /// Sender's hardware address.
    pub sender_mac: Mac,
    /// Sender's protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Address that is asked for.
    pub target_ip: Ipv4Addr,
}

/// Place of a packet in a fragmented one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// A whole packet.
    None,
    /// The first fragment: has the transport header.
    First,
    /// A later fragment: no transport header, no ports.
    Later,
}

/// Where things are in a frame with an IP packet. All offsets count from the frame's first byte
/// and lie within `len`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpInfo {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header, or of what follows the IP headers.
    pub l4: usize,
    /// Offset of the transport payload; equals `l4` where the transport header is unknown.
    pub payload: usize,
    /// End of the IP packet; Ethernet padding lies behind.
    pub len: usize,
    /// IP protocol number of what starts at `l4`.
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; identifier of an ICMP echo; else 0.
    pub sport: u16,
    /// Destination port; identifier of an ICMP echo; else 0.
    pub dport: u16,
    /// TCP flags (FIN in bit 0 to CWR in bit 7); 0 for other protocols.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type; 0 for other protocols.
    pub icmp_type: u8,
    /// Fragmentation.
    pub fragment: Fragment,
    /// May not be fragmented: IPv4 DF, always true for IPv6.
    pub dont_fragment: bool,
}

impl IpInfo {
    /// True for IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// Length of the IP packet in bytes: what an MTU limits.
    #[must_use]
    pub const fn ip_len(&self) -> usize {
        self.len - self.l3
    }

    /// Length of the transport payload in bytes.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.len - self.payload
    }

    /// The flow that the packet belongs to.
    #[must_use]
    pub const fn five_tuple(&self) -> FiveTuple {
        FiveTuple {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            proto: self.proto,
        }
    }

    /// True for a request of ICMP or ICMPv6 echo that is not a fragment.
    #[must_use]
    pub fn is_echo_request(&self) -> bool {
        self.fragment == Fragment::None
            && matches!((self.proto, self.icmp_type), (ICMP, 8) | (ICMPV6, 128))
    }

    /// Offset of the transport checksum within the transport header, where the protocol has one
    /// and this packet holds it.
    #[must_use]
    pub fn checksum_offset(&self) -> Option<usize> {
        if self.fragment == Fragment::Later {
            return None;
        }
        match self.proto {
            TCP => Some(16),
            UDP => Some(6),
            ICMP if self.is_ipv4() => Some(2),
            ICMPV6 if !self.is_ipv4() => Some(2),
            _ => None,
        }
    }
}

/// Source hardware address of a frame; zeros when shorter than an Ethernet header.
#[must_use]
pub fn src_mac(frame: &[u8]) -> Mac {
    mac_at(frame, 6)
}

/// Destination hardware address of a frame; zeros when shorter than an Ethernet header.
#[must_use]
pub fn dst_mac(frame: &[u8]) -> Mac {
    mac_at(frame, 0)
}

fn mac_at(frame: &[u8], at: usize) -> Mac {
    frame
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(Mac([0; 6]), |bytes| Mac(*bytes))
}

/// Reads a frame. O(1): a bounded number of headers is looked at, no payload.
///
/// # Errors
/// `Truncated`, `Oversized`, `BadEthertype`, `BadArp`, `BadIpHeader` or `BadTransportHeader`.
pub fn parse(frame: &[u8]) -> Result<Frame, DropReason> {
    if frame.len() > MAX_FRAME_LEN {
        return Err(DropReason::Oversized);
    }
    let ethernet = EthernetFrame::new_checked(frame).map_err(|_| DropReason::Truncated)?;
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => ipv4(frame).map(Frame::Ip),
        EthernetProtocol::Ipv6 => ipv6(frame).map(Frame::Ip),
        EthernetProtocol::Arp => arp(&frame[ETHERNET_LEN..]).map(Frame::Arp),
        _ => Err(DropReason::BadEthertype),
    }
}

fn arp(packet: &[u8]) -> Result<ArpInfo, DropReason> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| DropReason::Truncated)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| DropReason::BadArp)?
    else {
        return Err(DropReason::BadArp);
    };
    Ok(ArpInfo {
        request: operation == ArpOperation::Request,
        sender_mac: source_hardware_addr,
        sender_ip: source_protocol_addr,
        target_ip: target_protocol_addr,
    })
}

fn ipv4(frame: &[u8]) -> Result<IpInfo, DropReason> {
    let packet = &frame[ETHERNET_LEN..];
    if packet.len() < 20 {
        return Err(DropReason::Truncated);
    }
    let view = Ipv4Packet::new_unchecked(packet);
    let header_len = usize::from(view.header_len());
    let total_len = usize::from(view.total_len());
    if view.version() != 4 || header_len < 20 || total_len < header_len {
        return Err(DropReason::BadIpHeader);
    }
    if total_len > packet.len() {
        return Err(DropReason::Truncated);
    }
    let fragment = match (view.frag_offset(), view.more_frags()) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    let l4 = ETHERNET_LEN + header_len;
    transport(
        frame,
        IpInfo {
            l3: ETHERNET_LEN,
            l4,
            payload: l4,
            len: ETHERNET_LEN + total_len,
            proto: view.next_header().into(),
            src: view.src_addr().into(),
            dst: view.dst_addr().into(),
            sport: 0,
            dport: 0,
            tcp_flags: 0,
            icmp_type: 0,
            fragment,
            dont_fragment: view.dont_frag(),
        },
    )
}

fn ipv6(frame: &[u8]) -> Result<IpInfo, DropReason> {
    let packet = &frame[ETHERNET_LEN..];
    if packet.len() < 40 {
        return Err(DropReason::Truncated);
    }
    let view = Ipv6Packet::new_unchecked(packet);
    if view.version() != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let total_len = 40 + usize::from(view.payload_len());
    if total_len > packet.len() {
        return Err(DropReason::Truncated);
    }
    let (proto, at, fragment) = extensions(&packet[..total_len], view.next_header().into())?;
    transport(
        frame,
        IpInfo {
            l3: ETHERNET_LEN,
            l4: ETHERNET_LEN + at,
            payload: ETHERNET_LEN + at,
            len: ETHERNET_LEN + total_len,
            proto,
            src: view.src_addr().into(),
            dst: view.dst_addr().into(),
            sport: 0,
            dport: 0,
            tcp_flags: 0,
            icmp_type: 0,
            fragment,
            dont_fragment: true,
        },
    )
}

/// Walks the extension headers of an IPv6 packet (RFC 8200 section 4). Returns the upper
/// protocol, its offset, and whether the packet is a fragment.
pub(crate) fn extensions(packet: &[u8], first: u8) -> Result<(u8, usize, Fragment), DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;

    let (mut next, mut at, mut fragment) = (first, 40, Fragment::None);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Ok((next, at, fragment));
        }
        let Some(header) = packet.get(at..at + 8) else {
            return Err(DropReason::BadIpHeader);
        };
        let mut len = 8;
        if next == FRAGMENT {
            let bits = be16(header, 2);
            fragment = match (bits >> 3, bits & 1) {
                (0, 0) => fragment,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
        } else {
            len += usize::from(header[1]) * 8;
        }
        next = header[0];
        at += len;
        if at > packet.len() {
            return Err(DropReason::BadIpHeader);
        }
        if fragment == Fragment::Later {
            return Ok((next, at, fragment));
        }
    }
    Err(DropReason::BadIpHeader)
}

/// Fills in what the transport header says.
fn transport(frame: &[u8], mut info: IpInfo) -> Result<IpInfo, DropReason> {
    if info.fragment == Fragment::Later {
        return Ok(info);
    }
    let bytes = &frame[info.l4..info.len];
    match info.proto {
        TCP => {
            if bytes.len() < 20 {
                return Err(DropReason::BadTransportHeader);
            }
            let view = TcpPacket::new_unchecked(bytes);
            let header_len = usize::from(view.header_len());
            if header_len < 20 || header_len > bytes.len() {
                return Err(DropReason::BadTransportHeader);
            }
            info.payload += header_len;
            info.sport = view.src_port();
            info.dport = view.dst_port();
            info.tcp_flags = bytes[13];
        }
        UDP => {
            if bytes.len() < 8 {
                return Err(DropReason::BadTransportHeader);
            }
            let view = UdpPacket::new_unchecked(bytes);
            let len = usize::from(view.len());
            if len < 8 || (info.fragment == Fragment::None && len > bytes.len()) {
                return Err(DropReason::BadTransportHeader);
            }
            info.payload += 8;
            info.sport = view.src_port();
            info.dport = view.dst_port();
        }
        ICMP if info.is_ipv4() => {
            let view =
                Icmpv4Packet::new_checked(bytes).map_err(|_| DropReason::BadTransportHeader)?;
            info.icmp_type = view.msg_type().into();
            info.payload += 8.min(bytes.len());
            if matches!(info.icmp_type, 0 | 8) {
                info.sport = view.echo_ident();
                info.dport = info.sport;
            }
        }
        ICMPV6 if !info.is_ipv4() => {
            let view =
                Icmpv6Packet::new_checked(bytes).map_err(|_| DropReason::BadTransportHeader)?;
            info.icmp_type = view.msg_type().into();
            info.payload += 8.min(bytes.len());
            if matches!(info.icmp_type, 128 | 129) {
                info.sport = view.echo_ident();
                info.dport = info.sport;
            }
        }
        _ => {}
    }
    Ok(info)
}

#[cfg(test)]
mod tests;
