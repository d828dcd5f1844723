//! Loopback messages of the data path: what `weft ping` and `weft doctor` send to another node, and
//! what that node answers.
//!
//! They travel as every frame does, by VXLAN on the data path's port, so what stops frames stops
//! them. What tells them apart is the network identifier [`VNI`], which no network has: a node finds
//! it only after it has found no network, so frames of tenants pay nothing, and none of them can be
//! taken for one. Inside is a loopback message of connectivity fault management (IEEE 802.1Q clause
//! 20.2, once 802.1ag; ITU-T Y.1731 section 7.2, "ETH-LB"), which Wireshark and tcpdump know:
//!
//! ```text
//!   Ethernet  | level, version | opcode | flags | 4 | transaction | data TLV         | end TLV
//!   8902 hex  | 0              | 3 or 2 | 0     |   | 32 bits     | 3, length, value | 0
//!                                                                   value: nonce, wishes, zeros
//! ```

use crate::frame::ETHERNET_LEN;
use crate::{DropReason, Mac, Vni, be16, be32, put16, put32};

/// The identifier of no network.
pub const VNI: Vni = Vni::new(Vni::MAX).expect("24 bits");

/// Least bytes behind the Ethernet header: the fixed part, and the TLV with nonce and wishes.
pub const MIN_LEN: usize = DATA + VALUE_LEN + 1;

/// EtherType of connectivity fault management (IEEE 802.1Q table 21-4).
const ETHERTYPE: u16 = 0x8902;
/// Both ends of it: a local unicast address (IEEE 802c), as there is one of them on each node.
const ADDRESS: Mac = Mac([0x02, 0x57, 0x45, 0x46, 0x54, 0x00]);
/// "Loopback Message" and "Loopback Reply" (IEEE 802.1Q table 21-4).
const REQUEST: u8 = 3;
const ANSWER: u8 = 2;
/// "First TLV Offset": behind the transaction identifier (IEEE 802.1Q clause 21.7.3).
const FIRST_TLV: u8 = 4;
/// "Data TLV" and "End TLV" (IEEE 802.1Q table 21-6).
const DATA_TLV: u8 = 3;
const END_TLV: u8 = 0;
/// Where things are behind the Ethernet header.
const TRANSACTION: usize = 4;
const TLV: usize = 8;
const DATA: usize = TLV + 3;
/// Nonce and wishes.
const VALUE_LEN: usize = 9;
const WISHES: usize = DATA + 8;
const SHORT: u8 = 1;
const TELL: u8 = 2;

/// What one says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loopback {
    /// It asks, or it answers.
    pub answer: bool,
    /// Which of the asker's questions it is.
    pub number: u32,
    /// What nobody can know who has not seen the question.
    pub nonce: u64,
    /// The answer is to be as short as it can be, whatever the question's length: so a question tells
    /// of one direction alone.
    pub short: bool,
    /// The other node is to tell by gossip that the question has arrived: an answer may be lost.
    pub tell: bool,
    /// Bytes behind the Ethernet header: those that would be an IP packet.
    pub len: u16,
}

impl Loopback {
    /// The answer to a question: never longer than that.
    #[must_use]
    pub const fn answered(self) -> Self {
        Self {
            answer: true,
            len: if self.short { MIN_LEN as u16 } else { self.len },
            ..self
        }
    }

