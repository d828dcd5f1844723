//! Placement of threads on CPUs, and their turns there.

use std::io;
use std::mem;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity, sched_yield};

/// Pins the calling thread to one CPU, counted from 0 as in `/proc/cpuinfo`.
///
/// # Errors
/// When the CPU does not exist or the process may not use it (cpuset cgroup).
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "CPU {cpu} is beyond the {} that can be named",
                CpuSet::MAX_CPU
            ),
        ));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// Lets the calling thread run on these CPUs, counted as in [`pin`], wherever the scheduler finds best.
///
/// # Errors
/// When the process may use none of them.
pub fn allow(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    let known = cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU);
    known.for_each(|cpu| set.set(*cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPU that the calling thread is on at this moment.
#[must_use]
pub fn current_cpu() -> usize {
    sched_getcpu()
}

/// Lets the calling thread run on every CPU again that its cpuset has, whoever it was started by.
///
/// # Errors
/// Not seen in practice.
pub fn unpin() -> io::Result<()> {
    let mut set = CpuSet::new();
    // The kernel takes from it what there is.
    (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// CPUs that the calling thread may run on, ascending; never empty.
///
/// # Errors
/// As `sched_getaffinity(2)`; not seen in practice.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

/// Lets other threads that wait for this CPU run first; returns at once when there is none.
pub fn yield_cpu() {
    sched_yield();
}

/// Asks the scheduler for turns of this length for the calling thread, 0.1 to 100 ms. It gets no more
/// and no less of the CPU; with shorter turns it gets its part sooner when it wakes (Linux 6.12, EEVDF:
/// a custom slice). Priority and policy stay.
///
/// # Errors
/// `Unsupported` where the kernel has turns of one length only, or the thread is not one of the usual
/// policy; otherwise as `sched_setattr(2)`.
pub fn ask_for_slice(slice: Duration) -> io::Result<()> {
    let unsupported = |why: &str| io::Error::new(io::ErrorKind::Unsupported, why);
    let mut wanted = attributes()?;
    if wanted.sched_policy != libc::SCHED_OTHER as u32 {
        return Err(unsupported("the thread has a scheduling policy of its own"));
    }
    wanted.size = size_of::<libc::sched_attr>() as u32;
    wanted.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the pointer is to a live structure whose first field is its length; the kernel reads
    // that much of it. 0 is the calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0_usize, &raw const wanted, 0_usize) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // An older kernel takes the number and does nothing with it.
    if attributes()?.sched_runtime == wanted.sched_runtime {
        Ok(())
    } else {
        Err(unsupported(
            "the kernel has turns of one length only (it needs Linux 6.12)",
        ))
    }
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: a plain C structure for which zero bytes are a valid value.
    let mut found: libc::sched_attr = unsafe { mem::zeroed() };
    let len = size_of::<libc::sched_attr>();
    // SAFETY: the pointer is to a live structure of `len` bytes, and the kernel writes no more. 0 is
    // the calling thread.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            0_usize,
            &raw mut found,
            len,
            0_usize,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_are_given_or_said_to_be_impossible() {
        let ask = |slice| std::thread::spawn(move || (ask_for_slice(slice), attributes()));
        let before = attributes().expect("attributes");
        let slice = Duration::from_micros(100);
        let (asked, after) = ask(slice).join().expect("thread");
        let after = after.expect("attributes");
        assert_eq!(after.sched_nice, before.sched_nice);
        assert_eq!(after.sched_policy, before.sched_policy);
        match asked {
            Ok(()) => assert_eq!(after.sched_runtime, 100_000),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
        // No kernel gives turns that short: it is noticed that they are others.
        let (asked, _) = ask(Duration::from_nanos(1)).join().expect("thread");
        assert_eq!(asked.expect_err("1 ns").kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_pinned_thread_is_allowed_on_that_cpu_only() {
        std::thread::spawn(|| {
            let last = *allowed().expect("affinity").last().expect("one CPU");
            pin(last).expect("pin");
            assert_eq!(allowed().expect("affinity"), vec![last]);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn a_thread_that_was_pinned_is_let_go() {
        let before = allowed().unwrap();
        pin(before[0]).unwrap();
        unpin().unwrap();
        assert_eq!(allowed().unwrap(), before);
    }

    #[test]
    fn a_thread_is_on_one_of_the_cpus_that_it_is_allowed() {
        std::thread::spawn(|| {
            let all = allowed().expect("affinity");
            allow(&all[..1]).expect("the first one");
            assert_eq!(current_cpu(), all[0]);
            allow(&all).expect("all again");
            assert_eq!(allowed().expect("affinity"), all);
            assert!(allow(&[]).is_err());
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn an_impossible_cpu_is_refused() {
        assert!(pin(usize::MAX).is_err());
    }
}
