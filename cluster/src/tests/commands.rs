use weft_model::objects::{EndpointMode, Protocol, PublishMode};

use super::payloads::seeing;
use super::*;

#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(
    result: Result<T, CommandError>,
    kind: ErrorKind,
    text: &str,
) {
    let error = result.unwrap_err();
    assert!(error.message.contains(text), "{error}");
    assert_eq!(error.kind, kind, "{error}");
}

#[test]
fn ports_in_use_name_their_owner() {
    let mut world = World::new(1);
    let web = world.create(publish(spec("web", 1), 8000, 80)).unwrap();
    refused(
        world.create(publish(spec("api", 1), 8000, 8080)),
        ErrorKind::Conflict,
        &format!(
            "port '8000' is already in use by service 'web' ({}) as an ingress port",
            web.id
        ),
    );
    assert!(
        world.state.find_service("api").is_err(),
        "nothing half-made"
    );
    let mut udp = publish(spec("api", 1), 8000, 8080);
    udp.endpoint.ports[0].protocol = Protocol::Udp;
    world.create(udp).unwrap();
    let mut host = publish(spec("h", 1), 9000, 80);
    host.endpoint.ports[0].mode = PublishMode::Host;
    world.create(host).unwrap();
    refused(
        world.create(publish(spec("x", 1), 9000, 80)),
        ErrorKind::Conflict,
        "port '9000' is already in use by service 'h' (",
    );
    let mut bound = publish(publish(spec("b", 1), 7000, 80), 7000, 80);
    bound.endpoint.ports[0].host_ip = "192.0.2.1".parse().ok();
    bound.endpoint.ports[1].host_ip = "192.0.2.2".parse().ok();
    world.create(bound).unwrap();
}

#[test]
fn dynamic_ports() {
    let mut world = World::new(1);
    let a = world
        .create(publish(publish(spec("a", 1), 0, 80), 0, 81))
        .unwrap();
    assert_eq!(
        a.endpoint
            .ports
            .iter()
            .map(|p| p.published)
            .collect::<Vec<_>>(),
        [30000, 30001]
    );
    world
        .change(|s, now, e| remove_service(s, now, e, "a"))
        .unwrap();
    let b = world.create(publish(spec("b", 1), 0, 80)).unwrap();
    let given = b.endpoint.ports[0].published;
    assert_eq!(given, 30002, "just freed ports rest");
}

#[test]
fn specs_that_cannot_work() {
    let mut world = World::new(1);
    let bad = ErrorKind::BadRequest;
    refused(
        world.create(spec("no dots.", 1)),
        bad,
        "name must be valid as a DNS name component",
    );
    refused(
        world.create(spec(&"x".repeat(64), 1)),
        bad,
        "name must be 63 characters or fewer",
    );
    refused(
        world.create(publish(spec("a", 1), 80, 0)),
        bad,
        "missing mandatory field 'target'",
    );
    refused(
        world.create(publish(publish(spec("a", 1), 80, 1), 80, 2)),
        bad,
        "EndpointSpec: duplicate published ports provided",
    );
    let mut dnsrr = publish(spec("a", 1), 80, 80);
    dnsrr.endpoint.mode = EndpointMode::Dnsrr;
    refused(
        world.create(dnsrr),
        bad,
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    );
    refused(
        world.create(on(spec("a", 1), "nope")),
        ErrorKind::NotFound,
        "no such network: nope",
    );
    refused(
        world.create(on(spec("a", 1), "ingress")),
        bad,
        "Service cannot be explicitly attached to the ingress network",
    );
    let mut image = spec("a", 1);
    task_of(&mut image).container.image = "nginx".into();
    refused(
        world.create(image),
        bad,
        "image \"nginx\" is run by a container runtime: Runtime must be \"container\"",
    );
    world.create(spec("a", 1)).unwrap();
    refused(
        world.create(spec("a", 1)),
        ErrorKind::Conflict,
        "name conflicts with an existing object: service a already exists",
    );
    let mut global = spec("g", 1);
    global.mode = ServiceMode::Global;
    world.create(global).unwrap();
    refused(
        world.run(|s, now, e| scale_service(s, now, e, "g", 2)),
        bad,
        "scale can only be used with replicated or replicated-job mode",
    );
}

