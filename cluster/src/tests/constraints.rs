//! Where tasks may run: constraints, platforms, resources, preferences, and what becomes of tasks
//! whose node changes.

use weft_model::api::{PlacementUpdate, ServiceUpdate};
use weft_model::objects::{Availability, PlacementPreference, SpreadOver};

use super::super::constraint::Constraint;
use super::super::filters::fits;
use super::*;

const GIB: u64 = 1 << 30;

impl World {
    /// `weft node update --label-add KEY=VALUE`
    pub(super) fn label(&mut self, n: u8, key: &str, value: &str) {
        let update = NodeUpdate {
            label_add: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..NodeUpdate::default()
        };
        let name = description(n).hostname;
        self.run(|s, now, e| change_node(s, now, e, &name, None, &update))
            .unwrap();
    }

    /// A machine with so much memory, and twice as many processors as GiB.
    pub(super) fn memory(&mut self, n: u8, gib: u64) {
        let says = NodeDescription {
            platform: Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            resources: Resources {
                nano_cpus: gib * 2_000_000_000,
                memory_bytes: gib * GIB,
            },
            ..description(n)
        };
        self.change(|s, now, e| update_node(s, now, e, &node(n), &says))
            .unwrap();
    }
}

pub(super) fn constrained(mut spec: ServiceSpec, constraints: &[&str]) -> ServiceSpec {
    let texts = constraints.iter().map(|text| (*text).to_owned());
    task_of(&mut spec).placement.constraints = texts.collect();
    spec
}

pub(super) fn reserving(mut spec: ServiceSpec, gib: u64) -> ServiceSpec {
    task_of(&mut spec).resources.reservations.memory_bytes = gib * GIB;
    spec
}

pub(super) fn spread_over(mut spec: ServiceSpec, labels: &[&str]) -> ServiceSpec {
    task_of(&mut spec).placement.preferences = labels
        .iter()
        .map(|label| PlacementPreference {
            spread: SpreadOver {
                spread_descriptor: format!("node.labels.{label}"),
            },
        })
        .collect();
    spec
}

pub(super) fn global(mut spec: ServiceSpec) -> ServiceSpec {
    spec.mode = ServiceMode::Global;
    spec
}

fn errors(world: &World, name: &str) -> Vec<String> {
    let wanted = world.wanted(name).into_iter();
    let errors = wanted.map(|task| task.status.err);
    errors.filter(|err| !err.is_empty()).collect()
}

fn on_nodes(world: &World, name: &str) -> Vec<(String, usize)> {
    world.spread(name).into_iter().collect()
}

