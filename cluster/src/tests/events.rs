//! What is told of changes, and what is not.

use weft_model::api::{Event, EventAction, EventKind};
use weft_model::objects::{Availability, PayloadKind, PayloadSpec};

use super::*;

/// `kind action id key=value …` of each event.
fn told(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| {
        let actor = &event.actor;
        let attributes = actor.attributes.iter();
        let attributes: String = attributes.map(|(k, v)| format!(" {k}={v}")).collect();
        let (kind, action) = (event.kind, event.action);
        format!("{kind:?} {action:?} {}{attributes}", actor.id).to_lowercase()
    };
    events.iter().map(line).collect()
}

/// What is told of a change.
fn of(world: &mut World, change: impl FnOnce(&mut World)) -> Vec<Event> {
    let before = world.state.clone();
    change(world);
    let found = events(&before, &world.state, world.now);
    // Whoever is too far behind to know what changed comes to the same.
    let mut loaded = ClusterState::default();
    for id in world.state.ids() {
        loaded.put(world.state.get(&id).unwrap());
    }
    loaded.version = world.state.version;
    assert_eq!(events(&before, &loaded, world.now), found);
    found
}

#[test]
fn what_a_node_becomes_is_told_in_dockers_words() {
    let mut world = World::new(1);
    let joined = of(&mut world, |world| {
        world
            .run(|s, now, e| join(s, now, e, node(2), Role::Worker, &description(2)))
            .unwrap();
    });
    assert_eq!(told(&joined), ["node create node2 name=n2"]);
    world.now += 1_500;
    let ready = of(&mut world, |world| world.health(2, NodeState::Ready));
    assert_eq!(
        told(&ready),
        ["node update node2 name=n2 state.new=ready state.old=unknown"]
    );
    let (event, now) = (&ready[0], world.now);
    assert_eq!((event.time, event.time_nano), (now / 1000, now * 1_000_000));
    let drained = of(&mut world, |world| {
        world
            .run(|s, now, e| set_availability(s, now, e, "n2", Availability::Drain))
            .unwrap();
    });
    assert_eq!(
        told(&drained),
        ["node update node2 availability.new=drain availability.old=active name=n2"]
    );
    let promoted = of(&mut world, |world| {
        world
            .run(|s, now, e| set_role(s, now, e, "n2", Role::Manager))
            .unwrap();
    });
    assert_eq!(
        told(&promoted),
        ["node update node2 name=n2 role.new=manager role.old=worker"]
    );
    let certified = of(&mut world, |world| {
        world
            .change(|s, now, e| note_certificate(s, now, e, &node(2), 7, "root"))
            .unwrap();
    });
    assert_eq!(told(&certified), [""; 0], "a certificate is no news");
}

#[test]
fn the_tasks_of_a_service_are_told_until_they_are_gone() {
    let mut world = World::new(1);
    let made = of(&mut world, |world| {
        world.create(spec("web", 1)).unwrap();
    });
    let (service, task) = (world.service("web"), world.wanted("web").remove(0));
    let name = format!("web.1.{}", task.id);
    assert_eq!(
        told(&made),
        [
            format!("service create {service} name=web"),
            format!("task create {} name={name} node=node1 service=web", task.id),
        ]
    );
    let runs = of(&mut world, |world| world.run_tasks());
    assert_eq!(
        told(&runs),
        [format!(
            "task update {} name={name} node=node1 service=web state.new=running state.old=assigned",
            task.id
        )]
    );
    let scaled = of(&mut world, |world| world.scale("web", 0));
    assert_eq!(
        told(&scaled),
        [
            format!("service update {service} name=web replicas.new=0 replicas.old=1"),
            format!(
                "task update {} desiredstate.new=remove desiredstate.old=running name={name} \
                 node=node1 service=web",
                task.id
            ),
        ]
    );
    let gone = of(&mut world, |world| {
        world.run_tasks();
        world
            .change(|s, now, e| remove_service(s, now, e, "web"))
            .unwrap();
    });
    let actions = gone.iter().map(|event| (event.kind, event.action));
    let actions: Vec<_> = actions.collect();
    assert_eq!(
        actions,
        [
            (EventKind::Service, EventAction::Remove),
            (EventKind::Task, EventAction::Remove)
        ]
    );
}

