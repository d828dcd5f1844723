//! Frames from kernel VXLAN peers, which may be super-frames without a segment size and may have
//! unfinished checksums: a kernel leaves both to the device that never came.

use crate::frame::{Fragment, TCP};
use crate::vnet::VnetHdr;
use crate::{DropReason, IpInfo, checksum, gro};

/// Describes a received frame to the kernel of the sandbox. TCP that is larger than `inner_mtu`
/// (bytes of IP packet) becomes a super-frame whose segments fill the MTU; an unfinished checksum
/// is left for the kernel to finish; anything else stays as it is.
///
/// # Errors
/// `Oversized` for anything but TCP above the MTU: datagrams cannot be divided without knowing
/// their size. `BadChecksum` for a super-frame whose checksum is complete but wrong.
pub fn fixup(frame: &mut [u8], info: &IpInfo, inner_mtu: usize) -> Result<VnetHdr, DropReason> {
    if frame.len() < info.len {
        return Err(DropReason::Truncated);
    }
    let partial = checksum::is_partial(frame, info);
    if info.ip_len() <= inner_mtu {
        return Ok(if partial {
            gro::needs_csum(info)
        } else {
            VnetHdr::NONE
        });
    }
    let headers = info.payload - info.l3;
    if info.proto != TCP || info.fragment != Fragment::None || headers >= inner_mtu {
        return Err(DropReason::Oversized);
    }
    if !partial && !checksum::verify_transport(frame, info) {
        return Err(DropReason::BadChecksum);
    }
    Ok(gro::super_header(
        frame,
        info,
        info.len,
        inner_mtu - headers,
        info.tcp_flags,
    ))
}

#[cfg(test)]
mod tests;
