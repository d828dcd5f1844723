//! What the calling thread may do as root, and how it gives that up.
//!
//! Sets are bit masks by the kernel's numbers (capabilities(7)): bit 0 is `CAP_CHOWN`.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Takes every capability that is not in `keep` out of the calling thread's bounding set, so that
/// no program started from here ever has it, and empties the inheritable and the ambient set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`; some may be gone by then.
pub fn bound(keep: u64) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = 1_u64 << number;
        if keep & one != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one)) {
            Ok(()) => {}
            // The kernel knows no such number, nor a higher one.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    let mut sets = capabilities(None)?;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}

/// Gives up what the calling thread itself has beyond `keep`, for good.
///
/// # Errors
/// Not seen in practice: less is always allowed.
pub fn keep(keep: u64) -> io::Result<()> {
    let sets = capabilities(None)?;
    let left = sets.permitted & CapabilitySet::from_bits_retain(keep);
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// No program started from here gains rights by its file: set-user-id bits and file capabilities
/// mean nothing any more.
///
/// # Errors
/// Not seen in practice.
pub fn gain_nothing() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        u64::from_str_radix(line.expect("a line").trim(), 16).expect("hex")
    }

    /// Capabilities belong to a thread, and each test has one of its own.
    #[test]
    fn a_thread_keeps_what_it_names_and_nothing_else() {
        const CHOWN_AND_KILL: u64 = 1 | 1 << 5;
        let before = line("CapBnd:");
        bound(CHOWN_AND_KILL).expect("bound");
        assert_eq!(line("CapBnd:"), before & CHOWN_AND_KILL);
        assert_ne!(line("CapEff:"), before & CHOWN_AND_KILL, "its own, so far");
        keep(CHOWN_AND_KILL).expect("keep");
        for name in ["CapEff:", "CapPrm:"] {
            assert_eq!(line(name), before & CHOWN_AND_KILL, "{name}");
        }
        for name in ["CapInh:", "CapAmb:"] {
            assert_eq!(line(name), 0, "{name}");
        }
        assert!(bound(0).is_err(), "without CAP_SETPCAP");
        gain_nothing().expect("always allowed");
        assert_eq!(line("NoNewPrivs:"), 1);
    }
}
