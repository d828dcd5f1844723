//! What a manager of a large cluster spends on one change, and what a thousand nodes are sent of it.
//!
//! `cargo test --release -p weft-swarm --lib scale -- --ignored --nocapture --test-threads=1`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::BTreeMap;

use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use weft_cluster::{
    Change, Entropy, Planned, RootPair, Waits, change_node, create_network, create_service, join,
    reconcile, set_node_state, update_task_status,
};
use weft_model::api::NodeUpdate;
use weft_model::id::TaskId;
use weft_model::objects::Task;

use super::super::assignments::{Assignments, News, Sent};
use super::*;

const NODES: u16 = 1000;
const TASKS_OF_EACH: u32 = 20;
/// Objects in one entry of the log on the way to the state at the start.
const AT_ONCE: usize = 1000;
/// Tasks on each node of a smaller cluster, and nodes of it that are drained, one after the other.
const TASKS_ON_EACH: u32 = 100;
const DRAINED: u16 = 5;
/// What the plan of a drain may cost.
const PLANNED_WITHIN: Duration = Duration::from_millis(100);
/// Services that are made, one after the other, and tasks that change.
const CHANGES: u32 = 20;

/// CPU time of this process; the log has threads of its own.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

/// What one change has cost.
#[derive(Debug, Default)]
struct Spent {
    command: Duration,
    passes: Duration,
    store: Duration,
    orders: Duration,
    messages: usize,
    bytes: usize,
}

impl Spent {
    fn cpu(&self) -> Duration {
        self.command + self.passes + self.store + self.orders
    }
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = cpu();
    let result = work();
    *spent += cpu() - begun;
    result
}

/// The log of a manager on a disk, and what runs it.
struct Logged {
    store: Arc<RaftStore>,
    runtime: Runtime,
    /// With its file.
    _dir: TempDir,
}

impl Logged {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Authority::generate(now).unwrap();
        let own = authority.issue(&node_id(1), Role::Manager, "c", now);
        let own = watch::Sender::new(Arc::new(own.unwrap()));
        let member = Member {
            node: node_id(1),
            addr: any_port(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let keys = KeyRing::draw().into();
        let store = open_store(dir.path(), keys, Start::Found(member), &own);
        let store = runtime.block_on(store).unwrap();
        Self {
            store,
            runtime,
            _dir: dir,
        }
    }

    fn put(&self, changes: &[Change]) -> Arc<ClusterState> {
        let head = self.store.head();
        let stored = self.store.propose(&head, changes.to_vec());
        self.runtime.block_on(stored).unwrap();
        self.store.read()
    }
}

/// A manager without its sockets, and the sessions of all nodes.
struct Large {
    state: Arc<ClusterState>,
    /// Where the figures are about the disk as well.
    log: Option<Logged>,
    waits: Waits,
    since: Option<Arc<ClusterState>>,
    entropy: Entropy,
    now: u64,
    assignments: Assignments,
    sessions: BTreeMap<NodeId, Sent>,
}

fn node_id(n: u16) -> NodeId {
    NodeId(format!("node{n:021}"))
}

fn large_description(n: u16) -> NodeDescription {
    let [high, low] = n.to_be_bytes();
    let addr = IpAddr::V4(Ipv4Addr::new(192, 168, high, low));
    NodeDescription {
        hostname: format!("node{n}"),
        addr,
        data_path_addr: addr,
        ..description("any")
    }
}

/// On the network that all are on.
fn on_back(name: &str, replicas: u32) -> ServiceSpec {
    let mut spec = service(name, replicas);
    let task = Arc::make_mut(&mut spec.task);
    task.networks.push(NetworkAttachmentSpec {
        target: "back".to_owned(),
        aliases: Vec::new(),
        stack_aliases: Vec::new(),
    });
    task.container.env = vec!["LEVEL=info".to_owned(); 10];
    spec
}

impl Large {
    /// So many tasks run, evenly on all nodes, and all sessions have their orders.
    fn new(tasks: u32) -> Self {
        Self::of(NODES, tasks)
    }

