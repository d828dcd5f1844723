use std::collections::BTreeSet;

use std::time::Duration;

use weft_model::objects::{Availability, RestartCondition};

use super::*;

fn slots(world: &World, name: &str) -> Vec<u32> {
    let mut slots: Vec<u32> = world.wanted(name).iter().map(|t| t.slot).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn scales_up_and_down() {
    let mut world = World::new(3);
    world.create(spec("web", 3)).unwrap();
    world.run_tasks();
    assert_eq!(slots(&world, "web"), [1, 2, 3]);
    world.scale("web", 7);
    world.run_tasks();
    assert_eq!(slots(&world, "web"), [1, 2, 3, 4, 5, 6, 7]);
    world.scale("web", 2);
    world.run_tasks();
    assert_eq!(slots(&world, "web"), [1, 2]);
    assert_eq!(world.spread("web").len(), 2, "one each on two nodes");
    assert_eq!(world.state.tasks.len(), 2, "removed tasks are forgotten");
    world.scale("web", 3);
    assert_eq!(slots(&world, "web"), [1, 2, 3]);
    let web = world.state.find_service("web").unwrap();
    assert_eq!(up_to_date_and_desired(&world.state, web), (2, 3));
}

#[test]
fn many_replicas_are_made_in_several_passes() {
    let mut world = World::new(3);
    world.create(spec("web", 1)).unwrap();
    let planned = scale_service(&world.state, world.now, &mut world.entropy, "web", 2500).unwrap();
    world.state.apply(&planned.changes);
    let mut made = Vec::new();
    loop {
        let changes = world.reconcile();
        if changes.is_empty() {
            break;
        }
        world.state.apply(&changes);
        made.push(world.state.tasks.len());
        assert!(made.len() < 8, "no fixpoint: {made:?}");
    }
    assert_eq!(made, [1001, 2001, 2500]);
    assert_eq!(slots(&world, "web"), (1..=2500).collect::<Vec<_>>());
}

#[test]
fn a_delay_that_reaches_beyond_time_is_no_overflow() {
    let mut world = World::new(1);
    world.create(spec("web", 1)).unwrap();
    let mut task = world.wanted("web").remove(0);
    task.desired = TaskState::Ready;
    Arc::make_mut(&mut task.spec).restart.delay = Duration::from_millis(u64::MAX);
    world.state.apply(&[Change::Put(task.into())]);
    let for_ever = Some(Duration::from_millis(u64::MAX));
    assert_eq!(world.next_wait(), for_ever);
    world.settle();
    assert_eq!(world.next_wait(), for_ever);
}

#[test]
fn scaling_down_prefers_what_does_not_run() {
    let mut world = World::new(1);
    world.create(spec("web", 3)).unwrap();
    let tasks = world.wanted("web");
    for task in tasks.iter().filter(|t| t.slot != 1) {
        world.report(&task.id, TaskState::Running);
    }
    world.scale("web", 2);
    assert_eq!(slots(&world, "web"), [2, 3]);
}

#[test]
fn a_dead_nodes_tasks_move_at_once() {
    let mut world = World::new(3);
    world.create(spec("web", 6)).unwrap();
    world.run_tasks();
    let old: BTreeSet<TaskId> = world
        .wanted("web")
        .into_iter()
        .filter(|t| t.node == Some(node(2)))
        .map(|t| t.id)
        .collect();
    assert_eq!(old.len(), 2);
    world.health(2, NodeState::Down);
    assert_eq!(slots(&world, "web"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.spread("web")["node1"], 3);
    assert_eq!(world.spread("web")["node3"], 3);
    // No restart delay, and the old ones keep their addresses: they may still run over there.
    assert!(
        world
            .wanted("web")
            .iter()
            .all(|t| t.desired == TaskState::Running)
    );
    for id in &old {
        let task = &world.state.tasks[id];
        assert_eq!(
            (task.desired, task.status.state),
            (TaskState::Shutdown, TaskState::Running)
        );
    }
    // The node is back: it is told to stop them, and running tasks are not moved again.
    world.health(2, NodeState::Ready);
    let orders = orders_of(&world.state, &node(2)).unwrap();
    assert_eq!(orders.own.tasks.len(), 2);
    assert!(
        orders
            .own
            .tasks
            .iter()
            .all(|t| t.desired == TaskState::Shutdown)
    );
    world.run_tasks();
    assert!(
        orders_of(&world.state, &node(2))
            .unwrap()
            .own
            .tasks
            .is_empty()
    );
    assert_eq!(world.spread("web").get("node2"), None);
}

#[test]
fn a_node_down_for_a_day_loses_its_tasks() {
    let mut world = World::new(2);
    world.network("n", &[]).unwrap();
    world.create(on(spec("web", 2), "n")).unwrap();
    world.run_tasks();
    world.health(2, NodeState::Down);
    let day = Duration::from_millis(ORPHAN_AFTER_MS);
    assert_eq!(world.next_wait(), Some(day));
    world.advance(ORPHAN_AFTER_MS);
    let orphans: Vec<_> = world
        .state
        .tasks
        .values()
        .filter(|t| t.status.state == TaskState::Orphaned)
        .collect();
    assert_eq!(orphans.len(), 1);
    assert_eq!(world.next_wait(), None);
    let network = world.state.find_network("n").unwrap();
    assert_eq!(usage(&world.state, network).0, 3, "VIP and two tasks");
}

#[test]
fn drained_nodes_are_left() {
    let mut world = World::new(2);
    world.create(spec("web", 4)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", Availability::Drain))
        .unwrap();
    world.run_tasks();
    assert_eq!(
        world.spread("web"),
        BTreeMap::from([("node2".to_owned(), 4)])
    );
}

#[test]
fn unheard_of_nodes_keep_their_tasks() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    world.health(2, NodeState::Unknown);
    assert_eq!(world.spread("web")["node2"], 1);
    world.scale("web", 4);
    assert_eq!(world.spread("web")["node2"], 1);
}

#[test]
fn a_new_leader_gives_nothing_to_nodes_that_have_not_called() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    // Both are ready by the state.
    world.waits = Waits::default();
    world.since = None;
    world.waits.hear(&BTreeSet::from([node(2)]));
    world.scale("web", 4);
    let mut agent = spec("agent", 0);
    agent.mode = ServiceMode::Global;
    world.create(agent).unwrap();
    assert_eq!(world.spread("web")["node2"], 1, "it keeps what it has");
    assert_eq!(world.spread("web")["node1"], 3);
    assert!(!world.spread("agent").contains_key("node2"));
    let version = world.state.version;
    world.waits.hear(&BTreeSet::new());
    world.settle();
    assert_eq!(world.spread("agent")["node2"], 1, "it called");
    assert!(world.state.version > version);
    world.scale("web", 6);
    assert_eq!(world.spread("web")["node2"], 3);
}

#[test]
fn failed_tasks_restart_after_the_delay() {
    let mut world = World::new(1);
    world.create(spec("web", 1)).unwrap();
    world.run_tasks();
    let first = world.wanted("web").remove(0);
    world.report(&first.id, TaskState::Failed);
    assert_eq!(world.state.tasks[&first.id].desired, TaskState::Shutdown);
    let second = world.wanted("web").remove(0);
    assert_eq!((second.slot, second.desired), (1, TaskState::Ready));
    assert_eq!(world.next_wait(), Some(Duration::from_millis(5000)));
    world.advance(4999);
    assert_eq!(world.wanted("web")[0].node, None, "not yet");
    world.advance(1);
    let second = world.wanted("web").remove(0);
    assert_eq!(
        (second.desired, second.status.state),
        (TaskState::Running, TaskState::Assigned)
    );
    assert_eq!(world.next_wait(), None);
}

/// A clock that is set neither lengthens nor shortens a wait.
#[test]
fn a_restart_waits_its_delay_whatever_the_time_of_day_does() {
    const HOUR: u64 = 60 * 60 * 1000;
    let back: fn(&mut u64) = |now| *now -= HOUR;
    let ahead: fn(&mut u64) = |now| *now += HOUR;
    for set in [back, ahead] {
        let mut world = World::new(1);
        world.now = 100 * HOUR;
        world.create(spec("web", 1)).unwrap();
        world.run_tasks();
        let first = world.wanted("web").remove(0);
        world.report(&first.id, TaskState::Failed);
        world.advance(1000);
        set(&mut world.now);
        world.settle();
        assert_eq!(world.next_wait(), Some(Duration::from_millis(4000)));
        world.advance(3999);
        assert_eq!(world.wanted("web")[0].desired, TaskState::Ready, "not yet");
        world.advance(1);
        assert_eq!(world.wanted("web")[0].desired, TaskState::Running);
    }
    // Set back while no manager ran: the whole delay once more, and no more.
    let mut world = World::new(1);
    world.now = 100 * HOUR;
    world.create(spec("web", 1)).unwrap();
    world.run_tasks();
    let first = world.wanted("web").remove(0);
    world.report(&first.id, TaskState::Failed);
    world.now -= HOUR;
    world.waits = Waits::default();
    assert_eq!(world.next_wait(), Some(Duration::from_millis(5000)));
    world.advance(5000);
    assert_eq!(world.wanted("web")[0].desired, TaskState::Running);
}

/// What a lost node runs keeps its addresses for a day, not until NTP answers.
#[test]
fn a_clock_that_is_set_ahead_gives_up_no_node() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    world.health(2, NodeState::Down);
    world.now += 2 * ORPHAN_AFTER_MS;
    world.settle();
    let orphaned = |world: &World| {
        let mut tasks = world.state.tasks.values();
        tasks.any(|t| t.status.state == TaskState::Orphaned)
    };
    assert!(!orphaned(&world));
    world.advance(ORPHAN_AFTER_MS);
    assert!(orphaned(&world));
}

