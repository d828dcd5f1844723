//! Tasks that move to nodes which have fewer of them.

use weft_model::objects::{PlacementPreference, PublishMode, SpreadOver};

use super::super::scheduler::Candidates;
use super::super::table::looks;
use super::*;

fn counts(world: &World) -> Vec<usize> {
    let mut counts: Vec<usize> = world.spread("web").into_values().collect();
    counts.sort_unstable();
    counts
}

fn rebalance(world: &mut World, at_most: u32) -> Result<usize, CommandError> {
    let moves = world.run(|s, now, e| rebalance_service(s, now, e, "web", at_most))?;
    Ok(moves.len())
}

/// Six tasks on two nodes, and a third one that is empty.
fn lopsided() -> World {
    let mut world = World::new(2);
    world.create(spec("web", 6)).unwrap();
    world.run_tasks();
    world.add_node(3);
    world.run_tasks();
    assert_eq!(counts(&world), [3, 3]);
    world
}

/// Goes on until nothing moves, and returns how many tasks did.
fn finish(world: &mut World) -> usize {
    let mut moved = 0;
    for _ in 0..40 {
        let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
        world.run_tasks();
        world.advance(5000);
        let after = world.wanted("web");
        moved += after.iter().filter(|t| !before.contains(&t.id)).count();
        let service = world.state.find_service("web").unwrap();
        if service.rebalancing.is_none() {
            return moved;
        }
    }
    panic!("it never ends");
}

#[test]
fn tasks_move_one_at_a_time_until_nodes_have_equally_many() {
    let mut world = lopsided();
    let planned = plan_rebalance(&world.state, world.now, "web", 100).unwrap();
    assert_eq!(planned.len(), 2);
    assert!(planned.iter().all(|m| m.to == node(3) && m.from != node(3)));
    assert_eq!(counts(&world), [3, 3], "a plan changes nothing");
    assert_eq!(rebalance(&mut world, 100), Ok(2));
    // One has left its slot to another one, which does not run yet.
    let moving = |world: &World| {
        let tasks = world.wanted("web").into_iter();
        tasks
            .filter(|t| t.status.state < TaskState::Running)
            .count()
    };
    assert_eq!(moving(&world), 1);
    world.advance(60_000);
    assert_eq!(moving(&world), 1, "the next one waits until it runs");
    // It runs now, and the next one has moved.
    world.run_tasks();
    assert_eq!(finish(&mut world), 0);
    assert_eq!(counts(&world), [2, 2, 2]);
    assert_eq!(rebalance(&mut world, 100), Ok(0));
}

#[test]
fn the_next_task_moves_when_the_last_one_has_run_for_a_while() {
    let mut world = lopsided();
    rebalance(&mut world, 100).unwrap();
    world.run_tasks();
    assert_eq!(counts(&world), [1, 2, 3]);
    assert_eq!(world.next_due(), Some(5000));
    world.advance(4999);
    assert_eq!(counts(&world), [1, 2, 3]);
    world.advance(1);
    assert_eq!(counts(&world), [2, 2, 2]);
}

#[test]
fn no_more_tasks_move_than_may() {
    let mut world = lopsided();
    assert_eq!(rebalance(&mut world, 1), Ok(1));
    finish(&mut world);
    assert_eq!(counts(&world), [1, 2, 3]);
    let error = rebalance(&mut world, 0).unwrap_err().message;
    assert!(error.contains("--max-moves 0"), "{error}");
}

#[test]
fn a_task_that_does_not_start_elsewhere_ends_the_moves() {
    let mut world = lopsided();
    rebalance(&mut world, 100).unwrap();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    for _ in 0..5 {
        let tasks = world.wanted("web").into_iter();
        let stuck: Vec<TaskId> = tasks
            .filter(|t| t.status.state == TaskState::Assigned)
            .map(|t| t.id)
            .collect();
        for id in stuck {
            world.report(&id, TaskState::Rejected);
        }
        world.advance(5000);
    }
    let running = world.wanted("web");
    let stayed = running.iter().filter(|t| before.contains(&t.id)).count();
    assert_eq!(stayed, 5, "no other task has moved");
}

