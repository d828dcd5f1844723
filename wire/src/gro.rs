//! Merges consecutive segments of a flow into a super-frame, the inverse of [`gso`](crate::gso).
//!
//! One run is open at a time and nothing is held back behind it, so order is kept between all
//! frames, not only inside a flow. Payloads stay where they were received: a run is a list of
//! ranges for `writev`.

use std::array;
use std::ops::Range;

use crate::frame::{ETHERNET_LEN, Fragment, TCP, TCP_ACK, TCP_CWR, TCP_ECE, TCP_PSH, UDP};
use crate::vnet::{self, VnetHdr};
use crate::{IpInfo, be16, be32, checksum, len16, put16};

/// Most segments in one run.
pub const MAX_SEGMENTS: usize = 64;

/// What became of an offered frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It is the first of a new run.
    Started,
    /// It was added to the open run.
    Merged,
    /// It does not continue the open run: take that, then offer again.
    Refused,
}

/// A run, ready to be written: vnet header, `head`, then `tails`.
#[derive(Debug)]
pub struct Run<'a> {
    /// What to tell the kernel about the frame.
    pub vnet: VnetHdr,
    /// The caller's key, as offered: the destination port.
    pub key: u64,
    /// Headers and first payload, bytes of the arena.
    pub head: Range<usize>,
    /// Further payloads, bytes of the arena.
    pub tails: &'a [Range<usize>],
    /// Bytes of head and tails together.
    pub len: usize,
}

/// The open run, over frames in one receive arena.
#[derive(Debug)]
pub struct Coalescer {
    open: Option<Open>,
    tails: [Range<usize>; MAX_SEGMENTS - 1],
    udp: bool,
}

#[derive(Clone, Debug)]
struct Open {
    key: u64,
    frame: Range<usize>,
    info: IpInfo,
    /// Segments so far.
    count: usize,
    /// Payload bytes of every segment but the last.
    segment: usize,
    /// Payload bytes so far.
    total: usize,
    /// TCP flags of all segments.
    flags: u8,
    /// The step of the IPv4 identification between segments, once there are two.
    id_step: u16,
    /// Nothing may be added any more.
    sealed: bool,
    /// The transport checksum of the first frame is known to be right, or not to matter because
    /// the kernel verified the datagram around it.
    verified: bool,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Coalescer {
    /// An empty coalescer. `udp` says whether UDP may be merged: the kernel must know USO
    /// (Linux 6.2).
    #[must_use]
    pub fn new(udp: bool) -> Self {
        Self {
            open: None,
            tails: array::from_fn(|_| 0..0),
            udp,
        }
    }

    /// Whether no run is open.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Takes a frame: bytes `frame` of `arena`, parsed into `info`. `key` separates frames that go
    /// to different ports. `trusted` says that the kernel verified the datagram around the frame;
    /// without it the frame's own checksum is verified before it is merged, because a super-frame
    /// makes the receiving kernel believe its payload.
    ///
    /// A frame that can never be merged starts a run of its own, which nothing is added to. O(1),
    /// or O(payload) when not trusted.
    pub fn offer(
        &mut self,
        arena: &[u8],
        frame: Range<usize>,
        info: &IpInfo,
        key: u64,
        trusted: bool,
    ) -> Offer {
        let bytes = &arena[frame.clone()];
        let Some(open) = &mut self.open else {
            self.open = Some(Open {
                key,
                sealed: !mergeable(bytes, info, self.udp) || info.tcp_flags & TCP_PSH != 0,
                frame,
                info: *info,
                count: 1,
                segment: info.payload_len(),
                total: info.payload_len(),
                flags: info.tcp_flags,
                id_step: 0,
                verified: trusted,
            });
            return Offer::Started;
        };
        if open.sealed
            || open.key != key
            || !mergeable(bytes, info, self.udp)
            || !open.continues(&arena[open.frame.clone()], bytes, info)
        {
            return Offer::Refused;
        }
        if !open.verified {
            if !checksum::verify_transport(&arena[open.frame.clone()], &open.info) {
                open.sealed = true;
                return Offer::Refused;
            }
            open.verified = true;
        }
        if !trusted && !checksum::verify_transport(bytes, info) {
            return Offer::Refused;
        }
        if open.count == 1 && info.is_ipv4() {
            open.id_step = id(bytes).wrapping_sub(id(&arena[open.frame.clone()]));
        }
        self.tails[open.count - 1] = frame.start + info.payload..frame.start + info.len;
        open.count += 1;
        open.total += info.payload_len();
        open.flags |= info.tcp_flags;
        open.sealed = open.count == MAX_SEGMENTS
            || info.payload_len() < open.segment
            || info.tcp_flags & TCP_PSH != 0;
        Offer::Merged
    }

    /// Closes the open run and writes its headers, in place. A run of one frame is left as it is;
    /// its checksum may be partial (see [`checksum::is_partial`]), which the vnet header then
    /// says.
    pub fn take(&mut self, arena: &mut [u8]) -> Option<Run<'_>> {
        let open = self.open.take()?;
        let frame = &mut arena[open.frame.clone()];
        if open.count == 1 {
            return Some(Run {
                vnet: single(frame, &open),
                key: open.key,
                len: open.frame.len(),
                head: open.frame,
                tails: &[],
            });
        }
        let info = &open.info;
        let len = info.payload + open.total;
        let vnet = super_header(frame, info, len, open.segment, open.flags);
        Some(Run {
            vnet,
            key: open.key,
            // Padding behind the first packet must not end up between payloads.
            head: open.frame.start..open.frame.start + info.len,
            tails: &self.tails[..open.count - 1],
            len,
        })
    }
}

