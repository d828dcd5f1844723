//! What commands and passes look at: what they are about, not what there is.

use super::super::table::looks;
use super::*;

/// A cluster of three nodes with so many tasks that run, twenty of each service.
fn running(tasks: u32) -> World {
    let mut world = World::new(3);
    world.network("back", &["10.50.0.0/16"]).unwrap();
    for n in 0..tasks / 20 {
        world
            .create(on(spec(&format!("s{n}"), 20), "back"))
            .unwrap();
    }
    let report = |task: &Task| {
        let mut task = task.clone();
        task.status.state = TaskState::Running;
        Change::Put(task.into())
    };
    let reports: Vec<Change> = world.state.tasks.values().map(report).collect();
    assert_eq!(reports.len(), tasks as usize);
    world.state.apply(&reports);
    world.settle();
    world
}

/// How many objects and entries of the index a command and all passes after it look at.
fn looked_at(world: &mut World, command: impl FnOnce(&mut World) -> Vec<Change>) -> u64 {
    looks::take();
    let mut changes = command(world);
    loop {
        world.state.apply(&changes);
        world.waits.look(&world.state, world.now, world.steady);
        let since = world.since.replace(world.state.clone());
        changes = reconcile(
            &world.state,
            since.as_ref(),
            world.now,
            &world.waits,
            &mut world.entropy,
        );
        let next = world.waits.next_deadline(&world.state);
        assert!(next.is_some(), "the ring of keys turns");
        if changes.is_empty() {
            return looks::take();
        }
    }
}

fn create(world: &mut World) -> Vec<Change> {
    let web = publish(on(spec("web", 10), "back"), 0, 80);
    let planned = create_service(&world.state, world.now, &mut world.entropy, web);
    planned.unwrap().changes
}

fn fail(world: &mut World) -> Vec<Change> {
    let task = world.wanted("s3").remove(0);
    let failed = TaskStatus {
        state: TaskState::Failed,
        ..TaskStatus::default()
    };
    let on = task.node.unwrap();
    let (state, now) = (&world.state, world.now);
    update_task_status(state, now, &mut world.entropy, &on, &task.id, &failed).unwrap()
}

fn attach(world: &mut World) -> Vec<Change> {
    let cmd = Attach {
        network: "back".to_owned(),
        aliases: vec!["one".to_owned(), "two".to_owned()],
        ..Attach::default()
    };
    let planned = attach_endpoint(&world.state, world.now, &mut world.entropy, &node(1), cmd);
    planned.unwrap().changes
}

#[test]
fn a_cluster_of_ten_times_the_size_costs_a_change_no_more() {
    let [small, large] = [100, 1000].map(|tasks| {
        let mut world = running(tasks);
        [create, fail, attach].map(|command| looked_at(&mut world, command))
    });
    for (what, (small, large)) in ["create", "fail", "attach"]
        .iter()
        .zip(small.iter().zip(&large))
    {
        assert!(large <= &(small + 20), "{what}: {small}, then {large}");
    }
    let [create, fail, attach] = large;
    assert!(create < 3000, "{create}");
    assert!(fail < 500, "{fail}");
    assert!(attach < 100, "{attach}");
}

#[test]
fn who_is_too_far_behind_looks_at_everything() {
    let mut world = running(100);
    // This state does not come from that one.
    let mut other = world.state.clone();
    other.apply(&[]);
    world.since = Some(other);
    assert_eq!(world.reconcile(), []);
    world.create(spec("web", 2)).unwrap();
    assert_eq!(world.wanted("web").len(), 2);
}