    /// The same with so many nodes.
    fn of(nodes: u16, tasks: u32) -> Self {
        let mut this = Self {
            state: Arc::default(),
            log: None,
            waits: Waits::default(),
            since: None,
            entropy: Entropy::from_seed([7; 32]),
            now: 1_000_000,
            assignments: Assignments::default(),
            sessions: BTreeMap::new(),
        };
        let init = InitCluster {
            cluster_id: "c".to_owned(),
            node_id: node_id(1),
            node: large_description(1),
            default_address_pools: Vec::new(),
            // Room for all nodes on the ingress network.
            subnet_prefix_len: Some(16),
            data_path_port: None,
            autolock: false,
            availability: Availability::Active,
            reserved: Vec::new(),
            root: RootPair::default(),
        };
        this.apply(|s, now, e| init_cluster(s, now, e, init));
        for n in 2..=nodes {
            let node = large_description(n);
            this.apply(|s, now, e| join(s, now, e, node_id(n), Role::Worker, &node));
        }
        for n in 1..=nodes {
            this.apply(|s, now, e| {
                let changes = set_node_state(s, now, e, &node_id(n), NodeState::Ready, "")?;
                Ok(Planned { changes, value: () })
            });
        }
        let back = NetworkSpec {
            name: "back".to_owned(),
            ..NetworkSpec::default()
        };
        this.apply(|s, now, e| create_network(s, now, e, back, &[]));
        for n in 0..tasks / TASKS_OF_EACH {
            let spec = on_back(&format!("service{n}"), TASKS_OF_EACH);
            this.apply(|s, now, e| create_service(s, now, e, spec));
        }
        this.settle(&mut Spent::default());
        let running = |task: &Task| {
            let mut task = task.clone();
            task.status.state = TaskState::Running;
            Change::Put(task.into())
        };
        let running: Vec<Change> = this.state.tasks.values().map(running).collect();
        assert_eq!(running.len(), tasks as usize);
        this.put(&running);
        this.settle(&mut Spent::default());
        this.sessions = (1..=nodes).map(|n| (node_id(n), Sent::default())).collect();
        let mut spent = Spent::default();
        this.tell(&mut spent);
        assert_eq!(spent.messages, usize::from(nodes));
        this
    }

    fn put(&mut self, changes: &[Change]) {
        match &self.log {
            None => Arc::make_mut(&mut self.state).apply(changes),
            Some(log) => self.state = log.put(changes),
        }
    }

    /// A command on the way to the state at the start.
    fn apply<T>(
        &mut self,
        command: impl FnOnce(&ClusterState, u64, &mut Entropy) -> Result<Planned<T>, CommandError>,
    ) {
        let planned = command(&self.state, self.now, &mut self.entropy).unwrap();
        self.put(&planned.changes);
    }

    /// From now on changes are on a disk.
    fn on_disk(&mut self) {
        let log = Logged::new();
        let all = self.state.ids().into_iter();
        let all: Vec<Change> = all
            .map(|id| Change::Put(self.state.get(&id).unwrap()))
            .collect();
        // With the version and the numbers that a log counts from the beginning.
        self.state = log.store.read();
        self.log = Some(log);
        for some in all.chunks(AT_ONCE) {
            self.put(some);
        }
        self.assignments = Assignments::default();
        self.sessions
            .values_mut()
            .for_each(|s| *s = Sent::default());
        self.since = None;
        self.settle(&mut Spent::default());
        self.tell(&mut Spent::default());
    }

    /// Passes until there is nothing left to do.
    fn settle(&mut self, spent: &mut Spent) {
        loop {
            let changes = timed(&mut spent.passes, || {
                self.waits.look(&self.state, self.now, Duration::ZERO);
                let since = self.since.as_deref();
                let entropy = &mut self.entropy;
                reconcile(&self.state, since, self.now, &self.waits, entropy)
            });
            self.since = Some(Arc::clone(&self.state));
            if changes.is_empty() {
                return;
            }
            timed(&mut spent.store, || self.put(&changes));
            if !self.sessions.is_empty() {
                self.tell(spent);
            }
        }
    }

    /// Every session looks for news, as after every change.
    fn tell(&mut self, spent: &mut Spent) {
        let begun = cpu();
        for (node, sent) in &mut self.sessions {
            let news = self.assignments.news(&self.state, node, sent, 1000);
            match news.unwrap() {
                News::Message(message, _) => {
                    spent.messages += 1;
                    spent.bytes += message.encoded_len();
                }
                News::Nothing => {}
                News::Removed => panic!("{node} was removed"),
            }
        }
        spent.orders += cpu() - begun;
    }

    /// One change with everything that follows from it.
    fn change(
        &mut self,
        command: impl FnOnce(&ClusterState, u64, &mut Entropy) -> Result<Vec<Change>, CommandError>,
    ) -> Spent {
        let mut spent = Spent::default();
        let changes = timed(&mut spent.command, || {
            command(&self.state, self.now, &mut self.entropy).unwrap()
        });
        timed(&mut spent.store, || self.put(&changes));
        self.tell(&mut spent);
        self.settle(&mut spent);
        spent
    }

