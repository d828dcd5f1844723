//! A thread for what waits for the disk, apart from the runtime's blocking threads.
//!
//! Those are many and not enough: each task that stops slowly, each look at the kernel takes one, and
//! when all are taken the next call waits for as long as the slowest of them. Orders and the
//! manager's changes may not queue there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Does one thing after the other. Ends with the value, after what was handed to it by then.
#[derive(Debug)]
pub(crate) struct DiskThread {
    /// Nothing when the kernel gave no thread: the runtime's threads have to do.
    work: Option<mpsc::Sender<Work>>,
}

/// What was to be done panicked, and that is in the log.
#[derive(Debug, thiserror::Error)]
#[error("a call that waited for the disk panicked; the log of weftd says where")]
pub(crate) struct Panicked;

impl DiskThread {
    /// Starts the thread; `name` has at most 15 bytes.
    pub(crate) fn start(name: &str) -> Self {
        let (sender, receiver) = mpsc::channel::<Work>();
        let run = move || {
            for work in receiver {
                // Whoever waits for the answer sees that none comes; the others go on.
                drop(catch_unwind(AssertUnwindSafe(work)));
            }
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let work = match started {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::warn!(name, %error, "no thread for the disk: it shares those of others");
                None
            }
        };
        Self { work }
    }

    /// Has `work` done and waits for it. It is done also when nobody waits any more.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Nobody may wait any more.
            drop(answer.send(work()));
        });
        match &self.work {
            // The thread lives as long as this sender.
            Some(thread) => drop(thread.send(work)),
            None => drop(tokio::task::spawn_blocking(work)),
        }
        answered.await.map_err(|_| Panicked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_works_while_every_blocking_thread_is_taken_and_outlives_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let slow = tokio::task::spawn_blocking(move || may_go_on.recv().is_ok());
            let thread = DiskThread::start("test-disk");
            let limit = Duration::from_secs(10);
            let done = tokio::time::timeout(limit, thread.run(|| 7)).await;
            assert_eq!(done.expect("not behind the slow one").expect("done"), 7);
            thread
                .run(|| -> u8 { panic!("on purpose") })
                .await
                .expect_err("a panic is told");
            assert_eq!(thread.run(|| 8).await.expect("done"), 8);
            go_on.send(()).expect("it waits");
            assert!(slow.await.expect("no panic"));
            let alone = DiskThread { work: None };
            assert_eq!(alone.run(|| 9).await.expect("done"), 9);
        });
    }
}
