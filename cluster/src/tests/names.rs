//! What may be a name, and which names are one: as DNS has it, at every command.

use weft_model::api::PeerAdd;
use weft_model::id::{EndpointId, NetworkId};

use super::commands::refused;
use super::*;

fn connect(world: &mut World, cmd: Attach) -> Result<weft_model::objects::Endpoint, CommandError> {
    world.run(|s, now, e| attach_endpoint(s, now, e, &node(1), cmd))
}

fn named(name: &str) -> Attach {
    Attach {
        network: "back".to_owned(),
        name: Some(name.to_owned()),
        ..Attach::default()
    }
}

#[test]
fn what_a_manager_would_not_carry_out_is_refused_by_name() {
    let mut asked = serde_json::to_value(named("box")).unwrap();
    asked["driver_opts"] = serde_json::json!({"mtu": 1400});
    let said = serde_json::from_value::<Attach>(asked).unwrap_err();
    let said = said.to_string();
    assert!(said.starts_with("unknown field `driver_opts`"), "{said}");
}

#[test]
fn what_dns_cannot_carry_is_refused_at_every_command() {
    let mut world = World::new(1);
    world.network("back", &["10.7.0.0/24"]).unwrap();
    let bad = ErrorKind::BadRequest;
    for name in ["web.", "x..y", ".x", "b-", "a.-b", "a b", "ü", "a\0"] {
        let mut service = on(spec("web", 1), "back");
        task_of(&mut service).networks[0].aliases = vec!["fine".to_owned(), name.to_owned()];
        refused(world.create(service), bad, "invalid alias name");
        refused(world.create(spec(name, 1)), bad, "name must be valid as");
        let alias = Attach {
            aliases: vec![name.to_owned()],
            ..named("box")
        };
        refused(connect(&mut world, alias), bad, "invalid alias name");
        let taken = connect(&mut world, named(name));
        refused(taken, bad, "invalid endpoint name");
        refused(world.network(name, &[]), bad, "invalid network name");
    }
    connect(&mut world, named("db.prod.example")).unwrap();
}

#[test]
fn a_name_in_another_case_is_the_same_name() {
    let mut world = World::new(1);
    let conflict = ErrorKind::Conflict;
    world.network("Back", &["10.7.0.0/24"]).unwrap();
    refused(
        world.network("bACK", &[]),
        conflict,
        "network with name Back already exists",
    );
    refused(
        world.network("Host", &[]),
        ErrorKind::Forbidden,
        "pre-defined",
    );
    world.create(on(spec("Web", 1), "back")).unwrap();
    refused(
        world.create(spec("web", 1)),
        conflict,
        "service Web already exists",
    );
    connect(&mut world, named("Box")).unwrap();
    refused(
        connect(&mut world, named("box")),
        conflict,
        "endpoint with name box already exists",
    );
    // And it is found by it.
    let state = &world.state;
    assert_eq!(state.find_service("WEB").unwrap().spec.name, "Web");
    assert_eq!(state.find_node("N1").unwrap().id, node(1));
    let network = state.find_network("back").unwrap();
    assert_eq!(state.find_endpoint(network, "BOX").unwrap().name, "Box");
}

#[test]
fn two_services_of_an_older_version_are_told_apart_by_case() {
    let mut world = World::new(1);
    world.create(spec("web", 1)).unwrap();
    let mut twin = world.create(spec("other", 1)).unwrap();
    twin.spec.name = "Web".to_owned();
    world.state.apply(&[Change::Put(twin.clone().into())]);
    assert_eq!(world.state.find_service("Web").unwrap().id, twin.id);
    assert_ne!(world.state.find_service("web").unwrap().id, twin.id);
    let error = world.state.find_service("WEB").unwrap_err();
    assert!(error.message.contains("is ambiguous"), "{error}");
}

#[test]
fn labels_have_keys_that_can_be_read() {
    let mut world = World::new(1);
    let mut labelled = spec("web", 1);
    labelled
        .labels
        .insert("a\u{1b}[2J".to_owned(), "x".to_owned());
    let error = world.create(labelled).unwrap_err();
    assert!(error.message.contains("invalid label"), "{error}");
    assert!(!error.message.contains('\u{1b}'), "{error:?}");
}

#[test]
fn what_no_program_can_be_given_is_refused_at_create() {
    let mut world = World::new(1);
    let with = |command: &str, env: &str| {
        let mut spec = spec("web", 1);
        let container = &mut task_of(&mut spec).container;
        container.args = vec!["/bin/web".to_owned(), command.to_owned()];
        container.env = vec!["GOOD=1".to_owned(), env.to_owned()];
        spec
    };
    let bad = ErrorKind::BadRequest;
    for (spec, says) in [
        (
            with("a\0b", "A=1"),
            "argument 2 of the command \"a\\0b\" has a NUL",
        ),
        (
            with("", "A=\0b"),
            "environment variable \"A=\\0b\" has a NUL",
        ),
        (with("", "=x"), "environment variable \"=x\" has no name"),
        (with("", ""), "environment variable \"\" has no name"),
    ] {
        refused(world.create(spec), bad, says);
    }
    let mut nothing = spec("web", 1);
    task_of(&mut nothing).container.args = vec![String::new(), "x".to_owned()];
    refused(world.create(nothing), bad, "needs a command");
    world.create(with("", "EMPTY=")).unwrap();
}

