//! What a network, a static peer or an endpoint of `network connect` may be.

use weft_model::api::PeerAdd;

use super::commands::refused;
use super::*;

#[test]
fn subnets_that_collide() {
    let mut world = World::new(1);
    world.network("a", &["10.5.0.0/16"]).unwrap();
    refused(
        world.network("a", &[]),
        ErrorKind::Conflict,
        "network with name a already exists",
    );
    refused(
        world.network("b", &["10.5.7.0/24"]),
        ErrorKind::Conflict,
        "subnet 10.5.7.0/24 overlaps with 10.5.0.0/16 of network a",
    );
    let bad = ErrorKind::BadRequest;
    refused(
        world.network("b", &["10.6.0.1/24"]),
        bad,
        "it should be 10.6.0.0/24",
    );
    for small in ["10.6.0.0/30", "10.6.0.0/31", "10.6.0.0/32"] {
        let text = format!("subnet {small} is too small for a network; use /29 or larger");
        refused(world.network("b", &[small]), bad, &text);
    }
    world.network("small", &["10.6.0.0/29"]).unwrap();
    refused(
        world.network("b", &["::ffff:10.7.0.0/120"]),
        bad,
        "subnet ::ffff:10.7.0.0/120 is too small for a network; use /96 or larger",
    );
    refused(world.network("b", &["127.1.0.0/16"]), bad, "loopback");
    refused(world.network("bad name", &[]), bad, "invalid network name");
    let connected = |dest: &str| HostRoute::connected(dest.parse().unwrap(), "dev wg0");
    let reserved = ["0.0.0.0/0", "10.0.0.0/14"].map(connected);
    let spec = NetworkSpec {
        name: "b".into(),
        ipam: asked_for(&["10.1.2.0/24"]),
        ..NetworkSpec::default()
    };
    refused(
        world.run(|s, now, e| create_network(s, now, e, spec, &reserved)),
        ErrorKind::Conflict,
        "subnet 10.1.2.0/24 of network b overlaps with the host route 10.0.0.0/14 (dev wg0)",
    );
    // Without --subnet, the pool goes round what is taken.
    let free = NetworkSpec {
        name: "c".into(),
        ..NetworkSpec::default()
    };
    let c = world
        .run(|s, now, e| create_network(s, now, e, free, &reserved))
        .unwrap();
    assert_eq!(c.subnets()[0].cidr.to_string(), "10.4.0.0/24");
    let all = ["10.0.0.0/9", "10.128.0.0/9"].map(connected);
    let none = NetworkSpec {
        name: "d".into(),
        ..NetworkSpec::default()
    };
    refused(
        world.run(|s, now, e| create_network(s, now, e, none, &all)),
        ErrorKind::Conflict,
        "no free /24 subnet for network d in the address pools 10.0.0.0/8; a part is covered by the host route 10.128.0.0/9 (dev wg0)",
    );
}

/// A VPN takes the default route in pieces; a company routes all private ranges to a gateway.
#[test]
fn networks_can_be_made_beside_a_full_tunnel() {
    let mut world = World::new(1);
    let tunnel = [
        "0.0.0.0/1",
        "128.0.0.0/1",
        "2000::/3",
        "fc00::/7",
        "10.0.0.0/8",
    ];
    let routes = tunnel.map(|dest| HostRoute::by_gateway(dest.parse().unwrap(), "dev tun0"));
    let mut make = |name: &str, subnets: &[&str]| {
        let spec = NetworkSpec {
            name: name.into(),
            ipv6: true,
            ipam: asked_for(subnets),
            ..NetworkSpec::default()
        };
        let made = world.run(|s, now, e| create_network(s, now, e, spec, &routes));
        made.unwrap().subnets()[0].cidr.to_string()
    };
    assert_eq!(make("a", &[]), "10.0.1.0/24");
    assert_eq!(make("b", &["10.50.0.0/24"]), "10.50.0.0/24");
}

