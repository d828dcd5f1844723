//! The node's loop: compares orders, gossip and what runs here, and repairs the difference.
//!
//! Level-triggered: a step looks at whole states, never at events, so a lost wake-up costs at
//! most one tick.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_control::assignment::{Assignment, GossipKey};
use weft_control::gossip::{MemberState, NetdbView};
use weft_control::id::{EndpointId, NetworkId, NodeId};
use weft_control::objects::TaskState;
use weft_control::records::{ClosedPort, EndpointRecord, NodeRecord, Table};

use super::compile::{Inputs, compile};
use super::listening::Listening;
use super::loads::Loads;
use super::member::Member;
use super::mtu::MtuKeeper;
use super::overlap::{host_routes, overlaps};
use super::remembered::{Records, Remembered};
use super::running::{MESH_IP, Running, blocking};
use super::tasks::Tasks;
use super::underlay::Mtus;
use crate::mesh::busy::NO_ADDRESS;
use crate::session::Session;

/// How often counts are reported and everything is compared again.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at what lies outside of the loop's knowledge: foreign namespaces,
/// published ports that others hold, worker threads.
const SLOW: u32 = 4;

/// Between two looks at the output of tasks.
const TIDY: Duration = Duration::from_secs(60);

/// How long a restarted agent waits for its sandboxes before it speaks to the others: a first word
/// without endpoints would end connections that are only waiting for it.
const ADOPTION: Duration = Duration::from_secs(3);

/// What the last compiled tables were made from.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    orders: u64,
    remote: Vec<(EndpointRecord, IpAddr)>,
    nodes: Vec<NodeRecord>,
    local: Vec<EndpointRecord>,
    mtus: Option<Arc<Mtus>>,
}

impl Seen {
    fn records(&self) -> Records {
        Records {
            nodes: self.nodes.clone(),
            endpoints: self.remote.iter().map(|(r, _)| r.clone()).collect(),
        }
    }
}

/// Between two looks at the host's routes when no network changes.
const LOOK_AT_ROUTES: Duration = Duration::from_secs(60);

/// State of the loop.
pub(super) struct Reconciler {
    member: Arc<Member>,
    running: Arc<Running>,
    tasks: Tasks,
    loads: Loads,
    seen: Seen,
    /// Last inputs of [`Self::compile`], to see at once that nothing has changed.
    compiled_from: Option<(u64, u64, Arc<NetdbView>, Arc<Mtus>)>,
    remembered: Remembered,
    /// The last tables hold nodes that only the disk speaks of.
    borrowed: bool,
    epoch: u64,
    started: Instant,
    adopted: bool,
    ticks: u32,
    tidied: Instant,
    /// Networks that were compared with the host's routes, and when.
    compared: Option<(Vec<NetworkId>, Instant)>,
    mtu: MtuKeeper,
    listening: Listening,
    /// Values that gossip was given, to withdraw what is gone.
    told: BTreeSet<EndpointId>,
    told_generation: Option<u64>,
    told_node: Option<NodeRecord>,
    told_seeds: BTreeSet<SocketAddr>,
    told_keys: Vec<GossipKey>,
}

impl Reconciler {
    pub(super) fn new(member: Arc<Member>, running: Arc<Running>) -> Self {
        let heard = member.config.data_dir.join("heard.json");
        Self {
            remembered: Remembered::load(heard, Instant::now()),
            borrowed: false,
            tasks: Tasks::new(Arc::clone(&member), Arc::clone(&running)),
            member,
            loads: Loads::new(running.plane.counters().len()),
            running,
            seen: Seen::default(),
            compiled_from: None,
            epoch: 0,
            started: Instant::now(),
            adopted: false,
            ticks: 0,
            tidied: Instant::now(),
            compared: None,
            mtu: MtuKeeper::default(),
            listening: Listening::default(),
            told: BTreeSet::new(),
            told_generation: None,
            told_node: None,
            told_seeds: BTreeSet::new(),
            told_keys: Vec::new(),
        }
    }

