//! Jobs: tasks that are to end with success.

use weft_model::objects::{Availability, RestartCondition};

use super::*;

fn job(name: &str, max_concurrent: u32, total_completions: u32) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        },
        ..spec(name, 0)
    }
}

fn global_job(name: &str) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode::GlobalJob,
        ..spec(name, 0)
    }
}

/// Slots that are at work.
fn active(world: &World, name: &str) -> Vec<u32> {
    let tasks = world.wanted(name).into_iter();
    let tasks = tasks.filter(|task| !task.status.state.is_terminal());
    let mut slots: Vec<u32> = tasks.map(|task| task.slot).collect();
    slots.sort_unstable();
    slots
}

/// Running, wanted and completed, as `service ls` has them.
fn counts(world: &World, name: &str) -> (u32, u32, u32) {
    let service = world.state.find_service(name).unwrap();
    let status = service_status(&world.state, service);
    (status.running, status.desired, status.completed)
}

fn end(world: &mut World, name: &str, slot: u32, state: TaskState) {
    let tasks = world.wanted(name).into_iter();
    let mut tasks = tasks.filter(|task| task.slot == slot && !task.status.state.is_terminal());
    let task = tasks.next().expect("a task in that slot");
    world.report(&task.id, state);
}

#[test]
fn so_many_tasks_complete_and_no_more_at_once_than_may() {
    let mut world = World::new(2);
    let made = world.create(job("once", 2, 5)).unwrap();
    assert_eq!(made.job_status.map(|s| s.job_iteration.index), Some(1));
    world.run_tasks();
    assert_eq!(active(&world, "once"), [1, 2]);
    assert_eq!(counts(&world, "once"), (2, 2, 0));
    let tasks = world.wanted("once");
    assert!(tasks.iter().all(|t| t.desired == TaskState::Complete));
    end(&mut world, "once", 1, TaskState::Complete);
    world.run_tasks();
    assert_eq!(active(&world, "once"), [2, 3]);
    // What ended stays, also where its node is lost, and is not done again.
    for n in 1..=2 {
        world.health(n, NodeState::Down);
        world.health(n, NodeState::Ready);
    }
    assert_eq!(counts(&world, "once").2, 1);
    world.run_tasks();
    for slot in 2..=5 {
        end(&mut world, "once", slot, TaskState::Complete);
        world.run_tasks();
    }
    assert_eq!(counts(&world, "once"), (0, 2, 5));
    assert_eq!(active(&world, "once"), [0; 0]);
    world.advance(60_000);
    assert_eq!(active(&world, "once"), [0; 0]);
}

#[test]
fn a_task_that_fails_is_tried_again_after_its_delay_unless_it_never_is() {
    for (condition, again) in [
        (RestartCondition::Any, true),
        (RestartCondition::OnFailure, true),
        (RestartCondition::None, false),
    ] {
        let mut world = World::new(1);
        let mut once = job("once", 1, 2);
        task_of(&mut once).restart.condition = condition;
        world.create(once).unwrap();
        world.run_tasks();
        end(&mut world, "once", 1, TaskState::Failed);
        if again {
            assert_eq!(active(&world, "once"), [1], "{condition:?}");
            assert_eq!(world.wanted("once")[0].desired, TaskState::Ready);
            world.advance(5000);
            assert_eq!(world.wanted("once")[0].desired, TaskState::Complete);
        } else {
            assert_eq!(active(&world, "once"), [2], "the rest goes on");
        }
    }
}

#[test]
fn an_update_begins_another_run() {
    let mut world = World::new(2);
    world.create(job("once", 2, 3)).unwrap();
    world.run_tasks();
    end(&mut world, "once", 1, TaskState::Complete);
    world.run_tasks();
    let update = weft_model::api::ServiceUpdate {
        attach: Some(true),
        ..Default::default()
    };
    let updated = world
        .run(|s, now, e| update_service(s, now, e, "once", &update))
        .unwrap();
    assert_eq!(updated.job_status.map(|s| s.job_iteration.index), Some(2));
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (2, 2, 0));
    assert_eq!(active(&world, "once"), [1, 2]);
    let old = world.state.tasks.values();
    let old = old.filter(|t| t.job_iteration.is_some_and(|run| run.index == 1));
    let states: Vec<TaskState> = old.map(|t| t.status.state).collect();
    assert_eq!(
        states,
        [TaskState::Complete],
        "what was cut off is forgotten"
    );
}

