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
    fn an_impossible_cpu_is_refused() {
        assert!(pin(usize::MAX).is_err());
    }
}
