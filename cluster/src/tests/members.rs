//! What a member may say of itself, what it is told, and what is not its word.

use std::collections::BTreeSet;

use weft_model::api::{PeerAdd, ServiceUpdate};

use super::commands::refused;
use super::*;

fn attach(
    world: &mut World,
    at: u8,
    cmd: Attach,
) -> Result<weft_model::objects::Endpoint, CommandError> {
    world.run(|s, now, e| attach_endpoint(s, now, e, &node(at), cmd))
}

fn to(network: &str) -> Attach {
    Attach {
        network: network.to_owned(),
        ..Attach::default()
    }
}

#[test]
fn a_worker_is_told_of_its_own_tasks_and_of_other_services_only_names_and_addresses() {
    let mut world = World::new(2);
    world.network("back", &[]).unwrap();
    let mut api = on(spec("api", 1), "back");
    let container = &mut task_of(&mut api).container;
    container.args = vec!["/bin/api".to_owned(), "--key=s3cret".to_owned()];
    container.env = vec!["DB_PASSWORD=hunter2".to_owned()];
    api.labels.insert("owner".to_owned(), "the-bank".to_owned());
    let api = world.create(publish(api, 8000, 80)).unwrap();
    world.run_tasks();
    let task = world.wanted("api").remove(0);
    let with = task.node.clone().unwrap();
    let without = [node(1), node(2)].into_iter().find(|n| *n != with).unwrap();
    let text = |node: &NodeId| {
        let orders = orders_of(&world.state, node).unwrap();
        let shared = serde_json::to_string(&*orders.shared).unwrap();
        (
            orders.clone(),
            shared,
            serde_json::to_string(&*orders.own).unwrap(),
        )
    };
    let (orders, shared, own) = text(&without);
    for secret in ["hunter2", "s3cret", "/bin/api"] {
        assert!(
            !shared.contains(secret) && !own.contains(secret),
            "{secret}"
        );
        assert!(text(&with).2.contains(secret), "{secret}");
    }
    for half in [&shared, &own, &text(&with).2] {
        assert!(!half.contains("the-bank"), "no node needs labels: {half}");
    }
    // What packets and names need is there.
    let view = &orders.shared.services[0];
    assert_eq!((&view.id, view.name.as_str()), (&api.id, "api"));
    let has = &api.endpoint;
    assert_eq!((&view.vips, &view.ports), (&has.vips, &has.ports));
    let told: BTreeSet<_> = orders.shared.endpoints.iter().map(|e| &e.id).collect();
    assert_eq!(told, task.attachments.iter().map(|a| &a.endpoint).collect());
    for endpoint in &orders.shared.endpoints {
        assert_eq!(endpoint.node, with);
        assert_eq!(endpoint.name, task.name());
        assert_eq!(endpoint.service.as_ref(), Some(&api.id));
    }
}

#[test]
fn endpoints_of_a_dead_node_stay_in_the_orders_and_those_of_a_removed_one_do_not() {
    let mut world = World::new(2);
    world.network("back", &[]).unwrap();
    let made = attach(&mut world, 2, to("back")).unwrap();
    let listed = |world: &World| {
        let orders = orders_of(&world.state, &node(1)).unwrap();
        let mut all = orders.shared.endpoints.iter();
        all.any(|e| e.id == made.attachment.endpoint && e.node == node(2))
    };
    assert!(listed(&world));
    // Gossip hides them; they are there again when it comes back.
    world.health(2, NodeState::Down);
    assert!(listed(&world));
    world
        .run(|s, now, e| remove_node(s, now, e, "node2", true))
        .unwrap();
    assert!(!listed(&world));
}

