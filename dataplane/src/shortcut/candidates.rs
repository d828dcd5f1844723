//! Which flows are worth an entry in the kernel.
//!
//! An entry costs two calls of the kernel now and two when the flow is over, some 5 µs in all. Bulk
//! pays that back within a few super-frames, and a connection that is kept within a few exchanges,
//! each of which costs four wake-ups of workers. A short connection never pays it back.
//!
//! Datagrams are worth one by their turns alone: workers carry many at a time, and a stream of them
//! faster than the kernel does, which carries each one by itself.

use std::time::Duration;

use weft_wire::Instant;

/// Flows that are watched at one time; a new one takes the place of another.
const PLACES: usize = 4096;
/// So much within [`WINDOW`] is bulk, in bytes of frames.
const BULK: u32 = 256 * 1024;
/// Time in which bulk shows itself.
const WINDOW: Duration = Duration::from_millis(100);
/// Turns from one direction to the other, each with data, of a connection that is kept: its fifth
/// request.
const TURNS: u8 = 8;
/// Datagrams within which these turns have to be: a stream with an answer now and then is none. Where
/// there are more, counting begins anew.
const FRAMES: u32 = 3 * TURNS as u32;
/// A connection that was silent for longer begins to count anew.
const MEMORY: Duration = Duration::from_secs(10);

/// One direction of a frame, as the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The sandbox has sent it.
    Out,
    /// The sandbox gets it.
    In,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    flow: u64,
    bytes: u32,
    turns: u8,
    /// Datagrams, where these are counted.
    frames: u32,
    last: Direction,
    /// What its sender has acknowledged, or how many datagrams it got, where that is looked at.
    ack: Option<u32>,
    /// Begin of the window that `bytes` is of.
    since: Instant,
    /// Time of the last frame with data.
    at: Instant,
}

/// A few counts for each flow that was seen of late. Flows are named by a hash: two that share it
/// may be found worth an entry a little early.
#[derive(Debug)]
pub(super) struct Candidates {
    places: Box<[Place]>,
}

impl Candidates {
    pub(super) fn new() -> Self {
        let empty = Place {
            flow: 0,
            bytes: 0,
            turns: 0,
            frames: 0,
            last: Direction::Out,
            ack: None,
            since: Instant(0),
            at: Instant(0),
        };
        Self {
            places: vec![empty; PLACES].into_boxed_slice(),
        }
    }

    /// A frame of a flow with so many bytes of data; whether the flow is worth an entry by now. It
    /// stays so until it is [forgotten](Self::forget) or silent.
    pub(super) fn seen(
        &mut self,
        flow: u64,
        direction: Direction,
        data: usize,
        now: Instant,
    ) -> bool {
        let place = self.place(flow, direction, now);
        if data > 0 {
            if place.last != direction {
                place.last = direction;
                place.turns = place.turns.saturating_add(1);
            }
            if now.since(place.since) > WINDOW && place.bytes < BULK {
                place.bytes = 0;
                place.since = now;
            }
            place.bytes = place
                .bytes
                .saturating_add(u32::try_from(data).unwrap_or(u32::MAX));
            place.at = now;
        }
        place.bytes >= BULK || place.turns >= TURNS
    }

    /// A frame that leaves, of a flow whose other direction another worker may read: what its sender
    /// acknowledges has reached it.
    pub(super) fn heard(&mut self, flow: u64, data: usize, ack: u32, now: Instant) -> bool {
        let place = self.place(flow, Direction::Out, now);
        // RFC 9293 section 3.4: one that is half of all numbers ahead is an older one.
        let got = ack.wrapping_sub(*place.ack.get_or_insert(ack));
        let got = if got < 1 << 31 { got } else { 0 };
        place.ack = place.ack.map(|before| before.wrapping_add(got));
        let got = usize::try_from(got).unwrap_or(usize::MAX);
        let worth = self.seen(flow, Direction::In, got, now);
        self.seen(flow, Direction::Out, data, now) || worth
    }

    /// As [`Self::seen`], of so many datagrams, each of any size.
    pub(super) fn datagrams(
        &mut self,
        flow: u64,
        direction: Direction,
        count: u32,
        now: Instant,
    ) -> bool {
        let place = self.place(flow, direction, now);
        if count > 0 {
            if place.last != direction {
                place.last = direction;
                place.turns = place.turns.saturating_add(1);
            }
            place.frames = place.frames.saturating_add(count);
            place.at = now;
            if place.frames > FRAMES {
                place.frames = 0;
                place.turns = 0;
            }
        }
        place.turns >= TURNS
    }

    /// As [`Self::heard`], of a datagram. `got` is how many there have been of the other direction.
    pub(super) fn asked(&mut self, flow: u64, got: u32, now: Instant) -> bool {
        let place = self.place(flow, Direction::Out, now);
        let before = place.ack.replace(got).unwrap_or(got);
        let worth = self.datagrams(flow, Direction::In, got.wrapping_sub(before), now);
        self.datagrams(flow, Direction::Out, 1, now) || worth
    }

    /// The counts of a flow: new ones where it has none, or was silent for too long.
    fn place(&mut self, flow: u64, direction: Direction, now: Instant) -> &mut Place {
        let place = &mut self.places[flow as usize % PLACES];
        if place.flow != flow || now.since(place.at) > MEMORY {
            *place = Place {
                flow,
                bytes: 0,
                turns: 0,
                frames: 0,
                last: direction,
                ack: None,
                since: now,
                at: now,
            };
        }
        place
    }

