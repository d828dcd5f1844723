//! Splits a TCP or UDP super-frame into frames that fit the MTU, without touching its payload:
//! only headers are written, into memory of the caller.

use std::ops::Range;

use crate::frame::{Fragment, TCP, TCP_CWR, TCP_FIN, TCP_PSH, UDP};
use crate::{DropReason, GsoKind, IpInfo, VnetHdr, be16, be32, checksum, len16, put16, put32};

/// Most segments that one super-frame is split into: what the kernel takes in one
/// `UDP_SEGMENT` send.
pub const MAX_SEGMENTS: usize = 128;

/// Bytes of header arena that always suffice for [`split`] with a prefix of `prefix_len` bytes,
/// as long as the frames have at most 14 + 60 + 60 bytes of headers.
#[must_use]
pub const fn arena_len(prefix_len: usize) -> usize {
    MAX_SEGMENTS * (prefix_len + 14 + 60 + 60)
}

/// One part of a super-frame: a header in the arena, a payload in the frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Prefix and headers, bytes of the arena.
    pub header: Range<u32>,
    /// Payload, bytes of the frame.
    pub payload: Range<u32>,
}

/// What a super-frame was split into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    /// Number of segments, at least 1.
    pub count: usize,
    /// Bytes of prefix, headers and payload of every segment but the last, which may be shorter:
    /// the segment size for `UDP_SEGMENT`.
    pub segment_len: usize,
}

/// Splits `frame`. Every segment gets a copy of `prefix` and of the frame's own headers, with
/// lengths, IPv4 identification, TCP sequence and flags, and all checksums of its own.
///
/// `vnet.hdr_len` and `vnet.csum_start` are not read: the headers say the same and were checked.
/// O(payload) for the checksums, no allocation.
///
/// # Errors
/// `BadOffload` when the vnet header asks for something that the frame is not, for no segment
/// size, or for more segments than [`MAX_SEGMENTS`] or the caller's memory allow.
pub fn split(
    frame: &[u8],
    vnet: &VnetHdr,
    info: &IpInfo,
    prefix: &[u8],
    headers: &mut [u8],
    out: &mut [Segment],
) -> Result<Split, DropReason> {
    let gso_size = usize::from(vnet.gso_size);
    let matches = match vnet.gso() {
        GsoKind::Tcp4 => info.proto == TCP && info.is_ipv4(),
        GsoKind::Tcp6 => info.proto == TCP && !info.is_ipv4(),
        GsoKind::UdpL4 => info.proto == UDP,
        GsoKind::None | GsoKind::Other => false,
    };
    if !matches || gso_size == 0 || info.fragment != Fragment::None || frame.len() < info.len {
        return Err(DropReason::BadOffload);
    }
    let count = info.payload_len().div_ceil(gso_size).max(1);
    let each = prefix.len() + info.payload;
    if count > MAX_SEGMENTS.min(out.len()) || headers.len() < count * each {
        return Err(DropReason::BadOffload);
    }
    let template = Template::new(frame, info);
    let slots = headers.chunks_exact_mut(each).zip(out.iter_mut());
    for (i, (slot, segment)) in slots.take(count).enumerate() {
        let start = info.payload + i * gso_size;
        let end = info.len.min(start + gso_size);
        let (head, header) = slot.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        header.copy_from_slice(template.headers);
        template.finish(header, i, count, i * gso_size, &frame[start..end]);
        *segment = Segment {
            header: offset(i * each)..offset((i + 1) * each),
            payload: offset(start)..offset(end),
        };
    }
    Ok(Split {
        count,
        segment_len: each + gso_size.min(info.payload_len()),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "offsets lie within 128 headers or one frame of 64 KiB"
)]
const fn offset(at: usize) -> u32 {
    at as u32
}

/// The headers of the super-frame and the sums of what does not change between segments.
struct Template<'a> {
    headers: &'a [u8],
    info: &'a IpInfo,
    /// Sum of the IPv4 header without length, identification and checksum.
    ip: u16,
    /// Sum of pseudo-header without length, and of the transport header without the fields that
    /// differ: sequence, data offset and flags, UDP length, checksum.
    transport: u16,
}

