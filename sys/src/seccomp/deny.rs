//! System calls that are denied by name.

use std::io;

use super::numbers::{CALLS, COLUMNS, NONE};
use super::{
    ALLOWED, ARCHITECTURE, KILLED, LAST_ERRNO, NUMBER, X32, and, answer, argument, install, jump,
    load, skip_if_equal, unless_equal,
};

/// A system call that is answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// As in the kernel's tables.
    pub name: String,
    /// The answer, 4095 at most.
    pub errno: u16,
    /// Only with such an argument; always when absent.
    pub when: Option<Masked>,
}

/// An argument of a system call: what is left of it by the mask is the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masked {
    /// From 0 to 5.
    pub index: u32,
    /// Of its lower half; the other one does not count.
    pub mask: u32,
    /// What is left.
    pub value: u32,
}

/// True for a call whose numbers are known here: only such can be denied.
#[must_use]
pub fn is_known(name: &str) -> bool {
    CALLS.iter().any(|(known, _)| *known == name)
}

/// Denies these system calls to the calling thread, and to all programs that follow: also to those of 32
/// bits, by their own numbers. A call that the machine has not got is denied already. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// `Unsupported` for a call that is not known here ([`is_known`]), `InvalidInput` for what cannot be said
/// to the kernel; `EACCES` without the right, `EINVAL` where the kernel has no filters.
pub fn deny(denied: &[Denied]) -> io::Result<()> {
    for call in denied {
        if !is_known(&call.name) {
            let why = format!("the number of system call {:?} is not known", call.name);
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let index = call.when.map_or(0, |when| when.index);
        if index > 5 || u32::from(call.errno) > LAST_ERRNO {
            let why = format!("system call {:?} cannot be denied so", call.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    install(&mut program(denied)?)
}

fn program(denied: &[Denied]) -> io::Result<Vec<libc::sock_filter>> {
    let mut code = Vec::new();
    for (architecture, column) in COLUMNS {
        let mut block = vec![load(NUMBER), and(!X32)];
        for call in denied {
            let rows = CALLS.iter().filter(|(name, _)| *name == call.name);
            let numbers = rows.map(|(_, numbers)| numbers[column]);
            for number in numbers.filter(|number| *number != NONE) {
                block.extend(rule(number, call));
            }
        }
        block.push(answer(ALLOWED));
        // A conditional jump goes 255 instructions far.
        let len = u32::try_from(block.len()).map_err(io::Error::other)?;
        code.extend([
            load(ARCHITECTURE),
            skip_if_equal(architecture, 1),
            jump(len),
        ]);
        code.extend(block);
    }
    // This kernel has no other architecture.
    code.push(answer(KILLED));
    Ok(code)
}

/// With the number of the call loaded before, and after it.
fn rule(number: u32, call: &Denied) -> Vec<libc::sock_filter> {
    let refused = answer(libc::SECCOMP_RET_ERRNO | u32::from(call.errno));
    match call.when {
        None => vec![unless_equal(number, 1), refused],
        Some(when) => vec![
            unless_equal(number, 6),
            load(argument(when.index)),
            and(when.mask),
            unless_equal(when.value, 1),
            refused,
            load(NUMBER),
            and(!X32),
        ],
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    fn always(name: &str, errno: u16) -> Denied {
        Denied {
            name: name.to_owned(),
            errno,
            when: None,
        }
    }

    /// `clone(2)` with these flags that makes nothing: they contradict each other.
    fn clone(flags: libc::c_int) -> i32 {
        let flags = u64::from((flags | libc::CLONE_SIGHAND).unsigned_abs());
        let none = 0_u64;
        // SAFETY: CLONE_SIGHAND without CLONE_VM is refused by every kernel before it makes anything.
        let result = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
        assert_eq!(result, -1);
        io::Error::last_os_error().raw_os_error().expect("one")
    }

    fn unshare() -> rustix::io::Result<()> {
        // SAFETY: a thread of a test gets its own working directory, and no descriptors.
        unsafe { unshare_unsafe(UnshareFlags::FS) }
    }

    /// A filter belongs to a thread, and is there to its end.
    fn on_a_thread(test: fn()) {
        std::thread::spawn(test).join().expect("it holds");
    }

    #[test]
    fn what_is_denied_fails_and_everything_else_does_not() {
        on_a_thread(some_are_denied);
    }

    fn some_are_denied() {
        unshare().expect("before");
        assert_eq!(clone(libc::CLONE_NEWUSER), libc::EINVAL);
        let flags = |flag: libc::c_int| Denied {
            when: Some(Masked {
                index: 0,
                mask: flag.unsigned_abs(),
                value: flag.unsigned_abs(),
            }),
            ..always("clone", 1)
        };
        deny(&[
            always("unshare", 1),
            flags(libc::CLONE_NEWUSER),
            flags(libc::CLONE_NEWNS),
            always("clone3", 38),
        ])
        .expect("filter");
        assert_eq!(unshare(), Err(Errno::PERM));
        assert_eq!(clone(libc::CLONE_NEWUSER), libc::EPERM);
        assert_eq!(clone(libc::CLONE_NEWNS | libc::CLONE_NEWPID), libc::EPERM);
        // Not by the filter.
        assert_eq!(clone(libc::CLONE_NEWPID), libc::EINVAL);
        assert_eq!(clone(0), libc::EINVAL);
        // By clone(2), as the C library does where clone3(2) is not implemented.
        std::thread::spawn(|| {}).join().expect("a thread");
        std::fs::read("/proc/self/stat").expect("any other call");
    }

    #[test]
    fn everything_at_once_is_a_filter_that_the_kernel_takes() {
        on_a_thread(|| {
            let names = CALLS.iter().map(|(name, _)| always(name, 1));
            deny(&names.collect::<Vec<_>>()).expect("filter");
            assert_eq!(unshare(), Err(Errno::PERM));
        });
    }

    #[test]
    fn what_cannot_be_denied_is_said() {
        let error = deny(&[always("no_such_call", 1)]).expect_err("not known");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("no_such_call"), "{error}");
        let error = deny(&[always("mount", 5000)]).expect_err("no error");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_numbers_are_those_of_the_machine() {
        let native = COLUMNS[0].1;
        for (name, number) in [
            ("mount", libc::SYS_mount),
            ("unshare", libc::SYS_unshare),
            ("setns", libc::SYS_setns),
            ("clone", libc::SYS_clone),
            ("clone3", libc::SYS_clone3),
            ("keyctl", libc::SYS_keyctl),
            ("bpf", libc::SYS_bpf),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("finit_module", libc::SYS_finit_module),
        ] {
            let mut rows = CALLS.iter().filter(|(known, _)| *known == name);
            let found = rows.next().map(|(_, numbers)| i64::from(numbers[native]));
            assert_eq!(found, Some(number), "{name}");
        }
    }
}
