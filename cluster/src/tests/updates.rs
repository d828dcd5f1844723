//! Updates of services: slot after slot, and back.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_model::api::ServiceUpdate;
use weft_model::objects::{
    Availability, FailureAction, PublishMode, Ratio, RestartCondition, UpdateConfig, UpdateOrder,
    UpdateState, UpdateStatus,
};

use super::*;

/// `weft service update` with another specification.
pub(super) fn change(
    world: &mut World,
    name: &str,
    edit: impl FnOnce(&mut ServiceSpec),
) -> Result<Service, CommandError> {
    let mut spec = world.state.find_service(name).unwrap().spec.clone();
    edit(&mut spec);
    let update = ServiceUpdate {
        spec: Some(spec),
        ..ServiceUpdate::default()
    };
    world.run(|s, now, e| update_service(s, now, e, name, &update))
}

/// Another program.
pub(super) fn version(world: &mut World, name: &str, version: &str) {
    change(world, name, |spec| {
        task_of(spec).container.args = vec!["/bin/server".to_owned(), version.to_owned()];
    })
    .unwrap();
}

pub(super) fn roll_back(world: &mut World, name: &str) -> Result<Service, CommandError> {
    let update = ServiceUpdate {
        rollback: true,
        ..ServiceUpdate::default()
    };
    world.run(|s, now, e| update_service(s, now, e, name, &update))
}

fn status(world: &World, name: &str) -> UpdateStatus {
    let service = world.state.find_service(name).unwrap();
    service.update_status.clone().unwrap()
}

pub(super) fn state(world: &World, name: &str) -> UpdateState {
    status(world, name).state
}

/// Wanted tasks of a service that run, by whether they are what it says.
pub(super) fn running(world: &World, name: &str) -> (usize, usize) {
    let service = world.state.find_service(name).unwrap();
    let tasks = world.wanted(name);
    let runs = tasks
        .iter()
        .filter(|t| t.status.state == TaskState::Running);
    let (new, old): (Vec<&Task>, Vec<&Task>) =
        runs.partition(|task| task.spec == service.spec.task);
    (new.len(), old.len())
}

/// The next thing that a node does for a task; none when all is done.
pub(super) fn next_step(world: &World) -> Option<(TaskId, TaskState)> {
    let mut tasks = world.state.tasks.values();
    tasks.find_map(|task| {
        let placed = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
        match task.desired {
            _ if !placed => None,
            TaskState::Running if task.status.state < TaskState::Running => {
                Some((task.id.clone(), TaskState::Running))
            }
            TaskState::Shutdown | TaskState::Remove => Some((task.id.clone(), TaskState::Shutdown)),
            _ => None,
        }
    })
}

pub(super) fn with_policy(replicas: u32, edit: impl FnOnce(&mut UpdateConfig)) -> World {
    let mut world = World::new(3);
    let mut web = spec("web", replicas);
    edit(&mut web.update);
    world.create(web).unwrap();
    world.run_tasks();
    world
}

#[test]
fn one_slot_after_the_other_is_replaced_and_then_watched() {
    let mut world = with_policy(4, |_| {});
    version(&mut world, "web", "2");
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    assert_eq!(status(&world, "web").message, "update in progress");
    assert_eq!(status(&world, "web").slots, 4);
    let mut steps = 0;
    while let Some((task, to)) = next_step(&world) {
        let (new, old) = running(&world, "web");
        assert!(new + old >= 3, "one slot at a time: {new} new, {old} old");
        let live = world.state.tasks.values();
        let live = live.filter(|t| !t.status.state.is_terminal());
        assert!(live.count() <= 4, "the old one ends first");
        world.report(&task, to);
        steps += 1;
    }
    assert_eq!(steps, 8);
    assert_eq!(running(&world, "web"), (4, 0));
    assert_eq!(world.next_wait(), Some(Duration::from_secs(5)));
    world.advance(4999);
    assert_eq!(state(&world, "web"), UpdateState::Updating, "watched");
    world.advance(1);
    let done = status(&world, "web");
    assert_eq!(
        (done.state, done.message.as_str()),
        (UpdateState::Completed, "update completed")
    );
    assert_eq!(done.completed_at, Some(world.now));
    assert_eq!(world.next_wait(), None);
}