    /// Writes the frame; its length in bytes.
    ///
    /// # Errors
    /// [`DropReason::Oversized`] when `out` is too short, [`DropReason::BadLoopback`] when
    /// [`Self::len`] is less than [`MIN_LEN`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, DropReason> {
        let len = usize::from(self.len);
        let frame = out
            .get_mut(..ETHERNET_LEN + len)
            .ok_or(DropReason::Oversized)?;
        if len < MIN_LEN {
            return Err(DropReason::BadLoopback);
        }
        frame.fill(0);
        frame[..6].copy_from_slice(ADDRESS.as_bytes());
        frame[6..12].copy_from_slice(ADDRESS.as_bytes());
        put16(frame, 12, ETHERTYPE);
        let message = &mut frame[ETHERNET_LEN..];
        message[1] = if self.answer { ANSWER } else { REQUEST };
        message[3] = FIRST_TLV;
        put32(message, TRANSACTION, self.number);
        message[TLV] = DATA_TLV;
        put16(message, TLV + 1, self.len - (DATA + 1) as u16);
        message[DATA..WISHES].copy_from_slice(&self.nonce.to_be_bytes());
        message[WISHES] = (u8::from(self.short) * SHORT) | (u8::from(self.tell) * TELL);
        message[len - 1] = END_TLV;
        Ok(ETHERNET_LEN + len)
    }

    /// Reads a frame that came with [`VNI`].
    ///
    /// # Errors
    /// [`DropReason::BadLoopback`] for everything that [`Self::write`] does not write.
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        Self::read(frame).ok_or(DropReason::BadLoopback)
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let (ethernet, message) = frame.split_at_checked(ETHERNET_LEN)?;
        let len = u16::try_from(message.len()).ok()?;
        if message.len() < MIN_LEN || be16(ethernet, 12) != ETHERTYPE {
            return None;
        }
        let answer = match message[..TRANSACTION] {
            [0, REQUEST, 0, FIRST_TLV] => false,
            [0, ANSWER, 0, FIRST_TLV] => true,
            _ => return None,
        };
        if message[TLV] != DATA_TLV || be16(message, TLV + 1) != len - (DATA + 1) as u16 {
            return None;
        }
        let wishes = message[WISHES];
        Some(Self {
            answer,
            number: be32(message, TRANSACTION),
            nonce: u64::from_be_bytes(message[DATA..WISHES].try_into().ok()?),
            short: wishes & SHORT != 0,
            tell: wishes & TELL != 0,
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUESTION: Loopback = Loopback {
        answer: false,
        number: 0x0102_0304,
        nonce: 0x1122_3344_5566_7788,
        short: true,
        tell: false,
        len: MIN_LEN as u16 + 2,
    };

    #[test]
    fn ieee_802_1q_c21_7_the_bytes_of_a_loopback_message() {
        let mut out = [0xff; 64];
        let len = QUESTION.write(&mut out).unwrap();
        assert_eq!(
            out[..len],
            [
                0x02, 0x57, 0x45, 0x46, 0x54, 0, 0x02, 0x57, 0x45, 0x46, 0x54, 0, 0x89,
                0x02, //
                0, 3, 0, 4, 1, 2, 3, 4, //
                3, 0, 11, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 0, 0, //
                0,
            ]
        );
    }

    #[test]
    fn an_answer_is_never_longer_than_its_question() {
        for (len, short) in [(21, false), (21, true), (1450, false), (1450, true)] {
            let question = Loopback {
                len,
                short,
                ..QUESTION
            };
            let answer = question.answered();
            assert!(answer.answer && answer.len <= len);
            assert_eq!(
                usize::from(answer.len) == MIN_LEN,
                short || usize::from(len) == MIN_LEN
            );
            assert_eq!(
                (answer.number, answer.nonce),
                (QUESTION.number, QUESTION.nonce)
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        assert_eq!(QUESTION.write(&mut [0; 20]), Err(DropReason::Oversized));
        let tiny = Loopback {
            len: 20,
            ..QUESTION
        };
        assert_eq!(tiny.write(&mut [0; 64]), Err(DropReason::BadLoopback));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            answer: bool, number: u32, nonce: u64, short: bool, tell: bool,
            len in MIN_LEN as u16..9000,
        ) {
            let said = Loopback { answer, number, nonce, short, tell, len };
            let mut out = vec![0xee; 9100];
            let written = said.write(&mut out).unwrap();
            prop_assert_eq!(written, 14 + usize::from(len));
            prop_assert_eq!(Loopback::parse(&out[..written]), Ok(said));
            prop_assert_eq!(Loopback::parse(&out[..written - 1]), Err(DropReason::BadLoopback));
        }

        #[test]
        fn no_frame_makes_it_panic(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Loopback::parse(&frame).is_err() || frame.len() >= 14 + MIN_LEN);
        }
    }
}
