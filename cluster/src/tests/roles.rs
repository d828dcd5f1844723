//! What a node is, and where: promoted, demoted, moved, and alone.

use std::net::SocketAddr;

use super::commands::refused;
use super::*;

fn control(n: u8) -> SocketAddr {
    SocketAddr::new(description(n).addr, 2377)
}

fn as_manager(n: u8) -> NodeDescription {
    NodeDescription {
        manager_addr: Some(control(n)),
        ..description(n)
    }
}

impl World {
    fn role(&mut self, n: u8, role: Role) {
        let id = node(n);
        self.run(|s, now, e| set_role(s, now, e, id.as_str(), role))
            .unwrap();
    }

    fn says(&mut self, n: u8, description: &NodeDescription) -> Result<(), CommandError> {
        self.change(|s, now, e| update_node(s, now, e, &node(n), description))
    }
}

#[test]
fn a_manager_is_reached_where_it_says_while_it_is_one() {
    let mut world = World::new(2);
    let addr = |world: &World| world.state.nodes[&node(2)].manager_addr();
    world.says(2, &as_manager(2)).unwrap();
    assert_eq!(addr(&world), None, "a worker");
    world.role(2, Role::Manager);
    assert_eq!(addr(&world), None, "it has not begun");
    world.says(2, &as_manager(2)).unwrap();
    assert_eq!(addr(&world), Some(control(2)));
    let rm = |world: &mut World| world.run(|s, now, e| remove_node(s, now, e, "n2", true));
    refused(
        rm(&mut world),
        ErrorKind::BadRequest,
        "node node2 is a cluster manager and is a member of the raft cluster. It must be demoted to \
         worker before removal",
    );
    world.role(2, Role::Worker);
    assert_eq!(addr(&world), None);
    rm(&mut world).unwrap();
    assert!(!world.state.nodes.contains_key(&node(2)));
}

#[test]
fn an_ordered_address_holds_whatever_the_node_says() {
    let mut world = World::new(3);
    world.role(2, Role::Manager);
    let own_data_path = NodeDescription {
        data_path_addr: "198.51.100.2".parse().unwrap(),
        ..as_manager(2)
    };
    world.says(2, &own_data_path).unwrap();
    let to = |world: &mut World, n: u8, addr: IpAddr| {
        let id = node(n);
        world.run(|s, now, e| set_advertise_addr(s, now, e, id.as_str(), addr))
    };
    let conflict = ErrorKind::Conflict;
    let says = "is that of node n3 (node3)";
    refused(to(&mut world, 2, description(3).addr), conflict, says);
    let nowhere = Ipv4Addr::UNSPECIFIED.into();
    refused(
        to(&mut world, 2, nowhere),
        ErrorKind::BadRequest,
        "must be a non-zero IP address",
    );
    let addr: IpAddr = "192.0.2.77".parse().unwrap();
    to(&mut world, 2, addr).unwrap();
    // It opens a session before it has heard of that, and again when it has.
    for said in [own_data_path.clone(), own_data_path.moved_to(addr)] {
        world.says(2, &said).unwrap();
        let moved = &world.state.nodes[&node(2)];
        assert_eq!(moved.status.addr, addr);
        assert_eq!(moved.manager_addr(), Some(SocketAddr::new(addr, 2377)));
        assert_eq!(moved.data_path_addr, own_data_path.data_path_addr, "stays");
    }
    let other: IpAddr = "192.0.2.78".parse().unwrap();
    to(&mut world, 3, other).unwrap();
    let moved = &world.state.nodes[&node(3)];
    assert_eq!((moved.status.addr, moved.data_path_addr), (other, other));
    let orders = orders_of(&world.state, &node(1)).unwrap();
    let view = orders.shared.nodes.iter().find(|n| n.id == node(3));
    assert_eq!(view.unwrap().addr, other, "gossip and frames go there");
}

#[test]
fn who_goes_on_alone_has_everything_but_other_managers() {
    let mut world = World::new(4);
    for n in [2, 3] {
        world.role(n, Role::Manager);
        world.says(n, &as_manager(n)).unwrap();
    }
    world.network("back", &[]).unwrap();
    world.create(spec("web", 2)).unwrap();
    let addr = SocketAddr::new("192.0.2.99".parse().unwrap(), 2378);
    world
        .change(|s, now, e| go_on_alone(s, now, e, &node(2), addr))
        .unwrap();
    for n in [1, 3] {
        let lost = &world.state.nodes[&node(n)];
        assert_eq!(lost.spec.role, Role::Worker);
        assert_eq!(lost.status.state, NodeState::Down);
        assert_eq!(lost.manager_status, None);
    }
    let own = &world.state.nodes[&node(2)];
    assert_eq!(own.spec.role, Role::Manager);
    assert_eq!(own.manager_addr(), Some(addr));
    assert_eq!(
        (own.status.addr, own.data_path_addr),
        (addr.ip(), addr.ip())
    );
    assert_eq!(
        world.state.nodes[&node(4)].status.state,
        NodeState::Ready,
        "a worker"
    );
    assert!(world.state.find_network("back").is_ok());
    assert!(world.state.find_service("web").is_ok());
    let again = go_on_alone(&world.state, world.now, &mut world.entropy, &node(2), addr);
    assert!(again.unwrap().is_empty(), "there is nothing more to change");
}

#[test]
fn a_removed_node_is_remembered_while_its_certificates_live() {
    let mut world = World::new(3);
    let rm = |world: &mut World, n: u8| {
        let id = node(n);
        world
            .run(|s, now, e| remove_node(s, now, e, id.as_str(), true))
            .unwrap();
    };
    let settings = world.state.cluster.clone();
    rm(&mut world, 2);
    assert!(world.state.was_removed(&node(2)));
    assert_eq!(
        world.state.cluster, settings,
        "which people read and change"
    );
    assert!(!world.state.was_removed(&node(3)) && !world.state.was_removed(&node(1)));
    let again = world.run(|s, now, e| join(s, now, e, node(2), Role::Manager, &as_manager(2)));
    refused(again, ErrorKind::Forbidden, "was removed from swarm");
    // The next one that goes has those forgotten of whom there is no certificate any more.
    let day = 24 * 60 * 60 * 1000;
    world.advance(91 * day);
    rm(&mut world, 3);
    assert!(world.state.was_removed(&node(3)));
    assert!(!world.state.was_removed(&node(2)));
    assert_eq!(world.state.removed.len(), 1);
}