#[test]
fn a_new_task_runs_before_the_old_one_stops() {
    let mut world = with_policy(3, |policy| {
        policy.order = UpdateOrder::StartFirst;
        policy.parallelism = 2;
    });
    version(&mut world, "web", "2");
    assert_eq!(world.wanted("web").len(), 5, "two slots at a time");
    while let Some((task, to)) = next_step(&world) {
        world.report(&task, to);
        let (new, old) = running(&world, "web");
        assert!(new + old >= 3, "{new} new, {old} old");
    }
    assert_eq!(running(&world, "web"), (3, 0));
    assert_eq!(world.wanted("web").len(), 3);
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Completed);
}

#[test]
fn a_delay_lies_between_two_slots_and_all_at_once_is_all() {
    let mut world = with_policy(2, |policy| {
        policy.delay = Duration::from_secs(10);
    });
    version(&mut world, "web", "2");
    world.run_tasks();
    assert_eq!(running(&world, "web"), (1, 1));
    assert_eq!(world.next_wait(), Some(Duration::from_secs(10)));
    world.advance(10_000);
    world.run_tasks();
    assert_eq!(running(&world, "web"), (2, 0));
    world.advance(10_999);
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    world.advance(1);
    assert_eq!(state(&world, "web"), UpdateState::Completed);

    let mut world = with_policy(5, |policy| policy.parallelism = 0);
    version(&mut world, "web", "2");
    assert_eq!(running(&world, "web"), (0, 0));
    world.run_tasks();
    assert_eq!(running(&world, "web"), (5, 0));
}

#[test]
fn an_old_task_that_does_not_stop_is_waited_for_a_minute() {
    let mut world = with_policy(1, |_| {});
    version(&mut world, "web", "2");
    assert_eq!(world.wanted("web"), [], "the slot is held");
    assert_eq!(world.next_wait(), Some(Duration::from_secs(60)));
    world.advance(59_999);
    assert_eq!(world.wanted("web"), []);
    world.advance(1);
    assert_eq!(world.wanted("web").len(), 1);
}

#[test]
fn a_slot_whose_node_is_lost_waits_for_nobody() {
    let mut world = with_policy(1, |_| {});
    version(&mut world, "web", "2");
    let old = world.state.tasks.values().next().unwrap().clone();
    assert_eq!(old.node, Some(node(1)));
    world.health(1, NodeState::Down);
    assert_eq!(world.wanted("web").len(), 1);
}

#[test]
fn an_update_that_fails_is_paused_at_the_task_and_says_what_to_do() {
    let mut world = with_policy(3, |_| {});
    version(&mut world, "web", "2");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    let (bad, _) = next_step(&world).unwrap();
    world.report(&bad, TaskState::Failed);
    let paused = status(&world, "web");
    assert_eq!(paused.state, UpdateState::Paused);
    assert_eq!(paused.failed, Some(bad.clone()));
    let says = format!(
        "update paused due to failure or early termination of task {bad}: it ended; see \"weft \
         service ps web\", then go back with \"weft service rollback web\""
    );
    assert_eq!(paused.message, says);
    assert_eq!(running(&world, "web"), (0, 2), "the others go on");
    world.advance(60_000);
    world.run_tasks();
    assert_eq!(
        running(&world, "web"),
        (1, 2),
        "restarts go on, the update does not"
    );

    // What failed before counts no more.
    version(&mut world, "web", "3");
    world.run_tasks();
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Completed);
    assert_eq!(running(&world, "web"), (3, 0));
}

#[test]
fn a_task_that_ends_while_it_is_watched_has_failed_and_later_it_has_not() {
    for (after, expected) in [
        (4000, UpdateState::Paused),
        (5000, UpdateState::Paused),
        (5001, UpdateState::Updating),
    ] {
        // The second slot is held up, so that the update is not over.
        let mut world = with_policy(2, |_| {});
        version(&mut world, "web", "2");
        let (old, _) = next_step(&world).unwrap();
        world.report(&old, TaskState::Shutdown);
        let (new, _) = next_step(&world).unwrap();
        world.report(&new, TaskState::Running);
        world.advance(after);
        world.report(&new, TaskState::Failed);
        assert_eq!(state(&world, "web"), expected, "{after} ms");
    }
}

#[test]
fn stopping_because_somebody_asked_is_no_failure() {
    let mut world = with_policy(4, |_| {});
    version(&mut world, "web", "2");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    let (new, _) = next_step(&world).unwrap();
    world.report(&new, TaskState::Running);
    let on = world.state.tasks[&new].node.clone().unwrap();
    world
        .run(|s, now, e| set_availability(s, now, e, on.as_str(), Availability::Drain))
        .unwrap();
    world.run_tasks();
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Completed);
    assert_eq!(running(&world, "web"), (4, 0));
}

