//! Answers that the data plane gives itself. Each builder writes a whole frame into `out` and
//! returns its length; 0 means that there is nothing to answer, or that `out` is too small.

mod announcement;
mod unreachable;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
    NdiscNeighborFlags, NdiscRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

pub use announcement::{ANNOUNCEMENT_LEN, announcement};
pub use unreachable::{UDP_UNREACHABLE_LEN, udp_unreachable};

use crate::frame::{
    ETHERNET_LEN, Fragment, ICMP, ICMPV6, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, dst_mac, src_mac,
};
use crate::rewrite::set_macs;
use crate::{ArpInfo, IpInfo, Mac, be32, checksum, put16};

/// Hop limit of packets that the data plane makes: enough for any path, and what ND demands.
const HOP_LIMIT: u8 = 255;

/// Bytes that hold any frame built here, but for echo replies, which are as long as the request:
/// an ICMPv6 error of 1280 bytes with its Ethernet header.
pub const MAX_LEN: usize = ETHERNET_LEN + 1280;

/// Answers an ARP request: `ip` is at `mac`. 42 bytes.
pub fn arp_reply(request: &ArpInfo, mac: Mac, ip: Ipv4Addr, out: &mut [u8]) -> usize {
    const LEN: usize = ETHERNET_LEN + 28;
    let Some(out) = out.get_mut(..LEN) else {
        return 0;
    };
    ethernet(out, mac, request.sender_mac, EthernetProtocol::Arp);
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: mac,
        source_protocol_addr: ip,
        target_hardware_addr: request.sender_mac,
        target_protocol_addr: request.sender_ip,
    }
    .emit(&mut ArpPacket::new_unchecked(&mut out[ETHERNET_LEN..]));
    LEN
}

/// The target of a neighbor solicitation (RFC 4861 section 4.3), where `info` is one that passes
/// the checks of section 7.1.1 but for its checksum.
#[must_use]
pub fn nd_target(frame: &[u8], info: &IpInfo) -> Option<Ipv6Addr> {
    const SOLICITATION: u8 = 135;
    if info.proto != ICMPV6
        || info.icmp_type != SOLICITATION
        || info.fragment != Fragment::None
        || frame.get(info.l3 + 7) != Some(&HOP_LIMIT)
        || frame.get(info.l4 + 1) != Some(&0)
    {
        return None;
    }
    let target = frame.get(info.l4 + 8..info.len)?.first_chunk::<16>()?;
    let target = Ipv6Addr::from(*target);
    (!target.is_multicast()).then_some(target)
}

/// Answers the neighbor solicitation in `frame`: `target` is at `mac`, and a router where
/// `router` says so. 86 bytes. Nothing for a duplicate address probe (source `::`), which would
/// have to be answered to all nodes.
pub fn nd_advertisement(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    target: Ipv6Addr,
    router: bool,
    out: &mut [u8],
) -> usize {
    const PAYLOAD: usize = 32;
    const LEN: usize = ETHERNET_LEN + 40 + PAYLOAD;
    let (IpAddr::V6(asker), Some(out)) = (info.src, out.get_mut(..LEN)) else {
        return 0;
    };
    if asker.is_unspecified() {
        return 0;
    }
    let mut flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, router);
    ethernet(out, mac, src_mac(frame), EthernetProtocol::Ipv6);
    ipv6(out, target, asker, IpProtocol::Icmpv6, PAYLOAD);
    Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(mac.into()),
    })
    .emit(
        &target,
        &asker,
        &mut Icmpv6Packet::new_unchecked(&mut out[ETHERNET_LEN + 40..]),
        &ChecksumCapabilities::default(),
    );
    LEN
}

/// Turns an echo request into its reply, in place (RFC 792, RFC 4443 section 4.2). Returns the
/// reply's length, 0 when it is no whole echo request.
pub fn icmp_echo_reply(frame: &mut [u8], info: &IpInfo) -> usize {
    if !info.is_echo_request() || frame.len() < info.len {
        return 0;
    }
    let (src, dst) = (src_mac(frame), dst_mac(frame));
    set_macs(frame, dst, src);
    let field = info.l4 + 2;
    // Padding behind the packet is no part of the sum.
    let packet = &mut frame[..info.len];
    if checksum::is_partial(packet, info) && checksum::complete(packet, info.l4, 2).is_err() {
        return 0;
    }
    let (request, reply): (u8, u8) = if info.is_ipv4() { (8, 0) } else { (128, 129) };
    let old = u16::from_be_bytes([frame[field], frame[field + 1]]);
    frame[info.l4] = reply;
    let new = checksum::update_u16(old, u16::from(request) << 8, u16::from(reply) << 8);
    put16(frame, field, new);
    if info.is_ipv4() {
        swap(frame, info.l3 + 12, 4);
        frame[info.l3 + 8] = HOP_LIMIT;
        let header = checksum::ipv4_header(&frame[info.l3..info.l4]);
        put16(frame, info.l3 + 10, header);
    } else {
        swap(frame, info.l3 + 8, 16);
        frame[info.l3 + 7] = HOP_LIMIT;
    }
    info.len
}

