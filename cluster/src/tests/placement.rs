use weft_model::objects::{Availability, PublishMode};

use super::*;

fn counts(world: &World, name: &str) -> Vec<usize> {
    let mut counts: Vec<usize> = world.spread(name).into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn spreads_and_fills_up() {
    let mut world = World::new(5);
    world.create(spec("one", 18)).unwrap();
    assert_eq!(counts(&world, "one"), [3, 3, 4, 4, 4]);
    // The second service goes where there is least.
    let light: Vec<String> = world
        .spread("one")
        .into_iter()
        .filter(|(_, n)| *n == 3)
        .map(|(node, _)| node)
        .collect();
    world.create(spec("two", 2)).unwrap();
    let mut used: Vec<String> = world.spread("two").into_keys().collect();
    used.sort();
    assert_eq!(used, light);
    world.scale("one", 21);
    assert_eq!(counts(&world, "one"), [4, 4, 4, 4, 5]);
    let full = world
        .spread("one")
        .into_iter()
        .find(|(_, n)| *n == 5)
        .unwrap()
        .0;
    world.scale("one", 22);
    assert_eq!(world.spread("one")[&full], 5);
    assert_eq!(counts(&world, "one"), [4, 4, 4, 5, 5]);
}

#[test]
fn equal_nodes_are_taken_by_id() {
    let mut world = World::new(3);
    world.create(spec("web", 1)).unwrap();
    assert_eq!(world.wanted("web")[0].node, Some(node(1)));
}

#[test]
fn no_node_is_said_on_the_task_and_heals() {
    let mut world = World::new(2);
    world.health(1, NodeState::Down);
    world
        .run(|s, now, e| set_availability(s, now, e, "n2", Availability::Drain))
        .unwrap();
    world.create(spec("web", 1)).unwrap();
    let task = &world.wanted("web")[0];
    assert_eq!(task.status.state, TaskState::Pending);
    assert_eq!(
        task.status.err,
        "no suitable node (2 nodes not available for new tasks)"
    );
    world
        .run(|s, now, e| set_availability(s, now, e, "n2", Availability::Active))
        .unwrap();
    let task = &world.wanted("web")[0];
    assert_eq!(task.node, Some(node(2)));
    assert_eq!(task.status.err, "");
    assert_eq!(task.status.message, "scheduler assigned task to node");
}

#[test]
fn host_ports_are_taken_once_on_each_node() {
    let mut world = World::new(2);
    let mut host = publish(spec("web", 3), 8080, 80);
    host.endpoint.ports[0].mode = PublishMode::Host;
    world.create(host).unwrap();
    let pending: Vec<_> = world
        .wanted("web")
        .into_iter()
        .filter(|t| t.status.state == TaskState::Pending)
        .collect();
    assert_eq!(pending.len(), 1);
    assert_eq!(
        pending[0].status.err,
        "no suitable node (host-mode port already in use on 2 nodes)"
    );
}

#[test]
fn a_node_that_keeps_failing_comes_last() {
    let mut world = World::new(2);
    // node1 has one more task, so that node2 is the better place.
    world.create(spec("ballast", 1)).unwrap();
    world.create(spec("bad", 1)).unwrap();
    for attempt in 0..5 {
        let task = world.wanted("bad").remove(0);
        assert_eq!(task.node, Some(node(2)), "attempt {attempt}");
        world.report(&task.id, TaskState::Failed);
        world.advance(5000);
    }
    assert_eq!(world.wanted("bad")[0].node, Some(node(1)));
    // Five minutes later the failures count no more.
    world.advance(6 * 60 * 1000);
    let task = world.wanted("bad").remove(0);
    world.report(&task.id, TaskState::Failed);
    world.advance(5000);
    assert_eq!(world.wanted("bad")[0].node, Some(node(2)));
}

#[test]
fn paused_nodes_keep_and_get_nothing_new() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", Availability::Pause))
        .unwrap();
    world.scale("web", 4);
    assert_eq!(world.spread("web")["node1"], 1);
    assert_eq!(world.spread("web")["node2"], 3);
}

#[test]
fn what_tasks_wait_for_is_said_of_their_service_with_a_way_out() {
    let mut world = World::new(2);
    let told = |world: &World, name: &str| {
        let service = world.state.find_service(name).unwrap();
        waiting(&world.state, service)
    };
    world.network("small", &["10.7.0.0/29"]).unwrap();
    world.create(on(spec("web", 6), "small")).unwrap();
    // Of 5 addresses the service has one for itself.
    let told_of_web = told(&world, "web");
    assert_eq!(told_of_web.len(), 1, "{told_of_web:?}");
    let full = "2 tasks wait: could not find an available IP on network small (";
    assert!(told_of_web[0].starts_with(full), "{told_of_web:?}");
    assert!(
        told_of_web[0].contains("larger --subnet"),
        "{told_of_web:?}"
    );
    let mut everywhere = spec("everywhere", 1);
    everywhere.mode = ServiceMode::Global;
    world.create(everywhere).unwrap();
    assert_eq!(told(&world, "everywhere"), [""; 0]);

    for n in [1, 2] {
        let name = description(n).hostname;
        world
            .run(|s, now, e| set_availability(s, now, e, &name, Availability::Drain))
            .unwrap();
    }
    world.create(spec("late", 3)).unwrap();
    let why = "no suitable node (2 nodes not available for new tasks)";
    let way_out =
        "\"weft node ls\" shows the nodes: make one active or ready, or let another one join";
    assert_eq!(
        told(&world, "late"),
        [format!("3 tasks wait: {why}; {way_out}")]
    );
    assert_eq!(
        told(&world, "everywhere"),
        [format!("no node takes new tasks; {way_out}")]
    );
    // And it is over with the reason.
    world
        .run(|s, now, e| set_availability(s, now, e, "n1", Availability::Active))
        .unwrap();
    assert_eq!(told(&world, "late"), [""; 0]);
}
