//! What managers have to do: clients who note what they are told, and the planners of whichever leads.

use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout};
use weft_cluster::{
    CommandError, Entropy, InitCluster, NodeDescription, ObjectId, Planned, RootPair, Waits,
    create_network, create_service, init_cluster, join, reconcile, remove_network, remove_node,
    remove_service, set_node_state, update_task_status,
};
use weft_model::id::{PeerId, TaskId};
use weft_model::objects::{
    Availability, ContainerSpec, Mac, NetworkAttachmentSpec, NodeState, Platform, PortSpec,
    Resources, Role, ServiceMode, ServiceSpec, StaticPeer, TaskSpec, TaskState, TaskStatus,
};

use super::cluster::{Cluster, LIMIT};
use super::history::History;
use super::registers::What;
use super::*;

/// How many registers there are. Each is a static peer of no network, whose address is the value.
const REGISTERS: usize = 5;
/// Networks, services and nodes at most, so that each state is soon looked at.
const MANY: usize = 12;

fn register(number: usize, value: u32) -> Change {
    let ip = IpAddr::V4(value.into());
    let peer = StaticPeer {
        id: PeerId(format!("register{number}")),
        network: NetworkId::from("registers"),
        ip,
        mac: Mac::for_ip(ip),
        vtep: Ipv4Addr::new(203, 0, 113, 1).into(),
    };
    Change::Put(peer.into())
}

fn value_of(number: usize, state: &ClusterState) -> Option<u32> {
    let peer = state.peers.get(&PeerId(format!("register{number}")))?;
    match peer.ip {
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(_) => None,
    }
}

