//! How many loopback messages each sender may send. Time is an argument.

use std::net::IpAddr;
use std::time::Duration;

use weft_wire::Instant;

/// Senders that are told apart; several may share one of these.
const SENDERS: usize = 64;
/// Messages that are taken of a sender at once.
const BURST: u16 = 64;
/// And one more after each such time: 200 in a second.
const EACH: Duration = Duration::from_millis(5);

/// What each sender may still say. Those that flood use up their own part.
#[derive(Debug)]
pub(crate) struct LoopbackBudget([(u16, Instant); SENDERS]);

impl Default for LoopbackBudget {
    fn default() -> Self {
        Self([(BURST, Instant(0)); SENDERS])
    }
}

impl LoopbackBudget {
    /// Whether one more message from there may be looked at.
    pub(crate) fn take(&mut self, now: Instant, from: IpAddr) -> bool {
        let bytes = match from.to_canonical() {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let (left, since) = &mut self.0[(bytes % SENDERS as u128) as usize];
        let gained = now.since(*since).as_nanos() / EACH.as_nanos();
        if gained > 0 {
            *left = u16::try_from(gained).map_or(BURST, |n| left.saturating_add(n).min(BURST));
            *since = now;
        }
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_floods_takes_its_own_part_only() {
        let mut budget = LoopbackBudget::default();
        let [greedy, quiet]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let start = Instant(1_000_000_000_000);
        let taken = (0..1000).filter(|_| budget.take(start, greedy)).count();
        assert_eq!(taken, usize::from(BURST));
        assert!(budget.take(start, quiet));
        let second = (1..=1000).map(|ms| start.after(Duration::from_millis(ms)));
        let taken = second.filter(|now| budget.take(*now, greedy)).count();
        assert_eq!(taken, 200);
        let later = start.after(Duration::from_secs(3600));
        let taken = (0..1000).filter(|_| budget.take(later, greedy)).count();
        assert_eq!(taken, usize::from(BURST));
    }
}
