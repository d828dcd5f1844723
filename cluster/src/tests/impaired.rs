//! Nodes that answer their manager and carry no traffic.

use super::*;

impl World {
    fn impaired(&mut self, n: u8, why: Option<&str>) {
        self.change(|s, now, e| set_impaired(s, now, e, &node(n), why))
            .unwrap();
    }
}

fn grace() -> Duration {
    Duration::from_millis(IMPAIRED_GRACE_MS)
}

#[test]
fn its_tasks_move_after_a_grace_and_it_gets_no_new_ones() {
    let mut world = World::new(3);
    world.create(spec("web", 3)).unwrap();
    world.run_tasks();
    world.impaired(2, Some("no address"));
    let said = world.state.nodes[&node(2)].status.impaired.clone().unwrap();
    assert_eq!(
        (said.since, said.reason.as_str()),
        (world.now, "no address")
    );
    world.create(spec("more", 4)).unwrap();
    assert_eq!(world.spread("more").get("node2"), None);
    assert_eq!(world.spread("web")["node2"], 1, "what it has it keeps");
    assert_eq!(world.next_wait(), Some(grace()));
    // Other words are no other trouble.
    world.advance(IMPAIRED_GRACE_MS - 1);
    world.impaired(2, Some("no data plane"));
    assert_eq!(world.spread("web")["node2"], 1);
    world.advance(1);
    assert_eq!(world.spread("web").get("node2"), None);
    assert_eq!(world.wanted("web").len(), 3);
    // Its tasks do not end; nothing is due all the time because of it.
    assert_eq!(world.next_wait(), None);
    world.impaired(2, None);
    world.scale("web", 9);
    assert!(world.spread("web").contains_key("node2"));
}

#[test]
fn who_comes_back_in_the_grace_keeps_its_tasks_whatever_the_clock_does() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    let before: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    for step in [3_600_000_i64, -3_600_000] {
        world.impaired(2, Some("why"));
        world.now = world.now.saturating_add_signed(step);
        world.advance(IMPAIRED_GRACE_MS - 1);
        world.impaired(2, None);
        world.advance(10 * IMPAIRED_GRACE_MS);
    }
    let after: Vec<TaskId> = world.wanted("web").into_iter().map(|t| t.id).collect();
    assert_eq!(before, after);
}

#[test]
fn without_a_better_node_tasks_stay_and_new_ones_say_why_they_wait() {
    let mut world = World::new(2);
    world.create(spec("web", 2)).unwrap();
    world.run_tasks();
    for n in [1, 2] {
        world.impaired(n, Some("why"));
    }
    world.advance(10 * IMPAIRED_GRACE_MS);
    assert_eq!(world.spread("web").len(), 2);
    assert_eq!(world.next_wait(), None);
    world.create(spec("more", 1)).unwrap();
    let task = world.wanted("more").remove(0);
    assert_eq!(task.status.err, "no suitable node (2 nodes impaired)");
    world.health(2, NodeState::Down);
    assert_eq!(
        world.state.nodes[&node(2)].status.impaired,
        None,
        "it is down"
    );
    world.impaired(2, Some("late words"));
    assert_eq!(world.state.nodes[&node(2)].status.impaired, None);
    let task = world.wanted("more").remove(0);
    assert_eq!(
        task.status.err,
        "no suitable node (1 node not available for new tasks; 1 node impaired)"
    );
    // The first one that is whole takes what has waited.
    world.impaired(1, None);
    assert_eq!(world.spread("web")["node1"], 2);
    assert_eq!(world.spread("more")["node1"], 1);
}