#[test]
fn a_replica_and_a_name_of_a_service_are_a_managers_word() {
    let mut world = World::new(2);
    world.network("back", &[]).unwrap();
    let mut db = on(spec("db", 1), "back");
    task_of(&mut db).networks[0].aliases = vec!["postgres".to_owned()];
    world.create(db).unwrap();
    let as_replica = || Attach {
        service: Some("db".to_owned()),
        ..to("back")
    };
    let with_alias = |alias: &str| Attach {
        aliases: vec![alias.to_owned()],
        ..to("back")
    };
    let with_name = |name: &str| Attach {
        name: Some(name.to_owned()),
        ..to("back")
    };
    let (forbidden, conflict) = (ErrorKind::Forbidden, ErrorKind::Conflict);
    refused(
        attach(&mut world, 2, as_replica()),
        forbidden,
        "service update --attach=true db",
    );
    for name in ["db", "DB", "postgres"] {
        let says = format!("{name} is a name of service db");
        refused(attach(&mut world, 2, with_alias(name)), forbidden, &says);
        refused(attach(&mut world, 2, with_name(name)), forbidden, &says);
    }
    let task = world.wanted("db").remove(0).name();
    refused(
        attach(&mut world, 2, with_name(&task)),
        conflict,
        "is a task on network back",
    );
    assert!(world.state.endpoints.is_empty());
    // On another network the names are free.
    world.network("front", &[]).unwrap();
    let elsewhere = Attach {
        network: "front".to_owned(),
        ..with_name("db")
    };
    attach(&mut world, 2, elsewhere).unwrap();
    // A manager's user may, and so may everybody where the service says so.
    attach(&mut world, 1, as_replica()).unwrap();
    attach(&mut world, 1, with_alias("db")).unwrap();
    let open = ServiceUpdate {
        attach: Some(true),
        ..ServiceUpdate::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "db", &open))
        .unwrap();
    let running = world.wanted("db").remove(0);
    assert_eq!(running.name(), task, "the tasks go on");
    let replica = attach(&mut world, 2, as_replica()).unwrap();
    assert_eq!(replica.service, Some(world.service("db")));
    attach(&mut world, 2, with_alias("postgres")).unwrap();
}

