//! Turns of sessions: so many bytes of secrets and configs are on their way at a time, whatever the number
//! of nodes, and who has more to send waits, in order.
//!
//! After a change of the leader every node opens a session at once, and has nothing of what its tasks use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

/// Bytes of all messages that have not gone out yet, which base64 makes 64 MiB.
pub(super) const ON_THE_WAY: usize = 48 << 20;

/// A node that does not read keeps others waiting for so long.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// How much may still go out.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// It may send so many bytes. Others may again once this is dropped, or too old.
#[derive(Debug)]
pub(super) struct Turn {
    bytes: usize,
    _gone: oneshot::Sender<()>,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ON_THE_WAY)))
    }
}

/// More than all of it would never come.
fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes.min(ON_THE_WAY)).unwrap_or(u32::MAX)
}

impl Turns {
    /// A turn where there is room and nobody waits.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Turn> {
        let permit = Arc::clone(&self.0).try_acquire_many_owned(counted(bytes));
        Some(Turn::new(permit.ok()?, bytes))
    }

    /// A turn once it comes. Whoever drops this gives up the place; it is kept while nobody looks.
    pub(super) fn queue(&self, bytes: usize) -> oneshot::Receiver<Turn> {
        let (mut give, given) = oneshot::channel();
        let free = Arc::clone(&self.0);
        tokio::spawn(async move {
            let permit = tokio::select! {
                permit = free.acquire_many_owned(counted(bytes)) => permit,
                () = give.closed() => return,
            };
            if let Ok(permit) = permit {
                drop(give.send(Turn::new(permit, bytes)));
            }
        });
        given
    }
}

impl Turn {
    fn new(permit: OwnedSemaphorePermit, bytes: usize) -> Self {
        let (gone, waits) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // Both ends are fine: it has gone, or its node does not read.
            drop(timeout(TURN_LIMIT, waits).await);
            drop(permit);
        });
        Self { bytes, _gone: gone }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_waits_in_order() {
        let turns = Turns::default();
        let half = turns.try_take(ON_THE_WAY / 2).unwrap();
        let most = turns.try_take(ON_THE_WAY / 2 - 1).unwrap();
        assert!(turns.try_take(2).is_none());
        let mut large = turns.queue(ON_THE_WAY / 2);
        let mut small = turns.queue(1);
        let given_up = turns.queue(ON_THE_WAY);
        let last = turns.queue(usize::MAX);
        yield_now().await;
        assert!(turns.try_take(1).is_none(), "nobody overtakes who waits");
        assert!(large.try_recv().is_err() && small.try_recv().is_err());

        let begun = Instant::now();
        drop(half);
        let large = large.await.unwrap();
        assert_eq!(large.bytes(), ON_THE_WAY / 2);
        let small = small.await.unwrap();
        drop(given_up);
        drop((most, large, small));
        last.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "no time has to pass");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_read_is_not_waited_for_for_ever() {
        let turns = Turns::default();
        let begun = Instant::now();
        let _stuck = turns.try_take(ON_THE_WAY).unwrap();
        // Nor one that was given its turn and does not take it.
        let _deaf = turns.queue(ON_THE_WAY);
        turns.queue(1).await.unwrap();
        assert!(
            begun.elapsed() >= 2 * TURN_LIMIT && begun.elapsed() < 3 * TURN_LIMIT,
            "{:?}",
            begun.elapsed()
        );
    }
}
