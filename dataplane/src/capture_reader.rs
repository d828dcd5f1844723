//! The reading end of a capture.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::sync::Parker;

use crate::capture::{Capture, CaptureFilter, RECORDS, Record};
use crate::shared::Shared;

/// Somebody captures already.
#[derive(Debug, thiserror::Error)]
#[error("a capture is running on this node already: end it first")]
pub struct CaptureBusy;

/// The reading end. Dropping it ends the capture.
#[derive(Debug)]
pub struct CaptureReader {
    capture: Arc<Capture>,
    shared: Arc<Shared>,
    parker: Parker,
}

impl CaptureReader {
    pub(crate) fn start(shared: Arc<Shared>, filter: CaptureFilter) -> Result<Self, CaptureBusy> {
        let parker = Parker::new();
        let capture = Arc::new(Capture::new(filter, parker.unparker().clone()));
        let none: Option<Arc<Capture>> = None;
        let before = shared
            .capture
            .compare_and_swap(&none, Some(Arc::clone(&capture)));
        if before.is_some() {
            return Err(CaptureBusy);
        }
        // Every frame is to be seen: what the kernel carries comes back.
        if let Some(kernel) = shared.fast_path.get() {
            kernel.beat(&shared.capture);
        }
        // A worker that sleeps need not be woken: it looks before it reads its next frame.
        Ok(Self {
            capture,
            shared,
            parker,
        })
    }

    /// Gives every record that waits to `each`, after waiting for the first at most `timeout`.
    /// Returns how many there were.
    pub fn read(&self, timeout: Duration, mut each: impl FnMut(&Record)) -> usize {
        if self.capture.is_empty() {
            self.parker.park_timeout(timeout);
        }
        let mut count = 0;
        // Bounded, so that a flood does not keep the caller.
        while count < RECORDS
            && let Some(record) = self.capture.pop()
        {
            each(&record);
            count += 1;
            self.capture.give_back(record);
        }
        count
    }

    /// Frames that were wanted while every record was in use.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.capture.lost()
    }
}

impl Drop for CaptureReader {
    fn drop(&mut self) {
        self.shared.capture.store(None);
        if let Some(kernel) = self.shared.fast_path.get() {
            kernel.beat(&self.shared.capture);
        }
        // An idle worker would hold the records until its next frame.
        for inbox in &self.shared.inboxes {
            inbox.wakeup.notify();
        }
    }
}