#[test]
fn a_program_that_is_to_end_may() {
    let mut world = World::new(1);
    let mut job = spec("web", 1);
    task_of(&mut job).restart.condition = RestartCondition::OnFailure;
    world.create(job).unwrap();
    world.run_tasks();
    version(&mut world, "web", "2");
    world.run_tasks();
    let task = world.wanted("web").remove(0);
    world.report(&task.id, TaskState::Complete);
    assert_eq!(state(&world, "web"), UpdateState::Completed);
}

#[test]
fn some_may_fail_and_with_continue_all() {
    let half: fn(&mut UpdateConfig) = |policy| {
        policy.max_failure_ratio = Ratio::new(0.5).unwrap();
    };
    let go_on: fn(&mut UpdateConfig) = |policy| policy.failure_action = FailureAction::Continue;
    let cases = [
        (half, 2, UpdateState::Updating),
        (half, 3, UpdateState::Paused),
        (go_on, 4, UpdateState::Completed),
    ];
    for (policy, failures, expected) in cases {
        let mut world = with_policy(4, policy);
        version(&mut world, "web", "2");
        let mut failed = 0;
        while failed < failures {
            let (task, to) = next_step(&world).unwrap();
            let fails = to == TaskState::Running;
            failed += usize::from(fails);
            world.report(&task, if fails { TaskState::Rejected } else { to });
        }
        assert_eq!(state(&world, "web"), expected, "{failures} failed");
    }
}

#[test]
fn a_task_that_does_not_run_in_time_has_failed() {
    let mut world = with_policy(2, |_| {});
    version(&mut world, "web", "2");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    assert_eq!(world.next_wait(), Some(Duration::from_secs(300)));
    world.advance(300_000);
    let paused = status(&world, "web");
    assert_eq!(paused.state, UpdateState::Paused);
    assert!(paused.message.contains("it did not run in time"));
}

/// Its time begins with what it has to wait for itself.
#[test]
fn a_task_that_waited_for_its_restart_is_not_late_for_that() {
    let mut world = with_policy(2, |policy| policy.timeout = Duration::from_secs(3));
    version(&mut world, "web", "2");
    let other = world.wanted("web").remove(0);
    assert_eq!(other.slot, 2);
    world.report(&other.id, TaskState::Failed);
    world.run_tasks();
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    world.run_tasks();
    world.advance(5000);
    assert_eq!(state(&world, "web"), UpdateState::Completed);
    assert_eq!(running(&world, "web"), (2, 0));
}

#[test]
fn an_update_that_fails_goes_back() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut world = with_policy(3, |policy| {
            policy.failure_action = FailureAction::Rollback;
            policy.order = order;
        });
        version(&mut world, "web", "2");
        let mut bad = None;
        while bad.is_none() {
            let (task, to) = next_step(&world).unwrap();
            let fails = to == TaskState::Running;
            world.report(&task, if fails { TaskState::Failed } else { to });
            bad = fails.then_some(task);
        }
        let back = status(&world, "web");
        assert!(back.state.is_rollback());
        // Where the old task runs still, there is nothing to do.
        if order == UpdateOrder::StopFirst {
            let says = "update rolled back due to failure or early termination of task";
            assert_eq!(back.message, format!("{says} {}", bad.unwrap()));
        }
        let service = world.state.find_service("web").unwrap();
        assert_eq!(service.spec.task.container.args, ["/bin/true"]);
        assert_eq!(service.previous_spec, None);
        world.run_tasks();
        world.advance(5000);
        let done = status(&world, "web");
        assert_eq!(done.state, UpdateState::RollbackCompleted, "{order:?}");
        assert_eq!(done.message, "rollback completed");
        assert_eq!(running(&world, "web"), (3, 0));
        assert_eq!(world.wanted("web").len(), 3);
    }
}

#[test]
fn a_rollback_that_fails_is_paused() {
    let mut world = with_policy(2, |_| {});
    version(&mut world, "web", "2");
    world.run_tasks();
    world.advance(5000);
    roll_back(&mut world, "web").unwrap();
    assert_eq!(status(&world, "web").message, "manually requested rollback");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    let (bad, _) = next_step(&world).unwrap();
    world.report(&bad, TaskState::Failed);
    let paused = status(&world, "web");
    assert_eq!(paused.state, UpdateState::RollbackPaused);
    let says = "rollback paused due to failure or early termination of task";
    assert!(paused.message.starts_with(says), "{}", paused.message);
}

