//! What is too long for the log, or was read before somebody else changed it.

use std::collections::BTreeMap;

use weft_model::api::NodeUpdate;

use super::commands::refused;
use super::*;

fn with_text(replicas: u32, bytes: usize) -> ServiceSpec {
    let mut spec = spec("web", replicas);
    task_of(&mut spec).container.env = vec![format!("A={}", "x".repeat(bytes))];
    spec
}

#[test]
fn what_the_log_has_no_room_for_is_refused_with_its_size() {
    let mut world = World::new(1);
    let bad = ErrorKind::BadRequest;
    refused(
        world.create(with_text(1, 600_000)),
        bad,
        "have 600019 bytes, and may have 524288",
    );
    refused(
        world.create(with_text(100, 200_000)),
        bad,
        "have 200019 bytes, in 100 tasks 20001900, and may have 16777216 in all of them",
    );
    world.create(with_text(10, 200_000)).unwrap();
    refused(
        world.run(|s, now, e| scale_service(s, now, e, "web", 100)),
        bad,
        "ask for fewer tasks or attempts",
    );
    // Each task carries the moments at which its slot was tried again.
    let mut tries = spec("tries", MAX_REPLICAS);
    task_of(&mut tries).restart.max_attempts = 1000;
    refused(world.create(tries), bad, "in 10000 tasks 280");
    assert_eq!(world.wanted("web").len(), 10);
    let mut labelled = spec("other", 1);
    labelled.labels = BTreeMap::from([("a".to_owned(), "x".repeat(65_536))]);
    refused(
        world.create(labelled),
        bad,
        "the labels have 65545 bytes, and may have 65536",
    );
    // As many as there may be, with a command as people have it.
    let mut many = with_text(MAX_REPLICAS, 1_000);
    many.name = "many".to_owned();
    let planned = create_service(&world.state, world.now, &mut world.entropy, many);
    planned.unwrap();
}

fn update(
    world: &mut World,
    version: Option<u64>,
    add: &[(&str, &str)],
    rm: &[&str],
) -> Result<Node, CommandError> {
    let add = add.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let update = NodeUpdate {
        label_add: add.collect(),
        label_rm: rm.iter().map(|key| (*key).to_owned()).collect(),
        ..NodeUpdate::default()
    };
    world.run(|s, now, e| change_node(s, now, e, "n1", version, &update))
}

#[test]
fn labels_of_nodes_are_added_and_taken_away() {
    let mut world = World::new(1);
    let node = update(&mut world, None, &[("disk", "ssd"), ("zone", "")], &[]).unwrap();
    assert_eq!(node.spec.labels["disk"], "ssd");
    let node = update(&mut world, None, &[("disk", "hdd")], &["zone"]).unwrap();
    let labels: Vec<_> = node.spec.labels.into_iter().collect();
    assert_eq!(labels, [("disk".to_owned(), "hdd".to_owned())]);
    let bad = ErrorKind::BadRequest;
    refused(
        update(&mut world, None, &[("new", "1")], &["zone"]),
        bad,
        "key zone doesn't exist in node's labels: there is disk, new",
    );
    let unread = update(&mut world, None, &[("a b", "1")], &[]);
    refused(unread, bad, "invalid label");
    let long = "x".repeat(70_000);
    let long = update(&mut world, None, &[("a", &long)], &[]);
    refused(long, bad, "and may have 65536");
    assert_eq!(world.state.nodes[&self::node(1)].spec.labels.len(), 1);
}

#[test]
fn a_change_of_what_is_not_so_any_more_is_out_of_sequence() {
    let mut world = World::new(1);
    let read = world.state.nodes[&node(1)].meta.version.index;
    let changed = update(&mut world, Some(read), &[("a", "1")], &[]).unwrap();
    assert_eq!(changed.meta.version.index, read + 1);
    refused(
        update(&mut world, Some(read), &[("a", "2")], &[]),
        ErrorKind::Conflict,
        &format!(
            "update out of sequence: it was read at version {read} and is at {}",
            read + 1
        ),
    );
    assert_eq!(world.state.nodes[&node(1)].spec.labels["a"], "1");
    update(&mut world, Some(read + 1), &[("a", "2")], &[]).unwrap();
}