#[test]
fn one_endpoint_does_not_take_the_name_of_another_and_has_few_names() {
    let mut world = World::new(2);
    world.network("back", &[]).unwrap();
    let named = |name: &str, aliases: &[&str]| Attach {
        name: Some(name.to_owned()),
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
        ..to("back")
    };
    attach(&mut world, 1, named("box", &["cache"])).unwrap();
    let conflict = ErrorKind::Conflict;
    let box_is = "alias box is the name of an endpoint in network back (on node n1)";
    refused(
        attach(&mut world, 2, named("other", &["box"])),
        conflict,
        box_is,
    );
    // Names that endpoints share are round robin.
    attach(&mut world, 2, named("other", &["cache"])).unwrap();
    let many: Vec<String> = (0..33).map(|n| format!("a{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let bad = ErrorKind::BadRequest;
    refused(
        attach(&mut world, 2, named("x", &many)),
        bad,
        "33 aliases are too many",
    );
    for name in ["a\u{1b}[2J", "a\nb", "\u{202e}x", "", &"n".repeat(64)] {
        refused(
            attach(&mut world, 2, named("x", &[name])),
            bad,
            "invalid alias name",
        );
        refused(
            attach(&mut world, 2, named(name, &[])),
            bad,
            "invalid endpoint name",
        );
    }
}

#[test]
fn a_network_that_is_not_attachable_takes_services_only() {
    let mut world = World::new(2);
    let closed = NetworkSpec {
        name: "closed".to_owned(),
        attachable: false,
        ..NetworkSpec::default()
    };
    world
        .run(|s, now, e| create_network(s, now, e, closed, &[]))
        .unwrap();
    for at in [1, 2] {
        refused(
            attach(&mut world, at, to("closed")),
            ErrorKind::Forbidden,
            "Could not attach to network closed: network closed not manually attachable",
        );
    }
    world.create(on(spec("web", 1), "closed")).unwrap();
    assert_eq!(world.wanted("web")[0].attachments.len(), 1);
    // Who does not say gets one that is.
    let spec: NetworkSpec = serde_json::from_str(r#"{"Name": "open"}"#).unwrap();
    assert!(spec.attachable);
}

#[test]
fn what_a_node_says_of_itself_is_short_plain_and_nobody_elses() {
    let mut world = World::new(2);
    let join_as = |world: &mut World, description: &NodeDescription| {
        world.run(|s, now, e| join(s, now, e, node(9), Role::Worker, description))
    };
    let bad = ErrorKind::BadRequest;
    for name in [
        "",
        &"n".repeat(65),
        "a\u{1b}]0;x\u{7}",
        "a\nb",
        "\u{202e}1edon",
    ] {
        let mut lying = description(9);
        lying.hostname = name.to_owned();
        refused(
            join_as(&mut world, &lying),
            bad,
            "1 to 64 printable characters; set --name",
        );
        lying.hostname = "n9".to_owned();
        lying.engine_version = name.to_owned();
        refused(
            join_as(&mut world, &lying),
            bad,
            "the version of weftd must have",
        );
        lying.hostname = description(2).hostname;
        let update =
            |s: &ClusterState, now, e: &mut Entropy| update_node(s, now, e, &node(2), &lying);
        refused(world.change(update), bad, "the version of weftd must have");
    }
    let mut nowhere = description(9);
    nowhere.data_path_addr = Ipv4Addr::UNSPECIFIED.into();
    refused(
        join_as(&mut world, &nowhere),
        bad,
        "advertise address must be",
    );
    // The words of another node would come here, or its packets.
    let conflict = ErrorKind::Conflict;
    let twin = description(2);
    let says = "data path address 192.0.2.2 is that of node n2 (node2), which is not down";
    refused(join_as(&mut world, &twin), conflict, says);
    let mut half = description(9);
    half.addr = twin.addr;
    let says = "gossip address 192.0.2.2:7946 is that of node n2";
    refused(join_as(&mut world, &half), conflict, says);
    let peer = PeerAdd {
        ip: "10.7.0.20".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        vtep: "192.0.2.9".parse().unwrap(),
    };
    world.network("n", &["10.7.0.0/24"]).unwrap();
    world
        .run(|s, now, e| add_peer(s, now, e, "n", &peer))
        .unwrap();
    let says = "data path address 192.0.2.9 is that of a static peer";
    refused(join_as(&mut world, &description(9)), conflict, says);
    // Nor by a later word of a member.
    let mut moved = description(2);
    moved.data_path_addr = description(1).data_path_addr;
    let update = |s: &ClusterState, now, e: &mut Entropy| update_node(s, now, e, &node(2), &moved);
    refused(world.change(update), conflict, "is that of node n1 (node1)");
    assert_eq!(world.state.nodes.len(), 2, "nobody came in");
    // A machine that was set up anew takes its own old place.
    world.health(2, NodeState::Down);
    join_as(&mut world, &twin).unwrap();
}

#[test]
fn words_of_a_task_are_cleaned_and_cut() {
    let mut world = World::new(1);
    world.create(spec("web", 1)).unwrap();
    let task = world.wanted("web").remove(0).id;
    let say = |world: &mut World, message: &str, err: String| {
        let status = TaskStatus {
            state: TaskState::Preparing,
            message: message.to_owned(),
            err,
            ..TaskStatus::default()
        };
        let planned = update_task_status(
            &world.state,
            1,
            &mut world.entropy,
            &node(1),
            &task,
            &status,
        );
        let changes = planned.unwrap();
        world.state.apply(&changes);
        (world.state.tasks[&task].status.clone(), changes.len())
    };
    let long = format!("\u{1b}]0;owned\u{7}\nnode1  Ready{}", "x".repeat(2_000_000));
    let (status, changes) = say(&mut world, "a\u{202e}b", long.clone());
    assert_eq!(changes, 1);
    assert_eq!(status.message, "a\\u{202e}b");
    assert!(
        status.err.starts_with("\\u{1b}]0;owned\\u{7} node1  Ready"),
        "{}",
        status.err
    );
    assert!(status.err.len() <= 1024 && status.err.ends_with('…'));
    // The same once more is nothing new.
    assert_eq!(say(&mut world, "a\u{202e}b", long).1, 0);
}
