//! Which flows are worth an entry in the kernel.
//!
//! An entry costs two calls of the kernel now and two when the flow is over, some 5 µs in all. Bulk
//! pays that back within a few super-frames, and a connection that is kept within a few exchanges,
//! each of which costs four wake-ups of workers. A short connection never pays it back.

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
    last: Direction,
    /// What its sender has acknowledged, where that is looked at.
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

    /// The counts of a flow: new ones where it has none, or was silent for too long.
    fn place(&mut self, flow: u64, direction: Direction, now: Instant) -> &mut Place {
        let place = &mut self.places[flow as usize % PLACES];
        if place.flow != flow || now.since(place.at) > MEMORY {
            *place = Place {
                flow,
                bytes: 0,
                turns: 0,
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
    fn flows_of_one_place_begin_anew() {
        let mut candidates = Candidates::new();
        let other = 7 + PLACES as u64;
        for i in 0..100 {
            let flow = if i % 2 == 0 { 7 } else { other };
            assert!(!candidates.seen(flow, Out, 100_000, Instant(i)));
        }
    }
}