#[test]
fn back_and_back_again_is_where_it_was() {
    let mut world = with_policy(1, |_| {});
    let refused = roll_back(&mut world, "web").unwrap_err();
    assert_eq!(refused.message, "service web does not have a previous spec");
    version(&mut world, "web", "2");
    let args = |world: &World| {
        let service = world.state.find_service("web").unwrap();
        service.spec.task.container.args.clone()
    };
    for expected in [&["/bin/true"][..], &["/bin/server", "2"]] {
        world.run_tasks();
        world.advance(5000);
        roll_back(&mut world, "web").unwrap();
        assert_eq!(args(&world), expected);
        assert_eq!(state(&world, "web"), UpdateState::RollbackStarted);
    }
    let both = ServiceUpdate {
        rollback: true,
        attach: Some(true),
        ..ServiceUpdate::default()
    };
    let refused = world.run(|s, now, e| update_service(s, now, e, "web", &both));
    let says = "other flags may not be combined with --rollback";
    assert_eq!(refused.unwrap_err().message, says);
}

#[test]
fn what_is_no_matter_of_tasks_replaces_none() {
    let mut world = with_policy(2, |_| {});
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    let edits: [fn(&mut ServiceSpec); 3] = [
        |spec| drop(spec.labels.insert("a".to_owned(), "b".to_owned())),
        |spec| spec.update.parallelism = 7,
        |spec| spec.rollback.monitor = Duration::ZERO,
    ];
    for edit in edits {
        let web = change(&mut world, "web", edit).unwrap();
        assert_eq!(web.update_status, None);
        assert!(web.previous_spec.is_some());
        world.run_tasks();
    }
    world.scale("web", 3);
    world.run_tasks();
    let after: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    assert!(before.iter().all(|id| after.contains(id)));
    // And by force all of them.
    change(&mut world, "web", |spec| task_of(spec).force_update += 1).unwrap();
    world.run_tasks();
    assert!(world.wanted("web").iter().all(|t| !after.contains(&t.id)));
}

#[test]
fn scaling_in_an_update_changes_what_is_gone_back_to() {
    let mut world = with_policy(2, |policy| {
        policy.failure_action = FailureAction::Rollback;
    });
    version(&mut world, "web", "2");
    world.scale("web", 5);
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    let (task, to) = next_step(&world).unwrap();
    let bad = if to == TaskState::Running {
        task
    } else {
        world.report(&task, to);
        next_step(&world).unwrap().0
    };
    world.report(&bad, TaskState::Failed);
    assert_eq!(state(&world, "web"), UpdateState::RollbackStarted);
    world.run_tasks();
    world.advance(5000);
    world.run_tasks();
    assert_eq!(running(&world, "web"), (5, 0));
}

/// Who goes on with a paused update may still go back to what was before it.
#[test]
fn what_makes_the_same_of_tasks_leaves_the_way_back() {
    let mut world = with_policy(2, |_| {});
    version(&mut world, "web", "2");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    let (bad, _) = next_step(&world).unwrap();
    world.report(&bad, TaskState::Failed);
    assert_eq!(state(&world, "web"), UpdateState::Paused);
    change(&mut world, "web", |spec| spec.update.parallelism = 2).unwrap();
    change(&mut world, "web", |spec| task_of(spec).force_update += 1).unwrap();
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    let back = roll_back(&mut world, "web").unwrap();
    assert_eq!(back.spec.task.container.args, ["/bin/true"]);
    assert_eq!(back.spec.update.parallelism, 2, "what concerns no task");
    // Another program is another update.
    version(&mut world, "web", "3");
    version(&mut world, "web", "4");
    let back = roll_back(&mut world, "web").unwrap();
    assert_eq!(back.spec.task.container.args, ["/bin/server", "3"]);
}

#[test]
fn two_tasks_with_ports_of_their_node_are_never_there_at_once() {
    let mut world = World::new(1);
    let mut host = publish(spec("web", 1), 8080, 80);
    host.endpoint.ports[0].mode = PublishMode::Host;
    host.update.order = UpdateOrder::StartFirst;
    world.create(host).unwrap();
    world.run_tasks();
    version(&mut world, "web", "2");
    assert_eq!(world.wanted("web"), [], "stopped first all the same");
    world.run_tasks();
    assert_eq!(running(&world, "web"), (1, 0));
}