/// Swaps two neighbouring fields of `len` bytes.
fn swap(frame: &mut [u8], at: usize, len: usize) {
    let (a, b) = frame[at..at + 2 * len].split_at_mut(len);
    a.swap_with_slice(b);
}

/// Tells the sender of `frame` that its packet does not fit: ICMP "fragmentation needed"
/// (RFC 1191) or ICMPv6 "packet too big" (RFC 4443 section 3.2). `mtu` is in bytes; the answer
/// comes from `mac`, `ip`.
pub fn packet_too_big(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    ip: IpAddr,
    mtu: u16,
    out: &mut [u8],
) -> usize {
    match ip {
        IpAddr::V4(ip) => icmp_frag_needed(frame, info, mac, ip, mtu, out),
        IpAddr::V6(ip) => icmpv6_packet_too_big(frame, info, mac, ip, mtu, out),
    }
}

/// ICMP "fragmentation needed and DF set" with the next hop's MTU (RFC 1191 section 4).
pub fn icmp_frag_needed(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    ip: Ipv4Addr,
    mtu: u16,
    out: &mut [u8],
) -> usize {
    icmp_error(frame, info, mac, ip.into(), (3, 4), u32::from(mtu), out)
}

/// ICMPv6 "packet too big" (RFC 4443 section 3.2).
pub fn icmpv6_packet_too_big(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    ip: Ipv6Addr,
    mtu: u16,
    out: &mut [u8],
) -> usize {
    icmp_error(frame, info, mac, ip.into(), (2, 0), u32::from(mtu), out)
}

/// Tells the sender of `frame` that nobody listens on the port: ICMP type 3 code 3, ICMPv6 type 1
/// code 4. The answer comes from `mac`, `ip`.
pub fn icmp_unreachable(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    ip: IpAddr,
    out: &mut [u8],
) -> usize {
    let kind = if ip.is_ipv4() { (3, 3) } else { (1, 4) };
    icmp_error(frame, info, mac, ip, kind, 0, out)
}

/// Whether an ICMP error may be sent about a packet (RFC 1122 section 3.2.2, RFC 4443 section
/// 2.4): not about errors, later fragments, or what came from or went to more than one host.
fn may_report(frame: &[u8], info: &IpInfo) -> bool {
    let error = match info.proto {
        ICMP => !matches!(info.icmp_type, 0 | 8 | 13 | 14),
        ICMPV6 => info.icmp_type < 128,
        _ => false,
    };
    let one_host = |ip: IpAddr| {
        !ip.is_multicast() && !ip.is_unspecified() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    !error
        && info.fragment != Fragment::Later
        && frame.len() >= info.len
        && one_host(info.src)
        && one_host(info.dst)
        && !dst_mac(frame).is_multicast()
}

fn icmp_error(
    frame: &[u8],
    info: &IpInfo,
    mac: Mac,
    ip: IpAddr,
    (kind, code): (u8, u8),
    word: u32,
    out: &mut [u8],
) -> usize {
    if !may_report(frame, info) {
        return 0;
    }
    // RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4 (c): quote as much as fits in the least
    // MTU.
    let (ip_len, total) = if ip.is_ipv4() { (20, 576) } else { (40, 1280) };
    let quote = info.ip_len().min(total - ip_len - 8);
    let len = ETHERNET_LEN + ip_len + 8 + quote;
    let Some(out) = out.get_mut(..len) else {
        return 0;
    };
    let l4 = ETHERNET_LEN + ip_len;
    let pseudo = match (ip, info.src) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(out, mac, src_mac(frame), EthernetProtocol::Ipv4);
            ipv4(out, src, dst, IpProtocol::Icmp, 8 + quote);
            0
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(out, mac, src_mac(frame), EthernetProtocol::Ipv6);
            ipv6(out, src, dst, IpProtocol::Icmpv6, 8 + quote);
            checksum::pseudo_header(ip, info.src, ICMPV6, 8 + quote)
        }
        _ => return 0,
    };
    out[l4..l4 + 4].copy_from_slice(&[kind, code, 0, 0]);
    out[l4 + 4..l4 + 8].copy_from_slice(&word.to_be_bytes());
    out[l4 + 8..].copy_from_slice(&frame[info.l3..info.l3 + quote]);
    let sum = checksum::add(pseudo, checksum::sum(&out[l4..]));
    put16(out, l4 + 2, !sum);
    len
}

