//! The files that a session writes in the background, until it has ended for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk_thread::{DiskThread, Panicked};

/// Lets writes through until it is closed. Aborting an async task does not stop a write that it
/// has handed to another thread; this does.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    /// One thread, so that one write comes after the other.
    thread: Arc<DiskThread>,
    closed: Arc<AtomicBool>,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            thread: Arc::new(DiskThread::start("weft-orders")),
            closed: Arc::default(),
        }
    }
}

impl Writes {
    /// Writes on a thread that may block; does nothing, successfully, once closed.
    pub(super) async fn run<E: Send + 'static>(
        &self,
        write: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<Result<(), E>, Panicked> {
        let closed = Arc::clone(&self.closed);
        let write = move || {
            if closed.load(Ordering::SeqCst) {
                return Ok(());
            }
            write()
        };
        self.thread.run(write).await
    }

    /// Waits for a write that is under way; none begins after that.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Whatever was begun before is over when the thread comes to this.
        if let Err(error) = self.thread.run(|| ()).await {
            tracing::error!(%error, "cannot wait for the session's files");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_after_closing_and_closing_waits() {
        let writes = Writes::default();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let done = Arc::new(AtomicBool::new(false));
        let (inner, finished) = (writes.clone(), Arc::clone(&done));
        let task = tokio::spawn(async move {
            inner
                .run(move || {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    finished.store(true, Ordering::SeqCst);
                    Ok::<_, ()>(())
                })
                .await
        });
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap())
            .await
            .unwrap();
        task.abort();
        let closing = writes.close();
        tokio::pin!(closing);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), &mut closing);
        assert!(early.await.is_err(), "closed during a write");
        go_on.send(()).unwrap();
        closing.await;
        assert!(done.load(Ordering::SeqCst));
        let late: Result<(), ()> = writes.run(|| Err(())).await.unwrap();
        assert_eq!(late, Ok(()), "ran although closed");
    }
}