#[test]
fn constraints_are_met_as_in_swarmkit() {
    let mut world = World::new(2);
    world.label(2, "disk", "SSD");
    world.memory(2, 4);
    let node = &world.state.nodes[&node(2)];
    for (text, met) in [
        ("node.id==node2", true),
        ("node.id == NODE2", true),
        ("node.hostname!=n1", true),
        ("node.hostname==n", false),
        ("node.role==worker", true),
        ("NODE.ROLE==Manager", false),
        ("node.ip==192.0.2.2", true),
        ("node.ip!=192.0.2.2", false),
        ("node.ip==192.0.2.0/24", true),
        ("node.ip!=198.51.100.0/24", true),
        ("node.labels.disk==ssd", true),
        ("node.labels.Disk==ssd", false),
        ("node.labels.zone!=a", true),
        ("node.labels.zone==a", false),
        ("engine.labels.zone==a", false),
        ("engine.labels.zone!=a", true),
        ("node.platform.os==Linux", true),
        ("node.platform.arch==amd64", true),
        ("node.platform.arch!=aarch64", true),
    ] {
        assert_eq!(
            Constraint::parse(text).map(|c| c.is_met_by(node)),
            Ok(met),
            "{text}"
        );
    }
    for (bad, why) in [
        ("node.role", "constraint expected one operator from ==, !="),
        ("node.role>worker", "one operator"),
        ("node.disk==ssd", "key 'node.disk' is invalid"),
        ("node.labels.==ssd", "key 'node.labels.' is invalid"),
        ("==ssd", "key '' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a;b", "value 'a;b' is invalid"),
        ("node.ip==somewhere", "is no address"),
    ] {
        let error = Constraint::parse(bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn tasks_run_where_constraints_let_them_and_say_where_they_do_not() {
    let mut world = World::new(3);
    world.label(2, "disk", "ssd");
    world
        .create(constrained(spec("web", 3), &["node.labels.disk==ssd"]))
        .unwrap();
    assert_eq!(on_nodes(&world, "web"), [("node2".to_owned(), 3)]);
    world
        .create(constrained(
            spec("nowhere", 1),
            &["node.role==worker", "node.labels.disk==tape"],
        ))
        .unwrap();
    assert_eq!(
        errors(&world, "nowhere"),
        ["no suitable node (scheduling constraints not satisfied on 3 nodes)"]
    );
    let service = world.state.find_service("nowhere").unwrap();
    let told = waiting(&world.state, service);
    assert!(told[0].contains("--label-add"), "{told:?}");
    // A label later there is one.
    world.label(3, "disk", "tape");
    assert_eq!(on_nodes(&world, "nowhere"), [("node3".to_owned(), 1)]);
    let bad = constrained(spec("bad", 1), &["node.role=worker"]);
    let error = world.create(bad).unwrap_err().message;
    assert!(error.contains("one operator from ==, !="), "{error}");
}

#[test]
fn reasons_are_counted_and_the_most_frequent_one_comes_first() {
    let mut world = World::new(4);
    for n in 1..=3 {
        world.memory(n, 1);
    }
    world.memory(4, 8);
    world
        .run(|s, now, e| set_availability(s, now, e, "n4", Availability::Pause))
        .unwrap();
    world.create(reserving(spec("web", 1), 2)).unwrap();
    assert_eq!(
        errors(&world, "web"),
        [
            "no suitable node (insufficient resources on 3 nodes; 1 node not available for new tasks)"
        ]
    );
    let mut arm = spec("arm", 1);
    task_of(&mut arm).placement.platforms = vec![Platform {
        architecture: "arm64".to_owned(),
        os: "linux".to_owned(),
    }];
    world.create(arm).unwrap();
    assert_eq!(
        errors(&world, "arm"),
        ["no suitable node (unsupported platform on 3 nodes; 1 node not available for new tasks)"]
    );
}

#[test]
fn no_node_has_more_replicas_than_it_may() {
    let mut world = World::new(2);
    let mut web = spec("web", 5);
    task_of(&mut web).placement.max_replicas = 2;
    world.create(web).unwrap();
    let expected = [("node1", 2), ("node2", 2), ("none", 1)];
    let expected = expected.map(|(node, tasks)| (node.to_owned(), tasks));
    assert_eq!(on_nodes(&world, "web"), expected);
    assert_eq!(
        errors(&world, "web"),
        ["no suitable node (max replicas per node limit exceed)"]
    );
    world.add_node(3);
    assert_eq!(errors(&world, "web"), [""; 0]);
    let mut everywhere = global(spec("everywhere", 1));
    task_of(&mut everywhere).placement.max_replicas = 1;
    assert_eq!(
        world.create(everywhere).unwrap_err().message,
        "replicas-max-per-node can only be used with replicated or replicated-job mode"
    );
}

#[test]
fn reserved_memory_is_free_again_when_a_task_has_ended_and_not_before() {
    let mut world = World::new(1);
    world.memory(1, 4);
    world.create(reserving(spec("web", 2), 2)).unwrap();
    world.run_tasks();
    world.advance(10);
    world.create(reserving(spec("more", 1), 1)).unwrap();
    let why = "no suitable node (insufficient resources on 1 node)";
    assert_eq!(errors(&world, "more"), [why]);
    world.scale("web", 1);
    // It is being stopped, and still there.
    assert_eq!(errors(&world, "more"), [why]);
    world.run_tasks();
    assert_eq!(errors(&world, "more"), [""; 0]);
    // A machine that comes back with less keeps what fits, the oldest first.
    world.memory(1, 2);
    assert_eq!(world.wanted("web")[0].status.state, TaskState::Running);
    assert_eq!(errors(&world, "more"), [why]);
    let stopped = world.state.tasks.values();
    let stopped = stopped.filter(|t| t.desired == TaskState::Shutdown);
    let stopped: Vec<&str> = stopped.map(|t| t.status.err.as_str()).collect();
    assert_eq!(stopped, ["assigned node no longer meets constraints"]);
}

/// SwarmKit's `TestPreferences`.
#[test]
fn tasks_are_spread_over_the_values_of_a_label() {
    let mut world = World::new(5);
    world.label(1, "az", "az1");
    for n in 2..=5 {
        world.label(n, "az", "az2");
    }
    world.create(spread_over(spec("web", 8), &["az"])).unwrap();
    let expected = [
        ("node1", 4),
        ("node2", 1),
        ("node3", 1),
        ("node4", 1),
        ("node5", 1),
    ];
    let expected = expected.map(|(node, tasks)| (node.to_owned(), tasks));
    assert_eq!(on_nodes(&world, "web"), expected);
}

/// SwarmKit's `TestMultiplePreferences`: one rack of the first zone is too small for any task, the
/// other one for more than five.
#[test]
fn tasks_are_spread_level_by_level_as_far_as_there_is_room() {
    let mut world = World::new(7);
    let places = [
        (1, "az1", "rack1", 1),
        (2, "az1", "rack1", 10),
        (3, "az2", "rack1", 100),
        (4, "az2", "rack1", 100),
        (5, "az2", "rack1", 100),
        (6, "az2", "rack2", 100),
        (7, "az2", "rack2", 100),
    ];
    for (n, az, rack, gib) in places {
        world.label(n, "az", az);
        world.label(n, "rack", rack);
        world.memory(n, gib);
    }
    let web = spread_over(reserving(spec("web", 12), 2), &["az", "rack"]);
    world.create(web).unwrap();
    let spread = world.spread("web");
    let of = |n: u8| spread.get(&node(n).0).copied().unwrap_or(0);
    assert_eq!((of(1), of(2)), (0, 5));
    let racks = (of(3) + of(4) + of(5), of(6) + of(7));
    assert!(racks == (4, 3) || racks == (3, 4), "{spread:?}");
    assert!(spread.values().all(|tasks| *tasks > 0));
}

#[test]
fn a_task_leaves_a_node_that_meets_its_constraints_no_more() {
    let mut world = World::new(3);
    world.label(2, "disk", "ssd");
    world.label(3, "disk", "ssd");
    let web = constrained(spec("web", 2), &["node.labels.disk==ssd"]);
    world.create(web).unwrap();
    world.run_tasks();
    world.label(2, "disk", "rust");
    assert_eq!(on_nodes(&world, "web"), [("node3".to_owned(), 2)]);
    let left = world.state.tasks_on(&node(2)).next().unwrap().clone();
    assert_eq!(left.desired, TaskState::Shutdown);
    // It is there until its node says otherwise, and why it had to go stays said.
    assert_eq!(left.status.state, TaskState::Running);
    world.run_tasks();
    let left = &world.state.tasks[&left.id].status;
    assert_eq!(left.state, TaskState::Shutdown);
    assert_eq!(left.err, "assigned node no longer meets constraints");
    // A paused node keeps what it has.
    world
        .run(|s, now, e| set_availability(s, now, e, "n3", Availability::Pause))
        .unwrap();
    world.label(3, "disk", "rust");
    assert_eq!(on_nodes(&world, "web"), [("node3".to_owned(), 2)]);
}

#[test]
fn a_global_service_follows_labels() {
    let mut world = World::new(3);
    world.label(1, "disk", "ssd");
    let agent = constrained(global(spec("agent", 0)), &["node.labels.disk==ssd"]);
    world.create(agent).unwrap();
    world.run_tasks();
    assert_eq!(on_nodes(&world, "agent"), [("node1".to_owned(), 1)]);
    let counts = |world: &World| {
        let agent = world.state.find_service("agent").unwrap();
        up_to_date_and_desired(&world.state, agent)
    };
    assert_eq!(counts(&world), (1, 1));
    world.label(3, "disk", "ssd");
    world.label(1, "disk", "rust");
    world.run_tasks();
    assert_eq!(on_nodes(&world, "agent"), [("node3".to_owned(), 1)]);
    assert_eq!(counts(&world), (1, 1));
    // A node whose task fails after it lost the label gets no new one.
    let task = world.wanted("agent").remove(0);
    world.label(3, "disk", "rust");
    world.report(&task.id, TaskState::Failed);
    world.advance(60_000);
    assert_eq!(on_nodes(&world, "agent"), []);
    let agent = world.state.find_service("agent").unwrap();
    let told = waiting(&world.state, agent);
    assert!(
        told[0].starts_with("no node meets the constraints"),
        "{told:?}"
    );
}

#[test]
fn a_change_of_placement_alone_restarts_nothing_that_may_stay() {
    let mut world = World::new(2);
    world.label(1, "disk", "ssd");
    world
        .create(constrained(spec("web", 1), &["node.labels.disk==ssd"]))
        .unwrap();
    world.run_tasks();
    let before = world.wanted("web").remove(0);
    let update = ServiceUpdate {
        placement: PlacementUpdate {
            constraint_add: vec!["node.role==manager".to_owned()],
            constraint_rm: vec!["node.labels.disk==ssd".to_owned()],
            max_replicas: Some(3),
            ..PlacementUpdate::default()
        },
        ..ServiceUpdate::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "web", &update))
        .unwrap();
    world.run_tasks();
    let web = world.state.find_service("web").unwrap();
    assert_eq!(up_to_date_and_desired(&world.state, web), (1, 1));
    let after = world.wanted("web").remove(0);
    assert_eq!(after.id, before.id);
    assert_eq!(after.spec, web.spec.task);
    assert!(after.spec_version > before.spec_version);
    // From now on it goes by what the service says now.
    world.label(1, "disk", "rust");
    assert_eq!(world.wanted("web").remove(0).id, before.id);
    let again = world.run(|s, now, e| update_service(s, now, e, "web", &update));
    let error = again.unwrap_err().message;
    assert!(error.contains("it has node.role==manager"), "{error}");
}

#[test]
fn a_placement_that_some_nodes_do_not_meet_moves_their_tasks_alone_as_an_update_does() {
    let mut world = World::new(3);
    world.label(1, "disk", "ssd");
    world.label(2, "disk", "ssd");
    world.create(spec("web", 3)).unwrap();
    world.run_tasks();
    let before = world.wanted("web");
    let update = ServiceUpdate {
        placement: PlacementUpdate {
            constraint_add: vec!["node.labels.disk==ssd".to_owned()],
            ..PlacementUpdate::default()
        },
        ..ServiceUpdate::default()
    };
    let web = world
        .run(|s, now, e| update_service(s, now, e, "web", &update))
        .unwrap();
    assert_eq!(web.update_status.map(|status| status.slots), Some(1));
    world.run_tasks();
    let after = world.wanted("web");
    for task in before {
        let stays = after.iter().any(|other| other.id == task.id);
        assert_eq!(stays, task.node != Some(node(3)), "{task:?}");
    }
    assert_eq!(after.len(), 3);
    assert_eq!(world.spread("web").get("node3"), None);
}

#[test]
fn amounts_that_cannot_be_are_refused() {
    let mut world = World::new(1);
    let mut web = spec("web", 1);
    task_of(&mut web).resources.limits.nano_cpus = 500_000;
    assert_eq!(
        world.create(web.clone()).unwrap_err().message,
        "invalid cpu value 0.0005: Must be at least 0.001"
    );
    task_of(&mut web).resources.limits.nano_cpus = 0;
    task_of(&mut web).resources.reservations.memory_bytes = 1024;
    assert_eq!(
        world.create(web).unwrap_err().message,
        "invalid memory value 1024: Must be at least 4MiB"
    );
    let over = spread_over(spec("web", 1), &[""]);
    let error = world.create(over).unwrap_err().message;
    assert!(error.contains("spread=node.labels.KEY"), "{error}");
}

/// Whatever happens to labels and machines, a pass on what is different does what a whole one does
/// (which [`World::settle`] compares), and no task stays where it may not be.
#[test]
fn random_labels_and_machines_leave_no_task_where_it_may_not_be() {
    for seed in 0..24 {
        let mut world = World::new(4);
        world.entropy = Entropy::from_seed([seed; 32]);
        let ssd = constrained(reserving(spec("web", 4), 1), &["node.labels.disk==ssd"]);
        world.create(ssd).unwrap();
        let agent = constrained(global(spec("agent", 0)), &["node.labels.disk!=tape"]);
        world.create(agent).unwrap();
        for step in 0..40 {
            let [what, which, how] = world.entropy.bytes::<3>();
            let n = which % 4 + 1;
            match what % 6 {
                0 | 1 => {
                    let value = ["ssd", "rust", "tape"][usize::from(how % 3)];
                    world.label(n, "disk", value);
                }
                2 => world.memory(n, u64::from(how % 4) + 1),
                3 => world.health(n, [NodeState::Down, NodeState::Ready][usize::from(how % 2)]),
                4 => world.scale("web", u32::from(how % 8)),
                _ => world.advance(u64::from(how) * 100),
            }
            world.run_tasks();
            for task in world.state.tasks.values() {
                let active = task.is_wanted() && !task.status.state.is_terminal();
                let Some(node) = task.node.as_ref().filter(|_| active) else {
                    continue;
                };
                let node = &world.state.nodes[node];
                assert!(fits(node, &task.spec), "seed {seed}, step {step}: {task:?}");
            }
        }
    }
}
