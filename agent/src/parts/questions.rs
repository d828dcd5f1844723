//! Questions to other nodes that are under way, and those of others that are to be told of.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weft_dataplane::HeardLoopback;
use weft_wire::Instant;
use weft_wire::loopback::Loopback;

/// Nodes whose questions are told of at a time.
const MOST_HEARD: usize = 16;
/// How long they are told of: gossip has been everywhere by then.
const TOLD_FOR: Duration = Duration::from_secs(5);

/// How a question is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// By one of its own length.
    Whole,
    /// By the shortest one, and by gossip.
    ShortAndTold,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last: u32,
    asked: BTreeMap<u32, Asked>,
    /// The last question of each other node that is to be told of.
    heard: BTreeMap<IpAddr, (u32, Instant)>,
}

#[derive(Debug)]
struct Asked {
    to: IpAddr,
    said: Loopback,
    at: Instant,
    took: Option<Duration>,
}

/// A question under way; dropped, its answer is nobody's.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    all: &'a Questions,
    said: Loopback,
}

impl Question<'_> {
    /// What to send.
    pub(crate) const fn said(&self) -> Loopback {
        self.said
    }

    /// How long its answer took, once there is one.
    pub(crate) fn answer(&self) -> Option<Duration> {
        self.all.lock().asked.get(&self.said.number)?.took
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.all.lock().asked.remove(&self.said.number);
    }
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is a single step, so they stay whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question to the node behind `to`, which is asked at this moment. The nonce is random: it is
    /// what an answer cannot be made up without.
    pub(crate) fn begin(
        &self,
        now: Instant,
        to: IpAddr,
        len: u16,
        wish: Wish,
        nonce: u64,
    ) -> Question<'_> {
        let mut waiting = self.lock();
        waiting.last = waiting.last.wrapping_add(1);
        let said = Loopback {
            answer: false,
            number: waiting.last,
            nonce,
            short: wish == Wish::ShortAndTold,
            tell: wish == Wish::ShortAndTold,
            len,
        };
        let asked = Asked {
            to: to.to_canonical(),
            said,
            at: now,
            took: None,
        };
        waiting.asked.insert(said.number, asked);
        Question { all: self, said }
    }

    /// Takes in what another node says.
    pub(crate) fn handle(&self, heard: &HeardLoopback) {
        let mut waiting = self.lock();
        if heard.said.answer {
            // The answer that was asked for, from whom it was asked for.
            if let Some(asked) = waiting.asked.get_mut(&heard.said.number)
                && asked.to == heard.from
                && asked.said.answered() == heard.said
            {
                asked.took.get_or_insert(heard.at.since(asked.at));
            }
            return;
        }
        if heard.said.tell {
            waiting
                .heard
                .retain(|_, (_, at)| heard.at.since(*at) < TOLD_FOR);
            if waiting.heard.len() < MOST_HEARD || waiting.heard.contains_key(&heard.from) {
                let last = (heard.said.number, heard.at);
                waiting.heard.insert(heard.from, last);
            }
        }
    }

    /// Whose questions have arrived a moment ago, and the number of the last one.
    pub(crate) fn heard(&self, now: Instant) -> Vec<(IpAddr, u32)> {
        let waiting = self.lock();
        let fresh = waiting
            .heard
            .iter()
            .filter(|(_, (_, at))| now.since(*at) < TOLD_FOR);
        fresh.map(|(from, (number, _))| (*from, *number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u8) -> IpAddr {
        [10, 77, 0, last].into()
    }

    fn heard(from: IpAddr, said: Loopback, at: Instant) -> HeardLoopback {
        HeardLoopback { from, said, at }
    }

    #[test]
    fn only_the_answer_that_was_asked_for_counts() {
        let questions = Questions::default();
        let start = Instant(0).after(SECOND);
        let asked = questions.begin(start, ip(2), 1450, Wish::ShortAndTold, 7);
        let answer = asked.said().answered();
        let at = start.after(Duration::from_micros(250));
        for wrong in [
            heard(ip(3), answer, at),
            heard(ip(2), Loopback { nonce: 8, ..answer }, at),
            heard(
                ip(2),
                Loopback {
                    len: 1450,
                    ..answer
                },
                at,
            ),
            heard(
                ip(2),
                Loopback {
                    number: 9,
                    ..answer
                },
                at,
            ),
            heard(ip(2), asked.said(), at),
        ] {
            questions.handle(&wrong);
            assert_eq!(asked.answer(), None, "{wrong:?}");
        }
        questions.handle(&heard(ip(2), answer, at));
        // Somebody says it again.
        questions.handle(&heard(ip(2), answer, at.after(SECOND)));
        assert_eq!(asked.answer(), Some(Duration::from_micros(250)));
        let other = questions.begin(at, ip(2), 64, Wish::Whole, 1);
        assert_ne!(other.said().number, asked.said().number);
        drop(asked);
        assert_eq!(questions.lock().asked.len(), 1);
    }

    #[test]
    fn what_is_told_of_others_is_bounded_and_forgotten() {
        let questions = Questions::default();
        let others = Questions::default();
        let start = Instant(0).after(SECOND);
        for n in 1..=40 {
            let asked = others.begin(start, ip(200), 64, Wish::ShortAndTold, 1);
            questions.handle(&heard(ip(n), asked.said(), start));
        }
        let told = questions.heard(start);
        assert_eq!((told.len(), told[0]), (MOST_HEARD, (ip(1), 1)));
        let quiet = others.begin(start, ip(200), 64, Wish::Whole, 1);
        questions.handle(&heard(ip(99), quiet.said(), start.after(TOLD_FOR)));
        assert!(questions.heard(start.after(TOLD_FOR)).is_empty());
        let again = others.begin(start, ip(200), 64, Wish::ShortAndTold, 1);
        questions.handle(&heard(ip(99), again.said(), start.after(TOLD_FOR)));
        assert_eq!(questions.heard(start.after(TOLD_FOR)).len(), 1);
    }
}
