//! What may be a name, and which names are one: as DNS has it, at every command.

use super::commands::refused;
use super::*;

fn connect(world: &mut World, cmd: Attach) -> Result<crate::objects::Endpoint, CommandError> {
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
fn what_dns_cannot_carry_is_refused_at_every_command() {
    let mut world = World::new(1);
    world.network("back", &["10.7.0.0/24"]).unwrap();
    let bad = ErrorKind::BadRequest;
    for name in ["web.", "x..y", ".x", "b-", "a.-b", "a b", "ü", "a\0"] {
        let mut service = on(spec("web", 1), "back");
        service.networks[0].aliases = vec!["fine".to_owned(), name.to_owned()];
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
        spec.command = vec!["/bin/web".to_owned(), command.to_owned()];
        spec.env = vec!["GOOD=1".to_owned(), env.to_owned()];
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
    nothing.command = vec![String::new(), "x".to_owned()];
    refused(world.create(nothing), bad, "needs a command");
    world.create(with("", "EMPTY=")).unwrap();
}
