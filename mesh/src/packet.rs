//! A frame on its way through a table, with what is known of it.

use std::net::IpAddr;

use weft_wire::frame::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::rewrite::{Side, rewrite_endpoint};
use weft_wire::{IpInfo, Mac, frame};

/// What every step of a frame's way needs. Who calls the table has the three apart, and its calls
/// take them so.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    /// The frame.
    pub(crate) frame: &'a mut [u8],
    /// Where its headers are, and what they say; as it came, whatever was rewritten since.
    pub(crate) info: &'a IpInfo,
    /// Its checksum is still to be completed by a device.
    pub(crate) partial_csum: bool,
}

impl Packet<'_> {
    /// Gives one end another address, and another port where one is given. False when it cannot be:
    /// the frame is as it was.
    #[inline]
    pub(crate) fn set(&mut self, side: Side, ip: IpAddr, port: Option<u16>) -> bool {
        rewrite_endpoint(self.frame, self.info, side, ip, port, self.partial_csum)
    }

    /// The Ethernet source.
    pub(crate) fn src_mac(&self) -> Mac {
        frame::src_mac(self.frame)
    }

    /// The Ethernet destination.
    pub(crate) fn dst_mac(&self) -> Mac {
        frame::dst_mac(self.frame)
    }

    /// True when it opens a connection, if it is a TCP segment.
    pub(crate) const fn is_syn(&self) -> bool {
        self.info.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
    }

    /// Bytes of data. A run of segments has the length of all in its header, and `info` that of the
    /// first.
    pub(crate) fn payload_bytes(&self) -> u64 {
        // RFC 791: the length of all; RFC 8200: of what follows the fixed header.
        let (at, fixed) = if self.info.is_ipv4() { (2, 0) } else { (4, 40) };
        let total = self
            .frame
            .get(self.info.l3 + at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |bytes| fixed + u64::from(u16::from_be_bytes(*bytes)));
        total.saturating_sub((self.info.payload - self.info.l3) as u64)
    }
}
