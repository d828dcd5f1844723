//! How much of a snapshot has arrived: whoever waits for a state waits as long as parts of it come.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How far the snapshot is that arrives at present.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// Which one.
    of: String,
    bytes: u64,
}

impl Arrival {
    /// Takes note of a part of the snapshot `of` that ends at `end`. False where as much was there
    /// before: who sends the same again brings nothing.
    pub(super) fn note(&mut self, of: &str, end: u64) -> bool {
        if self.of != of {
            of.clone_into(&mut self.of);
            self.bytes = 0;
        }
        let is_more = end > self.bytes;
        self.bytes = self.bytes.max(end);
        is_more
    }
}

/// Waits until `there` is, and no longer than `limit` after the last part that arrived.
pub(super) async fn wait(
    there: impl Future,
    mut arrivals: watch::Receiver<Arrival>,
    limit: Duration,
) {
    let mut there = pin!(there);
    loop {
        let more = tokio::select! {
            _ = &mut there => return,
            more = timeout(limit, arrivals.changed()) => more,
        };
        if !matches!(more, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn only_more_is_news() {
        let mut arrival = Arrival::default();
        assert!(arrival.note("a", 10));
        assert!(!arrival.note("a", 10), "once more");
        assert!(!arrival.note("a", 5));
        assert!(arrival.note("a", 11));
        assert!(arrival.note("b", 3), "another one begins");
        assert!(!arrival.note("b", 3));
        assert!(!arrival.note("c", 0), "an empty one");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_does_so_while_parts_arrive() {
        let arrivals = watch::Sender::<Arrival>::default();
        let begun = Instant::now();
        let sends = async {
            for part in 1..=5 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                arrivals.send_if_modified(|arrival| arrival.note("a", part));
            }
            // The same again and again is as good as nothing.
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                arrivals.send_if_modified(|arrival| arrival.note("a", 5));
            }
        };
        let waits = wait(pending::<()>(), arrivals.subscribe(), LIMIT);
        tokio::select! {
            () = sends => {}
            () = waits => {}
        }
        assert_eq!(begun.elapsed().as_secs(), 5 * 9 + 10);
        wait(ready(()), arrivals.subscribe(), LIMIT).await;
        assert_eq!(begun.elapsed().as_secs(), 5 * 9 + 10);
    }
}
