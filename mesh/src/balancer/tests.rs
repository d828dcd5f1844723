use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use weft_wire::{Instant, Mac, Vni};

use super::{Affinity, Balancer, Choice, Policy, Rng};
use crate::ejection::Failure;
use crate::replica::Replica;

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
fn open_connections_spread_evenly() {
    let rs = replicas(&[0, 0, 0, 0]);
    let mut rng = Rng::new(1);
    let mut open = Vec::new();
    for _ in 0..500 {
        let at = Balancer::default()
            .pick(&rs, Choice::default(), &mut rng)
            .unwrap();
        open.push(rs[at].load.open());
    }
    let counts: Vec<_> = rs.iter().map(|r| r.load.own()).collect();
    assert_eq!(counts, [125; 4]);
}

#[test]
fn draining_tried_and_foreign_families_are_passed_over() {
    let mut rs = replicas(&[0, 0, 0, 9, 0]);
    rs[0].draining = true;
    rs[1].draining = true;
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

/// Long after everything began.
const NOW: Instant = Instant(1_000_000_000_000);

fn now() -> Choice<'static> {
    Choice {
        now: NOW,
        ..Choice::default()
    }
}

fn ago(d: Duration) -> Instant {
    Instant(NOW.0 - u64::try_from(d.as_nanos()).unwrap())
}

fn eject(replica: &Replica, at: Instant) {
    for _ in 0..3 {
        replica.load.health().note_failure(at, 0, Failure::Refused);
    }
}

/// How many of so many picks each replica gets, if nobody stays.
fn hits(b: &Balancer, rs: &[Replica], choice: Choice<'_>, picks: u32) -> Vec<u32> {
    let mut rng = Rng::new(11);
    let mut hits = vec![0; rs.len()];
    for _ in 0..picks {
        hits[b.pick(rs, choice, &mut rng).unwrap()] += 1;
    }
    hits
}

/// How many each replica has after so many that stay.
fn fill(b: &Balancer, rs: &[Replica], choice: Choice<'_>, picks: u32) -> Vec<u32> {
    let mut rng = Rng::new(11);
    let open: Vec<_> = (0..picks)
        .map(|_| rs[b.pick(rs, choice, &mut rng).unwrap()].load.open())
        .collect();
    let counts = rs.iter().map(|r| r.load.own()).collect();
    drop(open);
    counts
}

#[test]
fn a_newcomer_takes_a_share_that_grows_with_time() {
    let b = Balancer::default();
    for (seconds, expected) in [(0, 17..19), (5, 99..101), (10, 149..151), (60, 149..151)] {
        let rs = replicas(&[0, 0]);
        rs[0]
            .load
            .set_ready_since(Some(ago(Duration::from_secs(seconds))));
        // The other one is no newcomer: nobody said so.
        let counts = fill(&b, &rs, now(), 300);
        assert!(expected.contains(&counts[0]), "{seconds} s: {counts:?}");
    }
    let at_once = Balancer {
        slow_start: Duration::ZERO,
        ..b
    };
    let rs = replicas(&[0, 0]);
    rs[0].load.set_ready_since(Some(NOW));
    assert_eq!(fill(&at_once, &rs, now(), 300), [150, 150]);
}

#[test]
fn newcomers_among_themselves_share_evenly() {
    let rs = replicas(&[0, 0, 0]);
    for r in &rs {
        r.load.set_ready_since(Some(ago(Duration::from_secs(1))));
    }
    let counts = fill(&Balancer::default(), &rs, now(), 300);
    assert_eq!(counts, [100, 100, 100]);
}

#[test]
fn next_to_nothing_does_not_send_all_to_one_of_two_idle_replicas() {
    let b = Balancer::default();
    b.load.note_lifetime(Duration::from_millis(1));
    let rs = replicas(&[0, 0]);
    // What it still says of now is less than a hundredth of a connection.
    rs[0].load.set_others_at(1, ago(Duration::from_secs(1)));
    let idle = hits(&b, &rs, now(), 1000);
    assert!(idle.iter().all(|n| *n > 400), "{idle:?}");
    // One began a moment before the other.
    for milliseconds in [2990, 2970, 2950] {
        let rs = replicas(&[0, 0]);
        for (r, ready) in rs.iter().zip([3000, milliseconds]) {
            let since = ago(Duration::from_millis(ready));
            r.load.set_ready_since(Some(since));
        }
        let began = hits(&b, &rs, now(), 1000);
        assert!(began.iter().all(|n| *n > 350), "{began:?}");
    }
}

