//! Which worker's socket gets a datagram: a classic BPF program on the inner destination.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// The worker, of `workers`, that owns an endpoint address: the last four bytes as a big-endian
/// number, modulo the number of workers. Consecutive addresses spread evenly. The same rule as the
/// program of `VxlanSocket::attach_steering`. Zero workers count as one.
#[must_use]
pub fn worker_for(ip: IpAddr, workers: usize) -> usize {
    let tail = match ip {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(v6) => (u128::from(v6) & 0xffff_ffff) as u32,
    };
    tail as usize % workers.max(1)
}

/// The program sees the UDP payload: 8 bytes of VXLAN, 14 of Ethernet, then the inner packet. A
/// load beyond the end makes the result 0.
pub(super) fn attach(socket: &Socket, workers: usize) -> io::Result<()> {
    let workers = u32::try_from(workers.max(1)).map_err(io::Error::other)?;
    let mut program = program(workers);
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` points to `program`, both live for the call; the kernel copies the program.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn program(workers: u32) -> [libc::sock_filter; 12] {
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;
    const RETURN_K: u32 = libc::BPF_RET | libc::BPF_K;
    const FRAME: u32 = 8;
    const PACKET: u32 = FRAME + 14;
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    [
        op(LOAD_HALF, FRAME + 12, 0, 0),
        op(JUMP_EQUAL, 0x0800, 3, 0),          // 1: IPv4 -> 5
        op(JUMP_EQUAL, 0x86dd, 4, 0),          // 2: IPv6 -> 7
        op(JUMP_EQUAL, 0x0806, 5, 0),          // 3: ARP -> 9
        op(RETURN_K, 0, 0, 0),                 // 4: anything else -> first socket
        op(LOAD_WORD, PACKET + 16, 0, 0),      // 5: IPv4 destination
        op(JUMP, 3, 0, 0),                     // 6: -> 10
        op(LOAD_WORD, PACKET + 24 + 12, 0, 0), // 7: last word of the IPv6 destination
        op(JUMP, 1, 0, 0),                     // 8: -> 10
        op(LOAD_WORD, PACKET + 24, 0, 0),      // 9: ARP target address
        op(MODULO, workers, 0, 0),             // 10
        op(RETURN_A, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_four_bytes_decide() {
        assert_eq!(
            worker_for("10.0.0.7".parse().expect("ip"), 4),
            0x0a00_0007 % 4
        );
        assert_eq!(
            worker_for("fd00::a00:7".parse().expect("ip"), 4),
            0x0a00_0007 % 4
        );
        assert_eq!(worker_for("10.0.0.7".parse().expect("ip"), 1), 0);
        assert_eq!(worker_for("10.0.0.7".parse().expect("ip"), 0), 0);
    }
}
