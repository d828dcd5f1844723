//! Fragments (RFC 791 section 3.2, RFC 8200 section 4.5): which datagram one belongs to, and what
//! part of it.

use crate::frame::{ETHERNET_LEN, Fragment};
use crate::{DropReason, IpInfo, be16, be32};

/// Longest datagram: what an IPv4 length field can say.
const LONGEST: usize = 65_535;

/// Place of a fragment in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentHeader {
    /// Identification, unique for a while between two hosts.
    pub id: u32,
    /// Where the fragment's data go, bytes from the start of the datagram's payload: for the first
    /// fragment that is its transport header.
    pub offset: usize,
    /// Length of the fragment's data, bytes.
    pub len: usize,
    /// More fragments follow.
    pub more: bool,
}

/// Reads the place of a fragment; `info` is what `frame` was parsed into. O(1).
///
/// # Errors
/// `BadFragment` for a packet that is no fragment, and for one that no sender makes: data that end
/// behind the longest datagram, or an inner fragment whose length is no multiple of eight.
pub fn fragment_header(frame: &[u8], info: &IpInfo) -> Result<FragmentHeader, DropReason> {
    if info.fragment == Fragment::None || frame.len() < info.len {
        return Err(DropReason::BadFragment);
    }
    let header = if info.is_ipv4() {
        let bits = be16(frame, info.l3 + 6);
        FragmentHeader {
            id: u32::from(be16(frame, info.l3 + 4)),
            offset: usize::from(bits & 0x1fff) * 8,
            len: info.len - info.l4,
            more: bits & 0x2000 != 0,
        }
    } else {
        let at = ipv6_header(frame, info).ok_or(DropReason::BadFragment)?;
        let bits = be16(frame, at + 2);
        FragmentHeader {
            id: be32(frame, at + 4),
            offset: usize::from(bits & 0xfff8),
            len: info.len - (at + 8),
            more: bits & 1 != 0,
        }
    };
    let first = info.fragment == Fragment::First;
    if first != (header.offset == 0) {
        return Err(DropReason::BadFragment);
    }
    let uneven = header.more && !header.len.is_multiple_of(8);
    if uneven || header.len == 0 || header.offset + header.len > LONGEST {
        return Err(DropReason::BadFragment);
    }
    Ok(header)
}

/// Offset of the fragment header of an IPv6 packet whose extension headers were walked already.
fn ipv6_header(frame: &[u8], info: &IpInfo) -> Option<usize> {
    const FRAGMENT: u8 = 44;
    let mut next = *frame.get(info.l3 + 6)?;
    let mut at = ETHERNET_LEN + 40;
    while next != FRAGMENT {
        if at >= info.l4 {
            return None;
        }
        next = *frame.get(at)?;
        at += 8 + usize::from(*frame.get(at + 1)?) * 8;
    }
    (at + 8 <= info.len).then_some(at)
}

#[cfg(test)]
mod tests;