#[test]
fn restart_conditions() {
    for (condition, end, restarts) in [
        (RestartCondition::Any, TaskState::Complete, true),
        (RestartCondition::OnFailure, TaskState::Complete, false),
        (RestartCondition::OnFailure, TaskState::Failed, true),
        (RestartCondition::OnFailure, TaskState::Rejected, true),
        (RestartCondition::None, TaskState::Failed, false),
    ] {
        let mut world = World::new(1);
        let mut web = spec("web", 1);
        task_of(&mut web).restart.condition = condition;
        world.create(web).unwrap();
        world.run_tasks();
        let first = world.wanted("web").remove(0).id;
        world.report(&first, end);
        world.advance(60_000);
        world.run_tasks();
        let now = world.wanted("web").remove(0);
        assert_eq!(now.id != first, restarts, "{condition:?} {end:?}");
        assert_eq!(
            world.wanted("web").len(),
            1,
            "the slot is never filled twice"
        );
        // What ended for good is not brought back by a dead node either.
        world.health(1, NodeState::Down);
        assert_eq!(world.wanted("web").len(), 1);
        assert_eq!(world.wanted("web")[0].id != first, restarts);
    }
}

/// Until somebody sets another one.
const TASK_HISTORY: usize = 5;

#[test]
fn history_is_bounded() {
    let mut world = World::new(1);
    world.create(spec("web", 1)).unwrap();
    for _ in 0..20 {
        world.run_tasks();
        let id = world.wanted("web").remove(0).id;
        world.report(&id, TaskState::Failed);
        world.advance(5000);
    }
    assert_eq!(world.state.tasks.len(), TASK_HISTORY + 1);
    for (limit, expected) in [(2, 3), (0, 1)] {
        let update = SwarmUpdate {
            task_history_retention_limit: Some(limit),
            ..SwarmUpdate::default()
        };
        world
            .run(|s, now, e| update_swarm(s, now, e, &update))
            .unwrap();
        assert_eq!(world.state.tasks.len(), expected, "at once");
    }
}

