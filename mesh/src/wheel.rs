//! When flows have to be looked at again: a timer wheel with one-second slots.
//!
//! Lazy: a packet only notes the time in its flow; when the flow's turn comes and it was used
//! meanwhile, it is put back. So a packet costs nothing here, and a turn is O(1).

use weft_wire::Instant;

/// No entry.
pub(crate) const NIL: u32 = u32::MAX;

const SLOTS: usize = 256;
const TICK_NANOS: u64 = 1_000_000_000;
/// Not in the wheel.
const UNLINKED: u16 = u16::MAX;

/// Links of one flow. Kept in a table of its own, beside the flows.
#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    slot: u16,
}

const FREE: Link = Link {
    prev: NIL,
    next: NIL,
    slot: UNLINKED,
};

/// Doubly linked lists of flow numbers, one for each second of the next four minutes.
///
/// A deadline farther away waits in the last slot and is put back when its turn comes.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: [u32; SLOTS],
    tails: [u32; SLOTS],
    used: [u64; SLOTS / 64],
    links: Vec<Link>,
    /// Second up to which (exclusive) everything was looked at.
    tick: u64,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            heads: [NIL; SLOTS],
            tails: [NIL; SLOTS],
            used: [0; SLOTS / 64],
            links: Vec::new(),
            tick: 0,
        }
    }

    /// Puts `entry` where it is looked at soon after `deadline`, moving it when it is in already.
    pub(crate) fn schedule(&mut self, entry: u32, deadline: Instant) {
        self.unlink(entry);
        let tick = (deadline.0 / TICK_NANOS + 1).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        #[expect(clippy::cast_possible_truncation, reason = "less than SLOTS")]
        let slot = (tick % SLOTS as u64) as usize;
        if self.links.len() <= entry as usize {
            self.links.resize(entry as usize + 1, FREE);
        }
        let tail = self.tails[slot];
        #[expect(clippy::cast_possible_truncation, reason = "less than SLOTS")]
        let link = Link {
            prev: tail,
            next: NIL,
            slot: slot as u16,
        };
        self.links[entry as usize] = link;
        self.tails[slot] = entry;
        match self.links.get_mut(tail as usize) {
            Some(before) => before.next = entry,
            None => self.heads[slot] = entry,
        }
        self.used[slot / 64] |= 1 << (slot % 64);
    }

    /// Takes `entry` out; nothing happens when it is not in.
    pub(crate) fn unlink(&mut self, entry: u32) {
        let Some(link) = self.links.get_mut(entry as usize) else {
            return;
        };
        let link = std::mem::replace(link, FREE);
        if link.slot == UNLINKED {
            return;
        }
        let slot = usize::from(link.slot);
        match self.links.get_mut(link.prev as usize) {
            Some(before) => before.next = link.next,
            None => self.heads[slot] = link.next,
        }
        match self.links.get_mut(link.next as usize) {
            Some(after) => after.prev = link.prev,
            None => self.tails[slot] = link.prev,
        }
        if self.heads[slot] == NIL {
            self.used[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Takes out the next entry whose turn has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        let now_tick = now.0 / TICK_NANOS;
        loop {
            let Some(tick) = self.first_used() else {
                self.tick = self.tick.max(now_tick);
                return None;
            };
            if tick > now_tick {
                self.tick = self.tick.max(now_tick);
                return None;
            }
            self.tick = tick;
            let entry = self.head_at(tick);
            if entry != NIL {
                self.unlink(entry);
                return Some(entry);
            }
        }
    }

    /// The entry with the nearest turn, left where it is.
    pub(crate) fn peek(&self) -> Option<u32> {
        let tick = self.first_used()?;
        Some(self.head_at(tick)).filter(|&e| e != NIL)
    }

    /// The entry whose turn comes after that of `entry`, which is in.
    pub(crate) fn after(&self, entry: u32) -> Option<u32> {
        let link = self.links.get(entry as usize)?;
        if link.slot == UNLINKED {
            return None;
        }
        if link.next != NIL {
            return Some(link.next);
        }
        let slots = SLOTS as u64;
        let ahead = (u64::from(link.slot) + slots - self.tick % slots) % slots;
        // Slots before the current one belong to the far end of the window.
        let tick = self.used_from(self.tick + ahead + 1)?;
        (tick < self.tick + slots).then(|| self.head_at(tick))
    }

    /// When [`Wheel::pop`] has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let tick = self.first_used()?;
        Some(Instant(tick.saturating_mul(TICK_NANOS)))
    }

    fn head_at(&self, tick: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "less than SLOTS")]
        let slot = (tick % SLOTS as u64) as usize;
        self.heads[slot]
    }

    fn first_used(&self) -> Option<u64> {
        self.used_from(self.tick)
    }

    /// First second, from `tick` on, whose slot holds something. At most five words.
    fn used_from(&self, tick: u64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, reason = "less than SLOTS")]
        let start = (tick % SLOTS as u64) as usize;
        let words = self.used.len();
        for i in 0..=words {
            let word = (start / 64 + i) % words;
            let mut bits = self.used[word];
            if i == 0 {
                bits &= u64::MAX << (start % 64);
            } else if i == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(tick + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(s: u64) -> Instant {
        Instant(s * TICK_NANOS)
    }

    #[test]
    fn entries_come_out_after_their_deadline_in_order() {
        let mut w = Wheel::new();
        w.schedule(0, secs(10));
        w.schedule(1, secs(5));
        w.schedule(2, secs(5));
        assert_eq!(w.next_deadline(), Some(secs(6)));
        assert_eq!(w.peek(), Some(1));
        assert_eq!(w.pop(secs(5)), None);
        assert_eq!(w.pop(secs(6)), Some(1));
        assert_eq!(w.pop(secs(6)), Some(2));
        assert_eq!(w.pop(secs(6)), None);
        w.unlink(0);
        assert_eq!(w.pop(secs(100)), None);
        assert_eq!(w.next_deadline(), None);
    }

    #[test]
    fn a_far_deadline_is_offered_early_not_lost() {
        let mut w = Wheel::new();
        w.schedule(9, secs(10_000));
        assert_eq!(w.pop(secs(254)), None);
        assert_eq!(w.pop(secs(255)), Some(9));
        w.schedule(9, secs(10_000));
        assert_eq!(w.pop(secs(10_001)), Some(9));
        // A deadline in the past has its turn at once.
        w.schedule(9, secs(3));
        assert_eq!(w.pop(secs(10_001)), Some(9));
    }

    proptest! {
        #[test]
        fn a_walk_meets_every_entry_once_in_order(
            start in 0u64..600,
            ahead in prop::collection::vec(0u64..400, 1..60),
        ) {
            let mut w = Wheel::new();
            w.pop(secs(start));
            for (i, &d) in (0u32..).zip(&ahead) {
                w.schedule(i, secs(start + d));
            }
            let mut walk = Vec::new();
            let mut at = w.peek();
            while let Some(entry) = at {
                walk.push(entry);
                prop_assert!(walk.len() <= ahead.len());
                at = w.after(entry);
            }
            let mut popped = Vec::new();
            while let Some(entry) = w.pop(secs(start + 500)) {
                popped.push(entry);
            }
            prop_assert_eq!(walk, popped);
        }

        #[test]
        fn every_entry_comes_out_once_and_never_early(
            deadlines in prop::collection::vec(0u64..200, 1..60),
            cancelled in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut w = Wheel::new();
            for (i, &d) in (0u32..).zip(&deadlines) {
                w.schedule(i, secs(d));
            }
            for (i, _) in (0u32..).zip(&deadlines).filter(|(i, _)| cancelled[*i as usize]) {
                w.unlink(i);
            }
            let mut seen = vec![0; deadlines.len()];
            for t in 0..=201 {
                while let Some(e) = w.pop(secs(t)) {
                    let e = e as usize;
                    prop_assert!(t > deadlines[e] && t <= deadlines[e] + 1);
                    seen[e] += 1;
                }
            }
            for (seen, cancelled) in seen.iter().zip(&cancelled) {
                prop_assert_eq!(*seen, i32::from(!cancelled));
            }
        }
    }
}