#[test]
fn local_replicas_spill_over_beyond_the_limit_and_no_sooner() {
    let picked = |local: u32, remote: u32, percent| {
        let mut rs = replicas(&[local, remote]);
        rs[0].local = true;
        let choice = Choice {
            local_first: true,
            ..now()
        };
        let b = Balancer {
            spill_percent: percent,
            ..Balancer::default()
        };
        b.pick(&rs, choice, &mut Rng::new(1)).unwrap()
    };
    assert_eq!((picked(1, 0, 125), picked(2, 0, 125)), (0, 1));
    assert_eq!((picked(6, 4, 125), picked(7, 4, 125)), (0, 1));
    assert_eq!((picked(126, 100, 125), picked(127, 100, 125)), (0, 1));
    assert_eq!((picked(200, 100, 200), picked(9, 5, 0)), (0, 1));
    let mut rs = replicas(&[0, 0]);
    rs[0].local = true;
    rs[0].draining = true;
    let choice = Choice {
        local_first: true,
        ..now()
    };
    let b = Balancer::default();
    assert_eq!(b.pick(&rs, choice, &mut Rng::new(1)), Some(1));
}

/// How many of 3000 connections that do not stay each replica gets, with these pressures of their
/// nodes in percent.
fn hits_under(pressures: [u16; 3], policy: Policy) -> Vec<u32> {
    let rs = replicas(&[0, 0, 0]);
    for (r, percent) in rs.iter().zip(pressures) {
        r.load.node().set(percent * 100);
    }
    let b = Balancer {
        policy,
        ..Balancer::default()
    };
    hits(&b, &rs, now(), 3000)
}

#[test]
fn among_equals_a_calm_node_is_the_likelier_and_none_is_left_out() {
    let even = 850..1150;
    for alike in [[0; 3], [0, 3, 1], [99; 3], [100, 97, 600]] {
        let got = hits_under(alike, Policy::Adaptive);
        assert!(got.iter().all(|h| even.contains(h)), "{alike:?}: {got:?}");
    }
    // A fifth of the time, beside all of it twice: one of eleven.
    let hot = hits_under([80, 0, 0], Policy::Adaptive);
    assert!((200..350).contains(&hot[0]), "{hot:?}");
    assert!(hot[1].abs_diff(hot[2]) < 250, "{hot:?}");
    let stuck = hits_under([0, 100, 0], Policy::Adaptive);
    assert!((40..150).contains(&stuck[1]), "{stuck:?}");
    // It is in two pairs of three, and has 51 of 307 chances in each.
    let two = hits_under([0, 0, 80], Policy::TwoChoices);
    assert!((250..420).contains(&two[2]), "{two:?}");
}

/// Connections begin and end in any order while one of four nodes is hot and another one warm. Each
/// goes where the fewest are, as it would without; what pressure moves are the choices that are left.
#[test]
fn pressure_moves_no_connection_to_a_replica_with_more() {
    for seed in 0..8 {
        let rs = replicas(&[0; 4]);
        rs[0].load.node().set(7500);
        rs[1].load.node().set(2000);
        let b = Balancer::default();
        let (mut rng, mut ends) = (Rng::new(seed), Rng::new(!seed));
        let mut open = Vec::new();
        let (mut ties, mut hot, mut all_to_hot) = (0, 0, 0);
        for n in 0..4000 {
            let loads: Vec<u32> = rs.iter().map(|r| r.load.own()).collect();
            let least = loads.iter().min().unwrap();
            let at = b.pick(&rs, now(), &mut rng).unwrap();
            assert_eq!(loads[at], *least, "seed {seed}, connection {n}: {loads:?}");
            all_to_hot += u32::from(at == 0);
            let equals = loads.iter().filter(|l| *l == least).count();
            if loads[0] == *least && equals > 1 {
                ties += 1;
                hot += u32::from(at == 0);
            }
            open.push(rs[at].load.open());
            if open.len() > 5 {
                open.swap_remove(ends.below(6) as usize);
            }
        }
        // 64 chances beside 205 and 256s: between one in four and one in twelve.
        assert!(ties > 500, "seed {seed}: {ties}");
        let part = f64::from(hot) / f64::from(ties);
        assert!((0.05..0.28).contains(&part), "seed {seed}: {part}");
        // Five or six are open at four replicas: what it does not get now it gets next.
        assert!(
            (500..1000).contains(&all_to_hot),
            "seed {seed}: {all_to_hot}"
        );
    }
}