#[test]
fn more_replicas_or_longer_delays_than_allowed() {
    let mut world = World::new(1);
    let bad = ErrorKind::BadRequest;
    let many = "4000000000 replicas are too many: a service may have 10000 at most";
    refused(world.create(spec("web", 4_000_000_000)), bad, many);
    world.create(spec("web", 1)).unwrap();
    let scale = |replicas| move |s: &_, now, e: &mut _| scale_service(s, now, e, "web", replicas);
    refused(world.run(scale(4_000_000_000)), bad, many);
    let over = "10001 replicas are too many";
    refused(world.run(scale(MAX_REPLICAS + 1)), bad, over);
    let state = &world.state;
    assert!(scale(MAX_REPLICAS)(state, world.now, &mut world.entropy).is_ok());
    assert_eq!(world.wanted("web").len(), 1);

    let mut slow = spec("slow", 1);
    task_of(&mut slow).restart.delay = MAX_DELAY + Duration::from_millis(1);
    let text = "restart delay of 86400001 ms is too long: it may be 86400000 ms (24 hours)";
    refused(world.create(slow), bad, text);
    let mut slow = spec("slow", 1);
    task_of(&mut slow).container.stop_grace = Duration::from_millis(u64::MAX);
    refused(
        world.create(slow),
        bad,
        "stop grace period of 18446744073709551615 ms",
    );
    let mut slow = spec("slow", 1);
    task_of(&mut slow).restart.delay = MAX_DELAY;
    task_of(&mut slow).container.stop_grace = MAX_DELAY;
    world.create(slow).unwrap();
}

#[test]
fn a_signal_that_no_program_gets_stops_none() {
    let mut world = World::new(1);
    let bad = ErrorKind::BadRequest;
    for (signal, says) in [
        (
            "SIGFOO",
            "invalid signal: SIGFOO; write a name such as SIGQUIT",
        ),
        ("CHLD", "signal CHLD does not reach the program of a task"),
    ] {
        let mut web = spec("web", 1);
        task_of(&mut web).container.stop_signal = signal.to_owned();
        refused(world.create(web), bad, says);
    }
    let mut web = spec("web", 1);
    task_of(&mut web).container.stop_signal = "RTMIN+3".to_owned();
    world.create(web).unwrap();
}

