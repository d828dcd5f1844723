//! How long the forwarder waits, and for how much at once.

use std::time::Duration;

use crate::cache::CacheLimits;

/// Times and bounds of a [`Forwarder`](crate::Forwarder).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwarderConfig {
    /// Silence of an upstream after which the next one is asked too.
    pub race_after: Duration,
    /// Silence of all upstreams after which they are asked again (UDP only).
    pub resend_after: Duration,
    /// Time from the query to SERVFAIL; below the five seconds after which libc's resolver asks
    /// again.
    pub give_up_after: Duration,
    /// Different questions under way. With more, the oldest of the tenant that has the most is
    /// answered with REFUSED, or the new one, when that is its own or it has as many.
    pub in_flight_max: usize,
    /// Clients that wait, over all questions. The same holds for them.
    pub waiters_max: usize,
    /// Bounds of the cache.
    pub cache: CacheLimits,
}

impl Default for ForwarderConfig {
    /// 400 ms, 1 s, 4 s; 1024 questions (as in Swarm), 4096 clients.
    fn default() -> Self {
        Self {
            race_after: Duration::from_millis(400),
            resend_after: Duration::from_secs(1),
            give_up_after: Duration::from_secs(4),
            in_flight_max: 1024,
            waiters_max: 4096,
            cache: CacheLimits::default(),
        }
    }
}
