//! Internet checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! A *sum* is the folded one's-complement sum; a *checksum* is its complement, as in headers.
//! Both are values of 16-bit big-endian words.

use std::net::IpAddr;

use crate::frame::{Fragment, ICMP, UDP};
use crate::{DropReason, IpInfo, be16, put16};

/// Sum of a byte string, as if padded with a zero byte to an even length.
///
/// The order of bytes does not matter to a one's-complement sum (RFC 1071 section 2), so native
/// words are added into independent lanes, which the compiler turns into vector adds.
#[must_use]
pub fn sum(data: &[u8]) -> u16 {
    let mut lanes = [0_u64; 8];
    let (blocks, rest) = data.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// Folds a wide sum into 16 bits with end-around carries.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "three folds leave at most 16 bits"
)]
pub const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// One's-complement addition of two sums.
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    let (total, carry) = a.overflowing_add(b);
    total + carry as u16
}

/// Sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).
/// `len` is the length of transport header and payload in bytes.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u16 {
    fold(u64::from(ip_sum(src)) + u64::from(ip_sum(dst)) + u64::from(proto) + fold_len(len))
}

/// The same, with addresses and protocol taken from the frame.
#[must_use]
pub(crate) fn frame_pseudo_header(frame: &[u8], info: &IpInfo, len: usize) -> u16 {
    let addresses = if info.is_ipv4() {
        &frame[info.l3 + 12..info.l3 + 20]
    } else {
        &frame[info.l3 + 8..info.l3 + 40]
    };
    fold(u64::from(sum(addresses)) + u64::from(info.proto) + fold_len(len))
}

const fn fold_len(len: usize) -> u64 {
    let len = len as u64;
    (len >> 16) + (len & 0xffff)
}

fn ip_sum(ip: IpAddr) -> u16 {
    match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    }
}

/// Checksum after one 16-bit word changed (RFC 1624 equation 3).
#[must_use]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// Checksum of an IPv4 header whose checksum field is ignored.
pub(crate) fn ipv4_header(header: &[u8]) -> u16 {
    !add(sum(&header[..10]), sum(&header[12..]))
}

/// Finishes the checksum of a frame that asked for it (`F_NEEDS_CSUM`): sums from `csum_start` to
/// the end and writes the complement at `csum_start + csum_offset`. A zero is written as 0xffff:
/// the same number to every receiver, and not "no checksum" to UDP.
///
/// # Errors
/// `BadOffload` when the field lies outside the frame; nothing is changed then.
pub fn complete(frame: &mut [u8], csum_start: usize, csum_offset: usize) -> Result<(), DropReason> {
    let field = csum_start.saturating_add(csum_offset);
    if field.saturating_add(2) > frame.len() {
        return Err(DropReason::BadOffload);
    }
    // The field holds the pseudo-header's sum and so takes part.
    let total = sum(&frame[csum_start..]);
    put16(frame, field, nonzero(!total));
    Ok(())
}

/// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
pub(crate) const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Whether the transport checksum is right. Also true where there is none to verify: fragments,
/// unknown protocols, and UDP over IPv4 without a checksum.
#[must_use]
pub fn verify_transport(frame: &[u8], info: &IpInfo) -> bool {
    if info.fragment != Fragment::None || frame.len() < info.len {
        return true;
    }
    let Some(offset) = info.checksum_offset() else {
        return true;
    };
    let end = transport_end(frame, info);
    if info.proto == UDP && be16(frame, info.l4 + offset) == 0 {
        // RFC 8200 section 8.1: over IPv6 the checksum is not optional.
        return info.is_ipv4();
    }
    let pseudo = if info.proto == ICMP {
        0
    } else {
        frame_pseudo_header(frame, info, end - info.l4)
    };
    add(pseudo, sum(&frame[info.l4..end])) == 0xffff
}

/// Whether the transport checksum field holds just the sum of the pseudo-header: the kernel hands
/// frames over like this when it expects a device to finish them.
#[must_use]
pub fn is_partial(frame: &[u8], info: &IpInfo) -> bool {
    if info.fragment != Fragment::None || info.proto == ICMP || frame.len() < info.len {
        return false;
    }
    info.checksum_offset().is_some_and(|offset| {
        let len = transport_end(frame, info) - info.l4;
        be16(frame, info.l4 + offset) == frame_pseudo_header(frame, info, len)
    })
}

/// End of what the transport checksum covers: UDP has a length of its own.
fn transport_end(frame: &[u8], info: &IpInfo) -> usize {
    if info.proto == UDP {
        info.len
            .min(info.l4 + usize::from(be16(frame, info.l4 + 4)))
    } else {
        info.len
    }
}

#[cfg(test)]
mod tests;
