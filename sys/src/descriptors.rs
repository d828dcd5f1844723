//! Descriptors that a program is not to inherit.

use std::io;

/// Marks every descriptor from `first` on as closed on `exec`, also those that come from whoever
/// started this process. What is opened later is marked when it is opened.
///
/// Async-signal-safe: one system call.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only. It closes nothing now, so no owner of a descriptor in
    // this process notices.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn what_was_inheritable_is_not_any_more() {
        let file = std::fs::File::open("/dev/null").expect("open");
        fcntl_setfd(&file, FdFlags::empty()).expect("as if inherited");
        close_on_exec_from(file.as_raw_fd().unsigned_abs()).expect("marked");
        assert_eq!(fcntl_getfd(&file).expect("flags"), FdFlags::CLOEXEC);
    }
}