impl<'a> Template<'a> {
    fn new(frame: &'a [u8], info: &'a IpInfo) -> Self {
        let headers = &frame[..info.payload];
        let parts = |ranges: &[Range<usize>]| {
            ranges.iter().fold(0, |total, r| {
                checksum::add(total, checksum::sum(&headers[r.clone()]))
            })
        };
        let (l3, l4) = (info.l3, info.l4);
        let ip = if info.is_ipv4() {
            parts(&[l3..l3 + 2, l3 + 6..l3 + 10, l3 + 12..l4])
        } else {
            0
        };
        let fixed = if info.proto == TCP {
            parts(&[
                l4..l4 + 4,
                l4 + 8..l4 + 12,
                l4 + 14..l4 + 16,
                l4 + 18..info.payload,
            ])
        } else {
            checksum::sum(&headers[l4..l4 + 4])
        };
        let pseudo = checksum::frame_pseudo_header(headers, info, 0);
        Self {
            headers,
            info,
            ip,
            transport: checksum::add(pseudo, fixed),
        }
    }

    /// Makes `header`, a copy of the template's, that of segment `i`.
    fn finish(&self, header: &mut [u8], i: usize, count: usize, done: usize, payload: &[u8]) {
        let Self { info, .. } = self;
        let (l3, l4) = (info.l3, info.l4);
        let ip_len = info.payload - l3 + payload.len();
        if info.is_ipv4() {
            let id = be16(header, l3 + 4).wrapping_add(len16(i));
            put16(header, l3 + 2, len16(ip_len));
            put16(header, l3 + 4, id);
            let total = checksum::add(checksum::add(self.ip, len16(ip_len)), id);
            put16(header, l3 + 10, !total);
        } else {
            put16(header, l3 + 4, len16(ip_len - 40));
        }
        let transport_len = len16(info.payload - l4 + payload.len());
        let mut total = u64::from(self.transport)
            + u64::from(transport_len)
            + u64::from(checksum::sum(payload));
        if info.proto == TCP {
            #[expect(clippy::cast_possible_truncation, reason = "less than 64 KiB")]
            let seq = be32(header, l4 + 4).wrapping_add(done as u32);
            put32(header, l4 + 4, seq);
            let mut flags = header[l4 + 13];
            if i + 1 < count {
                flags &= !(TCP_FIN | TCP_PSH);
            }
            if i > 0 {
                flags &= !TCP_CWR;
            }
            header[l4 + 13] = flags;
            total += u64::from(seq) + u64::from(be16(header, l4 + 12));
            put16(header, l4 + 16, checksum::nonzero(!checksum::fold(total)));
        } else {
            put16(header, l4 + 4, transport_len);
            total += u64::from(transport_len);
            put16(header, l4 + 6, checksum::nonzero(!checksum::fold(total)));
        }
    }
}

/// Finishes the transport checksum of a frame that is no super-frame, so that it can leave the
/// machine. As in [`split`], `vnet` says that it is unfinished, not where it is.
///
/// # Errors
/// `BadOffload` when it is a super-frame, or has no such checksum; nothing is changed then.
pub fn finish_single(
    frame: &mut [u8],
    vnet: &VnetHdr,
    info: Option<&IpInfo>,
) -> Result<(), DropReason> {
    if vnet.gso() != GsoKind::None {
        return Err(DropReason::BadOffload);
    }
    if vnet.needs_csum() {
        let info = info.ok_or(DropReason::BadOffload)?;
        let offset = info.checksum_offset().ok_or(DropReason::BadOffload)?;
        checksum::complete(frame, info.l4, offset)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