    /// Runs until `stop` is true; then the sandboxes are left as they are.
    ///
    /// # Errors
    /// A part without which the node only seems to work has ended.
    pub(super) async fn run(
        mut self,
        session: &Session,
        mut stop: watch::Receiver<bool>,
    ) -> (Tasks, anyhow::Result<()>) {
        let mut orders = session.assignments();
        let mut view = self.running.gossip.view();
        let mut strangers_may_run = true;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let result = loop {
            if !self.running.plane.alive() {
                break Err(anyhow::anyhow!("a worker of the data plane has ended"));
            }
            let current = orders.borrow_and_update().clone();
            if let Some(current) = current {
                if strangers_may_run && !session.is_remembered(&current) {
                    strangers_may_run = false;
                    self.tasks.end_strangers(&current).await;
                }
                let seen = Arc::clone(&view.borrow_and_update());
                self.step(&current, &seen).await;
            }
            tokio::select! {
                changed = orders.changed() => if changed.is_err() {
                    break Err(anyhow::anyhow!("the session with the manager has ended"));
                },
                changed = view.changed() => if changed.is_err() {
                    break Err(anyhow::anyhow!("gossip has ended"));
                },
                () = self.member.local.changed() => {}
                _ = tick.tick() => self.ticks = self.ticks.wrapping_add(1),
                _ = stop.wait_for(|s| *s) => break Ok(()),
            }
        };
        (self.tasks, result)
    }

    async fn step(&mut self, orders: &Arc<Assignment>, view: &Arc<NetdbView>) {
        self.tasks.converge(orders).await;
        let slow = self.ticks.is_multiple_of(SLOW);
        if slow {
            // Not again before the next tick.
            self.ticks = self.ticks.wrapping_add(1);
            self.member.endpoints_converge(&self.running, orders).await;
            self.running.mesh.tick();
            self.warn_of_busy_ports();
            self.warn_of_overlaps(orders).await;
            if self.tidied.elapsed() > TIDY {
                self.tidied = Instant::now();
                self.tasks.tidy();
            }
        }
        if !self.has_adopted(orders) {
            return;
        }
        let (member, seen) = (&self.member, (orders.as_ref(), view.as_ref()));
        self.mtu
            .keep(&self.running, &member.local, &member.warnings, seen, slow)
            .await;
        self.listening.keep(&self.member, orders).await;
        self.tell_gossip(orders);
        if let Some(manager) = self.member.manager.get() {
            for (node, member) in &view.members {
                if member.state == MemberState::Down {
                    manager.report_node_down(node).await;
                }
            }
        }
        self.compile(orders, view);
        self.report_loads(view);
    }

    /// Whether everything that ran here before is attached again, or had its time.
    fn has_adopted(&mut self, orders: &Assignment) -> bool {
        if !self.adopted {
            let running = orders.tasks.iter().filter(|t| {
                t.status.state == TaskState::Running && t.desired <= TaskState::Running
            });
            let missing = running
                .flat_map(|t| &t.attachments)
                .chain(orders.endpoints.iter().map(|e| &e.attachment))
                .any(|a| {
                    !self
                        .member
                        .local
                        .get(&a.endpoint)
                        .is_some_and(|p| p.record.ready)
                });
            self.adopted = !missing || self.started.elapsed() > ADOPTION;
        }
        self.adopted
    }

    fn warn_of_busy_ports(&self) {
        match self.running.mesh.frame_error() {
            Some(error) => self.member.warnings.set(
                "mesh",
                format!("replicas do not see the address of their clients, as connections to published ports are accepted by this node: {error}"),
            ),
            None if self.running.mesh_port.is_some() => self.member.warnings.clear("mesh"),
            None => {}
        }
        let mut busy = self.running.mesh.busy();
        // Somebody else may have the address.
        busy.retain(|b| b.owner != NO_ADDRESS);
        if busy.is_empty() {
            self.member.warnings.clear("ports");
            return;
        }
        let list: Vec<String> = busy
            .iter()
            .map(|b| {
                format!(
                    "port {}/{} of service {} is held by {}",
                    b.port, b.protocol, b.service, b.owner
                )
            })
            .collect();
        self.member.warnings.set("ports", list.join("; "));
    }

    async fn warn_of_overlaps(&mut self, orders: &Arc<Assignment>) {
        let ids: Vec<NetworkId> = orders.networks.iter().map(|n| n.id.clone()).collect();
        let known = self.compared.as_ref();
        if known.is_some_and(|(seen, at)| *seen == ids && at.elapsed() < LOOK_AT_ROUTES) {
            return;
        }
        self.compared = Some((ids, Instant::now()));
        let networks = orders.networks.clone();
        match blocking(move || overlaps(&networks, &host_routes())).await {
            Ok(Some(text)) => self.member.warnings.set("routes", text),
            Ok(None) => self.member.warnings.clear("routes"),
            Err(error) => tracing::warn!(%error, "the host's routes were not looked at"),
        }
    }

