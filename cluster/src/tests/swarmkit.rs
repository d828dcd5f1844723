//! Cases of SwarmKit's tests that no other file here has: of the scheduler, the orchestrators, the
//! updater and the reaper. Each names the one that it re-expresses.

use weft_model::objects::{Availability, FailureAction, RestartCondition, UpdateState};

use super::constraints::{constrained, global, reserving, spread_over};
use super::updates::{change, next_step, running, state, version, with_policy};
use super::*;

/// Ended tasks of a slot that are remembered, unless somebody says otherwise.
const TASK_HISTORY: usize = 5;

fn on_nodes<const N: usize>(counts: [(u8, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(n, of)| (node(n).0, of)).collect()
}

fn availability(world: &mut World, n: u8, availability: Availability) {
    let name = description(n).hostname;
    world
        .run(|s, now, e| set_availability(s, now, e, &name, availability))
        .unwrap();
}

/// A manager that leads from now on: what happened before it did it has not seen.
fn another_leader(world: &mut World) {
    world.waits = Waits::default();
    world.since = None;
}

/// Puts an object as it is, without a pass.
fn put(world: &mut World, object: impl Into<Object>) {
    world.state.apply(&[Change::Put(object.into())]);
}

/// `TestHA`, its end: who lost all tasks gets as many as the others have.
#[test]
fn a_node_whose_tasks_have_failed_gets_as_many_as_the_others_have() {
    let mut world = World::new(5);
    world.create(spec("one", 20)).unwrap();
    world.create(spec("two", 5)).unwrap();
    world.run_tasks();
    let on_first: Vec<TaskId> = world
        .state
        .tasks_on(&node(1))
        .map(|t| t.id.clone())
        .collect();
    assert_eq!(on_first.len(), 5);
    for id in &on_first {
        world.report(id, TaskState::Failed);
    }
    world.advance(5000);
    let each = |of| on_nodes([(1, of), (2, of), (3, of), (4, of), (5, of)]);
    assert_eq!(world.spread("one"), each(4));
    assert_eq!(world.spread("two"), each(1));
}

/// `TestMultiplePreferencesScaleUp`
#[test]
fn more_tasks_are_spread_by_those_that_are_there() {
    let mut world = World::new(3);
    for (n, az, rack) in [
        (1, "az1", "rack1"),
        (2, "az1", "rack2"),
        (3, "az2", "rack1"),
    ] {
        world.label(n, "az", az);
        world.label(n, "rack", rack);
    }
    world
        .create(spread_over(spec("web", 4), &["az", "rack"]))
        .unwrap();
    assert_eq!(world.spread("web"), on_nodes([(1, 1), (2, 1), (3, 2)]));
    world.scale("web", 8);
    assert_eq!(world.spread("web"), on_nodes([(1, 2), (2, 2), (3, 4)]));
    world.add_node(4);
    world.label(4, "az", "az2");
    world.label(4, "rack", "rack2");
    world.scale("web", 12);
    let spread = on_nodes([(1, 3), (2, 3), (3, 4), (4, 2)]);
    assert_eq!(world.spread("web"), spread);
}

/// `TestFaultyNode`, of a task whose node is given.
#[test]
fn a_global_task_goes_to_its_node_however_often_it_fails_there() {
    let mut world = World::new(2);
    world.create(global(spec("agent", 0))).unwrap();
    for attempt in 0..7 {
        let mut tasks = world.wanted("agent").into_iter();
        let task = tasks.find(|t| t.node == Some(node(2))).unwrap();
        let message = task.status.message.as_str();
        assert_eq!(
            (task.status.state, message),
            (
                TaskState::Assigned,
                "scheduler confirmed task can run on preassigned node"
            ),
            "attempt {attempt}"
        );
        world.report(&task.id, TaskState::Failed);
        world.advance(5000);
    }
}

/// `TestFaultyNodeSpecVersion`
#[test]
fn what_failed_of_an_earlier_version_counts_for_no_later_one() {
    let mut world = World::new(2);
    world.create(spec("ballast", 1)).unwrap();
    world.create(spec("bad", 1)).unwrap();
    for _ in 0..5 {
        let task = world.wanted("bad").remove(0);
        assert_eq!(task.node, Some(node(2)));
        world.report(&task.id, TaskState::Failed);
        world.advance(5000);
    }
    assert_eq!(world.wanted("bad")[0].node, Some(node(1)));
    version(&mut world, "bad", "2");
    world.run_tasks();
    assert_eq!(world.wanted("bad")[0].node, Some(node(2)));
}

/// `TestResourceConstraintHA`
#[test]
fn nodes_take_what_they_have_room_for() {
    let mut world = World::new(2);
    world.memory(1, 4);
    world.memory(2, 8);
    world.create(reserving(spec("web", 6), 2)).unwrap();
    assert_eq!(world.spread("web"), on_nodes([(1, 2), (2, 4)]));
    world.scale("web", 7);
    let waiting: Vec<String> = world
        .wanted("web")
        .into_iter()
        .filter(|t| t.node.is_none())
        .map(|t| t.status.err)
        .collect();
    let why = "no suitable node (insufficient resources on 2 nodes)";
    assert_eq!(waiting, [why]);
}

/// `TestCompatiblePlatform`
#[test]
fn tasks_run_on_their_platforms_by_either_name() {
    let mut world = World::new(3);
    for (n, architecture) in [(1, "x86_64"), (2, "x86_64"), (3, "aarch64")] {
        let says = NodeDescription {
            platform: Platform {
                architecture: architecture.to_owned(),
                os: "linux".to_owned(),
            },
            ..description(n)
        };
        world
            .change(|s, now, e| update_node(s, now, e, &node(n), &says))
            .unwrap();
    }
    let on = |name: &str, architecture: &str, os: &str| {
        let mut on = spec(name, 4);
        task_of(&mut on).placement.platforms = vec![Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
        }];
        on
    };
    let cases: [(&str, &str, &[u8]); 3] = [
        ("amd", "amd64", &[1, 2]),
        ("arm", "arm64", &[3]),
        ("any", "", &[1, 2, 3]),
    ];
    for (name, architecture, nodes) in cases {
        world.create(on(name, architecture, "linux")).unwrap();
        let expected: Vec<String> = nodes.iter().map(|n| node(*n).0).collect();
        let found: Vec<String> = world.spread(name).into_keys().collect();
        assert_eq!(found, expected, "{name}");
    }
    world.create(on("other", "amd64", "plan9")).unwrap();
    let why = "no suitable node (unsupported platform on 3 nodes)";
    assert!(world.wanted("other").iter().all(|t| t.status.err == why));
}