/// Makes the headers of `frame` those of a super-frame of `len` bytes, and its vnet header.
pub(crate) fn super_header(
    frame: &mut [u8],
    info: &IpInfo,
    len: usize,
    gso_size: usize,
    flags: u8,
) -> VnetHdr {
    let (l3, l4) = (info.l3, info.l4);
    let gso_type = if info.is_ipv4() {
        put16(frame, l3 + 2, len16(len - l3));
        let header = checksum::ipv4_header(&frame[l3..l4]);
        put16(frame, l3 + 10, header);
        vnet::GSO_TCPV4
    } else {
        put16(frame, l3 + 4, len16(len - l3 - 40));
        vnet::GSO_TCPV6
    };
    let pseudo = checksum::frame_pseudo_header(frame, info, len - l4);
    let (gso_type, csum_offset) = if info.proto == TCP {
        frame[l4 + 13] |= flags;
        put16(frame, l4 + 16, pseudo);
        let ecn = if flags & TCP_CWR == 0 {
            0
        } else {
            vnet::GSO_ECN
        };
        (gso_type | ecn, 16)
    } else {
        put16(frame, l4 + 4, len16(len - l4));
        put16(frame, l4 + 6, pseudo);
        (vnet::GSO_UDP_L4, 6)
    };
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        gso_type,
        hdr_len: len16(info.payload),
        gso_size: len16(gso_size),
        csum_start: len16(l4),
        csum_offset,
        num_buffers: 0,
    }
}

/// Asks the kernel to finish the transport checksum.
pub(crate) fn needs_csum(info: &IpInfo) -> VnetHdr {
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        csum_start: len16(info.l4),
        csum_offset: len16(info.checksum_offset().unwrap_or(0)),
        ..VnetHdr::NONE
    }
}

fn single(frame: &[u8], open: &Open) -> VnetHdr {
    if checksum::is_partial(frame, &open.info) {
        return needs_csum(&open.info);
    }
    let has_checksum = open.info.fragment == Fragment::None && matches!(open.info.proto, TCP | UDP);
    if open.verified && has_checksum {
        VnetHdr {
            flags: vnet::F_DATA_VALID,
            ..VnetHdr::NONE
        }
    } else {
        VnetHdr::NONE
    }
}

/// Whether a frame may be part of a run at all.
fn mergeable(frame: &[u8], info: &IpInfo, udp: bool) -> bool {
    let plain = if info.is_ipv4() {
        info.l4 == info.l3 + 20
    } else {
        info.l4 == info.l3 + 40
    };
    if !plain || info.fragment != Fragment::None || info.payload_len() == 0 {
        return false;
    }
    match info.proto {
        TCP => info.tcp_flags & !(TCP_PSH | TCP_ECE) == TCP_ACK,
        // Datagrams without a checksum would get one.
        UDP => {
            udp && be16(frame, info.l4 + 6) != 0
                && usize::from(be16(frame, info.l4 + 4)) == info.len - info.l4
        }
        _ => false,
    }
}

/// IPv4 identification.
fn id(frame: &[u8]) -> u16 {
    be16(frame, ETHERNET_LEN + 4)
}

impl Open {
    /// Whether `next` follows this run: the same headers but for what a split changes.
    fn continues(&self, first: &[u8], next: &[u8], info: &IpInfo) -> bool {
        let same = |range: Range<usize>| first[range.clone()] == next[range];
        let (l3, l4) = (info.l3, info.l4);
        if self.info.proto != info.proto
            || self.info.l4 != l4
            || self.info.payload != info.payload
            || self.info.is_ipv4() != info.is_ipv4()
            || info.payload_len() > self.segment
            || self.info.payload - l3 + self.total + info.payload_len() > 65_535
            || !same(0..l3)
        {
            return false;
        }
        let same_ip = if info.is_ipv4() {
            // All but total length, identification and checksum.
            same(l3..l3 + 2) && same(l3 + 6..l3 + 10) && same(l3 + 12..l3 + 20) && {
                let distance = id(next).wrapping_sub(id(first));
                if self.count == 1 {
                    distance <= 1
                } else {
                    distance == self.id_step.wrapping_mul(len16(self.count))
                }
            }
        } else {
            // All but payload length.
            same(l3..l3 + 4) && same(l3 + 6..l3 + 40)
        };
        if !same_ip || !same(l4..l4 + 4) {
            return false;
        }
        if info.proto == UDP {
            return true;
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than 64 KiB")]
        let expected = be32(first, l4 + 4).wrapping_add(self.total as u32);
        // Acknowledgement, data offset, window, urgent pointer and options; flags but for PSH.
        be32(next, l4 + 4) == expected
            && same(l4 + 8..l4 + 13)
            && (first[l4 + 13] ^ next[l4 + 13]) & !TCP_PSH == 0
            && same(l4 + 14..l4 + 16)
            && same(l4 + 18..info.payload)
    }
}

#[cfg(test)]
mod tests;
