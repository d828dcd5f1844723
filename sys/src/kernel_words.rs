//! Memory that this process shares with programs in the kernel.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words of a BPF array that was made to be mapped (`BPF_F_MMAPABLE`, Linux 5.5): a load or store is
/// one of the kernel's memory, without a call.
#[derive(Debug)]
pub struct KernelWords {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and its words are atomics.
unsafe impl Send for KernelWords {}
// SAFETY: as above.
unsafe impl Sync for KernelWords {}

impl KernelWords {
    /// Maps the first `len` words of an array. Elements lie one behind the other, each rounded up to
    /// a whole word.
    ///
    /// # Errors
    /// It is no such array, or shorter.
    pub fn map(array: impl AsFd, len: usize) -> io::Result<Self> {
        let bytes = len
            .checked_mul(size_of::<AtomicU64>())
            .filter(|bytes| *bytes > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping of an open descriptor. The kernel refuses a length that the array
        // does not have, and its pages stay for as long as they are mapped.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                array.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, len })
    }
}

impl Deref for KernelWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, aligned to a page, and lives as long as `self`; any bits
        // are a valid word, and all access is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for KernelWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `map` with this length, and nothing borrows from it now.
        let result = unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.len * size_of::<AtomicU64>(),
            )
        };
        debug_assert_eq!(result, 0, "a mapping can be unmapped");
    }
}