/// `TestPreassignedTasks`
#[test]
fn a_task_whose_node_is_given_waits_for_room_there() {
    let mut world = World::new(2);
    world.memory(1, 1);
    world.memory(2, 4);
    world
        .create(reserving(global(spec("agent", 0)), 2))
        .unwrap();
    let of_first = |world: &World| {
        let mut tasks = world.wanted("agent").into_iter();
        tasks.find(|t| t.node == Some(node(1))).unwrap().status
    };
    let status = of_first(&world);
    let why = "no suitable node (insufficient resources on 1 node)";
    assert_eq!(
        (status.state, status.err.as_str()),
        (TaskState::Pending, why)
    );
    world.memory(1, 4);
    let status = of_first(&world);
    assert_eq!(
        (status.state, status.err.as_str()),
        (TaskState::Assigned, "")
    );
}

/// `TestReplicatedOrchestrator…Initialization{Rejected,Failed,NodeDown}` and their like of global
/// services: nobody was there to see it.
#[test]
fn a_new_leader_replaces_what_ended_before_it_led() {
    for mode in [ServiceMode::Replicated { replicas: 2 }, ServiceMode::Global] {
        for end in [TaskState::Failed, TaskState::Rejected, TaskState::Complete] {
            let mut world = World::new(2);
            world
                .create(ServiceSpec {
                    mode,
                    ..spec("web", 0)
                })
                .unwrap();
            world.run_tasks();
            let mut ended = world.wanted("web").remove(0);
            ended.status.state = end;
            ended.status.since = world.now;
            let (id, on) = (ended.id.clone(), ended.node.clone());
            put(&mut world, ended);
            another_leader(&mut world);
            world.settle();
            assert_eq!(world.state.tasks[&id].desired, TaskState::Shutdown);
            assert_eq!(world.wanted("web").len(), 2, "{mode:?} {end:?}");
            world.advance(5000);
            world.run_tasks();
            assert_eq!(running(&world, "web"), (2, 0), "{mode:?} {end:?}");
            assert!(world.wanted("web").iter().any(|t| t.node == on));
        }
    }
    let mut world = World::new(2);
    world.create(spec("web", 4)).unwrap();
    world.run_tasks();
    let mut lost = world.state.nodes[&node(2)].clone();
    lost.status.state = NodeState::Down;
    put(&mut world, lost);
    another_leader(&mut world);
    world.settle();
    assert_eq!(world.spread("web"), on_nodes([(1, 4)]));
}

