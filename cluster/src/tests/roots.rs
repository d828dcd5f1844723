//! How one root certificate takes the place of another, in virtual time: who is waited for, and that
//! nobody is cut off.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::commands::refused;
use super::*;

impl World {
    fn roots(&self) -> Roots {
        self.state.secrets.as_ref().unwrap().roots.clone()
    }

    fn rotate(&mut self, n: u8) {
        let cross = format!("{} by {}", n, self.roots().current.digest);
        self.run(|s, now, e| rotate_root(s, now, e, &root(n), &cross, None))
            .unwrap();
    }

    /// The node opens a session with a certificate of whoever makes them now.
    fn renew(&mut self, n: u8) {
        let signer = self.roots().signer().digest.clone();
        self.change(|s, now, e| note_certificate(s, now, e, &node(n), now, &signer))
            .unwrap();
    }

    fn progress(&self) -> (usize, usize) {
        let progress = RootProgress::of(&self.state);
        (progress.renewed, progress.total)
    }

    fn join_secrets(&self) -> [[u8; 16]; 2] {
        let secrets = self.state.secrets.as_ref().unwrap();
        [secrets.worker, secrets.manager]
    }

    /// Another manager leads: it knows of nodes what the state says, and has a clock of its own.
    fn change_leader(&mut self) {
        self.waits = Waits::default();
        self.since = None;
        self.steady = Duration::from_secs(1);
        let ready: BTreeSet<NodeId> = self
            .state
            .nodes
            .values()
            .filter(|n| n.status.state == NodeState::Ready)
            .map(|n| n.id.clone())
            .collect();
        self.waits.hear(&ready);
    }
}

fn trusted(world: &World) -> Vec<String> {
    world.roots().trusted().map(|r| r.digest.clone()).collect()
}

/// A cluster whose nodes have all shown a certificate.
fn certified(nodes: u8) -> World {
    let mut world = World::new(nodes);
    for n in 1..=nodes {
        world.renew(n);
    }
    world
}

#[test]
fn both_count_until_every_node_has_the_new_one_and_then_tokens_are_others() {
    let mut world = certified(3);
    let secrets = world.join_secrets();
    assert_eq!(world.progress(), (3, 3));
    world.rotate(2);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    assert_eq!(world.roots().bundle(), "certificate 2\ncertificate 1\n");
    assert_eq!(world.progress(), (0, 3));
    for n in [3, 1] {
        world.renew(n);
        assert_eq!(trusted(&world), ["root2", "root1"]);
        assert_eq!(world.join_secrets(), secrets, "they pin the first one");
    }
    assert_eq!(world.progress(), (2, 3));
    world.renew(2);
    assert_eq!(trusted(&world), ["root2"]);
    assert_eq!(world.progress(), (3, 3));
    let after = world.join_secrets();
    assert!(after[0] != secrets[0] && after[1] != secrets[1]);
    assert_ne!(after[0], after[1]);
    // Once.
    world.advance(ROTATION_PATIENCE_MS);
    assert_eq!(world.join_secrets(), after);
    assert_eq!(world.roots().generation, 3);
    let spec = &world.state.cluster.as_ref().unwrap().spec;
    assert_eq!(spec.ca_config.force_rotate, 1);
}

#[test]
fn a_new_leader_goes_on_and_waits_for_nodes_that_it_has_not_heard_of() {
    let mut world = certified(3);
    world.rotate(2);
    world.renew(1);
    world.change_leader();
    world.advance(10 * ROTATION_PATIENCE_MS);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    assert_eq!(world.progress(), (1, 3));
    // One opens its session with what it had; it is told to renew it.
    world.health(2, NodeState::Ready);
    world.renew(2);
    world.change_leader();
    assert_eq!(trusted(&world), ["root2", "root1"]);
    world.renew(3);
    assert_eq!(trusted(&world), ["root2"], "the state is all it takes");
}

#[test]
fn a_node_that_is_down_has_the_time_of_a_start() {
    let mut world = certified(3);
    world.health(3, NodeState::Down);
    world.rotate(2);
    world.renew(1);
    world.renew(2);
    let progress = RootProgress::of(&world.state);
    assert_eq!((progress.renewed, progress.total), (2, 2));
    assert_eq!(progress.away, ["n3"]);
    assert!(progress.waiting.is_empty());
    assert_eq!(world.next_due(), Some(ROTATION_PATIENCE_MS));
    world.advance(ROTATION_PATIENCE_MS - 1);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    // It is back in time, and shows what it has: it is waited for like the others.
    world.health(3, NodeState::Ready);
    world.advance(ROTATION_PATIENCE_MS);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    world.health(3, NodeState::Down);
    world.advance(ROTATION_PATIENCE_MS - 1);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    // A clock that is set changes nothing.
    world.now += 24 * 3600 * 1000;
    world.settle();
    assert_eq!(trusted(&world), ["root2", "root1"]);
    world.advance(1);
    assert_eq!(trusted(&world), ["root2"]);
}

