//! Random services on random nodes, of which some are lost, drained, paused and removed; tasks that
//! fail; clocks that are set; leaders that change. Whatever happens, what must not be is not, and once
//! it stops everything comes to an end.
//!
//! That no step depends on having seen an event is looked at by each pass of [`World`]: one that knows
//! what has changed and one that looks at everything come to the same.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_model::objects::{
    Availability, FailureAction, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};

use super::updates::{roll_back, running, version};
use super::*;

const NODES: u8 = 4;
/// Replicated ones, and one with a task on each node.
const SERVICES: [&str; 3] = ["web", "api", "agent"];
/// How long a slot waits for an old task that does not end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const HOUR_MS: u64 = 60 * 60 * 1000;

/// A slot, or the node of a global task.
type Place = (u32, Option<NodeId>);

struct Model {
    world: World,
    random: StdRng,
    seed: u64,
    /// Nothing fails and no node goes: updates, leaders, slow nodes, and clocks that are set back.
    calm: bool,
    /// Tasks that were told to stop, and since when by the steady clock.
    stopping: BTreeMap<TaskId, Duration>,
}

impl Model {
    fn new(seed: u64, calm: bool) -> Self {
        let mut world = World::new(NODES);
        // There is room for clocks that are set back.
        world.now = 10_000 * HOUR_MS;
        world.entropy = Entropy::from_seed([u8::try_from(seed).unwrap(); 32]);
        let mut model = Self {
            world,
            random: StdRng::seed_from_u64(seed),
            seed,
            calm,
            stopping: BTreeMap::new(),
        };
        for name in SERVICES {
            let replicas = model.random.random_range(1..6);
            let mut service = spec(name, replicas);
            if name == "agent" {
                service.mode = ServiceMode::Global;
            }
            service.update = model.policy(name == "agent");
            model.world.create(service).unwrap();
        }
        model.world.run_tasks();
        model
    }

    fn policy(&mut self, global: bool) -> UpdateConfig {
        let start_first = !global && self.random.random_bool(0.5);
        let actions = [
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
        ];
        UpdateConfig {
            parallelism: self.random.random_range(1..4),
            delay: Duration::from_secs(2 * self.random.random_range(0..2)),
            failure_action: actions[self.random.random_range(0..3)],
            order: if start_first {
                UpdateOrder::StartFirst
            } else {
                UpdateOrder::StopFirst
            },
            ..UpdateConfig::default()
        }
    }

    fn service(&self, name: &str) -> &Service {
        self.world.state.find_service(name).unwrap()
    }

    fn status(&self, name: &str) -> Option<&UpdateStatus> {
        self.service(name).update_status.as_ref()
    }

