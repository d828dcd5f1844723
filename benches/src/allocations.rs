//! An allocator that counts, to prove that the packet path does not allocate.
#![expect(
    unsafe_code,
    reason = "a global allocator cannot be written without; it forwards to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of all threads.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Counts allocations of each thread. To be installed with `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

// SAFETY: every method forwards its arguments unchanged to the system's allocator, which upholds
// the contract; counting touches a thread-local cell without a destructor and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

fn count() {
    COUNT.set(COUNT.get() + 1);
    TOTAL.fetch_add(1, Ordering::Relaxed);
}

/// The same of all threads of the process.
pub fn allocations_of_all(work: impl FnOnce()) -> u64 {
    let before = TOTAL.load(Ordering::Relaxed);
    work();
    TOTAL.load(Ordering::Relaxed) - before
}

/// Allocations and reallocations that this thread makes while `work` runs. Always 0 where
/// [`Counting`] is not installed.
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}