    /// Own records out, own stale ones back.
    fn tell_gossip(&mut self, orders: &Assignment) {
        let gossip = &self.running.gossip;
        let seeds: BTreeSet<SocketAddr> = orders
            .nodes
            .iter()
            .filter(|n| n.id != orders.node.id)
            .map(|n| SocketAddr::new(n.addr, n.gossip_port))
            .collect();
        if seeds != self.told_seeds {
            // Before they speak to this node.
            let others = orders.nodes.iter().filter(|n| n.id != orders.node.id);
            gossip.expect(others.map(|n| (n.id.clone(), [n.addr].into())).collect());
            gossip.join(seeds.iter().copied().collect());
            self.told_seeds = seeds;
        }
        if self.told_keys != orders.gossip_keys {
            match gossip.set_keys(orders.gossip_keys.clone()) {
                Ok(()) => self.told_keys.clone_from(&orders.gossip_keys),
                Err(error) => tracing::error!(%error, "the orders hold no gossip key"),
            }
        }
        let node = NodeRecord {
            node: orders.node.id.clone(),
            hostname: orders.node.hostname.clone(),
            vtep: orders.node.data_path_addr,
            ingress_ip: orders.node.ingress_ip,
            closed_ports: self
                .running
                .mesh
                .busy()
                .into_iter()
                .map(|b| ClosedPort {
                    host_ip: b.host_ip,
                    port: b.port,
                    protocol: b.protocol,
                    holder: Some(b.owner).filter(|owner| owner != NO_ADDRESS),
                })
                .collect(),
            mtu: self.mtu.device(),
        };
        let generation = self.member.local.generation();
        if self.told_generation != Some(generation) {
            self.told_generation = Some(generation);
            self.tell_endpoints();
        }
        // Last: with it the others believe that they have heard all.
        if self.told_node.as_ref() != Some(&node) {
            put(&self.running.gossip, Table::Node, node.node.as_str(), &node);
            self.told_node = Some(node);
        }
    }

    fn tell_endpoints(&mut self) {
        let gossip = &self.running.gossip;
        let local = self.member.local.all();
        let mut told = BTreeSet::new();
        for port in &local {
            // A value that did not change costs gossip nothing.
            put(
                gossip,
                Table::Endpoint,
                port.record.id.as_str(),
                &port.record,
            );
            told.insert(port.record.id.clone());
        }
        for gone in self.told.difference(&told) {
            gossip.delete(Table::Endpoint, gone.as_str().to_owned());
        }
        self.told = told;
    }