/// `TestGlobalOrchestratorInitialization…`: tasks of no service, and of nodes that are not there.
#[test]
fn a_new_leader_gives_up_what_belongs_to_nothing() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    let some = world.wanted("web").remove(0);
    let stray = Task {
        id: TaskId::from("stray"),
        service: ServiceId::from("gone"),
        ..some.clone()
    };
    let homeless = Task {
        node: Some(node(9)),
        ..some
    };
    let (stray_id, homeless_id) = (stray.id.clone(), homeless.id.clone());
    put(&mut world, stray);
    put(&mut world, homeless);
    another_leader(&mut world);
    world.settle();
    assert_eq!(world.state.tasks[&stray_id].desired, TaskState::Remove);
    let state = world.state.tasks[&homeless_id].status.state;
    assert_eq!(state, TaskState::Orphaned);
    world.run_tasks();
    assert!(!world.state.tasks.contains_key(&stray_id));
    assert_eq!(world.spread("web"), on_nodes([(1, 1), (2, 1)]));
}

/// `TestDrain`: a node that is removed.
#[test]
fn tasks_leave_a_node_that_is_removed() {
    let mut world = World::new(3);
    world.create(spec("web", 6)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| remove_node(s, now, e, "n3", true))
        .unwrap();
    assert_eq!(world.spread("web"), on_nodes([(1, 3), (2, 3)]));
}

/// `TestNodeAvailability` and `TestTaskFailure` of global services.
#[test]
fn a_drained_node_loses_its_global_task_and_one_that_is_not_to_restart_stays_ended() {
    let mut world = World::new(2);
    let mut agent = global(spec("agent", 0));
    task_of(&mut agent).restart.condition = RestartCondition::None;
    world.create(agent).unwrap();
    world.run_tasks();
    availability(&mut world, 2, Availability::Drain);
    world.run_tasks();
    assert_eq!(world.spread("agent"), on_nodes([(1, 1)]));
    availability(&mut world, 2, Availability::Active);
    world.run_tasks();
    assert_eq!(world.spread("agent"), on_nodes([(1, 1), (2, 1)]));
    let before = world.wanted("agent");
    for task in &before {
        world.report(&task.id, TaskState::Failed);
    }
    world.advance(60_000);
    let ids = |tasks: &[Task]| tasks.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.wanted("agent")), ids(&before));
}

/// `TestUpdaterFailureAction`: an update that is paused goes on once it may.
#[test]
fn a_paused_update_goes_on_with_another_policy() {
    let mut world = with_policy(3, |_| {});
    version(&mut world, "web", "2");
    let (old, _) = next_step(&world).unwrap();
    world.report(&old, TaskState::Shutdown);
    let (bad, _) = next_step(&world).unwrap();
    world.report(&bad, TaskState::Failed);
    assert_eq!(state(&world, "web"), UpdateState::Paused);
    world.advance(60_000);
    world.run_tasks();
    assert_eq!(running(&world, "web"), (1, 2), "only its restart");
    change(&mut world, "web", |spec| {
        spec.update.failure_action = FailureAction::Continue;
    })
    .unwrap();
    assert_eq!(state(&world, "web"), UpdateState::Updating);
    world.run_tasks();
    assert_eq!(state(&world, "web"), UpdateState::Completed);
    assert_eq!(running(&world, "web"), (3, 0));
}

/// `TestTaskHistory` of global services: each node has its own.
#[test]
fn each_node_has_a_history_of_its_own() {
    let mut world = World::new(2);
    let mut agent = global(spec("agent", 0));
    task_of(&mut agent).restart.delay = Duration::ZERO;
    world.create(agent).unwrap();
    world.run_tasks();
    for round in 0..8 {
        let mut tasks = world.wanted("agent").into_iter();
        let task = tasks.find(|t| t.node == Some(node(1))).unwrap();
        world.report(&task.id, TaskState::Failed);
        world.advance(1);
        let kept = world.state.tasks_on(&node(1)).count();
        assert_eq!(kept, (round + 1).min(TASK_HISTORY) + 1, "round {round}");
    }
    assert_eq!(world.state.tasks_on(&node(2)).count(), 1);
}

/// `TestServiceRemoveDeadTasks`, `TestServiceRemoveUnassignedTasks`
#[test]
fn of_a_removed_service_only_what_still_runs_is_left() {
    let mut world = World::new(1);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    let ended = world.wanted("web").remove(0).id;
    world.report(&ended, TaskState::Failed);
    let nowhere = constrained(spec("nowhere", 3), &["node.labels.disk==tape"]);
    world.create(nowhere).unwrap();
    assert_eq!(world.state.tasks.len(), 3 + 3);
    for name in ["web", "nowhere"] {
        world
            .change(|s, now, e| remove_service(s, now, e, name))
            .unwrap();
    }
    let left: Vec<(TaskState, TaskState)> = world
        .state
        .tasks
        .values()
        .map(|t| (t.desired, t.status.state))
        .collect();
    assert_eq!(left, [(TaskState::Remove, TaskState::Running)]);
    world.run_tasks();
    assert!(world.state.tasks.is_empty());
}