#[test]
fn why_a_task_waits_is_told_and_who_joins_a_network() {
    let mut world = World::new(1);
    world.health(1, NodeState::Down);
    let made = of(&mut world, |world| {
        world.create(spec("web", 1)).unwrap();
    });
    let error = "error=no suitable node (1 node not available for new tasks)";
    assert!(told(&made)[1].contains(error), "{:?}", told(&made));
    world.network("back", &["10.7.0.0/24"]).unwrap();
    let network = world.state.find_network("back").unwrap().id.clone();
    let connect = Attach {
        network: "back".to_owned(),
        name: Some("box".to_owned()),
        ..Attach::default()
    };
    let there = of(&mut world, |world| {
        world
            .run(|s, now, e| attach_endpoint(s, now, e, &node(1), connect))
            .unwrap();
    });
    let about = "container=box name=back node=node1 type=overlay";
    assert_eq!(told(&there), [format!("network connect {network} {about}")]);
    let gone = of(&mut world, |world| {
        world
            .run(|s, now, e| detach_endpoint(s, now, e, Detacher::Force, "back", "box"))
            .unwrap();
    });
    assert_eq!(
        told(&gone),
        [format!("network disconnect {network} {about}")]
    );
    let removed = of(&mut world, |world| {
        world
            .change(|s, now, e| remove_network(s, now, e, "back"))
            .unwrap();
    });
    assert_eq!(
        told(&removed),
        [format!("network remove {network} name=back")]
    );
}

#[test]
fn secrets_are_told_by_their_names() {
    let mut world = World::new(1);
    let made = of(&mut world, |world| {
        world.secret("key");
    });
    let kind = PayloadKind::Secret;
    let id = world.state.find_payload(kind, "key").unwrap().id.clone();
    assert_eq!(told(&made), [format!("secret create {id} name=key")]);
    world.now += 1_500;
    let labelled = PayloadSpec {
        name: "key".to_owned(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..PayloadSpec::default()
    };
    let updated = of(&mut world, |world| {
        world
            .run(|s, now, e| update_payload(s, now, e, kind, "key", None, labelled))
            .unwrap();
    });
    assert_eq!(told(&updated), [format!("secret update {id} name=key")]);
    assert_eq!(updated[0].time, world.now / 1000);
    let gone = of(&mut world, |world| {
        world.forget_secret("key").unwrap();
    });
    assert_eq!(told(&gone), [format!("secret remove {id} name=key")]);
    let kind = PayloadKind::Config;
    let spec = PayloadSpec {
        name: "app".to_owned(),
        data: vec![7u8].into(),
        ..PayloadSpec::default()
    };
    let made = of(&mut world, |world| {
        world
            .run(|s, now, e| create_payload(s, now, e, kind, spec))
            .unwrap();
    });
    let id = world.state.find_payload(kind, "app").unwrap().id.clone();
    assert_eq!(told(&made), [format!("config create {id} name=app")]);
}

#[test]
fn another_leader_is_told_of_both() {
    let world = World::new(2);
    let (one, two) = (node(1), node(2));
    let of = |before, after| told(&leader_events(&world.state, before, after, world.now));
    assert_eq!(of(Some(&one), Some(&one)), [""; 0]);
    assert_eq!(
        of(Some(&one), Some(&two)),
        [
            "node update node1 leader.new=false leader.old=true name=n1",
            "node update node2 leader.new=true leader.old=false name=n2",
        ]
    );
    assert_eq!(
        of(None, Some(&two)),
        ["node update node2 leader.new=true leader.old=false name=n2"]
    );
}
