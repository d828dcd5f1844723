//! What the sockets of the data path refuse by where it came from: a classic BPF program that looks
//! at the packet's interface and at who its frame was for.

use std::io;

use socket2::{SockFilter, Socket};

/// Extensions of classic BPF: loads below the packet (`linux/filter.h`).
const ANCILLARY: i32 = -0x1000;
const PACKET_TYPE: i32 = ANCILLARY + 4;
const INTERFACE: i32 = ANCILLARY + 8;

/// A frame for this host (`linux/if_packet.h`): no group, no broadcast.
const TO_THIS_HOST: u32 = 0;

const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const WHOLE: u32 = u32::MAX;

pub(super) fn attach(socket: &Socket, refused: &[u32]) -> io::Result<()> {
    if refused.len() > 64 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    socket.attach_filter(&program(refused))
}

fn program(refused: &[u32]) -> Vec<SockFilter> {
    // Jumps count instructions after the next one; the last instruction refuses.
    let to_end = |at: usize, len: usize| u8::try_from(len - 2 - at).unwrap_or(u8::MAX);
    let len = 5 + refused.len();
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE.cast_unsigned()),
        SockFilter::new(JUMP_IF_EQUAL, 0, to_end(1, len), TO_THIS_HOST),
        SockFilter::new(LOAD_WORD, 0, 0, INTERFACE.cast_unsigned()),
    ];
    for index in refused {
        let at = program.len();
        program.push(SockFilter::new(JUMP_IF_EQUAL, to_end(at, len), 0, *index));
    }
    program.push(SockFilter::new(RETURN, 0, 0, WHOLE));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}
