//! Tasks that stay with their volumes.

use weft_model::api::ServiceUpdate;
use weft_model::objects::{Mount, Runtime, VolumeOptions};

use super::*;

/// So many nodes that run containers.
fn world(nodes: u8) -> World {
    let mut world = World::new(nodes);
    for n in 1..=nodes {
        can_run_containers(&mut world, n);
    }
    world
}

fn can_run_containers(world: &mut World, n: u8) {
    let says = NodeDescription {
        runtimes: vec!["crun".to_owned()],
        ..description(n)
    };
    world
        .change(|s, now, e| update_node(s, now, e, &node(n), &says))
        .unwrap();
}

fn sticky(name: &str, replicas: u32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    let task = task_of(&mut spec);
    task.runtime = Runtime::Container;
    task.container.image = "redis:7".to_owned();
    task.container.args.clear();
    task.container.mounts = vec![Mount {
        source: "data".to_owned(),
        target: "/data".to_owned(),
        volume_options: Some(VolumeOptions {
            sticky: true,
            ..VolumeOptions::default()
        }),
        ..Mount::default()
    }];
    spec
}

/// Where each slot is.
fn places(world: &World) -> BTreeMap<u32, Option<NodeId>> {
    let tasks = world.wanted("web").into_iter();
    tasks.map(|task| (task.slot, task.node)).collect()
}

/// Where each slot is to be.
fn homes(world: &World) -> BTreeMap<u32, NodeId> {
    let service = world.state.find_service("web").unwrap();
    let homes = service.homes.iter();
    homes.map(|home| (home.slot, home.node.clone())).collect()
}

fn waiting_task(world: &World) -> Task {
    let mut tasks = world.wanted("web").into_iter();
    tasks.find(|task| task.node.is_none()).expect("one waits")
}

fn force(world: &mut World) {
    let mut spec = world.state.find_service("web").unwrap().spec.clone();
    task_of(&mut spec).force_update += 1;
    let update = ServiceUpdate {
        spec: Some(spec),
        ..ServiceUpdate::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "web", &update))
        .unwrap();
}

#[test]
fn a_task_waits_for_the_node_of_its_volume() {
    let mut world = world(3);
    world.create(sticky("web", 2)).unwrap();
    assert!(homes(&world).is_empty(), "nothing was made there yet");
    world.run_tasks();
    let before = places(&world);
    assert_eq!(before[&1], Some(node(1)));
    assert_eq!(homes(&world), [(1, node(1)), (2, node(2))].into());
    world.health(2, NodeState::Down);
    let task = waiting_task(&world);
    assert_eq!(task.slot, 2);
    assert_eq!(
        task.status.err,
        "no suitable node (1 node not available for new tasks); its volume is on node n2, and \
         volume-sticky keeps it there"
    );
    let service = world.state.find_service("web").unwrap();
    let told = waiting(&world.state, service);
    assert!(told[0].contains("weft node ls"), "{told:?}");
    world.health(2, NodeState::Ready);
    world.run_tasks();
    assert_eq!(places(&world), before);
    // One without goes elsewhere.
    world.create(spec("other", 3)).unwrap();
    world.run_tasks();
    world.health(2, NodeState::Down);
    assert_eq!(world.spread("other").get("node2"), None);
}

#[test]
fn homes_outlive_the_history_of_their_slots() {
    let mut world = world(3);
    world.create(sticky("web", 2)).unwrap();
    world.run_tasks();
    world.scale("web", 0);
    world.run_tasks();
    world.advance(60_000);
    assert!(world.wanted("web").is_empty());
    // These two nodes have more to do than the third one by now.
    world.create(spec("filler", 2)).unwrap();
    world.run_tasks();
    world.scale("web", 3);
    world.run_tasks();
    let now = places(&world);
    assert_eq!(
        (now[&1].clone(), now[&2].clone()),
        (Some(node(1)), Some(node(2)))
    );
    assert_eq!(now[&3], Some(node(3)), "one without a home goes by load");
    assert_eq!(homes(&world)[&3], node(3));
}

#[test]
fn who_could_not_be_prepared_is_at_home_nowhere() {
    let mut world = world(2);
    world.create(sticky("web", 1)).unwrap();
    let first = world.wanted("web").remove(0);
    world.report(&first.id, TaskState::Preparing);
    world.report(&first.id, TaskState::Rejected);
    assert!(homes(&world).is_empty());
    let on = first.node.expect("placed");
    world.health(if on == node(1) { 1 } else { 2 }, NodeState::Down);
    world.advance(5000);
    world.run_tasks();
    let now = places(&world)[&1].clone().expect("placed elsewhere");
    assert_ne!(now, on);
    assert_eq!(homes(&world), [(1, now)].into());
}

