//! Marks of congestion and the class of service, between a frame and the packet around it: RFC 6040
//! for ECN, RFC 2983 for DSCP.

use crate::{DropReason, be16, checksum, put16};

/// Not ECN-capable.
const NOT_ECT: u8 = 0;
/// ECN-capable, 1: also a mark of mild congestion.
const ECT_1: u8 = 1;
/// Congestion experienced.
const CE: u8 = 3;
/// Both bits of ECN within a traffic class.
const MASK: u8 = 3;

const ETHERTYPE: usize = 12;
const IP: usize = 14;

/// The class of service that packets to other nodes travel in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dscp {
    /// The same for all, 0 to 63.
    Fixed(u8),
    /// That of the frame inside; 0 around what is not IP.
    Inherit,
}

impl Default for Dscp {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

/// Traffic class (the TOS byte) of the packet around `frame`: ECN is copied (RFC 6040 section 4.1,
/// normal mode), so that routers on the way can mark congestion instead of dropping.
#[must_use]
pub fn outer_class(frame: &[u8], dscp: Dscp) -> u8 {
    let inner = class(frame).unwrap_or(0);
    match dscp {
        Dscp::Fixed(dscp) => dscp << 2 | inner & MASK,
        Dscp::Inherit => inner,
    }
}

/// Carries the marks of the packet around `frame` over to it (RFC 6040 section 4.2, figure 4), the
/// IPv4 header checksum with them.
///
/// # Errors
/// [`DropReason::Congestion`] when a router marked congestion and the sender of the frame would not
/// understand: the drop is what it understands. Nothing is changed then.
pub fn decapsulate(frame: &mut [u8], outer: u8) -> Result<(), DropReason> {
    let outer = outer & MASK;
    if outer != CE && outer != ECT_1 {
        return Ok(());
    }
    let Some(inner) = class(frame) else {
        return Ok(());
    };
    match (inner & MASK, outer) {
        (NOT_ECT, CE) => Err(DropReason::Congestion),
        // A mark that means nothing to the sender, or the stronger one is inside already.
        (NOT_ECT | CE, _) => Ok(()),
        (_, mark) => {
            set_class(frame, inner & !MASK | mark);
            Ok(())
        }
    }
}

/// The traffic class of an IP packet in an Ethernet frame.
fn class(frame: &[u8]) -> Option<u8> {
    let &[first, second] = frame.get(IP..IP + 2)?.first_chunk()?;
    match be16(frame, ETHERTYPE) {
        0x0800 => Some(second),
        0x86dd => Some(first << 4 | second >> 4),
        _ => None,
    }
}

/// Changes what [`class`] found.
fn set_class(frame: &mut [u8], class: u8) {
    let old = be16(frame, IP);
    if be16(frame, ETHERTYPE) == 0x86dd {
        put16(frame, IP, old & 0xf00f | u16::from(class) << 4);
        return;
    }
    let new = old & 0xff00 | u16::from(class);
    put16(frame, IP, new);
    if frame.len() >= IP + 20 {
        let sum = be16(frame, IP + 10);
        put16(frame, IP + 10, checksum::update_u16(sum, old, new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a UDP packet without payload, of this class.
    fn frame(v4: bool, class: u8) -> Vec<u8> {
        let mut frame = vec![0; IP + if v4 { 28 } else { 48 }];
        if v4 {
            put16(&mut frame, ETHERTYPE, 0x0800);
            frame[IP] = 0x45;
            frame[IP + 1] = class;
            put16(&mut frame, IP + 2, 28);
            frame[IP + 12..IP + 20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = checksum::ipv4_header(&frame[IP..IP + 20]);
            put16(&mut frame, IP + 10, sum);
        } else {
            put16(&mut frame, ETHERTYPE, 0x86dd);
            // With a flow label, which stays.
            frame[IP..IP + 4].copy_from_slice(&[0x60 | class >> 4, class << 4 | 0xa, 0xbc, 0xde]);
        }
        frame
    }

    #[test]
    fn rfc6040_s4_2_figure_4() {
        const ECT_0: u8 = 2;
        let all = [NOT_ECT, ECT_0, ECT_1, CE];
        // Rows: what is inside; columns: the outer Not-ECT, ECT(0), ECT(1), CE.
        let expected = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for v4 in [true, false] {
            for (inner, row) in all.into_iter().zip(expected) {
                for (outer, expected) in all.into_iter().zip(row) {
                    let before = frame(v4, 0xb8 | inner);
                    let mut after = before.clone();
                    let result = decapsulate(&mut after, 0x28 | outer);
                    match expected {
                        Some(mark) => {
                            assert_eq!(result, Ok(()));
                            assert_eq!(after, frame(v4, 0xb8 | mark), "{v4} {inner} in {outer}");
                        }
                        None => {
                            assert_eq!(result, Err(DropReason::Congestion));
                            assert_eq!(after, before);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rfc6040_s4_1_the_outer_class_has_the_marks_and_the_asked_class() {
        for v4 in [true, false] {
            let frame = frame(v4, 46 << 2 | CE);
            assert_eq!(outer_class(&frame, Dscp::default()), CE);
            assert_eq!(outer_class(&frame, Dscp::Fixed(10)), 10 << 2 | CE);
            assert_eq!(outer_class(&frame, Dscp::Inherit), 46 << 2 | CE);
        }
        let mut arp = vec![0xff; 42];
        put16(&mut arp, ETHERTYPE, 0x0806);
        assert_eq!(outer_class(&arp, Dscp::Fixed(10)), 10 << 2);
        assert_eq!(outer_class(&arp, Dscp::Inherit), 0);
        assert_eq!(outer_class(&arp[..13], Dscp::Inherit), 0);
        assert_eq!(decapsulate(&mut arp, CE), Ok(()));
    }
}
