//! The files that a session writes in the background, until it has ended for good.

use std::sync::{Arc, Mutex, PoisonError};

/// Lets writes through until it is closed. Aborting an async task does not stop a write that it
/// has handed to another thread; this does.
#[derive(Debug, Clone, Default)]
pub(super) struct Writes(Arc<Mutex<Closed>>);

#[derive(Debug, Default)]
struct Closed(bool);

impl Writes {
    /// Writes on a thread that may block; does nothing, successfully, once closed.
    pub(super) async fn run<E: Send + 'static>(
        &self,
        write: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<Result<(), E>, tokio::task::JoinError> {
        let gate = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
            if closed.0 { Ok(()) } else { write() }
        })
        .await
    }

    /// Waits for a write that is under way; none begins after that.
    pub(super) async fn close(&self) {
        let gate = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || {
            gate.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "cannot wait for the session's files");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
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
