//! Networks that are removed while tasks that are to stop are still on them.

use weft_model::api::{Event, EventAction, EventKind, PeerAdd};
use weft_model::id::NetworkId;

use super::commands::refused;
use super::updates::change;
use super::*;

const NOT_FOUND: ErrorKind = ErrorKind::NotFound;

impl World {
    fn remove_network(&mut self, reference: &str) -> Result<(), CommandError> {
        self.change(|s, now, e| remove_network(s, now, e, reference))
    }

    /// `web` with two tasks that run on the network, and is removed, as the network is then.
    fn with_ending(nodes: u8) -> (Self, NetworkId) {
        let mut world = Self::new(nodes);
        world.network("n", &["10.9.0.0/24"]).expect("a network");
        world.create(on(spec("web", 2), "n")).expect("a service");
        world.run_tasks();
        let peer = PeerAdd {
            ip: "10.9.0.200".parse().expect("an address"),
            mac: "02:00:00:00:00:01".parse().expect("a MAC"),
            vtep: "198.51.100.7".parse().expect("an address"),
        };
        world
            .run(|s, now, e| add_peer(s, now, e, "n", &peer))
            .expect("a peer");
        let id = world.state.find_network("n").expect("there").id.clone();
        world
            .change(|s, now, e| remove_service(s, now, e, "web"))
            .expect("it is there");
        world.remove_network("n").expect("its tasks are to stop");
        (world, id)
    }
}

#[test]
fn a_network_ends_with_the_last_task_on_it() {
    let (mut world, id) = World::with_ending(2);
    assert!(world.state.networks[&id].ending);
    let vni = world.state.networks[&id].vni;
    // Its name is free at once, and nobody new comes onto it.
    for gone in [world.remove_network("n"), world.remove_network(id.as_str())] {
        refused(gone, NOT_FOUND, "no such network: ");
    }
    let ends = format!("no such network: {id} (n was removed, and ends with its last task)");
    let attach = Attach {
        network: id.0.clone(),
        ..Attach::default()
    };
    refused(
        world.run(|s, now, e| attach_endpoint(s, now, e, &node(1), attach)),
        NOT_FOUND,
        &ends,
    );
    refused(
        world.create(on(spec("api", 1), id.as_str())),
        NOT_FOUND,
        &ends,
    );
    world.network("n", &[]).expect("the name is free");
    let new = world.state.find_network("n").expect("there").clone();
    assert_ne!(new.id, id);
    assert_ne!(new.vni, vni);
    assert_eq!(given_twice(&world.state), None);
    // What it has stays its own until then.
    refused(
        world.network("m", &["10.9.0.0/24"]),
        ErrorKind::Conflict,
        "10.9.0.0/24 is still used by tasks of network n that are ending; try again in a moment",
    );
    let shown = world.state.find_network(id.as_str()).map(|n| &n.id);
    assert_eq!(shown, Ok(&id), "it can be looked at");
    world.run_tasks();
    assert!(!world.state.networks.contains_key(&id));
    assert!(!world.state.cursors.contains_key(&id));
    assert!(world.state.peers.is_empty() && world.state.ending.is_empty());
    world.network("m", &["10.9.0.0/24"]).expect("it is free");
}

#[test]
fn a_network_does_not_wait_for_nodes_that_are_down() {
    let (mut world, id) = World::with_ending(2);
    world.health(2, NodeState::Down);
    assert!(world.state.networks.contains_key(&id), "one task is left");
    world.run_tasks();
    assert!(!world.state.networks.contains_key(&id));
    let left: Vec<&Task> = world.state.tasks.values().collect();
    assert_eq!(left.len(), 1, "node2 may still run its own");
    assert!(left[0].attachments.is_empty(), "{:?}", left[0]);
    assert!(
        world.state.ending.values().all(|s| s.vips.is_empty()),
        "{:?}",
        world.state.ending
    );
}

#[test]
fn a_wanted_task_keeps_its_network() {
    let mut world = World::new(1);
    world.network("n", &[]).expect("a network");
    world.create(on(spec("web", 2), "n")).expect("a service");
    world.run_tasks();
    change(&mut world, "web", |spec| task_of(spec).networks.clear()).expect("an update");
    refused(
        world.remove_network("n"),
        ErrorKind::Conflict,
        "network n is in use by task web.",
    );
    world.run_tasks();
    world.remove_network("n").expect("nobody is on it");
    assert_eq!(world.state.networks.len(), 1, "ingress alone");
}

#[test]
fn a_network_is_told_of_once_it_is_gone() {
    let of_networks = |before: &ClusterState, world: &World| -> Vec<(EventAction, String)> {
        let all = events(before, &world.state, world.now).into_iter();
        let told = all.filter(|event| event.kind == EventKind::Network);
        told.map(|event: Event| (event.action, event.actor.id))
            .collect()
    };
    let mut world = World::new(1);
    world.network("n", &[]).expect("a network");
    world.create(on(spec("web", 1), "n")).expect("a service");
    world.run_tasks();
    let id = world.state.find_network("n").expect("there").id.clone();
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .expect("it is there");
    let before = world.state.clone();
    world.remove_network("n").expect("it ends");
    assert!(of_networks(&before, &world).is_empty(), "it is no news yet");
    // Its end outlives a restart of all managers.
    let mut again = ClusterState::default();
    for id in world.state.ids() {
        let text = serde_json::to_string(&world.state.get(&id)).expect("written");
        let object: Option<Object> = serde_json::from_str(&text).expect("read");
        again.put(object.expect("an object"));
    }
    again.version = world.state.version;
    assert!(again == world.state && again.networks[&id].ending);
    world.run_tasks();
    assert_eq!(of_networks(&before, &world), [(EventAction::Remove, id.0)]);
}
