//! The packet that an ICMP error quotes (RFC 792, RFC 4443 section 2.4): which flow it is of, and
//! its change of addresses when the flow's own are rewritten on the way.
//!
//! A host believes an error only about a packet that it sent. Where addresses were rewritten, the
//! quotation has to be rewritten back; all checksums are updated from what changed, so that a
//! shortened quotation and an extension behind it (RFC 4884) stay as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::{Fragment, ICMP, ICMPV6, TCP, UDP, extensions};
use crate::rewrite::Side;
use crate::{FiveTuple, IpInfo, be16, checksum, put16};

/// Octets of the transport header that every error quotes (RFC 792): the ports are among them.
const LEAST_TRANSPORT: usize = 8;

/// A TCP or UDP packet inside an ICMP error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Addresses and ports of the quoted packet: of what the receiver of the error had sent.
    pub tuple: FiveTuple,
    /// Offset of its IP header in the frame.
    l3: usize,
    /// Offset of its transport header in the frame.
    l4: usize,
    /// End of what is quoted of it.
    end: usize,
}

/// The packet that `frame` quotes, where `frame` is a whole ICMP or ICMPv6 error about a TCP or UDP
/// packet, or about the first fragment of one. `None` for anything else, redirects included. O(1).
#[must_use]
pub fn quoted(frame: &[u8], info: &IpInfo) -> Option<Quoted> {
    if !is_error(info) || info.fragment != Fragment::None {
        return None;
    }
    let l3 = info.l4 + 8;
    let packet = frame.get(l3..info.len)?;
    if info.is_ipv4() {
        quoted_ipv4(packet, l3)
    } else {
        quoted_ipv6(packet, l3)
    }
}

/// Whether a packet is an ICMP error that speaks of one packet of one flow: unreachable, source
/// quench, time exceeded or parameter problem; over IPv6 also packet too big.
#[must_use]
pub const fn is_error(info: &IpInfo) -> bool {
    match info.proto {
        ICMP => info.is_ipv4() && matches!(info.icmp_type, 3 | 4 | 11 | 12),
        ICMPV6 => !info.is_ipv4() && matches!(info.icmp_type, 1..=4),
        _ => false,
    }
}

/// The MTU of a link on the way, in bytes, when an error says that a packet was too large for it:
/// never less than a link may have (RFC 791: 68, of which Linux believes 552; RFC 8200: 1280).
#[must_use]
pub fn path_mtu(frame: &[u8], info: &IpInfo) -> Option<u16> {
    let rest = frame.get(info.l4..info.l4 + 8)?;
    match (info.proto, info.icmp_type) {
        (ICMP, 3) if rest[1] == 4 => Some(be16(rest, 6).max(552)),
        (ICMPV6, 2) if be16(rest, 4) == 0 => Some(be16(rest, 6).max(1280)),
        _ => None,
    }
}

fn quoted_ipv4(packet: &[u8], l3: usize) -> Option<Quoted> {
    let header = packet.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(be16(header, 2));
    let offset = be16(header, 6) & 0x1fff;
    if header[0] >> 4 != 4 || header_len < 20 || offset != 0 {
        return None;
    }
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    let (src, dst) = (address(12), address(16));
    transport(packet, l3, header_len, total_len, header[9], (src, dst))
}

fn quoted_ipv6(packet: &[u8], l3: usize) -> Option<Quoted> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (proto, at, fragment) = extensions(packet, header[6]).ok()?;
    if fragment == Fragment::Later {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = *header.get(at..)?.first_chunk()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let total_len = 40 + usize::from(be16(header, 4));
    transport(
        packet,
        l3,
        at,
        total_len,
        proto,
        (address(8)?, address(24)?),
    )
}

fn transport(
    packet: &[u8],
    l3: usize,
    at: usize,
    total_len: usize,
    proto: u8,
    (src, dst): (IpAddr, IpAddr),
) -> Option<Quoted> {
    // Behind the quoted packet there may be padding and an extension (RFC 4884 section 5.1).
    let end = packet.len().min(total_len);
    if !matches!(proto, TCP | UDP) || at + LEAST_TRANSPORT > end {
        return None;
    }
    Some(Quoted {
        tuple: FiveTuple {
            src,
            dst,
            sport: be16(packet, at),
            dport: be16(packet, at + 2),
            proto,
        },
        l3,
        l4: l3 + at,
        end: l3 + end,
    })
}

