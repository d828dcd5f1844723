//! Copies of the opening segments of connections that no replica answered yet.
//!
//! A ring: a new copy takes the place of the oldest one. A connection whose copy was overwritten
//! merely loses the chance to be moved to another replica unseen.

/// Longest opening frame that is kept: Ethernet, IPv6 or IPv4 with options, TCP with options.
pub(crate) const SYN_BYTES: usize = 14 + 60 + 60;
/// Replicas that one connection is offered to at most.
pub(crate) const MAX_TRIES: usize = 8;

/// One kept opening segment, as the client sent it.
#[derive(Debug, Clone)]
pub(crate) struct Syn {
    stamp: u64,
    len: u8,
    bytes: [u8; SYN_BYTES],
    partial_csum: bool,
    tried_len: u8,
    tried: [u64; MAX_TRIES],
}

impl Syn {
    /// The frame.
    pub(crate) fn frame(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Its checksum is still to be completed.
    pub(crate) const fn partial_csum(&self) -> bool {
        self.partial_csum
    }

    /// Keys of the replicas that it was sent to.
    pub(crate) fn tried(&self) -> &[u64] {
        self.tried
            .get(..usize::from(self.tried_len))
            .unwrap_or_default()
    }

    /// Notes one more; false when there were enough.
    pub(crate) fn add_tried(&mut self, key: u64) -> bool {
        match self.tried.get_mut(usize::from(self.tried_len)) {
            Some(place) => {
                *place = key;
                self.tried_len += 1;
                true
            }
            None => false,
        }
    }
}

/// Where a copy is, if it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SynRef {
    stamp: u64,
}

/// The copies.
#[derive(Debug)]
pub(crate) struct SynRing {
    slots: Vec<Syn>,
    capacity: usize,
    next: u64,
}

impl SynRing {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            capacity,
            next: 0,
        }
    }

    /// Keeps a copy; none when the frame is too long or the ring has no room at all.
    pub(crate) fn keep(
        &mut self,
        frame: &[u8],
        replica: u64,
        partial_csum: bool,
    ) -> Option<SynRef> {
        let len = u8::try_from(frame.len()).ok()?;
        if frame.len() > SYN_BYTES || self.capacity == 0 {
            return None;
        }
        let stamp = self.next;
        let mut syn = Syn {
            stamp,
            len,
            bytes: [0; SYN_BYTES],
            partial_csum,
            tried_len: 1,
            tried: [replica; MAX_TRIES],
        };
        syn.bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        let at = self.position(stamp);
        match self.slots.get_mut(at) {
            Some(slot) => *slot = syn,
            None => self.slots.push(syn),
        }
        self.next += 1;
        Some(SynRef { stamp })
    }

    /// The copy, unless a newer one took its place.
    pub(crate) fn get_mut(&mut self, at: SynRef) -> Option<&mut Syn> {
        let position = self.position(at.stamp);
        self.slots
            .get_mut(position)
            .filter(|syn| syn.stamp == at.stamp)
    }

    fn position(&self, stamp: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than the capacity")]
        let at = (stamp % self.capacity as u64) as usize;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_copies_are_there_and_older_ones_are_not() {
        let mut ring = SynRing::new(2);
        let a = ring.keep(&[1; 54], 7, false).unwrap();
        let b = ring.keep(&[2; 60], 8, false).unwrap();
        assert_eq!(ring.get_mut(a).unwrap().frame(), [1; 54]);
        let c = ring.keep(&[3; 66], 9, false).unwrap();
        assert!(ring.get_mut(a).is_none());
        assert_eq!(ring.get_mut(b).unwrap().tried(), [8]);
        let kept = ring.get_mut(c).unwrap();
        for key in 10..17 {
            assert!(kept.add_tried(key));
        }
        assert!(!kept.add_tried(17));
        assert_eq!(kept.tried().len(), MAX_TRIES);
        assert_eq!(kept.frame().len(), 66);
    }

    #[test]
    fn a_long_frame_and_a_ring_without_room_keep_nothing() {
        assert!(
            SynRing::new(4)
                .keep(&[0; SYN_BYTES + 1], 1, false)
                .is_none()
        );
        assert!(SynRing::new(4).keep(&[0; SYN_BYTES], 1, false).is_some());
        assert!(SynRing::new(0).keep(&[0; 54], 1, false).is_none());
    }
}
