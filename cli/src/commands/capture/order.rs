//! Frames in the order of their time stamps.
//!
//! The agent tells of them nearly so. A worker stamps a frame when it has read it, and tells of it
//! when it knows its fate: between two sandboxes of one node, the copy that arrives is told
//! microseconds before the one that left. And of two workers, one may lose its CPU between stamp and
//! telling, which takes some milliseconds where many programs want to run.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a frame waits for earlier ones: longer than a thread waits for its CPU on a busy machine,
/// and too short for a person who looks on.
const HOLD: Duration = Duration::from_millis(50);

/// Bytes that wait at most. Beyond, the earliest go: what comes in such a flood waits less, and may be
/// out of order.
const ROOM: usize = 8 << 20;

/// Time stamp, and a number for those with the same.
type Key = (u64, u64);

/// Holds frames back until no earlier one is to be expected. Time is an argument: stamps are of a
/// clock that can be set, so they say nothing of how long a frame has waited.
#[derive(Debug, Default)]
pub(super) struct Order {
    held: BTreeMap<Key, Box<[u8]>>,
    /// What came when, also of frames that went early for want of room.
    arrived: VecDeque<(Instant, Key)>,
    bytes: usize,
    count: u64,
}

impl Order {
    /// Takes a frame with its stamp.
    pub(super) fn handle_frame(&mut self, now: Instant, stamp: u64, frame: &[u8]) {
        let key = (stamp, self.count);
        self.count += 1;
        self.bytes += frame.len();
        self.held.insert(key, frame.into());
        self.arrived.push_back((now, key));
    }

    /// Frames that have waited long enough, and those with earlier stamps, in order.
    pub(super) fn poll_frames(&mut self, now: Instant) -> impl Iterator<Item = Box<[u8]>> + use<> {
        let mut due: Option<Key> = None;
        while let Some((at, key)) = self.arrived.front()
            && *at + HOLD <= now
        {
            due = due.max(Some(*key));
            self.arrived.pop_front();
        }
        let mut gone = BTreeMap::new();
        if let Some((stamp, count)) = due {
            let later = self.held.split_off(&(stamp, count + 1));
            gone = std::mem::replace(&mut self.held, later);
        }
        self.bytes -= gone.values().map(|frame| frame.len()).sum::<usize>();
        while self.bytes > ROOM
            && let Some((key, frame)) = self.held.pop_first()
        {
            self.bytes -= frame.len();
            gone.insert(key, frame);
        }
        gone.into_values()
    }

    /// When the next one has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.arrived.front().map(|(at, _)| *at + HOLD)
    }

    /// All that wait, in order: nothing more comes.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Box<[u8]>> + use<> {
        std::mem::take(self).held.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps of frames that were made by [`frame`].
    fn stamps(frames: impl Iterator<Item = Box<[u8]>>) -> Vec<u64> {
        let stamp = |frame: Box<[u8]>| u64::from_le_bytes(*frame.first_chunk().unwrap());
        frames.map(stamp).collect()
    }

    fn frame(order: &mut Order, now: Instant, stamp: u64) {
        order.handle_frame(now, stamp, &stamp.to_le_bytes());
    }

    #[test]
    fn frames_wait_for_earlier_ones_and_no_longer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut order = Order::default();
        assert_eq!(order.next_deadline(), None);
        for (ms, stamp) in [(0, 12), (0, 10), (1, 11), (30, 20), (49, 5)] {
            frame(&mut order, at(ms), stamp);
            assert_eq!(stamps(order.poll_frames(at(ms))), [0; 0]);
        }
        assert_eq!(order.next_deadline(), Some(at(50)));
        // The first has waited long enough, and takes along all that is earlier.
        assert_eq!(stamps(order.poll_frames(at(50))), [5, 10, 11, 12]);
        assert_eq!(stamps(order.poll_frames(at(79))), [0; 0]);
        assert_eq!(stamps(order.poll_frames(at(80))), [20]);
        for stamp in [33, 31, 31, 32] {
            frame(&mut order, at(90), stamp);
        }
        assert_eq!(stamps(order.rest()), [31, 31, 32, 33]);
        assert_eq!((order.next_deadline(), order.bytes), (None, 0));
    }

    #[test]
    fn frames_with_one_stamp_keep_their_order() {
        let now = Instant::now();
        let mut order = Order::default();
        for text in [&b"first"[..], b"second", b"third"] {
            order.handle_frame(now, 7, text);
        }
        let texts: Vec<_> = order.poll_frames(now + HOLD).collect();
        let texts: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        assert_eq!(texts, [&b"first"[..], b"second", b"third"]);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let start = Instant::now();
        let mut order = Order::default();
        frame(&mut order, start, 1_000_000);
        // From here on every frame has an earlier stamp, and comes before the last one is due.
        let mut told = Vec::new();
        for n in 1..=10 {
            let now = start + HOLD / 2 * n;
            frame(&mut order, now, u64::from(n));
            told.extend(stamps(order.poll_frames(now)));
        }
        assert_eq!(told, [1, 2, 1_000_000, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_flood_has_a_bound() {
        let now = Instant::now();
        let mut order = Order::default();
        let long = vec![0; 1 << 20];
        let mut told = 0;
        for stamp in 0..20 {
            order.handle_frame(now, stamp, &long);
            told += order.poll_frames(now).count();
            assert!(order.bytes <= ROOM);
        }
        assert_eq!(told, 20 - ROOM / long.len());
        // Those that went early are not told twice.
        assert_eq!(order.poll_frames(now + HOLD).count(), 20 - told);
        assert_eq!(order.poll_frames(now + HOLD).count(), 0);
        assert_eq!(order.bytes, 0);
    }
}
