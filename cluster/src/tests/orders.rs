//! Orders that follow the state by differences say what the whole of it says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weft_model::assignment::{Own, Shared};

use super::allocation::{play, step};
use super::*;

/// All nodes at once: what they were sent.
#[derive(Default)]
struct Sent {
    book: OrderBook,
    shared: Option<Shared>,
    own: BTreeMap<NodeId, Own>,
}

impl Sent {
    fn follow(&mut self, state: &ClusterState) {
        match self.book.update(state) {
            SharedNews::Same => {}
            SharedNews::Changed(change) => {
                let shared = self.shared.as_ref().unwrap();
                self.shared = Some(shared.with(&change).unwrap());
            }
            SharedNews::Anew => self.shared = self.book.shared(),
        }
        let shared = self.shared.as_ref().unwrap();
        assert!(shared.is_in_order());
        assert_eq!(self.book.shared_version(), Some(shared.version));
        let whole = orders_of(state, &node(1)).unwrap().shared;
        let whole = Shared {
            version: shared.version,
            ..Shared::clone(&whole)
        };
        assert_eq!(*shared, whole);
        self.own.retain(|id, _| self.book.own_version(id).is_some());
        assert!(self.own.keys().all(|id| state.nodes.contains_key(id)));
        for id in state.nodes.keys() {
            let own = self.book.own(id).unwrap();
            assert_eq!(self.book.own_version(id), Some(own.version));
            let fresh = orders_of(state, id).unwrap().own;
            assert_eq!((&own.node, &own.tasks), (&fresh.node, &fresh.tasks));
            assert_eq!(own.endpoints, fresh.endpoints);
            match self.own.get(id) {
                Some(before) if before.version == own.version => assert_eq!(*before, own),
                _ => {
                    self.own.insert(id.clone(), own);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn differences_lead_to_what_the_whole_says(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut world = World::new(3);
        let mut sent = Sent::default();
        for step in steps {
            play(&mut world, step);
            sent.follow(&world.state);
            world.run_tasks();
            sent.follow(&world.state);
        }
    }
}

#[test]
fn each_half_has_the_version_with_which_it_changed_last() {
    let mut world = World::new(3);
    world.network("back", &[]).unwrap();
    world.create(on(spec("web", 1), "back")).unwrap();
    let mut book = OrderBook::default();
    assert_eq!(book.update(&world.state), SharedNews::Anew);
    assert_eq!(book.update(&world.state), SharedNews::Same);
    let versions = |book: &OrderBook, n| (book.shared_version(), book.own_version(&node(n)));
    let task = world.wanted("web").remove(0);
    let runs: u8 = task.node.unwrap().0["node".len()..].parse().unwrap();
    let idle = if runs == 3 { 2 } else { 3 };
    let (busy_before, idle_before) = (versions(&book, runs), versions(&book, idle));
    // A report changes what its node is told, and nothing else.
    world.report(&task.id, TaskState::Running);
    assert_eq!(book.update(&world.state), SharedNews::Same);
    let busy = versions(&book, runs);
    assert_eq!(busy.0, busy_before.0);
    assert!(busy.1 > busy_before.1);
    assert_eq!(versions(&book, idle), idle_before);
    // So does a node that comes and goes.
    world.health(idle, NodeState::Down);
    assert_eq!(book.update(&world.state), SharedNews::Same);
    assert_eq!(versions(&book, runs), busy);
    assert!(versions(&book, idle).1 > idle_before.1);
    // The end of the task is everybody's business: its address may be given out again.
    world.report(&task.id, TaskState::Failed);
    let SharedNews::Changed(change) = book.update(&world.state) else {
        panic!("everybody is told");
    };
    assert_eq!(Some(change.base), busy.0);
    let gone: Vec<_> = task.attachments.iter().map(|a| &a.endpoint).collect();
    assert_eq!(change.endpoints.gone.iter().collect::<Vec<_>>(), gone);
    assert_eq!(change.endpoints.put, [], "the next one waits its delay");
    // A node that is removed has no orders.
    world
        .run(|s, now, e| remove_node(s, now, e, &format!("node{idle}"), true))
        .unwrap();
    book.update(&world.state);
    assert_eq!(book.own_version(&node(idle)), None);
    assert_eq!(book.own(&node(idle)), None);
}
