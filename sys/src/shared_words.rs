//! A file in memory that outlives the process: words that every store leaves in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::replace_file::PRIVATE;

/// Words of a mapped file, as many as were reserved. A store is in the file at once, for whoever
/// maps it next, also after the process was killed; only a crash of the machine may lose it.
///
/// Memory of a mapped file is found when it is touched first, and a file system without room answers
/// that with `SIGBUS`. So no word is shown before its room was asked for and given.
#[derive(Debug)]
pub struct SharedWords {
    /// Locked while it is mapped: nobody else of this program shortens it.
    file: File,
    start: NonNull<AtomicU64>,
    /// Words of the mapping.
    capacity: usize,
    /// Words that have their room.
    reserved: usize,
}

// SAFETY: the mapping belongs to this value alone and its words are atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the file at `path`, which is made for this user alone, for up to `capacity` words; none
    /// of them is [reserved](Self::reserve) yet.
    ///
    /// # Errors
    /// The file cannot be opened or mapped; somebody else has it mapped.
    pub fn open(path: &Path, capacity: usize) -> io::Result<Self> {
        let capacity = capacity.max(1);
        let len = capacity
            .checked_mul(size_of::<AtomicU64>())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process uses it",
                ));
            }
            Err(error) => return Err(error.into()),
        }
        // SAFETY: a new mapping of an open file, which may be shorter: what lies beyond its end is
        // not touched (see `reserved`).
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self {
            file,
            start,
            capacity,
            reserved: 0,
        })
    }

    /// Asks for the room of the first `count` words, or of all when there are fewer: those that the
    /// file did not have are zero. The file is never shortened.
    ///
    /// # Errors
    /// `ENOSPC`, or a file system that cannot reserve room; what was reserved before stays so.
    pub fn reserve(&mut self, count: usize) -> io::Result<()> {
        let count = count.min(self.capacity);
        if count <= self.reserved {
            return Ok(());
        }
        let bytes = |words: usize| (words * size_of::<AtomicU64>()) as u64;
        let (from, to) = (bytes(self.reserved), bytes(count));
        fallocate(&self.file, FallocateFlags::empty(), from, to - from)?;
        self.reserved = count;
        Ok(())
    }

    /// Words that may be reserved.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is at least that long, aligned to a page, and lives as long as `self`;
        // any bits are a valid word, and all access is atomic. The file has room for these words
        // (`reserve`), and whoever would shorten it takes its lock first, which this value holds.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.reserved) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length, and nothing borrows from it now.
        let result = unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.capacity * size_of::<AtomicU64>(),
            )
        };
        debug_assert_eq!(result, 0, "a mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_are_there_for_the_next_who_maps_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("words");
        let mut words = SharedWords::open(&path, 1000).expect("mapped");
        assert!(words.is_empty());
        words.reserve(10).expect("room");
        assert_eq!(words.len(), 10);
        words.reserve(5000).expect("room");
        assert_eq!((words.len(), words.capacity()), (1000, 1000));
        words[999].store(7, Ordering::Relaxed);
        let busy = SharedWords::open(&path, 10).expect_err("mapped already");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        // As when the process was killed: nothing is done at the end.
        drop(words);
        let mut fewer = SharedWords::open(&path, 10).expect("mapped");
        fewer.reserve(10).expect("room");
        assert_eq!(fewer.len(), 10);
        drop(fewer);
        let mut longer = SharedWords::open(&path, 2000).expect("mapped");
        longer.reserve(2000).expect("room");
        assert_eq!(longer[999].load(Ordering::Relaxed), 7);
        assert_eq!(longer[1999].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_word_is_shown_that_a_full_disk_has_no_room_for() {
        let disk = namespaces::unmounted_tmpfs(64 << 10).expect("a small disk");
        let path = format!("/proc/self/fd/{}/words", disk.as_raw_fd());
        let mut words = SharedWords::open(path.as_ref(), 1 << 20).expect("mapped");
        words.reserve(4 << 10).expect("32 KiB fit");
        let full = words.reserve(16 << 10).expect_err("128 KiB do not");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(words.len(), 4 << 10);
        for word in words.iter() {
            word.store(1, Ordering::Relaxed);
        }
    }
}
