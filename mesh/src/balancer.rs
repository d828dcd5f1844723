//! Which replica takes a new connection.

use crate::services::Replica;

/// Source of random numbers of one flow table (SplitMix64). Good for breaking ties, nothing else.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts at a seed that the caller drew.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0. The bias is below 2^-32.
    pub fn below(&mut self, bound: u32) -> u32 {
        let wide = (self.next_u64() >> 32) * u64::from(bound);
        (wide >> 32) as u32
    }
}

/// How replicas are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The one with the fewest open connections cluster-wide for its weight: right while load
    /// reports are fresh compared with the life of a connection.
    #[default]
    LeastConnections,
    /// The better of two random ones by this node's own connections: right when reports are
    /// stale, where full least connections would send everyone to the same replica.
    TwoChoices,
}

/// What limits a choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// The client speaks IPv6, so the replica's address has to be one.
    pub ipv6: bool,
    /// Replicas on this node go first, the others take over when there is none.
    pub local_first: bool,
    /// Keys of replicas that this connection was already offered to.
    pub tried: &'a [u64],
}

/// Chooses replicas. Pure: everything it needs is in its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balancer {
    /// How replicas are compared.
    pub policy: Policy,
}

impl Balancer {
    /// Index of the replica that takes a new connection, if any can. O(replicas), no allocation.
    #[must_use]
    pub fn pick(&self, replicas: &[Replica], choice: Choice<'_>, rng: &mut Rng) -> Option<usize> {
        if choice.local_first {
            let local = self.pick_among(replicas, choice, rng, |r| r.local);
            if local.is_some() {
                return local;
            }
        }
        self.pick_among(replicas, choice, rng, |_| true)
    }

    fn pick_among(
        &self,
        replicas: &[Replica],
        choice: Choice<'_>,
        rng: &mut Rng,
        wanted: impl Fn(&Replica) -> bool,
    ) -> Option<usize> {
        let candidates = replicas
            .iter()
            .enumerate()
            .filter(|(_, r)| takes_new(r, choice) && wanted(r));
        match self.policy {
            Policy::LeastConnections => least_connections(candidates, rng),
            Policy::TwoChoices => two_choices(candidates, rng),
        }
    }
}

fn takes_new(r: &Replica, choice: Choice<'_>) -> bool {
    !r.draining && r.weight > 0 && r.ip.is_ipv6() == choice.ipv6 && !choice.tried.contains(&r.key)
}

fn least_connections<'a>(
    candidates: impl Iterator<Item = (usize, &'a Replica)>,
    rng: &mut Rng,
) -> Option<usize> {
    let mut best: Option<(usize, Score)> = None;
    let mut ties = 0;
    for (at, replica) in candidates {
        let score = Score::new(replica.load.total(), replica.weight);
        match best.as_ref().map(|(_, b)| score.cmp(b)) {
            Some(std::cmp::Ordering::Greater) => {}
            Some(std::cmp::Ordering::Equal) => {
                // Reservoir of size one: each of the equals is kept with the same chance.
                ties += 1;
                if rng.below(ties) == 0 {
                    best = Some((at, score));
                }
            }
            Some(std::cmp::Ordering::Less) | None => {
                ties = 1;
                best = Some((at, score));
            }
        }
    }
    best.map(|(at, _)| at)
}

fn two_choices<'a>(
    candidates: impl Iterator<Item = (usize, &'a Replica)>,
    rng: &mut Rng,
) -> Option<usize> {
    // Reservoir of size two.
    let mut pair: [Option<(usize, Score)>; 2] = [None, None];
    for (seen, (at, replica)) in (0u32..).zip(candidates) {
        let slot = if seen < 2 { seen } else { rng.below(seen + 1) };
        if let Some(place) = pair.get_mut(slot as usize) {
            *place = Some((at, Score::new(replica.load.own(), replica.weight)));
        }
    }
    match pair {
        [Some((a, sa)), Some((b, sb))] => match sa.cmp(&sb) {
            std::cmp::Ordering::Less => Some(a),
            std::cmp::Ordering::Greater => Some(b),
            std::cmp::Ordering::Equal => Some(if rng.below(2) == 0 { a } else { b }),
        },
        [Some((a, _)), None] => Some(a),
        [None, _] => None,
    }
}

/// Connections for the weight, were this one added.
#[derive(Debug, Clone, Copy)]
struct Score {
    connections: u64,
    weight: u64,
}

impl Score {
    fn new(connections: u32, weight: u16) -> Self {
        Self {
            connections: u64::from(connections) + 1,
            weight: u64::from(weight),
        }
    }

    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.connections * other.weight).cmp(&(other.connections * self.weight))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use proptest::prelude::*;
    use weft_wire::{Mac, Vni};

    use super::{Balancer, Choice, Policy, Replica, Rng};

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
        let mut rs = replicas(&[0, 50, 0]);
        rs[1].local = true;
        let mut rng = Rng::new(3);
        let mut pick = |tried: &[u64]| {
            Balancer::default().pick(
                &rs,
                Choice {
                    local_first: true,
                    tried,
                    ipv6: false,
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
}