#[test]
fn a_node_that_left_and_came_back_has_its_name() {
    let mut world = World::new(2);
    world.health(2, NodeState::Down);
    let again = NodeDescription {
        hostname: "n2".to_owned(),
        ..description(3)
    };
    let add = |n: u8, as_it: &NodeDescription, world: &mut World| {
        world
            .run(|s, now, e| join(s, now, e, node(n), Role::Worker, as_it))
            .unwrap();
    };
    add(3, &again, &mut world);
    assert_eq!(world.state.find_node("n2").unwrap().id, node(3));
    assert_eq!(world.state.find_node("N2").unwrap().id, node(3));
    assert_eq!(world.state.find_node("node2").unwrap().id, node(2));
    let twin = NodeDescription {
        hostname: "n2".to_owned(),
        ..description(4)
    };
    add(4, &twin, &mut world);
    let error = world.state.find_node("n2").unwrap_err().message;
    assert!(error.contains("ambiguous (3 matches found)"), "{error}");
    assert!(error.ends_with("by its id: node2, node3, node4"), "{error}");
}

#[test]
fn a_peer_has_a_mac_address_of_its_own() {
    let mut world = World::new(1);
    world.network("back", &["10.7.0.0/24"]).unwrap();
    let made = connect(&mut world, named("box")).unwrap();
    let member = made.attachment.mac.to_string();
    let mut add = |ip: &str, mac: &str, vtep: &str| {
        let peer = PeerAdd {
            ip: ip.parse().unwrap(),
            mac: mac.parse().unwrap(),
            vtep: vtep.parse().unwrap(),
        };
        world.run(|s, now, e| add_peer(s, now, e, "back", &peer))
    };
    let conflict = ErrorKind::Conflict;
    let at = "198.51.100.7";
    refused(add("10.7.0.20", &member, at), conflict, "endpoint box");
    let gateway = "02:42:0a:07:00:01";
    refused(add("10.7.0.20", gateway, at), conflict, "on network back");
    let later = "02:42:0a:07:00:63";
    refused(add("10.7.0.20", later, at), conflict, "10.7.0.99");
    add("10.7.0.20", "02:aa:00:00:00:01", at).unwrap();
    add("10.7.0.21", "02:aa:00:00:00:01", at).unwrap();
    refused(
        add("10.7.0.22", "02:aa:00:00:00:01", "198.51.100.8"),
        conflict,
        "the static peer 10.7.0.2",
    );
    add("10.7.0.23", "02:42:0a:07:00:17", at).unwrap();
}

#[test]
fn networks_and_endpoints_are_found_by_the_beginning_of_an_id_but_first_by_name() {
    let mut world = World::new(1);
    world.network("back", &["10.7.0.0/24"]).unwrap();
    let there = connect(&mut world, named("box")).unwrap();
    let network = world.state.find_network("back").unwrap().clone();
    let network_start = &network.id.as_str()[..8];
    let found = |world: &World| {
        world
            .state
            .find_network(network_start)
            .map(|n| n.id.clone())
    };
    assert_eq!(found(&world).unwrap(), network.id);
    let mut twin = network.clone();
    twin.id = NetworkId(format!("{network_start}-twin"));
    twin.spec.name = "twin".to_owned();
    world.state.apply(&[Change::Put(twin.clone().into())]);
    let two = format!("network {network_start} is ambiguous (2 matches found)");
    refused(found(&world), ErrorKind::BadRequest, &two);
    twin.spec.name = network_start.to_owned();
    world.state.apply(&[Change::Put(twin.clone().into())]);
    assert_eq!(found(&world).unwrap(), twin.id);

    let endpoint_start = &there.attachment.endpoint.as_str()[..8];
    let found = |world: &World| {
        let found = world.state.find_endpoint(&network, endpoint_start);
        found.map(|e| e.attachment.endpoint.clone())
    };
    assert_eq!(found(&world).unwrap(), there.attachment.endpoint);
    let mut twin = there.clone();
    twin.attachment.endpoint = EndpointId(format!("{endpoint_start}-twin"));
    twin.name = "other".to_owned();
    world.state.apply(&[Change::Put(twin.clone().into())]);
    let two = format!("endpoint {endpoint_start} is ambiguous (2 matches found)");
    refused(found(&world), ErrorKind::BadRequest, &two);
    twin.name = endpoint_start.to_owned();
    world.state.apply(&[Change::Put(twin.clone().into())]);
    assert_eq!(found(&world).unwrap(), twin.attachment.endpoint);
}
