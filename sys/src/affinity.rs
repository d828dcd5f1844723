//! Placement of threads on CPUs.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, sched_yield};

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_impossible_cpu_is_refused() {
        assert!(pin(usize::MAX).is_err());
    }
}
