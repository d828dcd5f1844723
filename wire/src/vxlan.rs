//! The VXLAN header, 8 bytes (RFC 7348 section 5).

use crate::{DropReason, Vni};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;

/// UDP port assigned by IANA.
pub const PORT: u16 = 4789;

/// "The I flag MUST be set to 1 for a valid VNI."
const FLAG_I: u8 = 0x08;

/// Reads the network identifier of a datagram.
///
/// # Errors
/// `Truncated` when shorter than a header, `BadVxlanHeader` without the I flag.
pub fn parse(datagram: &[u8]) -> Result<Vni, DropReason> {
    let Some(&[flags, _, _, _, a, b, c, _]) = datagram.first_chunk::<HEADER_LEN>() else {
        return Err(DropReason::Truncated);
    };
    // RFC 7348 section 5: reserved bits "MUST be set to zero on transmission and ignored on
    // receipt".
    if flags & FLAG_I == 0 {
        return Err(DropReason::BadVxlanHeader);
    }
    Vni::new(u32::from_be_bytes([0, a, b, c])).ok_or(DropReason::BadVxlanHeader)
}

/// Writes the header for one network.
pub fn emit(vni: Vni, header: &mut [u8; HEADER_LEN]) {
    let [_, a, b, c] = vni.get().to_be_bytes();
    *header = [FLAG_I, 0, 0, 0, a, b, c, 0];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_is_parsed() {
        for n in [0, 1, 4096, Vni::MAX] {
            let vni = Vni::new(n).unwrap();
            let mut header = [0xff; HEADER_LEN];
            emit(vni, &mut header);
            assert_eq!(parse(&header), Ok(vni));
        }
    }

    #[test]
    fn rfc7348_s5_reserved_bits_ignored() {
        let header = [0xff, 1, 2, 3, 0, 0x10, 0, 0xee];
        assert_eq!(parse(&header), Ok(Vni::new(4096).unwrap()));
    }

    #[test]
    fn rfc7348_s5_i_flag_required() {
        assert_eq!(
            parse(&[0xf7, 0, 0, 0, 0, 0x10, 0, 0]),
            Err(DropReason::BadVxlanHeader)
        );
        assert_eq!(parse(&[8, 0, 0, 0, 0, 0x10, 0]), Err(DropReason::Truncated));
    }
}