#[test]
fn a_paused_node_and_what_is_not_replicated_are_left_alone() {
    let mut world = World::new(1);
    world.create(spec("web", 4)).unwrap();
    world.run_tasks();
    world.add_node(2);
    let pause = Availability::Pause;
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", pause))
        .unwrap();
    assert_eq!(rebalance(&mut world, 10), Ok(0));
    let mut agent = spec("agent", 0);
    agent.mode = ServiceMode::Global;
    world.create(agent).unwrap();
    let error = plan_rebalance(&world.state, world.now, "agent", 10).unwrap_err();
    assert!(error.message.contains("replicated mode"), "{error}");
}

/// Workers by other names, as many as there may be.
fn add_workers(world: &mut World, numbers: std::ops::Range<u32>) {
    let known = world.state.nodes[&node(2)].clone();
    for n in numbers {
        let mut worker = known.clone();
        worker.id = NodeId(format!("worker{n:04}"));
        worker.description.hostname = format!("w{n}");
        world.state.apply_one(Change::Put(worker.into()));
    }
}

/// All tasks run, without a pass for each.
fn all_run(world: &mut World) {
    let tasks: Vec<Task> = world.state.tasks.values().cloned().collect();
    for mut task in tasks {
        task.status.state = TaskState::Running;
        world.state.apply_one(Change::Put(task.into()));
    }
}

#[test]
fn a_move_among_a_thousand_nodes_looks_at_each_a_few_times() {
    const NODES: u64 = 1000;
    let mut world = World::new(2);
    add_workers(&mut world, 2..500);
    world.create(spec("web", 1000)).unwrap();
    all_run(&mut world);
    add_workers(&mut world, 500..1000);
    looks::take();
    let planned = plan_rebalance(&world.state, world.now, "web", 100).unwrap();
    assert_eq!(planned.len(), 100);
    let empty = |id: &NodeId| id.0.as_str() >= "worker0500";
    assert!(planned.iter().all(|m| empty(&m.to) && !empty(&m.from)));
    let for_each = looks::take() / 100;
    assert!(for_each < 3 * NODES, "{for_each}");
}

/// The node that is found without a look at all is the one that is found by it.
#[test]
fn a_task_goes_where_the_scheduler_would_place_it() {
    let mut world = World::new(2);
    let mut below = |n: u128| world.entropy.next_u128() % n;
    let mut draws = Vec::new();
    for _ in 0..100 {
        let labels: Vec<u128> = (0..24).map(|_| below(3)).collect();
        draws.push((labels, below(3) as usize, below(4) as u32, below(3)));
    }
    let mut compared = 0;
    for (labels, levels, most, kind) in draws {
        let mut world = World::new(5);
        let mut web = spec("web", 9);
        let placement = &mut task_of(&mut web).placement;
        let spread = |label: &str| PlacementPreference {
            spread: SpreadOver {
                spread_descriptor: format!("node.labels.{label}"),
            },
        };
        placement.preferences = ["az", "rack"][..levels].iter().map(|l| spread(l)).collect();
        placement.max_replicas = if most == 0 { 3 } else { 0 };
        if kind == 0 {
            web.mode = ServiceMode::Replicated { replicas: 4 };
            web = publish(web, 8000, 80);
            web.endpoint.ports[0].mode = PublishMode::Host;
        }
        world.create(web).unwrap();
        all_run(&mut world);
        add_workers(&mut world, 1..8);
        let nodes: Vec<Node> = world.state.nodes.values().cloned().collect();
        for (mut node, labels) in nodes.into_iter().zip(labels.chunks(2)) {
            let named = ["az", "rack"].into_iter().zip(labels);
            let named = named.map(|(key, value)| (key.to_owned(), value.to_string()));
            node.spec.labels.extend(named);
            world.state.apply_one(Change::Put(node.into()));
        }
        let mut candidates = Candidates::new(&world.state, &Waits::default());
        let tasks = world.wanted("web");
        candidates.turn_to(&world.state, &tasks[0], world.now);
        let targets = candidates.targets(&tasks[0]);
        for task in &tasks {
            let Some(from) = task.node.as_ref().and_then(|id| candidates.open(id)) else {
                continue;
            };
            candidates.leave(from, task);
            let found = candidates.best_after(from, &targets, task);
            assert_eq!(found, candidates.best_of_all(task), "{task:?}");
            candidates.place(from, task);
            compared += 1;
        }
    }
    assert!(compared > 400, "{compared}");
}
