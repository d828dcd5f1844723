//! How often ended tasks are replaced, and what checks a service may have.

use weft_model::api::ServiceUpdate;
use weft_model::objects::{HealthConfig, RestartCondition};

use super::*;

/// A service of one task that is replaced at once, so often in so many milliseconds.
fn counted(condition: RestartCondition, attempts: u64, window_ms: u64) -> ServiceSpec {
    let mut spec = spec("web", 1);
    let restart = &mut task_of(&mut spec).restart;
    restart.condition = condition;
    restart.delay = Duration::ZERO;
    restart.max_attempts = attempts;
    restart.window = Duration::from_millis(window_ms);
    spec
}

/// Ends the task of a slot, and says whether another one came.
fn fail(world: &mut World, slot: u32) -> bool {
    let task = world.wanted("web").into_iter().find(|t| t.slot == slot);
    let task = task.expect("a task in the slot");
    world.report(&task.id, TaskState::Failed);
    let next = world.wanted("web").into_iter().find(|t| t.slot == slot);
    next.expect("the slot is never empty").id != task.id
}

#[test]
fn a_slot_is_given_up_after_so_many_attempts() {
    let mut world = World::new(1);
    world
        .create(counted(RestartCondition::OnFailure, 3, 0))
        .unwrap();
    world.scale("web", 2);
    assert_eq!(
        [0; 4].map(|_| fail(&mut world, 1)),
        [true, true, true, false]
    );
    assert!(fail(&mut world, 2), "each slot has attempts of its own");
    let service = world.state.find_service("web").unwrap();
    let told = waiting(&world.state, service);
    assert_eq!(
        told,
        [
            "1 task ended and will not be started again, as --restart-max-attempts 3 is reached; mend \
             what ends, then \"weft service update --force web\""
        ]
    );
    // Nothing happens by itself later, and all attempts are there to be looked at.
    world.advance(100_000_000);
    let slot: Vec<TaskState> = world
        .state
        .tasks_of(&service_id(&world))
        .filter(|t| t.slot == 1)
        .map(|t| t.status.state)
        .collect();
    assert_eq!(slot, [TaskState::Failed; 4]);
}

fn service_id(world: &World) -> ServiceId {
    world.service("web")
}

#[test]
fn attempts_out_of_the_window_do_not_count() {
    let mut world = World::new(1);
    world
        .create(counted(RestartCondition::Any, 2, 10_000))
        .unwrap();
    for _ in 0..20 {
        world.advance(6_000);
        assert!(fail(&mut world, 1), "two in ten seconds at most");
    }
    world.advance(5_000);
    assert!(fail(&mut world, 1));
    world.advance(1_000);
    assert!(!fail(&mut world, 1), "the third one in ten seconds");
    let task = world.wanted("web").remove(0);
    assert_eq!(task.restarts.len(), 2, "no more than is counted");
}

/// A clock that is set back does not use attempts up.
#[test]
fn what_a_clock_put_into_the_future_does_not_count() {
    let mut world = World::new(1);
    world.now = 1_000_000_000;
    world
        .create(counted(RestartCondition::Any, 2, 10_000))
        .unwrap();
    assert_eq!([0; 2].map(|_| fail(&mut world, 1)), [true, true]);
    world.now -= 3_600_000;
    world.advance(60_000);
    assert!(fail(&mut world, 1));
}

#[test]
fn what_is_not_counted_is_not_kept() {
    let mut world = World::new(1);
    world.create(counted(RestartCondition::Any, 0, 0)).unwrap();
    for _ in 0..30 {
        assert!(fail(&mut world, 1));
    }
    assert!(world.wanted("web")[0].restarts.is_empty());
    let mut world = World::new(1);
    world.create(counted(RestartCondition::None, 5, 0)).unwrap();
    assert!(!fail(&mut world, 1), "none is none");
}

#[test]
fn a_node_of_a_global_service_has_attempts_of_its_own() {
    let mut world = World::new(2);
    let mut spec = counted(RestartCondition::Any, 1, 0);
    spec.mode = ServiceMode::Global;
    world.create(spec).unwrap();
    let end_on = |world: &mut World, n: u8| {
        let on = |world: &World| {
            let mut tasks = world.wanted("web").into_iter();
            tasks.find(|t| t.node == Some(node(n))).expect("a task").id
        };
        let before = on(world);
        world.report(&before, TaskState::Failed);
        on(world) != before
    };
    assert!(end_on(&mut world, 1));
    assert!(!end_on(&mut world, 1));
    assert!(end_on(&mut world, 2));
}

/// A change of the service that is none of its tasks leaves the attempts as they are.
#[test]
fn scaling_gives_no_new_attempts() {
    let mut world = World::new(1);
    world.create(counted(RestartCondition::Any, 1, 0)).unwrap();
    assert!(fail(&mut world, 1));
    let update = ServiceUpdate {
        attach: Some(true),
        ..ServiceUpdate::default()
    };
    world
        .run(|s, now, e| update_service(s, now, e, "web", &update))
        .unwrap();
    world.scale("web", 2);
    assert!(!fail(&mut world, 1));
}

fn refused(change: impl FnOnce(&mut ServiceSpec)) -> String {
    let mut world = World::new(1);
    let mut spec = spec("web", 1);
    change(&mut spec);
    let error = world.create(spec).expect_err("refused");
    assert!(world.state.services.is_empty());
    error.message
}

#[test]
fn checks_and_policies_that_cannot_be_carried_out_are_refused() {
    let health = |health: HealthConfig| refused(|s| task_of(s).container.health = Some(health));
    let day = Duration::from_secs(24 * 60 * 60);
    let test = |words: &[&str]| HealthConfig {
        test: words.iter().map(|&word| word.to_owned()).collect(),
        ..HealthConfig::default()
    };
    let shell = || HealthConfig::shell("true");
    for (said, says) in [
        (health(test(&[])), "has no command"),
        (health(test(&["CMD"])), "names no command"),
        (health(test(&["CMD-SHELL", "a\0b"])), "a NUL character"),
        (health(test(&["NONE", "true"])), "NONE and something else"),
        (health(test(&["true"])), "its first word is CMD"),
        (
            health(HealthConfig {
                interval: Duration::from_nanos(999_999),
                ..shell()
            }),
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            health(HealthConfig {
                timeout: 365 * day,
                ..shell()
            }),
            "health timeout of 31536000000 ms is too long",
        ),
        (
            refused(|s| task_of(s).restart.max_attempts = 1_001),
            "--restart-max-attempts 1001 is too many",
        ),
        (
            refused(|s| task_of(s).restart.window = 2 * day),
            "restart window of 172800000 ms is too long",
        ),
        (
            refused(|s| task_of(s).container.ready = Some("http:/healthz".parse().unwrap())),
            "--ready http:/healthz names no port, and the service publishes none of TCP",
        ),
    ] {
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn the_published_port_is_asked_where_no_other_is_named() {
    let mut world = World::new(1);
    let mut web = publish(spec("web", 1), 8000, 80);
    task_of(&mut web).container.ready = Some("tcp".parse().unwrap());
    let mut named = publish(spec("named", 1), 8001, 80);
    task_of(&mut named).container.ready = Some("http:81/".parse().unwrap());
    let port = |service: Service| service.spec.task.container.ready.clone().map(|r| r.port);
    assert_eq!(port(world.create(web).unwrap()), Some(80));
    assert_eq!(port(world.create(named).unwrap()), Some(81));
    assert_eq!(world.wanted("named").len(), 1);
}
