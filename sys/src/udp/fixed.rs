//! Memory that the kernel is given pointers into.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A slice that never moves, reached through one pointer for as long as it lives. Pointers from
/// [`Fixed::at`] stay valid whatever is read or written through the slice meanwhile, which those
/// taken from a `&mut [T]` would not.
pub(super) struct Fixed<T>(NonNull<[T]>);

// SAFETY: it owns its elements like a `Box<[T]>`.
unsafe impl<T: Send> Send for Fixed<T> {}

impl<T: Clone> Fixed<T> {
    pub(super) fn new(value: T, len: usize) -> Self {
        let slice = vec![value; len].into_boxed_slice();
        Self(NonNull::from(Box::leak(slice)))
    }
}

impl<T> Fixed<T> {
    /// Address of element `index`, which must be there.
    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len(), "element {index} of {}", self.0.len());
        // SAFETY: inside the allocation, as just checked.
        unsafe { self.0.as_ptr().cast::<T>().add(index) }
    }
}

impl<T> Deref for Fixed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: allocated and initialised in `new`, freed in `drop` only; nothing writes to it
        // while `self` is borrowed but the kernel, during calls that borrow it mutably.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Fixed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: it came from a box in `new`, and is not used again.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_outlive_what_is_done_to_the_slice() {
        let mut numbers = Fixed::new(7_u32, 3);
        let (first, last) = (numbers.at(0), numbers.at(2));
        numbers[1] = 8;
        numbers.reverse();
        // SAFETY: elements of `numbers`, which lives and is not borrowed.
        unsafe {
            *first = 1;
            *last = 3;
        }
        assert_eq!(&*numbers, [1, 8, 3]);
    }

    #[test]
    #[should_panic(expected = "element 3 of 3")]
    fn there_is_no_pointer_beyond_the_end() {
        Fixed::new(0_u8, 3).at(3);
    }
}
