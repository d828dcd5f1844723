//! What the sender of a frame left for a device to do, held against the frame: nothing that a
//! virtio header asks for may change a byte that was looked at.
//!
//! A sandbox chooses the header (`PACKET_VNET_HDR`, a bridged device of its own). Whoever finishes
//! the checksum, here or in the receiver's kernel, writes where the header says: over the source
//! address, if nobody looked.

use crate::frame::{Fragment, Frame, TCP, UDP};
use crate::vnet::{GSO_ECN, GSO_NONE, GsoKind, VnetHdr};
use crate::{DropReason, IpInfo, checksum};

/// Holds `vnet` against its frame; `parsed` is what [`crate::frame::parse`] says of it. Returns the
/// header that the frame travels on with.
///
/// A super-frame has to be of the kind that the header names. An unfinished checksum has to be the
/// transport's own, in a whole packet. One that lies in the payload belongs to a tunnel that the
/// sandbox has made: it is finished here, in place, and nothing is asked for any more. O(1), but for
/// that sum.
///
/// # Errors
/// `BadOffload` for anything else; the frame is unchanged then.
#[inline]
pub fn settle(frame: &mut [u8], vnet: &VnetHdr, parsed: &Frame) -> Result<VnetHdr, DropReason> {
    if vnet.gso_type == GSO_NONE && !vnet.needs_csum() {
        return Ok(*vnet);
    }
    let Frame::Ip(info) = parsed else {
        return Err(DropReason::BadOffload);
    };
    if info.fragment != Fragment::None {
        return Err(DropReason::BadOffload);
    }
    let own = vnet.needs_csum()
        && usize::from(vnet.csum_start) == info.l4
        && info.checksum_offset() == Some(usize::from(vnet.csum_offset));
    if vnet.gso_type == GSO_NONE {
        return if own {
            Ok(*vnet)
        } else {
            finish_inner(frame, vnet, info)
        };
    }
    // What a kernel that takes the frame would refuse ends here too, under its own name.
    if own && is_of_kind(vnet, info) && usize::from(vnet.hdr_len) <= frame.len() {
        Ok(*vnet)
    } else {
        Err(DropReason::BadOffload)
    }
}

/// Whether a frame is the super-frame that its header speaks of.
fn is_of_kind(vnet: &VnetHdr, info: &IpInfo) -> bool {
    let kind = match vnet.gso() {
        GsoKind::Tcp4 => info.proto == TCP && info.is_ipv4(),
        GsoKind::Tcp6 => info.proto == TCP && !info.is_ipv4(),
        GsoKind::UdpL4 => info.proto == UDP && vnet.gso_type & GSO_ECN == 0,
        GsoKind::None | GsoKind::Other => false,
    };
    kind && vnet.gso_size > 0
}

/// Finishes a checksum inside the payload.
#[cold]
fn finish_inner(frame: &mut [u8], vnet: &VnetHdr, info: &IpInfo) -> Result<VnetHdr, DropReason> {
    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    // Headers, of which verdicts were made, and padding, which nobody reads, are no payload.
    if start < info.payload || start + offset + 2 > info.len {
        return Err(DropReason::BadOffload);
    }
    checksum::complete(frame, start, offset)?;
    Ok(VnetHdr::NONE)
}

#[cfg(test)]
mod tests;