/// `--restart-delay 0s` and a program that ends at once.
#[test]
fn without_a_delay_each_slot_has_one_live_task_and_a_bounded_history() {
    let mut world = World::new(2);
    let mut broken = spec("web", 3);
    task_of(&mut broken).restart.delay = Duration::ZERO;
    world.create(broken).unwrap();
    for round in 0..40 {
        world.run_tasks();
        for task in world.wanted("web") {
            world.report(&task.id, TaskState::Failed);
            assert_eq!(slots(&world, "web"), [1, 2, 3], "round {round}");
        }
        let live = world.state.tasks.values();
        let live = live.filter(|t| !t.status.state.is_terminal());
        assert_eq!(live.count(), 3, "round {round}");
        for task in world.wanted("web") {
            assert_eq!(task.desired, TaskState::Running, "round {round}");
            assert_eq!(task.status.state, TaskState::Assigned, "round {round}");
        }
        assert_eq!(world.next_wait(), None);
        assert!(world.state.tasks.len() <= 3 * (TASK_HISTORY + 1));
        world.advance(18);
    }
    assert_eq!(world.state.tasks.len(), 3 * (TASK_HISTORY + 1));
}

#[test]
fn removed_services_leave_nothing() {
    let mut world = World::new(2);
    world.network("n", &[]).unwrap();
    world.create(on(spec("web", 4), "n")).unwrap();
    world.run_tasks();
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .unwrap();
    // Tasks stop first, and hold their addresses until they did: the network goes with the last.
    world
        .change(|s, now, e| remove_network(s, now, e, "n"))
        .unwrap();
    assert_eq!(world.state.networks.len(), 2);
    world.run_tasks();
    assert!(world.state.tasks.is_empty());
    assert_eq!(world.state.networks.len(), 1, "ingress alone");
}

