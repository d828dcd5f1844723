//! Signals as something to wait for, for process 1 of a PID namespace.
//!
//! The kernel ignores what process 1 has no handler for, unless it is blocked: blocked signals
//! wait to be taken.

use std::io;
use std::mem::MaybeUninit;

/// Blocks every signal that can be blocked, in the calling thread and what it forks.
///
/// # Errors
/// Not seen in practice.
pub fn block_all() -> io::Result<()> {
    change(libc::SIG_BLOCK)
}

/// Undoes [`block_all`].
///
/// # Errors
/// Not seen in practice.
pub fn unblock_all() -> io::Result<()> {
    change(libc::SIG_UNBLOCK)
}

/// Takes the next blocked signal by its number, waiting for one.
///
/// # Errors
/// Not seen in practice.
pub fn wait() -> io::Result<i32> {
    let all = all();
    loop {
        // SAFETY: the set is initialised and lives; a null pointer asks for no details.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends a signal by its number to one process.
///
/// # Errors
/// `EPERM`. Nobody there is success.
pub fn send(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    let Some(pid) = pid else {
        return Ok(());
    };
    // SAFETY: takes numbers only.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) {
        Ok(())
    } else {
        Err(error)
    }
}

fn change(how: libc::c_int) -> io::Result<()> {
    let all = all();
    // SAFETY: the set is initialised and lives; the old one is not asked for.
    let error = unsafe { libc::pthread_sigmask(how, &raw const all, std::ptr::null_mut()) };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

fn all() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` writes the whole set, whose size it knows.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_waits_to_be_taken() {
        block_all().expect("block");
        // SAFETY: to this thread, which has blocked it.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        assert_eq!(wait().expect("wait"), libc::SIGUSR1);
        unblock_all().expect("unblock");
    }
}