    /// A node says of a task of a service that it is at another state.
    fn report(&mut self, service: &str, state: TaskState) -> Spent {
        let service = self.state.find_service(service).unwrap().id.clone();
        let (id, node): (TaskId, NodeId) = {
            let mut wanted = self.state.tasks_of(&service);
            let task = wanted.find(|task| task.desired <= TaskState::Running);
            let task = task.unwrap();
            (task.id.clone(), task.node.clone().unwrap())
        };
        let status = TaskStatus {
            state,
            message: "as reported".to_owned(),
            ..TaskStatus::default()
        };
        self.change(|s, now, e| update_task_status(s, now, e, &node, &id, &status))
    }
}

/// Nobody is sent what he has, and everybody the difference alone.
#[test]
fn a_thousand_sessions_hear_of_one_task_in_few_bytes() {
    let mut large = Large::new(2000);
    let report = large.report("service3", TaskState::Running);
    assert_eq!(report.messages, 1, "its node has it back");
    assert!(report.bytes < 20_000, "{}", report.bytes);
    let end = large.report("service3", TaskState::Failed);
    let nodes = usize::from(NODES);
    assert!(
        (nodes..nodes + 5).contains(&end.messages),
        "{}",
        end.messages
    );
    assert!(end.bytes < 300 * nodes, "{}", end.bytes);
    // The delay of its restart is over: a node gets the next one, and all hear where it is.
    large.now += 60_000;
    large.waits = Waits::default();
    let mut placed = Spent::default();
    large.settle(&mut placed);
    assert!(
        (nodes..nodes + 5).contains(&placed.messages),
        "{}",
        placed.messages
    );
    assert!(placed.bytes < 600 * nodes, "{}", placed.bytes);
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn one_service_and_one_task_of_ten_thousand_cost_little() {
    let mut large = Large::new(u32::from(NODES) * 10);
    let report = large.report("service3", TaskState::Running);
    large.on_disk();
    println!(
        "{NODES} nodes with a session each, {} tasks, {} objects; a report without a disk {:?}:",
        large.state.tasks.len(),
        large.state.ids().len(),
        report.cpu()
    );
    let mut longest = Duration::ZERO;
    let mut all = Spent::default();
    for n in 0..CHANGES {
        let mut web = on_back(&format!("web{n}"), 10);
        web.endpoint.ports.push(PortSpec {
            target: 80,
            ..PortSpec::default()
        });
        let spent = large.change(|s, now, e| Ok(create_service(s, now, e, web)?.changes));
        longest = longest.max(spent.cpu());
        all.command += spent.command;
        all.passes += spent.passes;
        all.store += spent.store;
        all.orders += spent.orders;
        all.messages += spent.messages;
        all.bytes += spent.bytes;
    }
    println!("one service of 10 tasks is made, CPU of the manager:");
    for (what, spent) in [
        ("command", all.command),
        ("passes", all.passes),
        ("store", all.store),
        ("orders", all.orders),
        ("in all", all.cpu()),
    ] {
        println!("  {what:<8} {:?}", spent / CHANGES);
    }
    println!("  longest  {longest:?}");
    let (messages, bytes) = (all.messages, all.bytes);
    println!(
        "  {} messages with {} bytes",
        messages / CHANGES as usize,
        bytes / CHANGES as usize
    );
    for (what, state) in [
        ("one task is reported to run", TaskState::Running),
        ("one task ends", TaskState::Failed),
    ] {
        let spent = large.report("service7", state);
        let (messages, bytes) = (spent.messages, spent.bytes);
        println!(
            "{what}: {messages} messages with {bytes} bytes, {:?}",
            spent.cpu()
        );
    }
    large.now += 60_000;
    large.waits = Waits::default();
    let mut spent = Spent::default();
    large.settle(&mut spent);
    let (messages, bytes) = (spent.messages, spent.bytes);
    println!(
        "the next one is placed: {messages} messages with {bytes} bytes, {:?}",
        spent.cpu()
    );
}

#[test]
#[ignore = "second tier: a measurement, which needs a release build"]
fn the_tasks_of_a_drained_node_of_a_hundred_are_placed_at_once() {
    let nodes = 100;
    let tasks = u32::from(nodes) * TASKS_ON_EACH;
    let mut large = Large::of(nodes, tasks);
    let mut longest = Duration::ZERO;
    for n in 2..2 + DRAINED {
        let node = node_id(n);
        let on_node = |state: &ClusterState| {
            let tasks = state.tasks_on(&node).filter(|task| task.is_wanted());
            tasks.count()
        };
        let before = on_node(&large.state);
        assert!(before * 2 > TASKS_ON_EACH as usize, "{before}");
        let drain = NodeUpdate {
            availability: Some(Availability::Drain),
            ..NodeUpdate::default()
        };
        let spent = large.change(|s, now, e| {
            let planned = change_node(s, now, e, node.as_str(), None, &drain)?;
            Ok(planned.changes)
        });
        assert_eq!(on_node(&large.state), 0);
        let placed = large
            .state
            .tasks
            .values()
            .filter(|task| task.is_wanted() && task.status.state >= TaskState::Assigned);
        assert_eq!(placed.count(), tasks as usize);
        let plan = spent.command + spent.passes;
        println!(
            "{tasks} tasks on {nodes} nodes, {before} of them leave one: plan {plan:?}, orders {:?}",
            spent.orders
        );
        longest = longest.max(plan);
    }
    assert!(longest <= PLANNED_WITHIN, "{longest:?}");
}
