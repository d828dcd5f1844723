//! The ring of gossip keys in virtual time: who can open whose messages, and what a node that was
//! removed can open.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_model::assignment::GossipKey;

use super::super::keys::{GOSSIP_KEY_LIFE_MS, SPREAD_MS};
use super::*;

const HOUR: u64 = 3600 * 1000;

impl World {
    fn ring(&self) -> Vec<GossipKey> {
        self.state.secrets.as_ref().unwrap().gossip_keys.clone()
    }

    fn epochs(&self) -> Vec<u32> {
        self.ring().iter().map(|k| k.epoch).collect()
    }

    fn remove(&mut self, n: u8) {
        let id = node(n);
        self.run(|s, now, e| remove_node(s, now, e, id.as_str(), true))
            .unwrap();
    }
}

fn opens(by: &[GossipKey], sealed_by: &[GossipKey]) -> bool {
    by.iter()
        .any(|k| k.epoch == sealed_by[0].epoch && k.key == sealed_by[0].key)
}

#[test]
fn every_twelve_hours_the_next_key_seals_and_three_are_held() {
    let mut world = World::new(3);
    assert_eq!(world.epochs(), [1, 2]);
    assert_eq!(world.next_due(), Some(12 * HOUR));
    world.advance(12 * HOUR - 1);
    assert_eq!(world.epochs(), [1, 2]);
    world.advance(1);
    assert_eq!(world.epochs(), [2, 3, 1]);
    assert_eq!(world.ring()[0].sealing_since, world.now);
    world.advance(12 * HOUR);
    assert_eq!(world.epochs(), [3, 4, 2]);
    let orders = orders_of(&world.state, &node(2)).unwrap();
    assert_eq!(orders.shared.gossip_keys, world.ring());
    // A manager that was off for a week rotates once, as the others only know what it told them.
    world.advance(7 * 24 * HOUR);
    assert_eq!(world.epochs(), [4, 5, 3]);
}

#[test]
fn a_swarm_with_one_key_for_ever_gets_a_ring_step_by_step() {
    let mut world = World::new(1);
    let mut secrets = world.state.secrets.clone().unwrap();
    secrets.gossip_keys.truncate(1);
    secrets.gossip_keys[0].sealing_since = 0;
    secrets.gossip_ring = RingState::default();
    world.state.secrets = Some(secrets);
    world.now = 50 * 365 * 24 * HOUR;
    world.settle();
    assert_eq!(world.epochs(), [1, 2], "told, not used");
    world.advance(SPREAD_MS);
    assert_eq!(world.epochs(), [2, 3, 1]);
    world.advance(SPREAD_MS);
    assert_eq!(world.epochs(), [2, 3]);
    world.advance(HOUR);
    assert_eq!(world.epochs(), [2, 3]);
}

#[test]
fn a_clock_that_goes_back_holds_no_step_up() {
    let mut world = World::new(2);
    world.remove(2);
    world.now -= 500_000;
    world.advance(SPREAD_MS);
    assert_eq!(world.epochs(), [3, 4, 1]);
    let ring = world.state.secrets.as_ref().unwrap().gossip_ring;
    assert_eq!(ring.step, RingStep::Replaced);
}

#[test]
fn nothing_that_a_removed_node_knows_opens_or_seals_after_seconds() {
    for leaves in [false, true] {
        let mut world = World::new(3);
        world.advance(30 * HOUR);
        let known: BTreeSet<[u8; 32]> = world.ring().iter().map(|k| k.key).collect();
        assert_eq!(known.len(), 3);
        if leaves {
            world
                .change(|s, now, e| leave_node(s, now, e, &node(2)))
                .unwrap();
        } else {
            world.remove(2);
        }
        let at = world.now;
        while world.ring().iter().any(|k| known.contains(&k.key)) {
            let before = world.ring();
            let due = world.next_due().unwrap();
            world.advance(due);
            assert!(opens(&before, &world.ring()) && opens(&world.ring(), &before));
            assert!(world.now - at <= 2 * SPREAD_MS, "{:?}", world.epochs());
        }
        assert_eq!(world.now - at, 2 * SPREAD_MS);
        assert_eq!(world.ring().len(), 2);
    }
}

#[test]
fn nodes_that_go_one_after_the_other_hold_the_new_key_up_for_a_while_only() {
    let mut world = World::new(2);
    let old = world.ring()[0].key;
    let start = world.now;
    // A worker that says goodbye and returns once a second.
    for _ in 0..60 {
        if world.ring()[0].key != old {
            break;
        }
        world
            .change(|s, now, e| leave_node(s, now, e, &node(2)))
            .unwrap();
        world.advance(1000);
    }
    assert_ne!(world.ring()[0].key, old);
    assert!(world.now - start <= 40_000);
}

proptest! {
    /// Nodes hear of a ring up to [`SPREAD_MS`] late, each in its own time: whatever is removed
    /// when, every two of them understand each other; so does who misses one rotation by the
    /// clock, and who was away for longer does again with the next orders.
    #[test]
    fn nodes_that_have_orders_understand_each_other(
        steps in prop::collection::vec((0_u64..8, 0_u64..SPREAD_MS, 0_u64..SPREAD_MS), 1..40),
        removals in prop::collection::btree_set(0_usize..40, 0..3),
    ) {
        let mut world = World::new(5);
        let mut history = vec![(0, world.ring())];
        let mut removable = 5;
        for (at, (hours, late_a, late_b)) in steps.into_iter().enumerate() {
            let removal = removals.contains(&at);
            // Two removals within one announcement replace a key that some have heard of: what
            // they seal meanwhile is still the old one.
            let mut stops = if removal {
                world.remove(removable);
                removable -= 1;
                vec![world.now + SPREAD_MS, world.now + 2 * SPREAD_MS, world.now + 3 * SPREAD_MS]
            } else {
                vec![world.now + hours * HOUR + SPREAD_MS]
            };
            history.push((world.now, world.ring()));
            while let Some(stop) = (!stops.is_empty()).then(|| stops.remove(0)) {
                while let Some(due) = world.next_due().filter(|wait| world.now + wait <= stop) {
                    world.advance(due);
                    history.push((world.now, world.ring()));
                }
                world.advance(stop.saturating_sub(world.now));
                for late in [late_a, late_b] {
                    let as_of = |late: u64| {
                        let heard = world.now.saturating_sub(late);
                        history.iter().rev().find(|(at, _)| *at <= heard).map(|(_, r)| r)
                    };
                    let (new, old) = (as_of(0).unwrap(), as_of(late).unwrap());
                    prop_assert!(opens(old, new) && opens(new, old), "{new:?} {old:?}");
                }
            }
            prop_assert!(world.ring().len() <= 3);
        }
        // One rotation missed.
        let away = world.ring();
        world.advance(GOSSIP_KEY_LIFE_MS);
        prop_assert!(opens(&away, &world.ring()) && opens(&world.ring(), &away));
        world.advance(GOSSIP_KEY_LIFE_MS);
        prop_assert!(!opens(&world.ring(), &away), "two are one too many");
        let orders = orders_of(&world.state, &node(1)).unwrap();
        prop_assert!(opens(&orders.shared.gossip_keys, &world.ring()));
    }
}
