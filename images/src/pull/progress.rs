//! How far a pull is, for whoever looks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of an image that are here, and of how many. Read by others while a pull writes it.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of configuration and layers as they are sent; 0 while the manifest is not here.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many of them are here.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The same in percent, 100 at most; `None` while the total is not known.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let total = self.total();
        let done = self.done().min(total);
        (total > 0).then(|| (u128::from(done) * 100 / u128::from(total)) as u8)
    }

    pub(super) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

/// One blob's part in the progress: what was counted for it, so that it can be taken back.
#[derive(Debug)]
pub(super) struct Part<'a> {
    progress: &'a Progress,
    counted: u64,
}

impl<'a> Part<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self {
            progress,
            counted: 0,
        }
    }

    /// So much of the blob is here: more than before, or less.
    pub(super) fn reached(&mut self, bytes: u64) {
        let done = &self.progress.done;
        if bytes >= self.counted {
            done.fetch_add(bytes - self.counted, Ordering::Relaxed);
        } else {
            done.fetch_sub(self.counted - bytes, Ordering::Relaxed);
        }
        self.counted = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_all_parts() {
        let progress = Progress::new();
        assert_eq!(progress.percent(), None);
        progress.begin(200);
        assert_eq!(progress.percent(), Some(0));
        let mut one = Part::new(&progress);
        let mut other = Part::new(&progress);
        one.reached(50);
        other.reached(18);
        assert_eq!((progress.done(), progress.percent()), (68, Some(34)));
        one.reached(0);
        assert_eq!(progress.done(), 18);
        one.reached(100);
        other.reached(100);
        assert_eq!(progress.percent(), Some(100));
        progress.begin(u64::MAX);
        assert_eq!(progress.percent(), Some(0));
    }
}
