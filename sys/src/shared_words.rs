//! A file in memory that outlives the process: words that every store leaves in it.

use std::fs::OpenOptions;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words of a mapped file. A store is in the file at once, for whoever maps it next, also after the
/// process was killed; only a crash of the machine may lose it. Pages that were never written take
/// no memory.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to this value alone and its words are atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `count` words of the file at `path`, which is made for this user alone, or gets the
    /// right length: new words are zero.
    ///
    /// # Errors
    /// The file cannot be opened, changed or mapped.
    pub fn open(path: &Path, count: usize) -> io::Result<Self> {
        let len = count.max(1) * size_of::<AtomicU64>();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.set_len(len as u64)?;
        // SAFETY: a new mapping of a file that is as long as the mapping; the file is private to
        // this user, who does not shorten it while it is mapped.
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
            start,
            count: count.max(1),
        })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, aligned to a page, and lives as long as `self`; any bits
        // are a valid word, and all access is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length, and nothing borrows from it now.
        let result = unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.count * size_of::<AtomicU64>(),
            )
        };
        debug_assert_eq!(result, 0, "a mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_are_there_for_the_next_who_maps_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("words");
        let words = SharedWords::open(&path, 1000).expect("mapped");
        assert_eq!(words.len(), 1000);
        words[999].store(7, Ordering::Relaxed);
        // Before the first is gone: it may have been killed.
        let again = SharedWords::open(&path, 1000).expect("mapped");
        assert_eq!(again[999].load(Ordering::Relaxed), 7);
        drop(words);
        let longer = SharedWords::open(&path, 2000).expect("mapped");
        assert_eq!(longer[999].load(Ordering::Relaxed), 7);
        assert_eq!(longer[1999].load(Ordering::Relaxed), 0);
    }
}