#[test]
fn a_node_that_is_gone_is_told_with_the_way_out() {
    let mut world = world(3);
    world.create(sticky("web", 2)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| remove_node(s, now, e, "n2", true))
        .unwrap();
    let task = waiting_task(&world);
    assert_eq!(
        task.status.err,
        "volume data of web.2 is on node n2 (node2), which is not part of the swarm any more: let it \
         join again, or begin with an empty volume on another node: weft service update --force web"
    );
    force(&mut world);
    for _ in 0..4 {
        world.run_tasks();
        world.advance(10_000);
    }
    let now = places(&world);
    assert_eq!(now[&1], Some(node(1)), "its home is there");
    assert!(now[&2].is_some(), "{now:?}");
    assert_eq!(homes(&world)[&2], now[&2].clone().expect("placed"));
}

#[test]
fn a_home_knows_the_volumes_of_the_last_update() {
    let mut world = world(3);
    world.create(sticky("web", 1)).unwrap();
    world.run_tasks();
    let before = homes(&world);
    let kept = |world: &World| {
        let service = world.state.find_service("web").unwrap();
        service.homes[0].volumes.clone()
    };
    // By a step in which both are there: the new volume is where the old one is.
    for sources in [&["data", "more"][..], &["more"][..]] {
        let mut spec = world.state.find_service("web").unwrap().spec.clone();
        let mounts = &mut task_of(&mut spec).container.mounts;
        let first = mounts[0].clone();
        let mount = |source: &&str| Mount {
            source: (*source).to_owned(),
            target: format!("/{source}"),
            ..first.clone()
        };
        *mounts = sources.iter().map(mount).collect();
        let update = ServiceUpdate {
            spec: Some(spec),
            ..ServiceUpdate::default()
        };
        world
            .run(|s, now, e| update_service(s, now, e, "web", &update))
            .unwrap();
        for _ in 0..4 {
            world.run_tasks();
            world.advance(10_000);
        }
        assert_eq!(kept(&world), sources);
        assert_eq!(homes(&world), before);
    }
}

#[test]
fn a_node_that_joins_anew_has_its_disk_still() {
    let mut world = world(3);
    world.create(sticky("web", 2)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| remove_node(s, now, e, "n2", true))
        .unwrap();
    let again = NodeId("node9".to_owned());
    let says = NodeDescription {
        runtimes: vec!["crun".to_owned()],
        ..description(2)
    };
    world
        .run(|s, now, e| join(s, now, e, again.clone(), Role::Worker, &says))
        .unwrap();
    world
        .change(|s, now, e| set_node_state(s, now, e, &again, NodeState::Ready, "test"))
        .unwrap();
    world.run_tasks();
    assert_eq!(places(&world)[&2], Some(again.clone()));
    assert_eq!(homes(&world)[&2], again);
}

#[test]
fn a_rebalance_leaves_them() {
    let mut world = world(2);
    world.create(sticky("web", 6)).unwrap();
    world.run_tasks();
    world.add_node(3);
    can_run_containers(&mut world, 3);
    let moves = plan_rebalance(&world.state, world.now, "web", 100).unwrap();
    assert!(moves.is_empty(), "{moves:?}");
}

/// Whatever fails and comes back: once all nodes are there, each slot is where it was first.
#[test]
fn slots_find_home_from_anything() {
    for seed in 0..12_u8 {
        let mut world = world(4);
        let mut chance = Entropy::from_seed([seed; 32]);
        world.create(sticky("web", 5)).unwrap();
        world.run_tasks();
        let first = homes(&world);
        assert_eq!(first.len(), 5, "seed {seed}");
        for _ in 0..40 {
            let [what, which] = chance.bytes::<2>();
            let n = which % 4 + 1;
            match what % 5 {
                0 => world.health(n, NodeState::Down),
                1 => world.health(n, NodeState::Ready),
                2 => {
                    let running = world.wanted("web").into_iter();
                    let mut running = running.filter(|t| t.status.state == TaskState::Running);
                    if let Some(task) = running.nth(usize::from(which % 3)) {
                        world.report(&task.id, TaskState::Failed);
                    }
                }
                3 => world.scale("web", u32::from(which % 6)),
                _ => world.advance(7000),
            }
            world.run_tasks();
            for (slot, place) in places(&world) {
                let home = first.get(&slot);
                assert!(
                    place.is_none() || place.as_ref() == home,
                    "seed {seed}: slot {slot} is on {place:?}, and its volume on {home:?}"
                );
            }
        }
        for n in 1..=4 {
            world.health(n, NodeState::Ready);
        }
        world.scale("web", 5);
        for _ in 0..4 {
            world.advance(10_000);
            world.run_tasks();
        }
        let places: BTreeMap<u32, NodeId> = places(&world)
            .into_iter()
            .filter_map(|(slot, place)| Some((slot, place?)))
            .collect();
        assert_eq!(places, first, "seed {seed}");
        assert_eq!(homes(&world), first, "seed {seed}");
    }
}