#[test]
fn a_manager_that_is_down_is_waited_for_until_it_is_none() {
    let role = |world: &mut World, role| {
        world
            .run(|s, now, e| set_role(s, now, e, "node3", role))
            .unwrap();
    };
    let mut world = certified(3);
    role(&mut world, Role::Manager);
    world.health(3, NodeState::Down);
    world.rotate(2);
    world.renew(1);
    world.renew(2);
    let progress = RootProgress::of(&world.state);
    assert_eq!((progress.renewed, progress.total), (2, 3));
    assert_eq!(
        (progress.waiting, progress.away),
        (vec!["n3".to_owned()], Vec::new())
    );
    world.advance(100 * ROTATION_PATIENCE_MS);
    assert_eq!(
        trusted(&world),
        ["root2", "root1"],
        "it trusts the old one alone"
    );
    // Whoever is no manager any more is waited for as a worker is.
    role(&mut world, Role::Worker);
    assert_eq!(RootProgress::of(&world.state).away, ["n3"]);
    world.advance(ROTATION_PATIENCE_MS);
    assert_eq!(trusted(&world), ["root2"]);

    // Started or unlocked, it shows what it had, and renews that.
    let mut world = certified(3);
    role(&mut world, Role::Manager);
    world.health(3, NodeState::Down);
    world.rotate(2);
    world.renew(1);
    world.renew(2);
    world.advance(100 * ROTATION_PATIENCE_MS);
    world.health(3, NodeState::Ready);
    world.renew(3);
    assert_eq!(trusted(&world), ["root2"]);
}

#[test]
fn nobody_waits_for_a_node_that_is_removed() {
    let mut world = certified(3);
    world.rotate(2);
    world.renew(1);
    world.renew(2);
    world
        .run(|s, now, e| remove_node(s, now, e, "n3", true))
        .unwrap();
    assert_eq!(trusted(&world), ["root2"]);
}

#[test]
fn a_node_that_joins_meanwhile_is_waited_for() {
    let mut world = certified(1);
    world.rotate(2);
    world
        .run(|s, now, e| join(s, now, e, node(2), Role::Worker, &description(2)))
        .unwrap();
    world.renew(1);
    assert_eq!(trusted(&world), ["root2", "root1"]);
    world.renew(2);
    assert_eq!(trusted(&world), ["root2"]);
}

#[test]
fn a_second_rotation_takes_over_from_the_first() {
    let mut world = certified(2);
    world.rotate(2);
    world.renew(1);
    world.rotate(3);
    assert_eq!(trusted(&world), ["root3", "root1"]);
    assert_eq!(world.progress(), (0, 2), "the second one's do not count");
    world.renew(2);
    world.advance(ROTATION_PATIENCE_MS);
    assert_eq!(trusted(&world), ["root3", "root1"]);
    world.renew(1);
    assert_eq!(trusted(&world), ["root3"]);

    // Back to where it began, and the same again.
    let secrets = world.join_secrets();
    world.rotate(4);
    world.renew(1);
    world.rotate(3);
    let generation = world.roots().generation;
    assert_eq!(trusted(&world), ["root3"]);
    assert_eq!(world.progress(), (1, 2));
    world.rotate(3);
    assert_eq!(world.roots().generation, generation);
    assert_eq!(world.join_secrets(), secrets);
}