#[test]
fn a_removed_service_stays_in_the_orders_until_its_last_task_has_ended() {
    let mut world = World::new(2);
    world.network("n", &[]).unwrap();
    let web = || publish(on(spec("web", 2), "n"), 8000, 80);
    let old = world.create(web()).unwrap();
    world.run_tasks();
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .unwrap();
    let orders = |world: &World| orders_of(&world.state, &node(1)).unwrap().shared;
    let left = orders(&world);
    assert_eq!(left.services, []);
    assert_eq!((&left.ending[0].id, left.ending.len()), (&old.id, 1));
    assert_eq!(left.ending[0].vips, old.endpoint.vips);
    assert_eq!(left.endpoints.len(), 4, "two tasks on two networks");
    // Name and port are free at once, the address is not.
    let new = world.create(web()).unwrap();
    assert_eq!(new.endpoint.ports, old.endpoint.ports);
    let vip = &old.endpoint.vips[0];
    let busy = ipam::holder(&world.state, &vip.network, vip.addr.addr());
    assert_eq!(
        busy.unwrap(),
        "service web, which was removed and whose tasks have not ended, as its virtual IP"
    );
    let of_old: Vec<TaskId> = world
        .state
        .tasks_of(&old.id)
        .map(|t| t.id.clone())
        .collect();
    world.report(&of_old[0], TaskState::Shutdown);
    assert_eq!(orders(&world).ending.len(), 1);
    world.report(&of_old[1], TaskState::Shutdown);
    assert_eq!(orders(&world).ending, []);
    assert_eq!(world.state.find_service("web").unwrap().id, new.id);
    // Without a task there is nothing to wait for.
    world.run_tasks();
    world.scale("web", 0);
    world.run_tasks();
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .unwrap();
    assert_eq!(orders(&world).ending, []);
}

#[test]
fn global_services_run_once_on_each_node() {
    let mut world = World::new(2);
    let mut agent = spec("agent", 0);
    agent.mode = ServiceMode::Global;
    world.create(agent).unwrap();
    world.run_tasks();
    let one_each = |n: u8| {
        (1..=n)
            .map(|n| (format!("node{n}"), 1))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(world.spread("agent"), one_each(2));
    world.add_node(3);
    world.run_tasks();
    assert_eq!(world.spread("agent"), one_each(3));
    world.health(3, NodeState::Down);
    assert_eq!(world.spread("agent"), one_each(2));
    world.health(3, NodeState::Ready);
    world.run_tasks();
    assert_eq!(world.spread("agent"), one_each(3));
    let task = world.wanted("agent").remove(0);
    world.report(&task.id, TaskState::Failed);
    world.advance(5000);
    world.run_tasks();
    assert_eq!(world.spread("agent"), one_each(3));
    world
        .run(|s, now, e| set_availability(s, now, e, "n2", Availability::Pause))
        .unwrap();
    assert_eq!(
        world.spread("agent"),
        one_each(3),
        "a pause keeps what runs"
    );
    world
        .run(|s, now, e| remove_node(s, now, e, "n3", true))
        .unwrap();
    assert_eq!(world.spread("agent"), one_each(2));
}

/// Whether every task of a service holds the very spec that the service has.
fn share(state: &ClusterState, name: &str) -> bool {
    let service = state.find_service(name).unwrap();
    let mut tasks = state.tasks_of(&service.id).peekable();
    assert!(tasks.peek().is_some());
    tasks.all(|task| Arc::ptr_eq(&task.spec, &service.spec.task))
}

#[test]
fn tasks_share_the_spec_of_their_service_also_after_a_restart() {
    let mut world = World::new(2);
    let made = world.create(spec("web", 2)).unwrap();
    world.create(spec("other", 2)).unwrap();
    world.run_tasks();
    assert!(share(&world.state, "web"));
    let version = world.wanted("web")[0].spec_version;
    assert_eq!(version, made.meta.version);
    // A port and more tasks: what runs is still what the service says.
    let update = weft_model::api::ServiceUpdate {
        publish_add: publish(spec("web", 1), 8000, 80).endpoint.ports,
        ..Default::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "web", &update))
        .unwrap();
    world.scale("web", 5);
    world.run_tasks();
    let web = world.state.find_service("web").unwrap();
    assert_eq!(up_to_date_and_desired(&world.state, web), (5, 5));
    assert!(web.meta.version > version);
    assert!(share(&world.state, "web"));

    let mut read = ClusterState::default();
    for id in world.state.ids() {
        let text = serde_json::to_string(&world.state.get(&id)).unwrap();
        read.put(serde_json::from_str(&text).unwrap());
    }
    read.version = world.state.version;
    assert_eq!(read, world.state);
    assert!(share(&read, "web") && share(&read, "other"));
    // One that is made of something else keeps what it is made of.
    let mut old = world.wanted("web").remove(0);
    task_spec(&mut old).container.args.push("--old".to_owned());
    let id = old.id.clone();
    world.state.apply(&[Change::Put(old.into())]);
    assert_eq!(
        world.state.tasks[&id].spec.container.args,
        ["/bin/true", "--old"]
    );
    let web = world.state.find_service("web").unwrap();
    assert_eq!(up_to_date_and_desired(&world.state, web), (4, 5));
}

fn task_spec(task: &mut Task) -> &mut TaskSpec {
    Arc::make_mut(&mut task.spec)
}
