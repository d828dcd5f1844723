//! A cluster in memory and in virtual time.

mod allocation;
mod commands;
mod constraints;
mod containers;
mod cost;
mod dual_stack;
mod ending;
mod events;
mod impaired;
mod jobs;
mod keys;
mod machine;
mod members;
mod model;
mod names;
mod networks;
mod orchestration;
mod orders;
mod payloads;
mod placement;
mod publish;
mod rebalance;
mod restart;
mod roles;
mod roots;
mod sizes;
mod sticky;
mod swarmkit;
mod unique;
mod updates;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use weft_model::api::{NodeUpdate, SwarmUpdate};
use weft_model::assignment::Assignment;
use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{
    Availability, Cluster, ClusterSpec, ContainerSpec, Ipam, NetworkAttachmentSpec, NetworkSpec,
    Node, NodeState, Platform, PortSpec, Resources, Role, Service, ServiceMode, ServiceSpec, Task,
    TaskSpec, TaskState, TaskStatus,
};

use super::*;

pub(super) struct World {
    pub(super) state: ClusterState,
    /// Time of day.
    pub(super) now: u64,
    /// The clock that is never set.
    pub(super) steady: Duration,
    pub(super) waits: Waits,
    pub(super) entropy: Entropy,
    /// The state of the last pass, whose changes are always made.
    pub(super) since: Option<ClusterState>,
}

pub(super) fn description(n: u8) -> NodeDescription {
    let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
    NodeDescription {
        hostname: format!("n{n}"),
        engine_version: "0.1.0".to_owned(),
        addr,
        data_path_addr: addr,
        gossip_port: 7946,
        manager_addr: None,
        platform: Platform::default(),
        resources: Resources::default(),
        runtimes: Vec::new(),
    }
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId(format!("node{n}"))
}

/// Orders of a node, made from nothing.
pub(super) fn orders_of(state: &ClusterState, node: &NodeId) -> Option<Assignment> {
    let mut book = OrderBook::default();
    book.update(state);
    Some(Assignment {
        shared: Arc::new(book.shared()?),
        own: Arc::new(book.own(node)?),
        payloads: Arc::default(),
    })
}

/// A root certificate by its number; nobody here reads it.
pub(super) fn root(n: u8) -> RootPair {
    RootPair {
        certificate: format!("certificate {n}\n"),
        key: format!("key {n}\n"),
        digest: format!("root{n}"),
    }
}

