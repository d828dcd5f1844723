//! Where a worker runs.
//!
//! One that polls has a CPU, and stays there: two that poll on one CPU would yield to each other, and a
//! scheduler that takes a poller for a program that computes moves it about. One that sleeps between
//! its packets is woken where the scheduler finds room, and where all CPUs are taken, mostly on that of
//! its packet's sender: it is not bound to the one where somebody computes. Two programs that
//! compute on two CPUs are the worst case: 64 bytes there and back take 2 times as long as by the kernel's own
//! path when sender, workers and receiver meet on one CPU, of a hundred the slowest too; when they do
//! not, as when workers are bound to CPUs, it is 3 times, and 60 times for the slowest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weft_sys::affinity::{allow, current_cpu, pin};

/// The CPUs that workers may have, each for one of them.
#[derive(Debug)]
pub(crate) struct Places {
    cpus: Vec<usize>,
    taken: Vec<AtomicBool>,
}

impl Places {
    /// All free.
    pub(crate) fn new(cpus: Vec<usize>) -> Self {
        let taken = cpus.iter().map(|_| AtomicBool::new(false)).collect();
        Self { cpus, taken }
    }

    pub(crate) fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Takes one of `wanted`, the first that is free, else any. None when all are taken.
    fn take(&self, wanted: [Option<usize>; 2]) -> Option<usize> {
        let wanted = wanted.into_iter().flatten();
        let mut all = wanted.chain(self.cpus.iter().copied());
        all.find(|cpu| {
            self.flag(*cpu)
                .is_some_and(|taken| !taken.swap(true, Ordering::AcqRel))
        })
    }

    fn give_back(&self, cpu: usize) {
        if let Some(taken) = self.flag(cpu) {
            taken.store(false, Ordering::Release);
        }
    }

    fn flag(&self, cpu: usize) -> Option<&AtomicBool> {
        let at = self.cpus.iter().position(|other| *other == cpu)?;
        self.taken.get(at)
    }
}

/// What [`Place::told`] says of a worker that wants a CPU and is refused it.
pub(crate) const REFUSED: u64 = u64::MAX;

/// The place of one worker, of the thread that calls it.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// The CPU that it would have by its number.
    home: usize,
    at: Option<usize>,
    refused: bool,
}

impl Place {
    /// Nowhere in particular yet.
    pub(crate) fn new(places: Arc<Places>, home: usize) -> Self {
        Self {
            places,
            home,
            at: None,
            refused: false,
        }
    }

    /// Takes a CPU for a worker that polls, where it is by now if it can, and lets it go for one that does
    /// not. `told` is where others see it: one more than the CPU, 0 for none, or [`REFUSED`]. True when
    /// the worker may poll. No system call where nothing changes.
    pub(crate) fn follow(&mut self, polls: bool, told: &AtomicU64) -> bool {
        match (polls, self.at) {
            (true, None) => self.settle(told),
            (false, Some(cpu)) => {
                self.leave(cpu, told);
                false
            }
            (polls, at) => polls && at.is_some(),
        }
    }

    fn settle(&mut self, told: &AtomicU64) -> bool {
        // Who is not let polls where it is, as workers that share CPUs always did.
        if self.refused {
            return true;
        }
        let wanted = [Some(current_cpu()), Some(self.home)];
        let Some(cpu) = self.places.take(wanted) else {
            return false;
        };
        match pin(cpu) {
            Ok(()) => {
                self.at = Some(cpu);
                told.store(cpu as u64 + 1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(cpu, %error, "the worker is not pinned");
                self.places.give_back(cpu);
                self.refused = true;
                told.store(REFUSED, Ordering::Relaxed);
            }
        }
        true
    }

    fn leave(&mut self, cpu: usize, told: &AtomicU64) {
        match allow(self.places.cpus()) {
            Ok(()) => {
                self.at = None;
                self.places.give_back(cpu);
                told.store(0, Ordering::Relaxed);
            }
            // It stays, and sleeps there.
            Err(error) => tracing::debug!(cpu, %error, "the worker stays on its CPU"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(cpu) = self.at {
            self.places.give_back(cpu);
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_sys::affinity::allowed;

    use super::*;

    #[test]
    fn a_cpu_is_one_workers_only_and_the_wanted_one_comes_first() {
        let places = Places::new(vec![2, 5, 7]);
        assert_eq!(places.take([Some(5), Some(2)]), Some(5));
        assert_eq!(places.take([Some(5), Some(2)]), Some(2));
        // One that it may not have.
        assert_eq!(places.take([Some(3), None]), Some(7));
        assert_eq!(places.take([Some(5), Some(2)]), None);
        places.give_back(2);
        assert_eq!(places.take([None, None]), Some(2));
    }

    #[test]
    fn who_polls_has_a_cpu_and_who_sleeps_has_all() {
        std::thread::spawn(|| {
            let all = allowed().expect("affinity");
            let places = Arc::new(Places::new(all.clone()));
            let told = AtomicU64::new(0);
            let mut place = Place::new(Arc::clone(&places), all[0]);
            assert!(!place.follow(false, &told));
            assert_eq!(allowed().expect("affinity"), all);

            assert!(place.follow(true, &told));
            let cpu = allowed().expect("affinity");
            assert_eq!(cpu.len(), 1);
            assert_eq!(told.load(Ordering::Relaxed), cpu[0] as u64 + 1);
            assert!(place.follow(true, &told), "nothing changes");

            assert!(!place.follow(false, &told));
            assert_eq!(allowed().expect("affinity"), all);
            assert_eq!(told.load(Ordering::Relaxed), 0);

            // The others have all of them.
            while places.take([None, None]).is_some() {}
            assert!(!place.follow(true, &told), "it may not poll");
            assert_eq!(allowed().expect("affinity"), all);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn a_worker_that_may_not_choose_its_cpu_polls_where_it_is() {
        std::thread::spawn(|| {
            let places = Arc::new(Places::new(vec![usize::MAX]));
            let told = AtomicU64::new(0);
            let mut place = Place::new(places, usize::MAX);
            assert!(place.follow(true, &told));
            assert_eq!(told.load(Ordering::Relaxed), REFUSED);
            assert!(place.follow(true, &told));
        })
        .join()
        .expect("thread");
    }
}
