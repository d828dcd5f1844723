//! Firewalls that let streams pass and no datagrams, and nodes that come and go.

use super::*;

impl Sim {
    /// Who, by node `i`, is reached by streams alone, and whether its own datagrams are the ones
    /// that do not pass.
    fn blocked(&mut self, i: usize) -> Vec<(NodeId, bool)> {
        let now = self.now;
        let blocked = self.nodes[i].as_mut().expect("runs").blocked(now);
        blocked.into_iter().map(|b| (b.node, b.outbound)).collect()
    }
}

#[test]
fn a_node_whose_datagrams_are_blocked_stays_and_both_sides_know_which_way() {
    const N: usize = 5;
    for seed in 0..12 {
        let mut sim = Sim::cluster(seed, 0.01, N);
        let (mute, deaf) = (seed % 3 != 1, seed % 3 != 0);
        sim.mute.extend(mute.then_some(2));
        sim.deaf.extend(deaf.then_some(2));
        for round in 0..10 {
            sim.run(4 * SECOND);
            // Its news reach the others, and theirs reach it.
            for owner in [2, 4] {
                let key = format!("news{round}");
                sim.put(owner, &key, b"x");
                let took = sim.until(10 * SECOND, |s| s.all_see(owner, &key, Some(b"x")));
                assert!(
                    took.is_some_and(|t| t < 4 * SECOND),
                    "seed {seed}: {took:?}"
                );
            }
        }
        assert_eq!(sim.downs, [], "seed {seed}: nobody failed");
        let others: BTreeSet<NodeId> = [0, 1, 3, 4].map(name).into();
        let by_it: BTreeSet<NodeId> = sim.blocked(2).into_iter().map(|b| b.0).collect();
        assert_eq!(by_it, others, "seed {seed}");
        for i in [0, 1, 3, 4] {
            // It hears what it sends in vain, where that is so.
            assert_eq!(sim.blocked(i), [(name(2), !mute)], "seed {seed}, node {i}");
        }
        if mute && !deaf {
            assert!(
                sim.blocked(2).iter().all(|(_, outbound)| *outbound),
                "seed {seed}"
            );
        }
        // A node that is dead is found out as before.
        sim.nodes[2] = None;
        let gone = sim.until(5 * SECOND, |s| s.all_see(2, "own2", None));
        assert!(
            gone.is_some_and(|t| t <= 2500 * MS),
            "seed {seed}: {gone:?}"
        );
    }
}

#[test]
fn an_open_way_is_no_trouble_any_more_and_loss_is_none() {
    for seed in 20..24 {
        let mut sim = Sim::cluster(seed, 0.0, 3);
        sim.mute.insert(1);
        sim.run(10 * SECOND);
        assert_eq!(sim.blocked(0).len(), 1);
        sim.mute.clear();
        sim.run(5 * SECOND);
        for i in 0..3 {
            assert_eq!(sim.blocked(i), [], "seed {seed}");
        }
        sim.loss = 0.1;
        for _ in 0..20 {
            sim.run(3 * SECOND);
            for i in 0..3 {
                assert_eq!(sim.blocked(i), [], "seed {seed}: loss is no firewall");
            }
        }
    }
}

#[test]
fn a_node_that_comes_and_goes_is_believed_less_and_less_and_in_the_end_again() {
    for seed in 40..46 {
        let mut sim = Sim::cluster(seed, 0.0, 4);
        for _ in 0..10 {
            sim.island.insert(3);
            sim.run(3 * SECOND);
            sim.island.clear();
            sim.run(3 * SECOND);
        }
        let seen = |sim: &Sim| {
            let by = sim
                .downs
                .iter()
                .filter(|(_, by, who)| *by == 0 && *who == name(3));
            by.count()
        };
        let toggles = seen(&sim);
        assert!((2..=5).contains(&toggles), "seed {seed}: {toggles} of 10");
        // It is well now: the longest wait is bounded, and nobody else suffered.
        let back = sim.until(30 * SECOND, |s| s.all_see(3, "own3", Some(b"first")));
        assert!(back.is_some(), "seed {seed}");
        let others = sim
            .downs
            .iter()
            .filter(|(_, by, who)| *by < 3 && *who != name(3));
        assert_eq!(others.count(), 0, "seed {seed}");
        // Long after, a single failure costs nothing more than before.
        sim.run(90 * SECOND);
        sim.island.insert(3);
        sim.run(3 * SECOND);
        sim.island.clear();
        let back = sim.until(10 * SECOND, |s| s.all_see(3, "own3", Some(b"first")));
        assert!(
            back.is_some_and(|t| t <= 4 * SECOND),
            "seed {seed}: {back:?}"
        );
    }
}
