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

/// The program sees the UDP payload: 8 bytes of VXLAN, then Ethernet. It looks at the inner
/// destination's Ethernet address, which ends with the IPv4 address of the endpoint
/// ([RFC 7348] frames for both families are steered alike, and so are frames that a gateway passes
/// on to somebody outside). A load beyond the end makes the result 0.
///
/// [RFC 7348]: https://www.rfc-editor.org/rfc/rfc7348
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

fn program(workers: u32) -> [libc::sock_filter; 3] {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;
    const VXLAN_HEADER: u32 = 8;
    let op = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    [
        // The last four of the six bytes of the inner destination.
        op(LOAD_WORD, VXLAN_HEADER + 2),
        op(MODULO, workers),
        op(RETURN_A, 0),
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