#[test]
fn a_global_service_is_updated_node_by_node_and_paused_nodes_are_left() {
    let mut world = World::new(4);
    let mut agent = spec("agent", 0);
    agent.mode = ServiceMode::Global;
    world.create(agent).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| set_availability(s, now, e, "n4", Availability::Pause))
        .unwrap();
    version(&mut world, "agent", "2");
    while let Some((task, to)) = next_step(&world) {
        let (new, old) = running(&world, "agent");
        assert!(new + old >= 3, "{new} new, {old} old");
        world.report(&task, to);
    }
    world.advance(5000);
    assert_eq!(state(&world, "agent"), UpdateState::Completed);
    assert_eq!(running(&world, "agent"), (3, 1));
    assert_eq!(world.spread("agent").len(), 4);
    // Active again, it gets its new task outside of the update.
    world
        .run(|s, now, e| set_availability(s, now, e, "n4", Availability::Active))
        .unwrap();
    world.run_tasks();
    assert_eq!(running(&world, "agent"), (4, 0));
    assert_eq!(world.spread("agent").len(), 4);
}

#[test]
fn a_plan_says_what_would_be_and_changes_nothing() {
    let mut world = with_policy(1, |_| {});
    let before = world.state.clone();
    let mut spec = before.find_service("web").unwrap().spec.clone();
    spec.labels.insert("a".to_owned(), "b".to_owned());
    let mut update = ServiceUpdate {
        spec: Some(spec),
        ..ServiceUpdate::default()
    };
    let mut planned = |update: &ServiceUpdate| {
        plan_update(&world.state, 0, &mut world.entropy, "web", update).unwrap()
    };
    let plan = planned(&update);
    assert_eq!((plan.tasks, plan.replaced), (1, 0));
    assert_eq!(plan.warnings, Vec::<String>::new());
    let spec = update.spec.as_mut().unwrap();
    task_of(spec).container.env.push("A=1".to_owned());
    let plan = planned(&update);
    assert_eq!((plan.tasks, plan.replaced), (1, 1));
    assert!(plan.warnings[0].contains("--update-order start-first"));
    assert_eq!(plan.after.task.container.env, ["A=1"]);
    assert_eq!(world.state, before);
}

/// Of a slot with two tasks both end at once: one comes, and all other slots have theirs.
#[test]
fn what_ends_at_once_in_an_update_is_replaced_once() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut world = with_policy(4, |policy| {
            policy.order = order;
            policy.parallelism = 2;
            policy.failure_action = FailureAction::Continue;
        });
        version(&mut world, "web", "2");
        let ends: Vec<Change> = world
            .state
            .tasks
            .values()
            .filter(|task| !task.status.state.is_terminal())
            .cloned()
            .map(|mut task| {
                task.status.state = TaskState::Failed;
                Change::Put(task.into())
            })
            .collect();
        assert!(ends.len() >= 4);
        world.state.apply(&ends);
        world.settle();
        let mut slots: Vec<u32> = world.wanted("web").iter().map(|t| t.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [1, 2, 3, 4], "{order:?}");
    }
}

type Edit<'a> = &'a dyn Fn(&mut ServiceSpec);