impl Quoted {
    /// Sequence number of the quoted segment, where it is one of TCP.
    #[must_use]
    pub fn sequence(&self, frame: &[u8]) -> Option<u32> {
        let bytes = frame.get(self.l4 + 4..)?.first_chunk()?;
        (self.tuple.proto == TCP).then_some(u32::from_be_bytes(*bytes))
    }

    /// Changes address and port of one side of the quoted packet; the checksums of its headers, as
    /// far as they are quoted, and that of the ICMP message follow. `info` is what the frame was
    /// parsed into; `partial_csum` says that the message's own checksum is still to be computed.
    ///
    /// The outer header is left alone: see [`rewrite_endpoint`](crate::rewrite::rewrite_endpoint).
    /// Returns false, and changes nothing, when `ip` is of the other family or the frame is not the
    /// one that was looked at.
    pub fn rewrite(
        &self,
        frame: &mut [u8],
        info: &IpInfo,
        which: Side,
        ip: IpAddr,
        port: u16,
        partial_csum: bool,
    ) -> bool {
        if frame.len() < info.len
            || self.end > info.len
            || self.l3 != info.l4 + 8
            || ip.is_ipv4() != self.tuple.src.is_ipv4()
        {
            return false;
        }
        let mut message = Change::default();
        let address = self.replace_address(frame, which, ip);
        message.add(address);
        if ip.is_ipv4() {
            let field = self.l3 + 10;
            message.add(update(frame, field, address));
        }
        let at = match which {
            Side::Source => self.l4,
            Side::Destination => self.l4 + 2,
        };
        let ports = (be16(frame, at), port);
        put16(frame, at, port);
        message.add(ports);
        if let Some(field) = self.transport_checksum(frame) {
            let mut inner = Change::default();
            inner.add(address);
            inner.add(ports);
            let old = be16(frame, field);
            let mut new = inner.apply(old);
            if self.tuple.proto == UDP {
                new = checksum::nonzero(new);
            }
            put16(frame, field, new);
            message.add((old, new));
        }
        if !partial_csum {
            let field = info.l4 + 2;
            let new = message.apply(be16(frame, field));
            put16(frame, field, new);
        }
        true
    }

    /// Writes the address; returns the sums of the old and the new one.
    fn replace_address(&self, frame: &mut [u8], which: Side, ip: IpAddr) -> (u16, u16) {
        let mut replace = |at: usize, new: &[u8]| {
            let field = &mut frame[self.l3 + at..][..new.len()];
            let old = checksum::sum(field);
            field.copy_from_slice(new);
            (old, checksum::sum(new))
        };
        match (ip, which) {
            (IpAddr::V4(ip), Side::Source) => replace(12, &ip.octets()),
            (IpAddr::V4(ip), Side::Destination) => replace(16, &ip.octets()),
            (IpAddr::V6(ip), Side::Source) => replace(8, &ip.octets()),
            (IpAddr::V6(ip), Side::Destination) => replace(24, &ip.octets()),
        }
    }

    /// Where the quoted transport checksum is, if it is quoted and there is one (RFC 768).
    fn transport_checksum(&self, frame: &[u8]) -> Option<usize> {
        let field = self.l4 + if self.tuple.proto == TCP { 16 } else { 6 };
        let there = field + 2 <= self.end;
        let none = self.tuple.proto == UDP && there && be16(frame, field) == 0;
        (there && !none).then_some(field)
    }
}

/// What changed under a checksum: old sums taken out, new ones put in (RFC 1624 equation 3).
#[derive(Clone, Copy, Default)]
struct Change(u16);

impl Change {
    fn add(&mut self, (old, new): (u16, u16)) {
        self.0 = checksum::add(checksum::add(self.0, !old), new);
    }

    const fn apply(self, checksum: u16) -> u16 {
        !checksum::add(!checksum, self.0)
    }
}

/// Updates a checksum field; returns its old and new value.
fn update(frame: &mut [u8], field: usize, (old, new): (u16, u16)) -> (u16, u16) {
    let before = be16(frame, field);
    let after = checksum::update_u16(before, old, new);
    put16(frame, field, after);
    (before, after)
}

#[cfg(test)]
mod tests;
