//! Whether datagrams that the kernel carries are still an exchange, and arrive.
//!
//! Programs do not hear what becomes of a packet, and nobody sends a datagram again as TCP does. What
//! shows is how many there were in each direction: a request without an answer is alone, and where
//! answers do not reach who has asked, the exchange goes on no faster than he asks again. So a slow
//! one is taken for one whose datagrams are lost; in a true one wake-ups are few, and workers carry it
//! as well.

use std::time::Duration;

use weft_wire::Instant;

/// Looks that follow each other faster say nothing.
const SHORTEST: Duration = Duration::from_millis(500);
/// So many of one direction and none of the other, at two looks, have no answer.
const UNANSWERED: u64 = 4;
/// More than that in excess of what the other direction explains is a stream.
const FEW: u64 = 16;
/// Requests of one answer, or answers of one request.
const RATIO: u64 = 4;
/// More in one second and one direction do not wait for each other: a round trip of two programs that
/// sleep takes longer than 10 µs.
const PIPELINED: u64 = 100_000;
/// No more in one second, of both directions together, are slow.
const SLOW: u64 = 4;
/// Looks at which a flow was slow; those at which it was silent are not counted.
const SLOW_LOOKS: u8 = 3;

/// How long a stream stays with the workers: it may be one for a moment only.
const STREAM: Duration = Duration::from_secs(10);
/// How long a flow does that has no answers by the kernel.
const NO_ANSWER: Duration = Duration::from_secs(60);
/// How long a flow does that gains nothing.
pub(super) const NO_USE: Duration = Duration::from_secs(300);

/// One flow of datagrams, as it was at the last look.
#[derive(Debug)]
pub(super) struct Exchange {
    at: Instant,
    /// Of each direction.
    carried: [u64; 2],
    /// Datagrams of one direction since there was one of the other, and looks at that.
    alone: u64,
    alone_looks: u8,
    slow_looks: u8,
}

impl Exchange {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            at: now,
            carried: [0; 2],
            alone: 0,
            alone_looks: 0,
            slow_looks: 0,
        }
    }

    /// Looks at how many datagrams of each direction the kernel has carried. How long the flow is to
    /// stay with the workers, where it is.
    pub(super) fn look(&mut self, carried: [u64; 2], now: Instant) -> Option<Duration> {
        let passed = now.since(self.at);
        if passed < SHORTEST {
            return None;
        }
        let out = carried[0].saturating_sub(self.carried[0]);
        let back = carried[1].saturating_sub(self.carried[1]);
        (self.at, self.carried) = (now, carried);
        let (more, less) = (out.max(back), out.min(back));
        if less > 0 {
            (self.alone, self.alone_looks) = (0, 0);
        } else if self.alone + more > 0 {
            self.alone += more;
            self.alone_looks = self.alone_looks.saturating_add(1);
        }
        if self.alone > FEW || (self.alone >= UNANSWERED && self.alone_looks >= 2) {
            return Some(NO_ANSWER);
        }
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let is_pipelined = more.saturating_mul(1000) / millis.max(1) > PIPELINED;
        if is_pipelined || more > RATIO.saturating_mul(less).saturating_add(FEW) {
            return Some(STREAM);
        }
        match more + less {
            0 => {}
            1..=SLOW => self.slow_looks += 1,
            _ => self.slow_looks = 0,
        }
        (self.slow_looks >= SLOW_LOOKS).then_some(NO_USE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second, at what was carried in each; the first verdict, and after which second.
    fn watch(seconds: &[[u64; 2]]) -> Option<(usize, Duration)> {
        let mut exchange = Exchange::new(Instant(0));
        let mut carried = [0; 2];
        for (i, new) in seconds.iter().enumerate() {
            carried = [carried[0] + new[0], carried[1] + new[1]];
            let now = Instant(0).after(Duration::from_secs(1 + i as u64));
            if let Some(stays) = exchange.look(carried, now) {
                return Some((i, stays));
            }
        }
        None
    }

    #[test]
    fn an_exchange_stays_with_the_kernel() {
        assert_eq!(watch(&[[20_000, 20_000]; 60]), None);
        assert_eq!(watch(&[[3, 3]; 60]), None);
        assert_eq!(watch(&[[30, 30], [0, 0], [0, 0], [1, 1]].repeat(10)), None);
        // Three answers for each request.
        assert_eq!(watch(&[[500, 1500]; 60]), None);
        // The last answer of a second comes in the next one.
        assert_eq!(watch(&[[10, 9], [9, 10]].repeat(20)), None);
    }

    #[test]
    fn a_stream_does_not() {
        assert_eq!(watch(&[[50, 50], [5_000, 40]]), Some((1, STREAM)));
        assert_eq!(watch(&[[50, 50], [40, 5_000]]), Some((1, STREAM)));
        assert_eq!(watch(&[[150_000, 150_000]]), Some((0, STREAM)));
    }

    #[test]
    fn nor_does_what_has_no_answer() {
        assert_eq!(watch(&[[50, 50], [17, 0]]), Some((1, NO_ANSWER)));
        assert_eq!(watch(&[[50, 50], [3, 0], [2, 0]]), Some((2, NO_ANSWER)));
        assert_eq!(watch(&[[50, 50], [4, 0], [0, 0]]), Some((2, NO_ANSWER)));
        // The node of the one who does not answer sees it, too.
        assert_eq!(watch(&[[50, 50], [0, 3], [0, 1]]), Some((2, NO_ANSWER)));
        // Three and silence: nobody asks any more.
        assert_eq!(watch(&[[50, 50], [3, 0], [0, 0], [0, 0]]), None);
    }

    #[test]
    fn nor_does_what_goes_on_as_slowly_as_somebody_asks_again() {
        let asks = [[1, 1], [0, 0], [0, 0]].repeat(3);
        let seconds = [[[50, 50]].as_slice(), asks.as_slice()].concat();
        assert_eq!(watch(&seconds), Some((7, NO_USE)));
        assert_eq!(watch(&[[2, 2]; 3]), Some((2, NO_USE)));
        assert_eq!(watch(&[[2, 2], [2, 2], [4, 4], [2, 2], [2, 2]]), None);
    }

    #[test]
    fn looks_that_follow_each_other_at_once_say_nothing() {
        let mut exchange = Exchange::new(Instant(0));
        let millis = |millis| Instant(0).after(Duration::from_millis(millis));
        assert_eq!(exchange.look([5_000, 0], millis(499)), None);
        assert_eq!(exchange.look([5_000, 5_000], millis(500)), None);
        // Of half a second.
        let of_half = [5_000 + 60_000, 5_000 + 60_000];
        assert_eq!(exchange.look(of_half, millis(1000)), Some(STREAM));
    }
}