    fn name(&mut self) -> &'static str {
        SERVICES[self.random.random_range(0..SERVICES.len())]
    }

    /// One of the nodes that are there.
    fn node(&mut self) -> Option<u8> {
        let n = self.random.random_range(1..=NODES);
        self.world.state.nodes.get(&node(n)).map(|_| n)
    }

    fn step(&mut self, step: u32) {
        let kinds = if self.calm { 7 } else { 14 };
        match self.random.random_range(0..kinds) {
            0..=2 => self.obey(),
            3 => {
                // Less than the time that a task has to start, all in all.
                let ms = self.random.random_range(1..1500);
                self.world.advance(ms);
            }
            4 => {
                self.world.waits = Waits::default();
                self.world.since = None;
                self.world.settle();
            }
            5 => self.set_clock(),
            6 if step.is_multiple_of(3) => {
                let name = self.name();
                version(&mut self.world, name, &format!("{step}"));
            }
            6 => {}
            7 | 8 => self.fail(),
            9 => self.lose_or_find(),
            10 => self.set_availability(),
            11 => self.remove_or_join(),
            12 => {
                let name = ["web", "api"][self.random.random_range(0..2)];
                let replicas = self.random.random_range(0..6);
                self.world.scale(name, replicas);
            }
            _ if step.is_multiple_of(2) => {
                let name = self.name();
                if let Err(error) = roll_back(&mut self.world, name) {
                    assert!(error.message.contains("previous spec"), "{error}");
                }
            }
            _ => {
                let ms = self.random.random_range(10_000..70_000);
                self.world.advance(ms);
            }
        }
    }

    /// A node does one thing that it was told.
    fn obey(&mut self) {
        let all: Vec<(TaskId, TaskState)> = self
            .on_ready_nodes()
            .filter_map(|task| match task.desired {
                TaskState::Running if task.status.state < TaskState::Running => {
                    Some((task.id.clone(), TaskState::Running))
                }
                TaskState::Shutdown | TaskState::Remove => {
                    Some((task.id.clone(), TaskState::Shutdown))
                }
                _ => None,
            })
            .collect();
        if !all.is_empty() {
            let (task, to) = &all[self.random.random_range(0..all.len())];
            self.world.report(task, *to);
        }
    }

    /// Tasks that their node has and that have not ended, where it can say so.
    fn on_ready_nodes(&self) -> impl Iterator<Item = &Task> {
        let state = &self.world.state;
        state.tasks.values().filter(move |task| {
            let on = task.node.as_ref().and_then(|id| state.nodes.get(id));
            on.is_some_and(|node| node.status.state == NodeState::Ready) && is_live(task)
        })
    }

    fn fail(&mut self) {
        let all: Vec<TaskId> = self.on_ready_nodes().map(|t| t.id.clone()).collect();
        if !all.is_empty() {
            let task = &all[self.random.random_range(0..all.len())];
            let ends = [TaskState::Failed, TaskState::Rejected, TaskState::Complete];
            let end = ends[self.random.random_range(0..3)];
            self.world.report(task, end);
        }
    }

    fn set_clock(&mut self) {
        let ms = self.random.random_range(1..HOUR_MS);
        if self.calm || self.random.random_bool(0.5) {
            self.world.now -= ms;
        } else {
            self.world.now += ms;
        }
        self.world.settle();
    }

    fn lose_or_find(&mut self) {
        let state = [NodeState::Down, NodeState::Ready, NodeState::Unknown];
        let state = state[self.random.random_range(0..3)];
        if let Some(n) = self.node().filter(|n| *n > 1) {
            self.world.health(n, state);
        }
    }

    fn set_availability(&mut self) {
        let all = [
            Availability::Active,
            Availability::Pause,
            Availability::Drain,
        ];
        let availability = all[self.random.random_range(0..3)];
        if let Some(n) = self.node() {
            self.make(n, availability);
        }
    }

    fn make(&mut self, n: u8, availability: Availability) {
        let name = description(n).hostname;
        self.world
            .run(|s, now, e| set_availability(s, now, e, &name, availability))
            .unwrap();
    }

    fn remove_or_join(&mut self) {
        let n = self.random.random_range(2..=NODES);
        if self.world.state.nodes.contains_key(&node(n)) {
            let name = description(n).hostname;
            self.world
                .run(|s, now, e| remove_node(s, now, e, &name, true))
                .unwrap();
        } else {
            self.world.add_node(n);
        }
    }

    /// What must hold at any time.
    fn check(&mut self, step: u32) {
        let at = format!("seed {}, step {step}", self.seed);
        self.note_stopping();
        for name in SERVICES {
            let service = self.service(name);
            let wanted = self.world.wanted(name);
            let order = service.spec.update.order;
            let places = count(&wanted);
            if order == UpdateOrder::StopFirst {
                let twice = places.iter().find(|(_, tasks)| **tasks > 1);
                assert_eq!(twice, None, "{at}: {name}");
            }
            if let ServiceMode::Replicated { replicas } = service.spec.mode {
                assert!(places.len() <= replicas as usize, "{at}: {name} {places:?}");
            }
            for task in wanted.iter().filter(|task| is_live(task)) {
                let on = task.node.as_ref().map(|id| &self.world.state.nodes[id]);
                let stays = on.is_some_and(|node| {
                    node.status.state != NodeState::Down
                        && node.spec.availability != Availability::Drain
                });
                assert!(stays, "{at}: {task:?}");
            }
            if let Some(status) = self.status(name) {
                has_reason(status, &at);
            }
            if self.calm {
                self.check_calm(name, &at);
            }
        }
    }

    /// What holds while nothing fails: as many tasks as the policy leaves, and no two in one place
    /// where the old one is to end first.
    fn check_calm(&self, name: &str, at: &str) {
        let service = self.service(name);
        let policy = &service.spec.update;
        let wanted = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            _ => u32::from(NODES),
        };
        let spare = match policy.order {
            UpdateOrder::StopFirst => policy.parallelism,
            UpdateOrder::StartFirst => 0,
        };
        let (new, old) = running(&self.world, name);
        let least = wanted.saturating_sub(spare) as usize;
        assert!(new + old >= least, "{at}: {name} has {new} new, {old} old");
        if policy.order == UpdateOrder::StartFirst {
            return;
        }
        let tasks = self.world.state.tasks_of(&service.id);
        let live: Vec<Task> = tasks.filter(|task| is_live(task)).cloned().collect();
        let waited = |task: &Task| {
            let since = self.stopping.get(&task.id);
            since.is_some_and(|since| self.world.steady - *since >= STOP_LIMIT)
        };
        let in_time: Vec<Task> = live.into_iter().filter(|task| !waited(task)).collect();
        let twice = count(&in_time).into_iter().find(|(_, tasks)| *tasks > 1);
        assert_eq!(twice, None, "{at}: {name}");
    }

    fn note_stopping(&mut self) {
        let now = self.world.steady;
        let tasks = &self.world.state.tasks;
        self.stopping.retain(|id, _| tasks.contains_key(id));
        for task in tasks.values().filter(|task| !task.is_wanted()) {
            self.stopping.entry(task.id.clone()).or_insert(now);
        }
    }

    /// Everything is well again, and goes on for a while.
    fn heal(&mut self) {
        for n in 1..=NODES {
            if self.world.state.nodes.contains_key(&node(n)) {
                self.world.health(n, NodeState::Ready);
            } else {
                self.world.add_node(n);
            }
            self.make(n, Availability::Active);
        }
        for _ in 0..40 {
            self.world.run_tasks();
            self.world.advance(61_000);
        }
    }

    /// What must hold at the end.
    fn check_end(&self) {
        for name in SERVICES {
            let at = format!("seed {}: {name}", self.seed);
            let service = self.service(name);
            let state = service.update_status.as_ref().map(|status| status.state);
            assert!(
                state.is_none_or(|state| !state.is_active()),
                "{at}: {state:?}"
            );
            if state.is_some_and(|state| !state.is_over()) {
                continue;
            }
            let wanted = match service.spec.mode {
                ServiceMode::Replicated { replicas } => replicas as usize,
                _ => usize::from(NODES),
            };
            assert_eq!(running(&self.world, name), (wanted, 0), "{at}: {state:?}");
            assert_eq!(self.world.wanted(name).len(), wanted, "{at}");
        }
    }
}