#[test]
fn what_tasks_may_do_is_checked_and_spelled_in_one_way() {
    let mut world = World::new(1);
    let mut web = spec("web", 1);
    let container = &mut task_of(&mut web).container;
    container.cap_add = ["net_admin", "CAP_NET_ADMIN", "sys_time"]
        .map(Into::into)
        .into();
    container.cap_drop = vec!["all".to_owned()];
    container.user = "www-data:33".to_owned();
    let service = world.create(web.clone()).unwrap();
    let stored = &service.spec.task.container;
    assert_eq!(stored.cap_add, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
    assert_eq!(stored.cap_drop, ["ALL"]);

    let bad = ErrorKind::BadRequest;
    let mut wrong = spec("wrong", 1);
    task_of(&mut wrong).container.cap_drop = vec!["NET".to_owned()];
    refused(
        world.create(wrong),
        bad,
        "unknown capability \"NET\": write ALL or one of CHOWN",
    );
    for user in [
        "a b",
        ":",
        "www:",
        ":33",
        "a:b:c",
        "a\u{1b}b",
        &"x".repeat(129),
    ] {
        let mut wrong = spec("wrong", 1);
        task_of(&mut wrong).container.user = user.to_owned();
        refused(world.create(wrong), bad, "invalid user \"");
    }
}

#[test]
fn reports_never_go_backwards_and_never_from_others() {
    let mut world = World::new(2);
    world.create(spec("web", 1)).unwrap();
    let task = world.wanted("web").remove(0);
    world.report(&task.id, TaskState::Running);
    world.report(&task.id, TaskState::Preparing);
    assert_eq!(world.state.tasks[&task.id].status.state, TaskState::Running);
    let status = TaskStatus {
        state: TaskState::Failed,
        ..TaskStatus::default()
    };
    refused(
        world.change(|s, now, e| update_task_status(s, now, e, &node(2), &task.id, &status)),
        ErrorKind::Forbidden,
        "is not assigned to node node2",
    );
    let gone = TaskId("forgotten".into());
    world
        .change(|s, now, e| update_task_status(s, now, e, &node(2), &gone, &status))
        .unwrap();
}

#[test]
fn references() {
    let mut world = World::new(1);
    world.create(spec("web", 0)).unwrap();
    let id = world.service("web");
    assert_eq!(world.state.find_service(id.as_str()).unwrap().id, id);
    assert_eq!(world.state.find_service(&id.as_str()[..10]).unwrap().id, id);
    refused(
        world.state.find_service("nope"),
        ErrorKind::NotFound,
        "no such service: nope",
    );
    refused(
        world.state.find_service(""),
        ErrorKind::NotFound,
        "no such service: ",
    );
    world.add_node(2);
    refused(
        world.state.find_node("node"),
        ErrorKind::BadRequest,
        "node node is ambiguous (2 matches found)",
    );
}

/// A whole id counts before a name, and a name before the beginning of an id.
#[test]
fn a_service_may_have_the_id_of_another_for_its_name_or_the_beginning_of_it() {
    let mut world = World::new(1);
    let found = |world: &World, reference: &str| {
        let service = world.state.find_service(reference).unwrap();
        service.id.clone()
    };
    let web = world.create(spec("web", 0)).unwrap().id;
    let (id, start) = (web.as_str(), &web.as_str()[..10]);
    let named_id = world.create(spec(id, 0)).unwrap().id;
    let named_start = world.create(spec(start, 0)).unwrap().id;
    assert_eq!(found(&world, id), web);
    assert_eq!(found(&world, "web"), web);
    assert_eq!(found(&world, start), named_start);
    assert_eq!(found(&world, &id[..11]), web);
    assert_eq!(found(&world, named_id.as_str()), named_id);
    world
        .change(|s, now, e| remove_service(s, now, e, id))
        .unwrap();
    assert_eq!(found(&world, id), named_id);
    assert_eq!(found(&world, start), named_start);
}

#[test]
fn members() {
    let mut world = World::new(2);
    refused(
        world.run(|s, now, e| remove_node(s, now, e, "n1", true)),
        ErrorKind::BadRequest,
        "is a cluster manager and is a member of the raft cluster",
    );
    refused(
        world.run(|s, now, e| remove_node(s, now, e, "n2", false)),
        ErrorKind::BadRequest,
        "node node2 is not down and can't be removed",
    );
    world.health(2, NodeState::Down);
    world
        .run(|s, now, e| remove_node(s, now, e, "n2", false))
        .unwrap();
    refused(
        world.change(|s, now, e| set_node_state(s, now, e, &node(2), NodeState::Ready, "")),
        ErrorKind::Forbidden,
        "Permission denied: node node2 was removed from swarm",
    );
}

#[test]
fn join_secrets_decide_the_role_and_rotate() {
    let mut world = World::new(1);
    let role =
        |world: &World, secret: &[u8; 16]| role_of_secret(&world.state, secret, |a, b| a == b);
    let before = world.state.secrets.clone().unwrap();
    assert_eq!(role(&world, &before.worker), Some(Role::Worker));
    assert_eq!(role(&world, &before.manager), Some(Role::Manager));
    assert_eq!(role(&world, &[0; 16]), None);
    world
        .run(|s, now, e| rotate_token(s, now, e, Role::Worker))
        .unwrap();
    assert_eq!(role(&world, &before.worker), None);
    assert_eq!(role(&world, &before.manager), Some(Role::Manager));
    assert_eq!(format!("{before:?}"), "Secrets(..)");
}

#[test]
fn the_state_survives_serialisation() {
    let mut world = World::new(2);
    world.network("n", &[]).unwrap();
    world.secret("key");
    let web = seeing(publish(on(spec("web", 2), "n"), 8000, 80), &["key"]);
    world.create(web).unwrap();
    let mut again = ClusterState::default();
    for id in world.state.ids() {
        let text = serde_json::to_string(&world.state.get(&id).unwrap()).unwrap();
        again.put(serde_json::from_str(&text).unwrap());
    }
    again.version = world.state.version;
    assert_eq!(again, world.state);
    assert!(again.index() == world.state.index());
    let orders = orders_of(&world.state, &node(1)).unwrap();
    assert_eq!(orders.shared.nodes.len(), 2);
    assert_eq!(orders.own.tasks.len(), 1);
    let versions = (orders.shared.version, orders.own.version);
    assert_eq!(versions, (world.state.version, world.state.version));
    assert!(orders_of(&world.state, &node(9)).is_none());
}

#[test]
fn init_refuses_what_cannot_work() {
    let init = |pools: &[&str], len: Option<u8>, port: Option<u16>| {
        let cmd = InitCluster {
            cluster_id: "c".into(),
            node_id: node(1),
            node: description(1),
            default_address_pools: pools.iter().map(|p| p.parse().unwrap()).collect(),
            subnet_prefix_len: len,
            data_path_port: port,
            autolock: false,
            availability: Availability::Active,
            reserved: Vec::new(),
            root: RootPair::default(),
        };
        init_cluster(
            &ClusterState::default(),
            1,
            &mut Entropy::from_seed([1; 32]),
            cmd,
        )
    };
    let bad = ErrorKind::BadRequest;
    refused(
        init(&[], Some(30), None),
        bad,
        "subnet size is out of range: 30",
    );
    refused(
        init(&[], None, Some(80)),
        bad,
        "Datapath port number is not in valid range (1024-49151) : 80",
    );
    refused(
        init(&["10.0.0.0/26"], None, None),
        bad,
        "cannot be cut into",
    );
    refused(
        init(&["10.0.0.0/8", "10.1.0.0/16"], None, None),
        bad,
        "overlap",
    );
    let good = init(&["172.30.0.0/16"], Some(26), Some(0)).unwrap();
    let mut state = ClusterState::default();
    state.apply(&good.changes);
    assert_eq!(
        state.ingress().unwrap().subnets()[0].cidr.to_string(),
        "172.30.0.0/26"
    );
    assert_eq!(state.cluster.unwrap().data_path_port, 4789);
}

#[test]
fn autolock_has_a_key_of_its_own_each_time() {
    let mut world = World::new(1);
    let key = |world: &World| world.state.secrets.as_ref().unwrap().unlock_key.clone();
    let autolock = |world: &mut World, on| {
        let update = SwarmUpdate {
            autolock: Some(on),
            ..SwarmUpdate::default()
        };
        let done = world.run(|s, now, e| update_swarm(s, now, e, &update));
        done.unwrap().meta.version.index
    };
    assert_eq!(key(&world), None);
    refused(
        world.run(rotate_unlock_key),
        ErrorKind::Conflict,
        "cannot rotate because autolock is not turned on",
    );
    let settings = autolock(&mut world, true);
    let first = key(&world).expect("a key");
    let version = world.state.version;
    assert_eq!(autolock(&mut world, true), settings);
    assert_eq!(key(&world).as_ref(), Some(&first), "it is on already");
    world.run(rotate_unlock_key).unwrap();
    let second = key(&world).expect("a key");
    assert_ne!(first, second);
    assert!(
        autolock(&mut world, false) > settings,
        "others may ask by it"
    );
    assert_eq!(key(&world), None);
    autolock(&mut world, true);
    assert_ne!(key(&world), Some(second), "an old key opens nothing");
    assert!(world.state.version > version);
}

#[test]
fn a_restored_cluster_has_one_manager_and_all_the_rest() {
    let mut world = World::new(3);
    world.create(publish(spec("web", 2), 8000, 80)).unwrap();
    let before = world.state.clone();
    let new = NodeId::from("restored");
    let description = NodeDescription {
        manager_addr: Some("10.0.0.1:2377".parse().unwrap()),
        ..description(1)
    };
    let mut entropy = Entropy::from_seed([9; 32]);
    let planned = restore(&before, 5000, &mut entropy, new.clone(), &description).unwrap();
    let mut state = before.clone();
    let entry = Entry {
        base: state.version,
        changes: planned.changes,
    };
    assert!(matches!(entry.apply(&mut state), Reply::Applied { .. }));
    let managers: Vec<_> = state
        .nodes
        .values()
        .filter(|node| node.spec.role == Role::Manager)
        .map(|node| node.id.clone())
        .collect();
    assert_eq!(managers, [new]);
    let first = state.nodes.get(&node(1)).unwrap();
    assert_eq!(first.status.state, NodeState::Down, "it was the manager");
    assert_eq!(first.manager_status, None);
    assert_eq!(state.nodes.get(&node(2)), before.nodes.get(&node(2)));
    assert_eq!(state.nodes.values().count(), 4);
    assert_eq!(state.services.values().count(), 1);
    assert_eq!(
        state.networks.values().count(),
        before.networks.values().count()
    );
    assert!(state.secrets == before.secrets, "the tokens stay");
}
