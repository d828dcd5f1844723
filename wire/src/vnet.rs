//! `virtio_net_hdr_v1`: the 12 bytes in front of every frame of a TAP with `IFF_VNET_HDR`
//! (virtio 1.2 section 5.1.6), little-endian.

/// Length of the header in bytes.
pub const LEN: usize = 12;

/// `flags`: the checksum from `csum_start` on is still to be computed.
pub const F_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was verified.
pub const F_DATA_VALID: u8 = 2;

/// `gso_type`: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4 super-frame.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6 super-frame.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP super-frame whose parts are datagrams of their own (USO).
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type`: added when the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// What kind of super-frame a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// An ordinary frame.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one size, the last may be shorter.
    UdpL4,
    /// A kind that weft never asked for.
    Other,
}

/// The header's fields. Lengths and offsets are in bytes, counted from the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHdr {
    /// [`F_NEEDS_CSUM`], [`F_DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` constants, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers. A hint from the kernel: never trusted.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed part starts.
    pub csum_start: u16,
    /// Where the checksum field is, counted from `csum_start`.
    pub csum_offset: u16,
    /// Unused on TAPs.
    pub num_buffers: u16,
}

impl VnetHdr {
    /// Length of the header in bytes.
    pub const LEN: usize = LEN;

    /// No offload asked for: all checksums are complete.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        num_buffers: 0,
    };

    /// Reads a header; every value is possible.
    #[must_use]
    pub const fn parse(bytes: &[u8; LEN]) -> Self {
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: u16::from_le_bytes([bytes[2], bytes[3]]),
            gso_size: u16::from_le_bytes([bytes[4], bytes[5]]),
            csum_start: u16::from_le_bytes([bytes[6], bytes[7]]),
            csum_offset: u16::from_le_bytes([bytes[8], bytes[9]]),
            num_buffers: u16::from_le_bytes([bytes[10], bytes[11]]),
        }
    }

    /// Writes the header.
    pub fn emit(&self, bytes: &mut [u8; LEN]) {
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.num_buffers.to_le_bytes());
    }

    /// Whether the transport checksum field holds only the pseudo-header's sum.
    #[must_use]
    pub const fn needs_csum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }

    /// The kind of super-frame, ECN bit ignored.
    #[must_use]
    pub const fn gso(&self) -> GsoKind {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => GsoKind::None,
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 => GsoKind::UdpL4,
            _ => GsoKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_survive_a_round_trip() {
        let bytes = [1, 0x81, 54, 0, 0x78, 5, 34, 0, 16, 0, 0, 0];
        let hdr = VnetHdr::parse(&bytes);
        assert_eq!(hdr.gso_size, 1400);
        assert_eq!(hdr.csum_start, 34);
        assert_eq!(hdr.gso(), GsoKind::Tcp4);
        assert!(hdr.needs_csum());
        let mut again = [0; LEN];
        hdr.emit(&mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn every_kind_has_a_name() {
        let kind = |gso_type| {
            VnetHdr {
                gso_type,
                ..VnetHdr::NONE
            }
            .gso()
        };
        assert_eq!(kind(0), GsoKind::None);
        assert_eq!(kind(4), GsoKind::Tcp6);
        assert_eq!(kind(5), GsoKind::UdpL4);
        assert_eq!(kind(3), GsoKind::Other);
        assert_eq!(kind(0x21), GsoKind::Other);
    }
}
