//! The ring of gossip keys: when a key begins to seal, and when it opens nothing any more.
//!
//! The ring holds the key that seals, the next one, and the one before. The next key is known to
//! every node long before anybody seals with it, and the one before still opens what was sealed
//! by who has not heard of the change yet. So every 12 hours a rotation is one step, in which each
//! node may have the ring of before or after it. Who misses more than that gets the ring by its
//! session, which needs no gossip.
//!
//! A node that goes for good knows all three, so they go too, in three steps of [`SPREAD`]: a new
//! key is announced, seals, and opens alone.

use std::time::Duration;

use weft_model::assignment::GossipKey;

use super::draft::Draft;
use super::object::ObjectId;
use super::secrets::{RingState, RingStep, Secrets};
use super::waits::Waits;

/// How long one key seals, in milliseconds (Swarm's choice).
pub const GOSSIP_KEY_LIFE_MS: u64 = 12 * 60 * 60 * 1000;

/// How long orders take to reach every node that has a session, in milliseconds, with much to
/// spare.
pub const SPREAD_MS: u64 = 2000;

/// Others that go meanwhile put the new key off by no more than this, in milliseconds.
const LONGEST_ANNOUNCEMENT_MS: u64 = 30_000;

impl Secrets {
    /// Time of day at which the ring began to wait for its next step, in Unix milliseconds.
    pub(super) fn ring_since(&self) -> u64 {
        match self.gossip_ring.step {
            RingStep::Announced | RingStep::Replaced => self.gossip_ring.changed_at,
            RingStep::Settled => self.gossip_keys.first().map_or(0, |key| key.sealing_since),
        }
    }

    /// How long it waits for that step, in milliseconds.
    pub(super) fn ring_wait_ms(&self) -> u64 {
        match self.gossip_ring.step {
            RingStep::Announced | RingStep::Replaced => SPREAD_MS,
            RingStep::Settled if self.gossip_keys.is_empty() => 0,
            RingStep::Settled => GOSSIP_KEY_LIFE_MS,
        }
    }

    /// A key that was never in the ring.
    fn fresh_key(&self, draft: &mut Draft<'_>) -> GossipKey {
        let newest = self.gossip_keys.iter().map(|key| key.epoch).max();
        GossipKey {
            // Four billion rotations are six million years.
            epoch: newest.unwrap_or(0).saturating_add(1),
            key: draft.entropy.bytes(),
            sealing_since: 0,
        }
    }

    /// The next key seals from now on; there is one.
    fn seal_with_next(&mut self, draft: &mut Draft<'_>) {
        let fresh = self.fresh_key(draft);
        // The one before the present one is the third.
        self.gossip_keys.truncate(2);
        self.gossip_keys.swap(0, 1);
        if let Some(first) = self.gossip_keys.first_mut() {
            first.sealing_since = draft.now;
        }
        self.gossip_keys.insert(1, fresh);
    }
}

/// The ring of a new swarm.
pub(super) fn first_ring(draft: &mut Draft<'_>) -> (Vec<GossipKey>, RingState) {
    let now = draft.now;
    let mut key = |epoch, sealing_since| GossipKey {
        epoch,
        key: draft.entropy.bytes(),
        sealing_since,
    };
    let ring = vec![key(1, now), key(2, 0)];
    let state = RingState {
        changed_at: now,
        ..RingState::default()
    };
    (ring, state)
}

/// Begins to get rid of all keys: a node that knows them is no member any more.
pub(super) fn expel(draft: &mut Draft<'_>) {
    let Some(mut secrets) = draft.state.secrets.clone() else {
        return;
    };
    // An announcement that was under way starts again: its key is known to who goes now.
    let before = secrets.gossip_ring;
    let announced_at = match before.step {
        RingStep::Announced => before.announced_at.min(draft.now),
        RingStep::Settled | RingStep::Replaced => draft.now,
    };
    let fresh = secrets.fresh_key(draft);
    // The one before stays for this step: others may have begun a moment ago to do without it.
    if secrets.gossip_keys.len() > 1 {
        secrets.gossip_keys.remove(1);
    }
    let next = secrets.gossip_keys.len().min(1);
    secrets.gossip_keys.insert(next, fresh);
    secrets.gossip_ring = RingState {
        changed_at: announced_at
            .saturating_add(LONGEST_ANNOUNCEMENT_MS)
            .min(draft.now),
        step: RingStep::Announced,
        announced_at,
    };
    draft.put(secrets);
}

/// Does what is due to the ring by now.
pub(super) fn turn(draft: &mut Draft<'_>, waits: &Waits) {
    let Some(mut secrets) = draft.state.secrets.clone() else {
        return;
    };
    let now = draft.now;
    let wait = Duration::from_millis(secrets.ring_wait_ms());
    if waits.waited(&ObjectId::Secrets) < wait {
        return;
    }
    let step = match secrets.gossip_ring.step {
        RingStep::Announced => {
            secrets.seal_with_next(draft);
            RingStep::Replaced
        }
        RingStep::Replaced => {
            secrets.gossip_keys.truncate(2);
            RingStep::Settled
        }
        RingStep::Settled => {
            if secrets.gossip_keys.len() > 1 {
                secrets.seal_with_next(draft);
                RingStep::Settled
            } else {
                // A swarm of an earlier version: nobody has a next key yet.
                let fresh = secrets.fresh_key(draft);
                secrets.gossip_keys.push(fresh);
                RingStep::Announced
            }
        }
    };
    secrets.gossip_ring = RingState {
        changed_at: now,
        step,
        announced_at: now,
    };
    draft.put(secrets);
}