#[test]
fn a_static_peer_is_another_machine() {
    let mut world = World::new(2);
    world.network("n", &["10.7.0.0/24"]).unwrap();
    for (vtep, says) in [
        ("127.0.0.1", "is not the address of one machine"),
        ("169.254.3.4", "is not the address of one machine"),
        ("fe80::1", "is not the address of one machine"),
        ("192.0.2.2", "is that of node n2"),
    ] {
        let peer = PeerAdd {
            ip: "10.7.0.20".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            vtep: vtep.parse().unwrap(),
        };
        refused(
            world.run(|s, now, e| add_peer(s, now, e, "n", &peer)),
            ErrorKind::BadRequest,
            says,
        );
    }
    assert!(world.state.peers.is_empty());
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let mut world = World::new(1);
    for (key, says) in [
        ("encrypted", "traffic between nodes is not encrypted"),
        ("com.docker.network.driver.mtu", "the MTU follows from"),
        (
            "colour",
            "\"colour\" is not known (there are none in this version)",
        ),
    ] {
        let spec = NetworkSpec {
            name: "n".into(),
            options: BTreeMap::from([(key.to_owned(), String::new())]),
            ..NetworkSpec::default()
        };
        refused(
            world.run(|s, now, e| create_network(s, now, e, spec, &[])),
            ErrorKind::BadRequest,
            says,
        );
    }
    assert_eq!(world.state.networks.len(), 1, "ingress alone");
}

fn detach(
    world: &mut World,
    who: Detacher<'_>,
) -> Result<weft_model::objects::Endpoint, CommandError> {
    world.run(|s, now, e| detach_endpoint(s, now, e, who, "n", "b3"))
}

#[test]
fn nodes_that_are_gone_hold_nothing() {
    let mut world = World::new(3);
    world.network("n", &[]).unwrap();
    world.create(on(spec("web", 3), "n")).unwrap();
    world.run_tasks();
    for n in 2..=3u8 {
        let cmd = Attach {
            network: "n".into(),
            name: Some(format!("b{n}")),
            ..Attach::default()
        };
        world
            .run(|s, now, e| attach_endpoint(s, now, e, &node(n), cmd))
            .unwrap();
    }
    // One leaves, one dies.
    world
        .change(|s, now, e| leave_node(s, now, e, &node(2)))
        .unwrap();
    refused(
        detach(&mut world, Detacher::Manager(&node(1))),
        ErrorKind::Forbidden,
        "endpoint b3 is on node n3; disconnect it there, or use --force",
    );
    world.health(3, NodeState::Down);
    let left: Vec<_> = world.state.endpoints.values().map(|e| &e.name).collect();
    assert_eq!(left, ["b3"], "the endpoint of the node that left is gone");
    world.run_tasks();
    assert_eq!(
        world.spread("web"),
        BTreeMap::from([("node1".to_owned(), 3)])
    );
    world
        .change(|s, now, e| remove_service(s, now, e, "web"))
        .unwrap();
    world.run_tasks();
    refused(
        world.change(|s, now, e| remove_network(s, now, e, "n")),
        ErrorKind::Conflict,
        "run \"weft network disconnect n b3\" there first, or with --force here",
    );
    refused(
        detach(&mut world, Detacher::Node(&node(2))),
        ErrorKind::Forbidden,
        "disconnect it there, or with --force on a manager",
    );
    detach(&mut world, Detacher::Manager(&node(1))).unwrap();
    let waiting = world
        .state
        .tasks
        .values()
        .filter(|t| !t.status.state.is_terminal());
    assert_eq!(waiting.count(), 1, "node3 may still run its task");
    world
        .change(|s, now, e| remove_network(s, now, e, "n"))
        .unwrap();
    world.health(3, NodeState::Ready);
    world.run_tasks();
    assert!(world.state.tasks.is_empty(), "{:?}", world.state.tasks);
    refused(
        world.run(|s, now, e| remove_node(s, now, e, "n3", false)),
        ErrorKind::BadRequest,
        "is not down and can't be removed",
    );
    world
        .run(|s, now, e| remove_node(s, now, e, "n2", false))
        .unwrap();
    world
        .run(|s, now, e| remove_node(s, now, e, "n3", true))
        .unwrap();
    assert_eq!(world.state.nodes.len(), 1);
}