/// What may happen to a cluster.
#[derive(Debug, Clone)]
enum Step {
    /// To a new root, or back to the present one.
    Rotate {
        back: bool,
    },
    Renew(u8),
    Health(u8, bool),
    Remove(u8),
    Leader,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|back| Step::Rotate { back }),
        6 => (1_u8..5).prop_map(Step::Renew),
        3 => (2_u8..5, any::<bool>()).prop_map(|(n, up)| Step::Health(n, up)),
        1 => (2_u8..5).prop_map(Step::Remove),
        1 => Just(Step::Leader),
        2 => (1_u64..150_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens, a node that is not down has a certificate that a root vouches for which
    /// counts: its own, or the one that this was signed by in its time.
    #[test]
    fn nobody_who_is_there_is_cut_off(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = certified(4);
        let mut gone = BTreeSet::new();
        // A root is made once: the one that is asked for again has another number.
        let mut numbers = 10_u8..;
        let mut vouched = BTreeMap::from([("root1".to_owned(), BTreeSet::from(["root1".to_owned()]))]);
        for step in steps {
            let there = |n: &u8| world.state.nodes.contains_key(&node(*n)) && !gone.contains(n);
            match step {
                Step::Rotate { back: true } => {
                    let present = world.roots().current.digest.clone();
                    world.rotate(present["root".len()..].parse().unwrap());
                }
                Step::Rotate { back: false } => {
                    let Some(n) = numbers.next() else { break };
                    let by = BTreeSet::from([format!("root{n}"), world.roots().current.digest.clone()]);
                    vouched.insert(format!("root{n}"), by);
                    world.rotate(n);
                }
                Step::Renew(n) if there(&n) => {
                    let old = world.state.nodes[&node(n)].certified_by.clone();
                    let counts = trusted(&world);
                    // Who was away for too long is refused, and renews nothing.
                    if vouched[&old].iter().any(|root| counts.contains(root)) {
                        world.health(n, NodeState::Ready);
                        world.renew(n);
                    }
                }
                Step::Health(n, up) if there(&n) => {
                    let old = world.state.nodes[&node(n)].certified_by.clone();
                    let counts = trusted(&world);
                    let known = vouched[&old].iter().any(|root| counts.contains(root));
                    world.health(n, if up && known { NodeState::Ready } else { NodeState::Down });
                }
                Step::Remove(n) if there(&n) => {
                    let id = node(n);
                    world.run(|s, now, e| remove_node(s, now, e, id.as_str(), true)).unwrap();
                    gone.insert(n);
                }
                Step::Leader => world.change_leader(),
                Step::Wait(ms) => world.advance(ms),
                Step::Renew(_) | Step::Health(..) | Step::Remove(_) => {}
            }
            let counts = trusted(&world);
            for n in world.state.nodes.values() {
                let known = vouched[&n.certified_by].iter().any(|root| counts.contains(root));
                prop_assert!(known || n.status.state == NodeState::Down, "{}: {counts:?}", n.certified_by);
            }
        }
    }
}

#[test]
fn settings_have_bounds_and_say_them() {
    let mut world = World::new(1);
    let update = |world: &mut World, update: SwarmUpdate| {
        world
            .run(|s, now, e| update_swarm(s, now, e, &update))
            .map(|cluster| cluster.spec)
            .map_err(|error| error.message)
    };
    let hour = Duration::from_secs(3600);
    let expiry = |expiry| SwarmUpdate {
        node_cert_expiry: Some(expiry),
        ..SwarmUpdate::default()
    };
    let beats = |period| SwarmUpdate {
        heartbeat_period: Some(period),
        ..SwarmUpdate::default()
    };
    let text = update(&mut world, expiry(hour - Duration::from_millis(1))).unwrap_err();
    assert!(
        text.starts_with("minimum certificate expiry time is: 1h0m0s"),
        "{text}"
    );
    let text = update(&mut world, expiry(hour * 100_000)).unwrap_err();
    assert!(
        text.starts_with("maximum certificate expiry time"),
        "{text}"
    );
    for period in [Duration::from_millis(99), Duration::from_secs(61)] {
        let text = update(&mut world, beats(period)).unwrap_err();
        assert!(text.contains("--dispatcher-heartbeat"), "{text}");
    }
    // All of it, or nothing.
    let version = world.state.cluster.as_ref().unwrap().meta.version;
    let both = SwarmUpdate {
        autolock: Some(true),
        ..beats(Duration::from_secs(61))
    };
    update(&mut world, both).unwrap_err();
    let short = Some(Duration::from_secs(60));
    let rotated = world.run(|s, now, e| rotate_root(s, now, e, &root(2), "crossed", short));
    refused(rotated, ErrorKind::BadRequest, "minimum certificate expiry");
    assert_eq!(world.state.cluster.as_ref().unwrap().meta.version, version);
    update(&mut world, SwarmUpdate::default()).unwrap();
    assert_eq!(world.state.cluster.as_ref().unwrap().meta.version, version);
    update(&mut world, expiry(hour)).unwrap();
    let spec = update(&mut world, beats(Duration::from_secs(5))).unwrap();
    assert_eq!(spec.ca_config.node_cert_expiry, hour);
    assert_eq!(spec.dispatcher.heartbeat_period, Duration::from_secs(5));
    assert_eq!(spec.orchestration.task_history_retention_limit, 5);
    assert!(world.state.cluster.as_ref().unwrap().meta.version.index > version.index);
    let stored = serde_json::to_value(&world.state.cluster).unwrap();
    assert_eq!(
        stored["Spec"]["CAConfig"]["NodeCertExpiry"],
        3_600_000_000_000_u64
    );
    // What an earlier version stored has none of it.
    let mut earlier = stored;
    earlier.as_object_mut().unwrap().remove("Spec");
    let read: Cluster = serde_json::from_value(earlier).unwrap();
    assert_eq!(read.spec, ClusterSpec::default());
}