#[test]
fn a_report_counts_for_less_the_older_it_is() {
    let b = Balancer::default();
    let rs = replicas(&[0, 0]);
    let _three: Vec<_> = (0..3).map(|_| rs[1].load.open()).collect();
    let picked = || b.pick(&rs, now(), &mut Rng::new(1)).unwrap();
    rs[0].load.set_others_at(10, ago(Duration::from_secs(100)));
    assert_eq!(picked(), 1, "no lifetime is known");
    b.load.note_lifetime(Duration::from_secs(100));
    assert_eq!(picked(), 1);
    b.load.note_lifetime(Duration::from_secs(1));
    for _ in 0..1000 {
        b.load.note_lifetime(Duration::from_secs(1));
    }
    assert_eq!(picked(), 0, "what was reported is long over");
}

#[test]
fn what_this_node_has_done_since_its_report_the_others_have_done_too() {
    let b = Balancer::default();
    let rs = replicas(&[0, 0]);
    let _one: Vec<_> = rs.iter().map(|r| r.load.open()).collect();
    for (r, others) in rs.iter().zip([10, 14]) {
        r.load.note_reported(1);
        r.load.set_others(others);
    }
    let picked = || b.pick(&rs, now(), &mut Rng::new(1)).unwrap();
    assert_eq!(picked(), 0);
    // Twelve of theirs for one of ours.
    let _another = rs[0].load.open();
    assert_eq!(picked(), 1);
    rs[0].load.note_reported(2);
    rs[0].load.set_others(12);
    assert_eq!(picked(), 0, "now they have said it");
}

fn sticky() -> Balancer {
    Balancer {
        affinity: Affinity::ClientAddress,
        ..Balancer::default()
    }
}

fn client(n: u32) -> Choice<'static> {
    Choice {
        client: Some(Ipv4Addr::from_bits(0x0a01_0000 + n).into()),
        ..now()
    }
}

fn homes(rs: &[Replica], clients: u32) -> Vec<u64> {
    let mut rng = Rng::new(1);
    (0..clients)
        .map(|n| rs[sticky().pick(rs, client(n), &mut rng).unwrap()].key)
        .collect()
}

#[test]
fn clients_stay_and_only_those_of_a_lost_replica_move() {
    let mut rs = replicas(&[0, 0, 0, 0, 900]);
    let before = homes(&rs, 5000);
    for key in 0..5 {
        let there = before.iter().filter(|k| **k == key).count();
        assert!((850..1150).contains(&there), "{there}");
    }
    rs.reverse();
    assert_eq!(before, homes(&rs, 5000), "order does not matter");
    let lost = rs.remove(2).key;
    for (was, is) in before.iter().zip(homes(&rs, 5000)) {
        assert!(*was == is || *was == lost);
    }
}

#[test]
fn without_an_address_affinity_falls_back_to_load() {
    let rs = replicas(&[5, 0]);
    assert_eq!(hits(&sticky(), &rs, now(), 10), [0, 10]);
}

#[test]
fn the_ejected_get_nothing_until_their_trial() {
    let rs = replicas(&[0, 5, 5, 5]);
    let b = Balancer::default();
    eject(&rs[0], NOW);
    assert_eq!(hits(&b, &rs, now(), 30)[0], 0);
    assert_ne!(homes(&rs, 100), homes(&rs[1..], 0));
    assert!(homes(&rs, 100).iter().all(|key| *key != 0));
    let later = Choice {
        now: NOW.after(Duration::from_secs(1)),
        ..now()
    };
    let mut rng = Rng::new(1);
    assert_eq!(b.pick(&rs, later, &mut rng), Some(0));
    let trial = rs[0].load.open_at(&b.load, later.now);
    assert_ne!(b.pick(&rs, later, &mut rng), Some(0));
    rs[0].load.health().note_success();
    assert_eq!(b.pick(&rs, later, &mut rng), Some(0));
    drop(trial);
}