fn description(number: u32) -> NodeDescription {
    let addr = IpAddr::V4((0xac10_0000 | number).into());
    NodeDescription {
        hostname: format!("machine{number}"),
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

/// A service with a published port, on a network where there is one.
fn service(number: u32, network: Option<String>) -> ServiceSpec {
    let attached = network.map(|target| NetworkAttachmentSpec {
        target,
        aliases: Vec::new(),
        stack_aliases: Vec::new(),
    });
    let mut spec = ServiceSpec {
        name: format!("s{number}"),
        mode: ServiceMode::Replicated { replicas: 2 },
        task: Arc::new(TaskSpec {
            container: ContainerSpec {
                image: "host".to_owned(),
                args: vec!["/bin/true".to_owned()],
                ..ContainerSpec::default()
            },
            networks: attached.into_iter().collect(),
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    };
    spec.endpoint.ports.push(PortSpec {
        target: 80,
        ..PortSpec::default()
    });
    spec
}

/// Whom a client asks, when, and by what chance.
struct Asked {
    store: Arc<RaftStore>,
    place: usize,
    now: u64,
    entropy: Entropy,
}

impl Asked {
    /// Carries out a command as a manager does: plans on the head, and again when another was faster.
    /// Nothing when it is not acknowledged.
    async fn command<T>(
        &mut self,
        plan: impl Fn(&ClusterState, u64, &mut Entropy) -> Result<Planned<T>, CommandError>,
    ) -> Option<T> {
        loop {
            let head = self.store.head();
            let planned = plan(&head.state, self.now, &mut self.entropy).ok()?;
            match self.store.propose(&head, planned.changes).await {
                Err(ProposeError::Stale(_)) => {}
                done => return done.is_ok().then_some(planned.value),
            }
        }
    }

    /// The same of a command without an answer.
    async fn change(
        &mut self,
        plan: impl Fn(&ClusterState, u64, &mut Entropy) -> Result<Vec<Change>, CommandError>,
    ) -> Option<()> {
        self.command(|s, now, e| {
            Ok(Planned {
                changes: plan(s, now, e)?,
                value: (),
            })
        })
        .await
    }
}

/// Begins a swarm on managers that have no state yet.
pub(super) async fn give_birth(cluster: &Cluster) {
    let mut asked = Load::ask(cluster, 0).expect("it has made the log");
    let born = asked.command(|s, now, e| {
        let init = InitCluster {
            cluster_id: "cluster".to_owned(),
            node_id: member(0).node,
            node: description(0),
            default_address_pools: Vec::new(),
            subnet_prefix_len: None,
            data_path_port: None,
            reserved: Vec::new(),
            autolock: false,
            availability: Availability::Active,
            root: RootPair::default(),
        };
        init_cluster(s, now, e, init)
    });
    born.await.expect("it is alone, or all follow it");
}

/// Clients of a cluster, with what they were told.
pub(super) struct Load {
    pub(super) cluster: Arc<Cluster>,
    pub(super) history: History,
}

impl Load {
    fn ask(cluster: &Cluster, place: usize) -> Option<Asked> {
        Some(Asked {
            store: cluster.store(place)?,
            place,
            now: cluster.time_of_day(place),
            entropy: cluster.entropy(),
        })
    }

    /// The leader most of the time, or whoever else.
    fn ask_somebody(&self) -> Option<Asked> {
        let size = self.cluster.size();
        let (is_leader, other) = self
            .cluster
            .ether
            .chance(|rng| (rng.random_bool(0.8), rng.random_range(0..size)));
        let leader = self.cluster.leader().filter(|_| is_leader);
        Self::ask(&self.cluster, leader.unwrap_or(other))
    }

    /// Whether an answer comes back. A machine that lost its power meanwhile gives none, whatever its
    /// program here would have said.
    fn is_heard(&self, asked: &Asked) -> bool {
        let there = self.cluster.store(asked.place);
        there.is_some_and(|there| Arc::ptr_eq(&there, &asked.store))
    }

    /// What a client hears of a change.
    fn told(&self, asked: &Asked, told: Result<(), ProposeError>) -> Result<(), ProposeError> {
        if self.is_heard(asked) {
            told
        } else {
            Err(ProposeError::Undecided)
        }
    }

    /// A number that nobody else gets.
    fn number(&self) -> u32 {
        self.history.number()
    }

    /// Does one thing after the other, until a time.
    pub(super) async fn be_client(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            let (pause, what, of) = self.cluster.ether.chance(|rng| {
                (
                    rng.random_range(5..110),
                    rng.random_range(0..100),
                    rng.random_range(0..REGISTERS),
                )
            });
            sleep(Duration::from_millis(pause)).await;
            if let Some(asked) = self.ask_somebody() {
                let done = timeout(LIMIT, self.act(asked, what, of));
                done.await.expect("an answer comes");
            }
        }
    }

    async fn act(&self, mut asked: Asked, what: u32, of: usize) {
        match what {
            0..30 => self.write(&asked, of).await,
            30..50 => self.swap(&asked, of).await,
            50..80 => self.read(&asked, of).await,
            80..86 => self.make_network(&mut asked).await,
            86..92 => self.make_service(&mut asked, of).await,
            92..95 => self.remove_service(&mut asked, of).await,
            95..97 => self.remove_network(&mut asked, of).await,
            97..99 => self.add_node(&mut asked).await,
            _ => self.remove_node(&mut asked, of).await,
        }
    }

    async fn write(&self, asked: &Asked, of: usize) {
        let (value, call) = (self.number(), self.history.call());
        let told = put(&asked.store, register(of, value)).await;
        let told = self.told(asked, told);
        self.history.changed(of, What::Write(value), &call, &told);
    }

    /// Writes where nobody has written since.
    async fn swap(&self, asked: &Asked, of: usize) {
        let (to, call) = (self.number(), self.history.call());
        let head = asked.store.head();
        let from = value_of(of, &head.state);
        let told = asked.store.propose(&head, vec![register(of, to)]).await;
        let told = self.told(asked, told);
        self.history
            .changed(of, What::Swap { from, to }, &call, &told);
    }

    async fn read(&self, asked: &Asked, of: usize) {
        let call = self.history.call();
        if asked.store.confirm_lead().await.is_ok() && self.is_heard(asked) {
            let state = asked.store.read();
            self.history.read(of, value_of(of, &state), &call, &state);
        }
    }

    async fn make_network(&self, asked: &mut Asked) {
        if asked.store.read().networks.len() >= MANY {
            return;
        }
        let spec = NetworkSpec {
            name: format!("n{}", self.number()),
            ..NetworkSpec::default()
        };
        let made = asked.command(|s, now, e| create_network(s, now, e, spec.clone(), &[]));
        if let Some(network) = made.await.filter(|_| self.is_heard(asked)) {
            self.history.made(network);
        }
    }

    async fn make_service(&self, asked: &mut Asked, of: usize) {
        let state = asked.store.read();
        if state.services.len() >= MANY {
            return;
        }
        let own = state.networks.values().filter(|n| !n.spec.ingress);
        let network = own.map(|n| n.spec.name.clone()).nth(of);
        let spec = service(self.number(), network);
        let made = asked.command(|s, now, e| create_service(s, now, e, spec.clone()));
        if let Some(service) = made.await.filter(|_| self.is_heard(asked)) {
            self.history.made(service);
        }
    }

    async fn remove_service(&self, asked: &mut Asked, of: usize) {
        let id = asked.store.read().services.keys().nth(of).cloned();
        if let Some(id) = id {
            self.history.unwanted(ObjectId::Service(id.clone()));
            let removed = asked.change(|s, now, e| remove_service(s, now, e, id.as_str()));
            removed.await;
        }
    }

    async fn remove_network(&self, asked: &mut Asked, of: usize) {
        let state = asked.store.read();
        let own = state.networks.values().filter(|n| !n.spec.ingress);
        let id = own.map(|n| n.id.clone()).nth(of);
        if let Some(id) = id {
            self.history.unwanted(ObjectId::Network(id.clone()));
            let removed = asked.change(|s, now, e| remove_network(s, now, e, id.as_str()));
            removed.await;
        }
    }

    async fn add_node(&self, asked: &mut Asked) {
        if asked.store.read().nodes.len() >= MANY {
            return;
        }
        let (id, said) = (
            NodeId::from_entropy(asked.entropy.next_u128()),
            description(self.number()),
        );
        let joined = asked.command(|s, now, e| join(s, now, e, id.clone(), Role::Worker, &said));
        if let Some(node) = joined.await.filter(|_| self.is_heard(asked)) {
            self.history.made(node);
            let ready = asked.change(|s, now, e| {
                set_node_state(s, now, e, &id, NodeState::Ready, "it is there")
            });
            ready.await;
        }
    }

    async fn remove_node(&self, asked: &mut Asked, of: usize) {
        let state = asked.store.read();
        let workers = state.nodes.values();
        let workers = workers.filter(|node| node.spec.role == Role::Worker);
        let id = workers.map(|node| node.id.clone()).nth(of);
        if let Some(id) = id {
            self.history.unwanted(ObjectId::Node(id.clone()));
            let removed = asked.command(|s, now, e| remove_node(s, now, e, id.as_str(), true));
            removed.await;
        }
    }

    /// Writes to a register until it is acknowledged.
    pub(super) async fn write_at_last(&self) {
        let written = async {
            let before = self.history.acknowledged();
            while self.history.acknowledged() == before {
                if let Some(asked) = self.ask_somebody() {
                    self.write(&asked, 0).await;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, written).await.expect("somebody leads");
    }

    /// Reads all registers, where that is confirmed.
    pub(super) async fn read_at_last(&self) {
        let place = self.cluster.leader().expect("it has just written");
        let asked = Self::ask(&self.cluster, place).expect("it leads");
        for register in 0..REGISTERS {
            self.read(&asked, register).await;
        }
    }

    /// Plans on one machine whenever it leads, and plays the nodes whose tasks its state has.
    pub(super) async fn plan(self: Arc<Self>, place: usize, until: Instant) {
        let cluster = &self.cluster;
        let mut waits = Waits::default();
        while Instant::now() < until {
            let pause = cluster.ether.chance(|rng| rng.random_range(40..160));
            sleep(Duration::from_millis(pause)).await;
            let Some(mut asked) = Self::ask(cluster, place) else {
                waits = Waits::default();
                continue;
            };
            if !asked.store.leadership().borrow().leads() {
                continue;
            }
            let head = asked.store.head();
            let (now, e) = (asked.now, &mut asked.entropy);
            waits.look(&head.state, now, cluster.steady());
            let changes = reconcile(&head.state, None, now, &waits, e);
            if !changes.is_empty() {
                let made = timeout(LIMIT, asked.store.propose(&head, changes));
                // It looks again in any case.
                drop(made.await.expect("an answer comes"));
            }
            if let Some((node, task, status)) = report(&asked.store.read(), now) {
                let told =
                    asked.change(|s, now, e| update_task_status(s, now, e, &node, &task, &status));
                timeout(LIMIT, told).await.expect("an answer comes");
            }
        }
    }
}

/// What the next node says that has done what it was told.
fn report(state: &ClusterState, now: u64) -> Option<(NodeId, TaskId, TaskStatus)> {
    state.tasks.values().find_map(|task| {
        let node = task.node.clone()?;
        let is = task.status.state;
        let next = match task.desired {
            TaskState::Running if is < TaskState::Running => TaskState::Running,
            TaskState::Shutdown | TaskState::Remove if !is.is_terminal() => TaskState::Shutdown,
            _ => return None,
        };
        let status = TaskStatus {
            state: next,
            since: now,
            ..TaskStatus::default()
        };
        (is >= TaskState::Assigned).then(|| (node, task.id.clone(), status))
    })
}