    /// A flow is over, or has its entry.
    pub(super) fn forget(&mut self, flow: u64) {
        let place = &mut self.places[flow as usize % PLACES];
        if place.flow == flow {
            place.bytes = 0;
            place.turns = 0;
            place.frames = 0;
            place.ack = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{In, Out};

    const MILLI: u64 = 1_000_000;

    #[test]
    fn bulk_is_worth_it_and_a_trickle_is_not() {
        let mut candidates = Candidates::new();
        let mut worth = Vec::new();
        for i in 0..5 {
            worth.push(candidates.seen(7, Out, 65_000, Instant(i * MILLI)));
        }
        assert_eq!(worth, [false, false, false, false, true]);
        assert!(candidates.seen(7, In, 0, Instant(5 * MILLI)), "its answer");
        // 1 MB in 20 seconds.
        for i in 0..1000 {
            let now = Instant(i * 20 * MILLI);
            assert!(!candidates.seen(8, In, 1_000, now), "{i}");
        }
    }

    #[test]
    fn a_kept_connection_is_worth_it_after_four_requests() {
        let mut candidates = Candidates::new();
        for i in 0..4 {
            let now = Instant(i * 500 * MILLI);
            assert!(!candidates.seen(7, Out, 64, now), "request {i}");
            // An acknowledgement alone is no turn.
            assert!(!candidates.seen(7, In, 0, now));
            assert!(!candidates.seen(7, In, 64, now), "answer {i}");
        }
        assert!(candidates.seen(7, Out, 64, Instant(2_000 * MILLI)));
        candidates.forget(7);
        assert!(!candidates.seen(7, Out, 64, Instant(2_200 * MILLI)));
        // One exchange each eleven seconds never is.
        for i in 0..20 {
            let now = Instant((20 + i * 11) * 1_000 * MILLI);
            assert!(!candidates.seen(9, Out, 64, now));
            assert!(!candidates.seen(9, In, 64, now));
        }
    }

    #[test]
    fn what_is_acknowledged_was_received() {
        let mut candidates = Candidates::new();
        let mut worth = Vec::new();
        // A download, across the end of the numbers; the first one only says where it begins.
        for i in 0..6_u32 {
            let ack = (u32::MAX - 100_000).wrapping_add(i * 65_000);
            let now = Instant(u64::from(i) * MILLI);
            worth.push(candidates.heard(7, 0, ack, now));
            // One that was overtaken by the last.
            candidates.heard(7, 0, ack.wrapping_sub(1000), now);
            candidates.heard(7, 0, ack, now);
        }
        assert_eq!(worth, [false, false, false, false, false, true]);
        // Four requests and their answers, of which the last request tells.
        for i in 0..5_u32 {
            let now = Instant(u64::from(i) * 500 * MILLI);
            let worth = candidates.heard(8, 64, 1_000 + i * 64, now);
            assert_eq!(worth, i == 4, "request {i}");
        }
    }

    #[test]
    fn an_exchange_of_datagrams_is_worth_it_after_four_requests() {
        let mut candidates = Candidates::new();
        for i in 0..4 {
            let now = Instant(i * 500 * MILLI);
            assert!(!candidates.datagrams(7, Out, 1, now), "request {i}");
            assert!(!candidates.datagrams(7, In, 1, now), "answer {i}");
        }
        let now = Instant(2_000 * MILLI);
        assert!(candidates.datagrams(7, Out, 1, now));
        candidates.forget(7);
        assert!(!candidates.datagrams(7, Out, 1, now));
        // Two answers for each request.
        let worth = (0..5).map(|_| {
            let asked = candidates.datagrams(8, Out, 1, now);
            candidates.datagrams(8, In, 2, now) || asked
        });
        assert_eq!(
            worth.collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
        // Of those that are seen in one direction alone, the next request tells that there was an
        // answer. Numbers wrap, and begin anywhere.
        for i in 0..5 {
            let got = (u32::MAX - 1).wrapping_add(i);
            assert_eq!(candidates.asked(9, got, now), i == 4, "request {i}");
        }
    }

    #[test]
    fn a_stream_of_datagrams_never_is() {
        let mut candidates = Candidates::new();
        for i in 0..10_000 {
            let now = Instant(i * MILLI);
            assert!(!candidates.datagrams(7, Out, 1, now), "one way");
            // As many bytes as make bulk of TCP, in one read.
            assert!(!candidates.datagrams(8, In, 64, now), "merged");
            assert!(!candidates.datagrams(9, Out, 1, now));
            // An answer after ten of them, and one that tells of ten at once.
            if i % 10 == 9 {
                assert!(!candidates.datagrams(9, In, 1, now), "with feedback");
            }
            assert!(!candidates.asked(10, 0, now), "nobody answers");
        }
        // Once it is an exchange, its past is none.
        let now = Instant(10_000 * MILLI);
        let mut worth = false;
        for _ in 0..12 {
            worth |= candidates.datagrams(9, Out, 1, now);
            worth |= candidates.datagrams(9, In, 1, now);
        }
        assert!(worth);
    }

    #[test]
    fn flows_of_one_place_begin_anew() {
        let mut candidates = Candidates::new();
        let other = 7 + PLACES as u64;
        for i in 0..100 {
            let flow = if i % 2 == 0 { 7 } else { other };
            assert!(!candidates.seen(flow, Out, 100_000, Instant(i)));
        }
    }
}