#[test]
fn scale_changes_how_many_are_to_complete() {
    let mut world = World::new(1);
    world.create(job("once", 3, 3)).unwrap();
    world.run_tasks();
    end(&mut world, "once", 1, TaskState::Complete);
    world.scale("once", 2);
    world.run_tasks();
    assert_eq!(active(&world, "once"), [2]);
    world.scale("once", 4);
    world.run_tasks();
    assert_eq!(active(&world, "once"), [2, 3, 4]);
    assert_eq!(counts(&world, "once"), (3, 3, 1));
}

#[test]
fn a_drained_node_hands_its_part_of_a_job_to_another_one() {
    let mut world = World::new(2);
    world.create(job("once", 2, 2)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", Availability::Drain))
        .unwrap();
    world.run_tasks();
    assert_eq!(active(&world, "once"), [1, 2]);
    let nodes = world.spread("once");
    assert_eq!(nodes, BTreeMap::from([("node2".to_owned(), 2)]));
}

#[test]
fn a_global_job_completes_once_on_each_node_also_on_those_that_come_later() {
    let mut world = World::new(2);
    world.create(global_job("once")).unwrap();
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (2, 2, 0));
    for task in world.wanted("once") {
        world.report(&task.id, TaskState::Complete);
    }
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (0, 0, 2));
    world.add_node(3);
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (1, 1, 2));
    // One that comes back has done its part.
    world.health(1, NodeState::Down);
    world.health(1, NodeState::Ready);
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (1, 1, 2));
    let update = weft_model::api::ServiceUpdate {
        attach: Some(true),
        ..Default::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "once", &update))
        .unwrap();
    world.run_tasks();
    assert_eq!(counts(&world, "once"), (3, 3, 0));
    let error = world
        .run(|s, now, e| scale_service(s, now, e, "once", 3))
        .unwrap_err();
    assert_eq!(
        error.message,
        "scale can only be used with replicated or replicated-job mode"
    );
}

#[test]
fn a_job_that_can_never_end_is_refused() {
    let mut world = World::new(1);
    let error = world.create(job("never", 0, 3)).unwrap_err().message;
    assert!(error.contains("--max-concurrent"), "{error}");
    let error = world.create(job("many", 1, MAX_REPLICAS + 1)).unwrap_err();
    assert!(error.message.contains("too many"), "{error}");
}

/// Every job of random failures and losses completes exactly as often as it is to.
#[test]
fn jobs_complete_whatever_fails() {
    for seed in 0..16 {
        let mut world = World::new(3);
        world.entropy = Entropy::from_seed([seed; 32]);
        world.create(job("once", 3, 9)).unwrap();
        for step in 0..400 {
            world.run_tasks();
            let running: Vec<TaskId> = world
                .wanted("once")
                .into_iter()
                .filter(|t| t.status.state == TaskState::Running)
                .map(|t| t.id)
                .collect();
            assert!(running.len() <= 3, "seed {seed}, step {step}");
            let [what, which] = world.entropy.bytes::<2>();
            let one = running.get(usize::from(which) % running.len().max(1));
            match (what % 5, one) {
                (0 | 1, Some(id)) => world.report(id, TaskState::Complete),
                (2, Some(id)) => world.report(id, TaskState::Failed),
                (3, _) => world.health(which % 3 + 1, NodeState::Down),
                _ => world.health(which % 3 + 1, NodeState::Ready),
            }
            world.advance(1000);
        }
        for n in 1..=3 {
            world.health(n, NodeState::Ready);
        }
        for _ in 0..16 {
            world.advance(5000);
            world.run_tasks();
            for task in world.wanted("once") {
                if task.status.state == TaskState::Running {
                    world.report(&task.id, TaskState::Complete);
                }
            }
        }
        assert_eq!(counts(&world, "once").2, 9, "seed {seed}");
        assert_eq!(active(&world, "once"), [0; 0], "seed {seed}");
    }
}

#[test]
fn a_node_that_has_done_its_part_and_takes_no_tasks_hides_none_that_has_not() {
    let mut world = World::new(2);
    world.create(global_job("all")).unwrap();
    world.run_tasks();
    for task in world.wanted("all") {
        world.report(&task.id, TaskState::Complete);
    }
    assert_eq!(counts(&world, "all"), (0, 0, 2));
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", Availability::Drain))
        .unwrap();
    world.add_node(3);
    assert_eq!(counts(&world, "all"), (0, 1, 2));
    world.run_tasks();
    assert_eq!(counts(&world, "all"), (1, 1, 2));
}