#[test]
fn no_more_than_half_are_left_out_and_the_longest_ejected_return_first() {
    let b = Balancer::default();
    let rs = replicas(&[0, 0, 0, 0, 9]);
    for (r, millis) in rs.iter().zip([3, 1, 2, 0]) {
        eject(r, NOW.after(Duration::from_millis(millis)));
    }
    let got = hits(&b, &rs, now(), 300);
    assert_eq!((got[0], got[2], got[4]), (0, 0, 0), "{got:?}");
    assert!(got[1] > 100 && got[3] > 100);
    // A connection that the rest has refused goes to an ejected one rather than to nobody.
    let refused = Choice {
        tried: &[1, 3, 4],
        ..now()
    };
    let got = hits(&b, &rs, refused, 100);
    assert!(got[0] > 20 && got[2] > 20, "{got:?}");
    for alone in [1, 2] {
        let rs = replicas(&vec![0; alone]);
        rs.iter().for_each(|r| eject(r, NOW));
        assert!(b.pick(&rs, now(), &mut Rng::new(1)).is_some());
    }
}

proptest! {
    #[test]
    fn a_pick_is_always_minimal(loads in prop::collection::vec(0u32..5, 0..9), seed: u64) {
        let rs = replicas(&loads);
        let picked = Balancer::default().pick(&rs, Choice::default(), &mut Rng::new(seed));
        prop_assert_eq!(picked.map(|i| loads[i]), loads.iter().copied().min());
    }

    #[test]
    fn whatever_is_known_a_pick_is_one_that_can_take_it(
        known in prop::collection::vec(
            (any::<[u32; 4]>(), any::<[u64; 3]>(), any::<u16>(), 0u32..8, 0u8..8), 0..12),
        way in (0u8..4, any::<bool>(), any::<bool>(), any::<u64>(), any::<u16>()),
        times in any::<[u64; 2]>(),
        tried in prop::collection::vec(0u64..12, 0..4),
    ) {
        let rs = replicas(&vec![0; known.len()]);
        let now = Instant(times[0]);
        let mut rs: Vec<_> = rs;
        for (r, (counts, at, pressure, failures, flags)) in rs.iter_mut().zip(known) {
            r.load.set_others_at(counts[0], Instant(at[0]));
            if counts[1] % 2 == 0 {
                r.load.set_others(counts[0]);
            }
            r.load.note_reported(counts[2]);
            r.load.set_ready_since(Some(Instant(at[1])));
            r.load.node().set(pressure);
            r.draining = flags & 6 == 6;
            r.local = flags & 1 == 1;
            r.load.health().set_probed(flags & 4 == 4);
            for _ in 0..failures {
                let health = r.load.health();
                health.note_failure(Instant(at[2]), at[0], Failure::Refused);
            }
        }
        let (policy, sticky, local_first, lifetime, spill_percent) = way;
        let b = Balancer {
            policy: [Policy::Adaptive, Policy::LeastConnections, Policy::LeastOwn,
                Policy::TwoChoices][usize::from(policy)],
            affinity: if sticky { Affinity::ClientAddress } else { Affinity::None },
            slow_start: Duration::from_nanos(times[1]),
            spill_percent,
            ..Balancer::default()
        };
        b.load.note_lifetime(Duration::from_nanos(lifetime));
        let choice = Choice {
            now,
            client: Some(Ipv4Addr::from_bits(7).into()),
            local_first,
            tried: &tried,
            ..Choice::default()
        };
        let open = |r: &Replica| !r.draining && !tried.contains(&r.key);
        let fit = |r: &Replica| open(r) && !r.load.health().is_ejected(now);
        match b.pick(&rs, choice, &mut Rng::new(lifetime)) {
            Some(at) => {
                prop_assert!(open(&rs[at]));
                // An ejected one only where more than half are out, or nobody else is left.
                let able = |r: &&Replica| !r.draining;
                let all = rs.iter().filter(able).count();
                let ejected = |r: &&Replica| r.load.health().is_ejected(now);
                let out = rs.iter().filter(able).filter(ejected).count();
                prop_assert!(fit(&rs[at]) || !rs.iter().any(fit) || 2 * out > all);
            }
            None => prop_assert!(!rs.iter().any(open)),
        }
    }

    #[test]
    fn shares_are_equal(replicas_count in 1usize..8, seed: u64) {
        let rs = replicas(&vec![0; replicas_count]);
        let mut rng = Rng::new(seed);
        let open: Vec<_> = (0..10 * replicas_count)
            .map(|_| rs[Balancer::default().pick(&rs, now(), &mut rng).unwrap()].load.open())
            .collect();
        for r in &rs {
            prop_assert_eq!(r.load.own(), 10);
        }
        drop(open);
    }

    #[test]
    fn below_stays_below(seed: u64, bound in 1u32..) {
        prop_assert!(Rng::new(seed).below(bound) < bound);
    }
}
