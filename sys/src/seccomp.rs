//! Filters of system calls for the calling thread and what it becomes: devices that cannot be made
//! ([`refuse_device_nodes`]), and calls that cannot be made at all ([`deny()`]). Of several filters the
//! strictest counts.

mod deny;
mod numbers;

use std::io;

#[doc(inline)]
pub use deny::{Denied, Masked, deny, is_known};

/// What one call does on one architecture: where its arguments `mode` and `dev` are.
struct MakeNode {
    number: u32,
    mode: u32,
    dev: u32,
}

/// `mknod` and `mknodat` of the kernel's tables; a kernel of 64 bits takes the calls of 32-bit
/// programs, too.
#[cfg(target_arch = "x86_64")]
const CALLS: [(u32, [MakeNode; 2]); 2] = [
    (0xc000_003e, [mknod(133), mknodat(259)]),
    (0x4000_0003, [mknod(14), mknodat(297)]),
];
#[cfg(target_arch = "aarch64")]
const CALLS: [(u32, [MakeNode; 2]); 2] = [
    // No `mknod` of its own.
    (0xc000_00b7, [mknodat(33), mknodat(33)]),
    (0x4000_0028, [mknod(14), mknodat(324)]),
];

/// Bit of the numbers of x32, which share the architecture with x86-64.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// What a filter answers.
const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;
/// The largest number of an error.
const LAST_ERRNO: u32 = 4095;

const fn mknod(number: u32) -> MakeNode {
    MakeNode {
        number,
        mode: argument(1),
        dev: argument(2),
    }
}

const fn mknodat(number: u32) -> MakeNode {
    MakeNode {
        number,
        mode: argument(2),
        dev: argument(3),
    }
}

/// The low half of an argument, where both architectures have it.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Refuses (`EPERM`) to make device nodes, but for 0:0, which is no device and marks what overlay
/// file systems have deleted. Holds for all programs that follow. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `EACCES` without that right, `EINVAL` where the kernel has no filters.
pub fn refuse_device_nodes() -> io::Result<()> {
    install(&mut program())
}

fn install(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and the instructions that it points to live for the call, the length is
    // theirs, and the kernel copies and verifies them.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn program() -> Vec<libc::sock_filter> {
    let mut code = Vec::new();
    for (architecture, calls) in CALLS {
        let mut block = vec![load(NUMBER), and(!X32)];
        for call in calls {
            block.extend([
                unless_equal(call.number, 9),
                load(call.mode),
                and(libc::S_IFMT),
                skip_if_equal(libc::S_IFBLK, 2),
                skip_if_equal(libc::S_IFCHR, 1),
                answer(ALLOWED),
                load(call.dev),
                skip_if_equal(0, 1),
                answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
                answer(ALLOWED),
            ]);
        }
        block.push(answer(ALLOWED));
        code.push(load(ARCHITECTURE));
        let len = u8::try_from(block.len()).unwrap_or(u8::MAX);
        code.push(unless_equal(architecture, len));
        code.extend(block);
    }
    // This kernel has no other architecture.
    code.push(answer(KILLED));
    code
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn and(mask: u32) -> libc::sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
}

fn unless_equal(value: u32, skip: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value)
}

fn skip_if_equal(value: u32, skip: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, 0, value)
}

fn jump(skip: u32) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, skip)
}

fn answer(what: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    use rustix::io::Errno;

    use super::*;

    /// A filter belongs to a thread, and each test has one of its own.
    #[test]
    fn devices_cannot_be_made_and_everything_else_can() {
        let dir = tempfile::tempdir().expect("dir");
        let mode = Mode::from_raw_mode(0o600);
        let make = |name: &str, kind, major, minor| {
            mknodat(
                CWD,
                dir.path().join(name),
                kind,
                mode,
                makedev(major, minor),
            )
        };
        make("before", FileType::CharacterDevice, 1, 3).expect("root may");
        refuse_device_nodes().expect("filter");
        let refused = Err(Errno::PERM);
        assert_eq!(make("null", FileType::CharacterDevice, 1, 3), refused);
        assert_eq!(make("disk", FileType::BlockDevice, 254, 0), refused);
        make("whiteout", FileType::CharacterDevice, 0, 0).expect("no device");
        make("fifo", FileType::Fifo, 0, 0).expect("no device");
        make("file", FileType::RegularFile, 0, 0).expect("no device");
        std::fs::write(dir.path().join("file"), "x").expect("any other call");
    }
}