    /// New tables, when anything that they are made of has changed.
    fn compile(&mut self, orders: &Arc<Assignment>, view: &Arc<NetdbView>) {
        let generation = self.member.local.generation();
        let mtus = self.running.mtus.load_full();
        if self
            .compiled_from
            .as_ref()
            .is_some_and(|(version, local, seen, with)| {
                *version == orders.version
                    && *local == generation
                    && Arc::ptr_eq(seen, view)
                    && Arc::ptr_eq(with, &mtus)
                    && !self.borrowed
            })
        {
            let seen = &self.seen;
            self.remembered
                .keep(self.epoch, Instant::now(), || seen.records());
            return;
        }
        self.compiled_from = Some((
            orders.version,
            generation,
            Arc::clone(view),
            Arc::clone(&mtus),
        ));
        let own = &orders.node.id;
        // Gossip says who is there; where a node is, the orders say: one node cannot speak for
        // another, nor a removed one for itself.
        let mut heard = Records {
            nodes: view
                .nodes()
                .filter(|(owner, record)| *owner != own && record.node == **owner)
                .map(|(_, record)| record)
                .collect(),
            endpoints: view
                .endpoints()
                .filter(|(owner, record)| *owner != own && record.node == **owner)
                .map(|(_, record)| record)
                .collect(),
        };
        // A member that nobody knows yet is not known to be gone.
        let gone = |id: &NodeId| {
            let member = view.members.get(id);
            member.is_some_and(|m| !m.state.is_active())
        };
        let now = Instant::now();
        self.borrowed = self.remembered.complete(&mut heard, gone, now);
        let ordered = |id: &NodeId| orders.nodes.iter().find(|n| n.id == *id);
        heard.nodes.retain(|n| ordered(&n.node).is_some());
        let remote: Vec<(EndpointRecord, IpAddr)> = heard
            .endpoints
            .into_iter()
            .filter_map(|record| {
                let node = ordered(&record.node)?;
                Some((record, node.data_path_addr))
            })
            .collect();
        let nodes = heard.nodes;
        let local = self.member.local.all();
        let seen = Seen {
            orders: orders.version,
            remote,
            nodes,
            local: local.iter().map(|p| p.record.clone()).collect(),
            mtus: Some(Arc::clone(&mtus)),
        };
        if seen == self.seen && self.epoch > 0 {
            return;
        }
        self.epoch += 1;
        let compiled = compile(
            &Inputs {
                assignment: orders,
                remote: &seen.remote,
                nodes: &seen.nodes,
                local: &local,
                mesh_port: self.running.mesh_port.as_ref(),
                mesh_ip: MESH_IP,
                mesh_ip6: self.running.mesh_ip6(),
                mtus: &mtus,
                epoch: self.epoch,
            },
            &mut self.loads,
        );
        let known: BTreeSet<&EndpointId> = seen
            .remote
            .iter()
            .map(|(r, _)| &r.id)
            .chain(seen.local.iter().map(|r| &r.id))
            .collect();
        self.loads.retain(|id| known.contains(id));
        let ready: BTreeSet<&EndpointId> = seen
            .remote
            .iter()
            .map(|(r, _)| r)
            .chain(&seen.local)
            .filter(|r| r.ready)
            .map(|r| &r.id)
            .collect();
        let now = weft_wire::Instant(weft_sys::clock::monotonic_nanos());
        self.loads.set_ready(|id| ready.contains(id), now);
        let services: BTreeSet<_> = orders.services.iter().map(|s| &s.id).collect();
        self.loads.retain_services(|id| services.contains(id));
        self.running.plane.publish(Arc::new(compiled.snapshot));
        self.member.dns.set_zone(Arc::new(compiled.zone));
        self.running.mesh.update(&compiled.published);
        if compiled.problems.is_empty() {
            self.member.warnings.clear("names");
        } else {
            self.member
                .warnings
                .set("names", compiled.problems.join("; "));
        }
        tracing::debug!(
            epoch = self.epoch,
            orders = seen.orders,
            remote = seen.remote.len(),
            local = seen.local.len(),
            "new tables"
        );
        self.seen = seen;
    }

    /// Counts of open connections, both ways.
    fn report_loads(&mut self, view: &NetdbView) {
        let own = &self.member.node_id;
        let mut others: BTreeMap<EndpointId, u32> = BTreeMap::new();
        for (owner, endpoint, load) in view.loads() {
            if owner != own {
                let sum = others.entry(EndpointId::from(endpoint)).or_default();
                *sum = sum.saturating_add(load.active);
            }
        }
        // Every node says what has changed once in a tick; what it does not say is as it was.
        let tick = u64::try_from(TICK.as_nanos()).unwrap_or(0);
        let now = weft_sys::clock::monotonic_nanos();
        let counted = weft_wire::Instant(now.saturating_sub(tick));
        self.loads.set_others(&others, counted);
        // Who says that a replica gets nothing new must not have a worker that still sends there.
        if !self.running.plane.is_settled() {
            return;
        }
        for (endpoint, record) in self.loads.take_changes() {
            match record {
                Some(record) => put(
                    &self.running.gossip,
                    Table::Load,
                    endpoint.as_str(),
                    &record,
                ),
                None => self
                    .running
                    .gossip
                    .delete(Table::Load, endpoint.as_str().to_owned()),
            }
        }
    }
}

fn put<T: serde::Serialize>(
    gossip: &crate::gossip::GossipHandle,
    table: Table,
    key: &str,
    value: &T,
) {
    match serde_json::to_vec(value) {
        Ok(bytes) => gossip.put(table, key.to_owned(), bytes),
        Err(error) => tracing::error!(%error, key, "a record cannot be written"),
    }
}