#[test]
fn updates_that_cannot_be_are_refused() {
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    let cases: [(Edit<'_>, &str); 5] = [
        (
            &|spec| spec.name = "other".to_owned(),
            "renaming services is not supported",
        ),
        (
            &|spec| spec.mode = ServiceMode::Global,
            "service mode change is not allowed",
        ),
        (
            &|spec| spec.update.monitor = year,
            "update monitor of 31622400000 ms is too long",
        ),
        (
            &|spec| spec.rollback.failure_action = FailureAction::Rollback,
            "rollback failure action rollback",
        ),
        (
            &|spec| task_of(spec).container.image = "nginx".to_owned(),
            "image \"nginx\" is run by a container runtime",
        ),
    ];
    let mut world = with_policy(1, |_| {});
    let before = world.state.clone();
    for (edit, says) in cases {
        let error = change(&mut world, "web", edit).unwrap_err();
        assert!(error.message.starts_with(says), "{error}");
        assert_eq!(world.state, before);
    }
}

/// Random updates, rollbacks, scalings, failures, lost nodes, clocks and new leaders: an update ends
/// or is paused with a reason, a slot is never filled twice by one specification, and where nothing
/// fails there are always as many tasks as the policy leaves.
#[test]
fn every_update_comes_to_an_end() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let order = if random.random_bool(0.5) {
            UpdateOrder::StartFirst
        } else {
            UpdateOrder::StopFirst
        };
        let action = [
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
        ][random.random_range(0..3)];
        let (replicas, parallelism) = (random.random_range(1..6), random.random_range(1..4));
        let calm = seed % 3 == 0;
        let mut world = with_policy(replicas, |policy| {
            policy.order = order;
            policy.failure_action = action;
            policy.parallelism = parallelism;
        });
        version(&mut world, "web", "2");
        for step in 0..120 {
            disturb(&mut world, &mut random, calm, step);
            let (new, old) = running(&world, "web");
            let spare = if order == UpdateOrder::StopFirst {
                parallelism
            } else {
                0
            };
            if calm {
                let least = replicas.saturating_sub(spare) as usize;
                assert!(new + old >= least, "seed {seed}: {new} new, {old} old");
            }
            if order == UpdateOrder::StopFirst {
                assert_once(&world, seed);
            }
        }
        for n in 1..=3 {
            world.health(n, NodeState::Ready);
        }
        // A task that waits for its restart, old ones that stop, those that are watched: then it is over.
        for _ in 0..60 {
            world.run_tasks();
            world.advance(61_000);
        }
        let service = world.state.find_service("web").unwrap();
        // A service that was scaled since has none.
        if let Some(end) = &service.update_status {
            assert!(!end.state.is_active(), "seed {seed}: {end:?}");
            assert!(!end.message.is_empty());
            if end.state.is_over() {
                assert_once(&world, seed);
            }
        }
    }
}

/// No slot has two wanted tasks.
fn assert_once(world: &World, seed: u64) {
    let mut slots: Vec<u32> = world.wanted("web").iter().map(|t| t.slot).collect();
    slots.sort_unstable();
    let all = slots.len();
    slots.dedup();
    assert_eq!(slots.len(), all, "seed {seed}: {slots:?}");
}

fn disturb(world: &mut World, random: &mut StdRng, calm: bool, step: u32) {
    let all = if calm { 3 } else { 8 };
    match random.random_range(0..all) {
        0 => world.advance(random.random_range(1..7000)),
        // Another leader, whose clock knows nothing of before.
        1 => {
            world.waits = Waits::default();
            world.since = None;
        }
        2 => {
            if let Some((task, to)) = next_step(world) {
                let up = world.state.tasks[&task].node.clone();
                let up = up.and_then(|id| world.state.nodes.get(&id).map(|n| n.status.state));
                if up == Some(NodeState::Ready) {
                    world.report(&task, to);
                }
            }
        }
        3 => {
            let tasks = world.wanted("web");
            let running = tasks.iter().find(|t| t.status.state == TaskState::Running);
            if let Some(task) = running {
                world.report(&task.id, TaskState::Failed);
            }
        }
        4 => world.health(random.random_range(2..4), NodeState::Down),
        5 => world.health(random.random_range(2..4), NodeState::Ready),
        6 => world.scale("web", random.random_range(1..7)),
        _ if step.is_multiple_of(5) => version(world, "web", &format!("{step}")),
        _ => {
            if let Err(error) = roll_back(world, "web") {
                assert!(error.message.contains("previous spec"), "{error}");
            }
        }
    }
}

#[test]
fn who_serves_during_an_update_is_counted_as_docker_counts() {
    let mut world = World::new(3);
    world.create(spec("web", 3)).unwrap();
    world.run_tasks();
    let counts = |world: &World| {
        let status = service_status(&world.state, world.state.find_service("web").unwrap());
        (status.running, status.outdated, status.desired)
    };
    assert_eq!(counts(&world), (3, 0, 3));
    version(&mut world, "web", "2");
    // The first slot is told to stop, and answers until it has.
    assert_eq!(counts(&world), (3, 3, 3));
    let (mut least, mut steps) = (3, 0);
    while counts(&world) != (3, 0, 3) {
        let before = counts(&world);
        world.run_tasks();
        world.advance(1_000);
        let (running, outdated, _) = counts(&world);
        assert!(outdated <= before.1, "what is replaced comes not back");
        least = least.min(running);
        steps += 1;
        assert!(steps < 30, "{:?}", counts(&world));
    }
    assert!(least >= 2, "one after the other: {least}");

    // What a node ran that is down now answers nobody.
    world.health(1, NodeState::Down);
    let (running, ..) = counts(&world);
    assert!(running < 3, "{running}");
}