pub(super) fn spec(name: &str, replicas: u32) -> ServiceSpec {
    let task = TaskSpec {
        container: ContainerSpec {
            image: "host".to_owned(),
            args: vec!["/bin/true".to_owned()],
            ..ContainerSpec::default()
        },
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: name.to_owned(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::new(task),
        ..ServiceSpec::default()
    }
}

/// Tasks of a service that run what it says now, and how many there are to be.
pub(super) fn up_to_date_and_desired(state: &ClusterState, service: &Service) -> (u32, u32) {
    let status = service_status(state, service);
    (status.up_to_date(), status.desired)
}

/// `weft node update --availability`
pub(super) fn set_availability(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    availability: Availability,
) -> Result<Planned<Node>, CommandError> {
    let update = NodeUpdate {
        availability: Some(availability),
        ..NodeUpdate::default()
    };
    change_node(state, now, entropy, reference, None, &update)
}

/// What the tasks of a service are made of, to be changed.
pub(super) fn task_of(spec: &mut ServiceSpec) -> &mut TaskSpec {
    Arc::make_mut(&mut spec.task)
}

/// Subnets that somebody asks for.
pub(super) fn asked_for(subnets: &[&str]) -> Ipam {
    let parsed = subnets.iter().map(|s| s.parse::<ipnet::IpNet>().unwrap());
    parsed.collect()
}

pub(super) fn on(mut spec: ServiceSpec, network: &str) -> ServiceSpec {
    task_of(&mut spec).networks.push(NetworkAttachmentSpec {
        target: network.to_owned(),
        aliases: Vec::new(),
        stack_aliases: Vec::new(),
    });
    spec
}

pub(super) fn publish(mut spec: ServiceSpec, published: u16, target: u16) -> ServiceSpec {
    spec.endpoint.ports.push(PortSpec {
        published,
        target,
        ..PortSpec::default()
    });
    spec
}

impl World {
    /// A cluster with `nodes` ready nodes, the first one a manager.
    pub(super) fn new(nodes: u8) -> Self {
        let mut world = Self {
            state: ClusterState::default(),
            now: 1_000_000,
            steady: Duration::from_secs(7),
            waits: Waits::default(),
            entropy: Entropy::from_seed([42; 32]),
            since: None,
        };
        let init = InitCluster {
            cluster_id: "cluster".to_owned(),
            node_id: node(1),
            node: description(1),
            default_address_pools: Vec::new(),
            subnet_prefix_len: None,
            data_path_port: None,
            autolock: false,
            availability: Availability::Active,
            reserved: Vec::new(),
            root: root(1),
        };
        world
            .run(|s, now, e| init_cluster(s, now, e, init))
            .unwrap();
        world.health(1, NodeState::Ready);
        for n in 2..=nodes {
            world.add_node(n);
        }
        world
    }

    pub(super) fn add_node(&mut self, n: u8) {
        // Here a node comes back by its name, as if the certificates of before had run out.
        let removed = ObjectId::Removed(node(n));
        self.state.apply_one(Change::Delete(removed));
        self.run(|s, now, e| join(s, now, e, node(n), Role::Worker, &description(n)))
            .unwrap();
        self.health(n, NodeState::Ready);
    }

    pub(super) fn run<T>(
        &mut self,
        command: impl FnOnce(&ClusterState, u64, &mut Entropy) -> Result<Planned<T>, CommandError>,
    ) -> Result<T, CommandError> {
        let planned = command(&self.state, self.now, &mut self.entropy)?;
        self.state.apply(&planned.changes);
        self.settle();
        Ok(planned.value)
    }

    pub(super) fn change(
        &mut self,
        command: impl FnOnce(&ClusterState, u64, &mut Entropy) -> Result<Vec<Change>, CommandError>,
    ) -> Result<(), CommandError> {
        let changes = command(&self.state, self.now, &mut self.entropy)?;
        self.state.apply(&changes);
        self.settle();
        Ok(())
    }

    /// Reconciles to the fixpoint, which must come soon.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            let changes = self.reconcile();
            if changes.is_empty() {
                return;
            }
            self.state.apply(&changes);
        }
        panic!("no fixpoint");
    }

    /// One pass on what is different since the last one. One that looks at everything comes to the
    /// same.
    pub(super) fn reconcile(&mut self) -> Vec<Change> {
        self.waits.look(&self.state, self.now, self.steady);
        let seed = self.entropy.bytes();
        let pass = |since| {
            let entropy = &mut Entropy::from_seed(seed);
            reconcile(&self.state, since, self.now, &self.waits, entropy)
        };
        let (changes, whole) = (pass(self.since.as_ref()), pass(None));
        let after = |changes: &[Change]| {
            let mut state = self.state.clone();
            state.apply(changes);
            state
        };
        let same = after(&changes) == after(&whole);
        assert!(same, "a whole pass does {whole:#?}, this one {changes:#?}");
        self.since = Some(self.state.clone());
        self.waits.passed();
        changes
    }

    /// How long until something of tasks is due.
    pub(super) fn next_wait(&mut self) -> Option<Duration> {
        self.waits.look(&self.state, self.now, self.steady);
        let deadline = self.waits.next_of_tasks(&self.state)?;
        Some(deadline.saturating_sub(self.steady))
    }

    /// How long until anything is due, in milliseconds.
    pub(super) fn next_due(&mut self) -> Option<u64> {
        self.waits.look(&self.state, self.now, self.steady);
        let deadline = self.waits.next_deadline(&self.state)?;
        u64::try_from(deadline.saturating_sub(self.steady).as_millis()).ok()
    }

    pub(super) fn advance(&mut self, ms: u64) {
        self.now += ms;
        self.steady += Duration::from_millis(ms);
        self.settle();
    }

    pub(super) fn health(&mut self, n: u8, state: NodeState) {
        self.change(|s, now, e| set_node_state(s, now, e, &node(n), state, "test"))
            .unwrap();
    }

    pub(super) fn create(&mut self, spec: ServiceSpec) -> Result<Service, CommandError> {
        self.run(|s, now, e| create_service(s, now, e, spec))
    }

    pub(super) fn network(&mut self, name: &str, subnets: &[&str]) -> Result<(), CommandError> {
        let spec = NetworkSpec {
            name: name.to_owned(),
            ipam: asked_for(subnets),
            ..NetworkSpec::default()
        };
        self.run(|s, now, e| create_network(s, now, e, spec, &[]))
            .map(drop)
    }

    pub(super) fn scale(&mut self, name: &str, replicas: u32) {
        self.run(|s, now, e| scale_service(s, now, e, name, replicas))
            .unwrap();
    }

    pub(super) fn report(&mut self, task: &TaskId, state: TaskState) {
        let on = self.state.tasks[task].node.clone().unwrap();
        let status = TaskStatus {
            state,
            since: self.now,
            ..TaskStatus::default()
        };
        self.change(|s, now, e| update_task_status(s, now, e, &on, task, &status))
            .unwrap();
    }

    /// Every node does what it is told.
    pub(super) fn run_tasks(&mut self) {
        // An update takes two rounds for each slot.
        for _ in 0..128 {
            let steps: Vec<(TaskId, TaskState)> = self
                .state
                .tasks
                .values()
                .filter(|t| {
                    let up = |n| self.state.nodes.get(n).map(|n| n.status.state);
                    t.node.as_ref().and_then(up) == Some(NodeState::Ready)
                        && t.status.state >= TaskState::Assigned
                })
                .filter_map(|t| match t.desired {
                    TaskState::Running | TaskState::Complete
                        if t.status.state < TaskState::Running =>
                    {
                        Some((t.id.clone(), TaskState::Running))
                    }
                    TaskState::Shutdown | TaskState::Remove if !t.status.state.is_terminal() => {
                        Some((t.id.clone(), TaskState::Shutdown))
                    }
                    _ => None,
                })
                .collect();
            if steps.is_empty() {
                return;
            }
            for (id, state) in steps {
                // A report may make the manager forget another task.
                if self.state.tasks.contains_key(&id) {
                    self.report(&id, state);
                }
            }
        }
        panic!("tasks never settle");
    }

    pub(super) fn service(&self, name: &str) -> ServiceId {
        self.state.find_service(name).unwrap().id.clone()
    }

    /// Tasks that the cluster wants of a service.
    pub(super) fn wanted(&self, name: &str) -> Vec<Task> {
        let id = self.service(name);
        self.state
            .tasks_of(&id)
            .filter(|t| t.is_wanted())
            .cloned()
            .collect()
    }

    /// Number of wanted tasks of a service on each node.
    pub(super) fn spread(&self, name: &str) -> BTreeMap<String, usize> {
        let mut out = BTreeMap::new();
        for task in self.wanted(name) {
            let node = task.node.map_or_else(|| "none".to_owned(), |n| n.0);
            *out.entry(node).or_default() += 1;
        }
        out
    }
}
