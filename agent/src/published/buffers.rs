//! Buffers that connections borrow only while bytes are on their way, so that an idle connection
//! holds none.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Size of one buffer, bytes: the largest datagram, and enough TCP bytes to make a system call
/// worth it.
const BUFFER_BYTES: usize = 65_536;
/// Buffers kept for later.
const SPARE: usize = 32;

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A borrowed buffer; goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(crate) fn take() -> Self {
        let spare = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(spare.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < SPARE {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}
