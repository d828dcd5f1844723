use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;
use weft_wire::{Mac, Vni};

use super::{Balancer, Choice, Policy, Rng};
use crate::services::Replica;

fn replicas(loads: &[u32]) -> Vec<Replica> {
    (0u8..)
        .zip(loads)
        .map(|(i, &others)| {
            let load = Arc::<crate::ReplicaLoad>::default();
            load.set_others(others);
            Replica {
                key: u64::from(i),
                vni: Vni::new(1).unwrap(),
                ip: Ipv4Addr::new(10, 0, 0, i).into(),
                mac: Mac([2, 0x42, 10, 0, 0, i]),
                local: false,
                weight: 1,
                draining: false,
                load,
            }
        })
        .collect()
}

#[test]
fn fewest_connections_win_and_ties_are_broken_evenly() {
    let rs = replicas(&[4, 1, 7, 1, 1]);
    let mut rng = Rng::new(7);
    let mut hits = [0u32; 5];
    for _ in 0..3000 {
        hits[Balancer::default()
            .pick(&rs, Choice::default(), &mut rng)
            .unwrap()] += 1;
    }
    assert_eq!((hits[0], hits[2]), (0, 0));
    for i in [1, 3, 4] {
        assert!((800..1200).contains(&hits[i]), "{hits:?}");
    }
}

#[test]
fn open_connections_spread_evenly_and_by_weight() {
    let mut rs = replicas(&[0, 0, 0, 0]);
    rs[3].weight = 2;
    let mut rng = Rng::new(1);
    let mut open = Vec::new();
    for _ in 0..500 {
        let at = Balancer::default()
            .pick(&rs, Choice::default(), &mut rng)
            .unwrap();
        open.push(rs[at].load.open());
    }
    let counts: Vec<_> = rs.iter().map(|r| r.load.own()).collect();
    assert_eq!(counts, [100, 100, 100, 200]);
}

#[test]
fn draining_weightless_tried_and_foreign_families_are_passed_over() {
    let mut rs = replicas(&[0, 0, 0, 9, 0]);
    rs[0].draining = true;
    rs[1].weight = 0;
    rs[4].ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut rng = Rng::new(1);
    let mut pick = |tried: &[u64], ipv6| {
        Balancer::default().pick(
            &rs,
            Choice {
                tried,
                ipv6,
                ..Choice::default()
            },
            &mut rng,
        )
    };
    assert_eq!(pick(&[2], false), Some(3));
    assert_eq!(pick(&[2, 3], false), None);
    assert_eq!(pick(&[], true), Some(4));
}

#[test]
fn local_replicas_go_first_and_spill_over() {
    let mut rs = replicas(&[4, 6, 5]);
    rs[1].local = true;
    let mut rng = Rng::new(3);
    let mut pick = |tried: &[u64]| {
        Balancer::default().pick(
            &rs,
            Choice {
                local_first: true,
                tried,
                ..Choice::default()
            },
            &mut rng,
        )
    };
    assert_eq!(pick(&[]), Some(1));
    assert_ne!(pick(&[1]), Some(1));
    assert!(pick(&[1]).is_some());
}

#[test]
fn two_choices_uses_own_counts_and_never_the_worst() {
    let rs = replicas(&[0, 0, 0]);
    let _busy: Vec<_> = (0..10).map(|_| rs[0].load.open()).collect();
    rs[1].load.set_others(1000);
    let b = Balancer {
        policy: Policy::TwoChoices,
        ..Balancer::default()
    };
    let mut rng = Rng::new(5);
    let mut hits = [0u32; 3];
    for _ in 0..3000 {
        hits[b.pick(&rs, Choice::default(), &mut rng).unwrap()] += 1;
    }
    // The busiest by own counts loses against any other of the pair.
    assert_eq!(hits[0], 0);
    assert!(hits[1] > 1200 && hits[2] > 1200, "{hits:?}");
    assert_eq!(b.pick(&rs[..1], Choice::default(), &mut rng), Some(0));
    assert_eq!(b.pick(&[], Choice::default(), &mut rng), None);
}

proptest! {
    #[test]
    fn a_pick_is_always_minimal(loads in prop::collection::vec(0u32..5, 0..9), seed: u64) {
        let rs = replicas(&loads);
        let picked = Balancer::default().pick(&rs, Choice::default(), &mut Rng::new(seed));
        prop_assert_eq!(picked.map(|i| loads[i]), loads.iter().copied().min());
    }

    #[test]
    fn below_stays_below(seed: u64, bound in 1u32..) {
        prop_assert!(Rng::new(seed).below(bound) < bound);
    }
}