#[test]
fn networks_in_use_name_their_user() {
    let mut world = World::new(1);
    world.network("n", &[]).unwrap();
    world.create(on(spec("web", 0), "n")).unwrap();
    refused(
        world.change(|s, now, e| remove_network(s, now, e, "n")),
        ErrorKind::Conflict,
        "network n is in use by service web",
    );
    refused(
        world.change(|s, now, e| remove_network(s, now, e, "ingress")),
        ErrorKind::Forbidden,
        "ingress network ingress cannot be removed: every node accepts published ports",
    );
    assert!(world.state.ingress().is_some());
    world.network("m", &[]).unwrap();
    let cmd = Attach {
        network: "m".into(),
        name: Some("box".into()),
        ..Attach::default()
    };
    world
        .run(|s, now, e| attach_endpoint(s, now, e, &node(1), cmd))
        .unwrap();
    refused(
        world.change(|s, now, e| remove_network(s, now, e, "m")),
        ErrorKind::Conflict,
        "network m is in use by endpoint box on node n1",
    );
}

#[test]
fn addresses_and_names_in_use_name_their_holder() {
    let mut world = World::new(2);
    world.network("n", &["10.7.0.0/24"]).unwrap();
    let attach = |world: &mut World, ip: &str, name: &str| {
        let cmd = Attach {
            network: "n".into(),
            ip: ip.parse().ok(),
            name: Some(name.into()),
            ..Attach::default()
        };
        world.run(|s, now, e| attach_endpoint(s, now, e, &node(1), cmd))
    };
    attach(&mut world, "10.7.0.9", "box").unwrap();
    let conflict = ErrorKind::Conflict;
    refused(
        attach(&mut world, "10.7.0.9", "other"),
        conflict,
        "address 10.7.0.9 on network n is already in use by endpoint box",
    );
    refused(
        attach(&mut world, "10.7.0.1", "gw"),
        conflict,
        "by the gateway of the network",
    );
    refused(
        attach(&mut world, "10.8.0.1", "far"),
        ErrorKind::BadRequest,
        "not a host address of network n (10.7.0.0/24)",
    );
    refused(
        attach(&mut world, "10.7.0.255", "bc"),
        ErrorKind::BadRequest,
        "not a host address",
    );
    refused(
        attach(&mut world, "10.7.0.10", "box"),
        conflict,
        "endpoint with name box already exists in network n (on node n1)",
    );
    refused(
        world.run(|s, now, e| detach_endpoint(s, now, e, Detacher::Node(&node(2)), "n", "box")),
        ErrorKind::Forbidden,
        "endpoint box is on node n1; disconnect it there",
    );
    let peer = |ip: &str, mac: &str| PeerAdd {
        ip: ip.parse().unwrap(),
        mac: mac.parse().unwrap(),
        vtep: "198.51.100.7".parse().unwrap(),
    };
    let good = peer("10.7.0.20", "02:00:00:00:00:01");
    world
        .run(|s, now, e| add_peer(s, now, e, "n", &good))
        .unwrap();
    refused(
        world.run(|s, now, e| add_peer(s, now, e, "n", &good)),
        conflict,
        "already in use by the static peer behind 198.51.100.7",
    );
    refused(
        world.run(|s, now, e| add_peer(s, now, e, "n", &peer("10.7.0.21", "01:00:5e:00:00:01"))),
        ErrorKind::BadRequest,
        "not the address of one interface",
    );
    world
        .change(|s, now, e| remove_peer(s, now, e, "n", good.ip))
        .unwrap();
    refused(
        world.change(|s, now, e| remove_peer(s, now, e, "n", good.ip)),
        ErrorKind::NotFound,
        "no such static peer: 10.7.0.20 on network n",
    );
}