/// A TCP reset to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reset {
    /// Who seems to send it.
    pub src: SocketAddr,
    /// Who gets it; of the same family as `src`.
    pub dst: SocketAddr,
    /// Sequence number: the next one that the receiver expects.
    pub seq: u32,
    /// Acknowledgement number, where one is known.
    pub ack: Option<u32>,
    /// Source hardware address.
    pub src_mac: Mac,
    /// Destination hardware address.
    pub dst_mac: Mac,
}

/// Writes a TCP reset, 54 or 74 bytes.
pub fn tcp_reset(reset: &Reset, out: &mut [u8]) -> usize {
    let ip_len = if reset.src.is_ipv4() { 20 } else { 40 };
    let len = ETHERNET_LEN + ip_len + 20;
    let Some(out) = out.get_mut(..len) else {
        return 0;
    };
    match (reset.src.ip(), reset.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(out, reset.src_mac, reset.dst_mac, EthernetProtocol::Ipv4);
            ipv4(out, src, dst, IpProtocol::Tcp, 20);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ethernet(out, reset.src_mac, reset.dst_mac, EthernetProtocol::Ipv6);
            ipv6(out, src, dst, IpProtocol::Tcp, 20);
        }
        _ => return 0,
    }
    let number = |n: u32| TcpSeqNumber(n.cast_signed());
    TcpRepr {
        src_port: reset.src.port(),
        dst_port: reset.dst.port(),
        control: TcpControl::Rst,
        seq_number: number(reset.seq),
        ack_number: reset.ack.map(number),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
    .emit(
        &mut TcpPacket::new_unchecked(&mut out[ETHERNET_LEN + ip_len..]),
        &IpAddress::from(reset.src.ip()),
        &IpAddress::from(reset.dst.ip()),
        &ChecksumCapabilities::default(),
    );
    len
}

/// Answers a TCP segment of no connection with a reset to its sender (RFC 9293 section
/// 3.10.7.1). Nothing for a reset.
pub fn tcp_reset_for(frame: &[u8], info: &IpInfo, out: &mut [u8]) -> usize {
    if info.proto != TCP
        || info.fragment != Fragment::None
        || info.tcp_flags & TCP_RST != 0
        || frame.len() < info.len
    {
        return 0;
    }
    let (seq, ack) = if info.tcp_flags & TCP_ACK != 0 {
        (be32(frame, info.l4 + 8), None)
    } else {
        (0, Some(segment_end(frame, info)))
    };
    tcp_reset(
        &Reset {
            src: SocketAddr::new(info.dst, info.dport),
            dst: SocketAddr::new(info.src, info.sport),
            seq,
            ack,
            src_mac: dst_mac(frame),
            dst_mac: src_mac(frame),
        },
        out,
    )
}

/// Sequence number behind a TCP segment: SYN and FIN count as one byte each (RFC 9293 section
/// 3.4). What its sender will send next.
#[must_use]
pub fn segment_end(frame: &[u8], info: &IpInfo) -> u32 {
    let flags = info.tcp_flags;
    let controls = u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
    #[expect(clippy::cast_possible_truncation, reason = "less than 64 KiB")]
    let payload = info.payload_len() as u32;
    be32(frame, info.l4 + 4)
        .wrapping_add(payload)
        .wrapping_add(controls)
}

fn ethernet(out: &mut [u8], src_addr: Mac, dst_addr: Mac, ethertype: EthernetProtocol) {
    EthernetRepr {
        src_addr,
        dst_addr,
        ethertype,
    }
    .emit(&mut EthernetFrame::new_unchecked(out));
}

fn ipv4(out: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, next: IpProtocol, payload: usize) {
    Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: next,
        payload_len: payload,
        hop_limit: HOP_LIMIT,
    }
    .emit(
        &mut Ipv4Packet::new_unchecked(&mut out[ETHERNET_LEN..]),
        &ChecksumCapabilities::default(),
    );
}

fn ipv6(out: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr, next: IpProtocol, payload: usize) {
    Ipv6Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: next,
        payload_len: payload,
        hop_limit: HOP_LIMIT,
    }
    .emit(&mut Ipv6Packet::new_unchecked(&mut out[ETHERNET_LEN..]));
}

#[cfg(test)]
mod tests;