/// True for a task that its node may have started.
fn is_live(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

fn count(tasks: &[Task]) -> BTreeMap<Place, usize> {
    let mut places = BTreeMap::new();
    for task in tasks {
        let node = task.node.clone().filter(|_| task.slot == 0);
        *places.entry((task.slot, node)).or_default() += 1;
    }
    places
}

/// An update that stopped halfway names the task, and what it failed of.
fn has_reason(status: &UpdateStatus, at: &str) {
    let halfway = [UpdateState::Paused, UpdateState::RollbackPaused];
    if halfway.contains(&status.state) {
        let failed = status.failed.as_ref().expect("a task");
        let says = format!("paused due to failure or early termination of task {failed}: ");
        assert!(status.message.contains(&says), "{at}: {status:?}");
    }
}

#[test]
fn whatever_happens_services_come_to_what_they_are_to_be() {
    for seed in 0..30 {
        let mut model = Model::new(seed, false);
        for step in 0..120 {
            model.step(step);
            model.check(step);
        }
        model.heal();
        model.check_end();
    }
}

#[test]
fn while_nothing_fails_as_many_tasks_run_as_the_policy_leaves() {
    for seed in 100..130 {
        let mut model = Model::new(seed, true);
        for step in 0..150 {
            model.step(step);
            model.check(step);
        }
        model.heal();
        model.check_end();
        for name in SERVICES {
            let state = model.status(name).map(|status| status.state);
            let expected = [None, Some(UpdateState::Completed)];
            assert!(expected.contains(&state), "seed {seed}: {name} {state:?}");
        }
    }
}
