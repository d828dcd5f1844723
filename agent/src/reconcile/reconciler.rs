//! The node's loop: compares orders, gossip and what runs here, and repairs the difference.
//!
//! Level-triggered: a step looks at whole states, never at events, so a lost wake-up costs at
//! most one tick.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weft_gossip::{MemberState, Members, NetdbView};
use weft_model::assignment::{Assignment, GossipKey, Shared};
use weft_model::id::{EndpointId, NodeId};
use weft_model::objects::TaskState;
use weft_model::records::{ClosedPort, HeardQuestion, NodeRecord, PressureRecord, Table};
use weft_swarm::Session;
use weft_sys::clock::monotonic_nanos;
use weft_wire::Vni;

use super::announcements::{Announcements, announce};
use super::endpoints::Endpoints;
use super::intake::{Intake, Sources, has_same_nodes};
use super::listening::Listening;
use super::mtu::MtuKeeper;
use super::overlap::Overlaps;
use super::remembered::Remembered;
use super::stacks::tell_tasks;
use super::tasks::Tasks;
use super::wall::Wall;
use crate::compile::known::LocalPort;
use crate::compile::loads::Loads;
use crate::compile::tables::{Compiled, Compiler, Inputs};
use crate::observe::pressure::ToldPressure;
use crate::observe::{liars, trouble, vitals, ways};
use crate::parts::data_path::{DataPath, MESH_IP, gossip_members};
use crate::parts::handles::Handles;
use crate::published::busy::NO_ADDRESS;

/// How often counts are reported and everything is compared again.
const TICK: Duration = Duration::from_millis(250);

/// Workers that were waiting have new tables by then.
const SETTLED: Duration = Duration::from_millis(2);

/// Ticks between two looks at what lies outside of the loop's knowledge: foreign namespaces,
/// published ports that others hold, worker threads.
const SLOW: u32 = 4;

/// Between two looks at the output of tasks.
const TIDY: Duration = Duration::from_secs(60);

/// How long a restarted agent waits for its sandboxes before it speaks to the others: a first word
/// without endpoints would end connections that are only waiting for it.
const ADOPTION: Duration = Duration::from_secs(3);

/// State of the loop.
pub(crate) struct Reconciler {
    handles: Arc<Handles>,
    endpoints: Arc<Endpoints>,
    data_path: Arc<DataPath>,
    tasks: Tasks,
    loads: Loads,
    compiler: Compiler,
    /// Last inputs of [`Self::compile`], to see at once that nothing has changed.
    sources: Option<Sources>,
    remembered: Remembered,
    epoch: u64,
    /// The orders and the tables whose services `loads` knows.
    shares: (Option<Arc<Shared>>, u64),
    /// What the last step, or what stood for it, has seen.
    stepped: Option<(Arc<Assignment>, Arc<NetdbView>)>,
    /// A tick has passed since loads were looked at.
    ticked: bool,
    intake: Intake,
    /// Others wait for a word that workers do not allow yet.
    unsettled: bool,
    /// Whose reports count.
    reporters: BTreeSet<NodeId>,
    started: Instant,
    adopted: bool,
    ticks: u32,
    tidied: Instant,
    overlaps: Overlaps,
    mtu: MtuKeeper,
    listening: Listening,
    announcements: Announcements,
    wall: Wall,
    /// Values that gossip was given, to withdraw what is gone.
    told: BTreeSet<EndpointId>,
    told_generation: Option<u64>,
    told_node: Option<NodeRecord>,
    told_pressure: ToldPressure,
    /// The orders whose members gossip knows.
    told_of: Option<Arc<Assignment>>,
    told_seeds: BTreeSet<SocketAddr>,
    told_keys: Vec<GossipKey>,
    told_members: Members,
}

impl Reconciler {
    pub(crate) fn new(
        handles: Arc<Handles>,
        endpoints: Arc<Endpoints>,
        data_path: Arc<DataPath>,
    ) -> Self {
        let heard = handles.config.data_dir.join("heard.json");
        Self {
            remembered: Remembered::load(heard, Instant::now()),
            tasks: Tasks::new(Arc::clone(&handles), Arc::clone(&data_path)),
            handles,
            endpoints,
            loads: Loads::new(data_path.plane.counters().len()),
            data_path,
            compiler: Compiler::default(),
            sources: None,
            epoch: 0,
            shares: (None, 0),
            stepped: None,
            ticked: false,
            intake: Intake::default(),
            unsettled: false,
            reporters: BTreeSet::new(),
            started: Instant::now(),
            adopted: false,
            ticks: 0,
            tidied: Instant::now(),
            overlaps: Overlaps::default(),
            mtu: MtuKeeper::default(),
            listening: Listening::default(),
            announcements: Announcements::default(),
            wall: Wall::default(),
            told: BTreeSet::new(),
            told_generation: None,
            told_node: None,
            told_pressure: ToldPressure::default(),
            told_of: None,
            told_seeds: BTreeSet::new(),
            told_keys: Vec::new(),
            told_members: Members::default(),
        }
    }

    /// Runs until `stop` is true; then the sandboxes are left as they are.
    ///
    /// # Errors
    /// A part without which the node only seems to work has ended.
    pub(crate) async fn run(
        mut self,
        session: &Session,
        mut stop: watch::Receiver<bool>,
    ) -> (Tasks, anyhow::Result<()>) {
        let mut orders = session.assignments();
        let mut view = self.data_path.gossip.view();
        let mut strangers_may_run = true;
        let mut by_gossip = false;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let result = loop {
            if !self.data_path.plane.alive() {
                break Err(anyhow::anyhow!("a worker of the data plane has ended"));
            }
            let current = orders.borrow_and_update().clone();
            if let Some(current) = current {
                if strangers_may_run && !session.is_remembered(&current) {
                    strangers_may_run = false;
                    self.tasks.end_strangers(&current).await;
                }
                let seen = Arc::clone(&view.borrow_and_update());
                if by_gossip && self.is_about_endpoints(&current, &seen) {
                    self.compile(&current, &seen);
                    self.report_loads(&current, &seen);
                } else {
                    self.step(&current, &seen).await;
                }
                self.stepped = Some((current, seen));
            }
            by_gossip = tokio::select! {
                changed = orders.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => break Err(anyhow::anyhow!("the session with the manager has ended")),
                },
                changed = view.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => break Err(anyhow::anyhow!("gossip has ended")),
                },
                () = self.handles.local.changed() => false,
                () = tokio::time::sleep(SETTLED), if self.unsettled => true,
                _ = tick.tick() => {
                    self.ticks = self.ticks.wrapping_add(1);
                    self.ticked = true;
                    false
                }
                _ = stop.wait_for(|s| *s) => break Ok(()),
            };
        };
        (self.tasks, result)
    }

    /// Whether the last step did already all that these call for, but for endpoints of others and
    /// loads.
    fn is_about_endpoints(&self, orders: &Assignment, view: &Arc<NetdbView>) -> bool {
        let last = self.stepped.as_ref();
        self.adopted && last.is_some_and(|(of, with)| of.is(orders) && has_same_nodes(with, view))
    }

    async fn step(&mut self, orders: &Arc<Assignment>, view: &Arc<NetdbView>) {
        self.handles.session.tell(vitals::on(orders, view));
        self.tasks.converge(orders).await;
        let slow = self.ticks.is_multiple_of(SLOW);
        if slow {
            // Not again before the next tick.
            self.ticks = self.ticks.wrapping_add(1);
            self.endpoints.converge(&self.data_path, orders).await;
            self.data_path.mesh.tick();
            self.wall
                .keep(&self.data_path, orders, &self.handles.warnings)
                .await;
            self.overlaps.keep(&self.handles.warnings, orders).await;
            trouble::warn(&self.handles, &self.data_path);
            liars::warn(&self.handles, &self.data_path, orders);
            ways::warn(&self.handles, &self.data_path, orders);
            if self.tidied.elapsed() > TIDY {
                self.tidied = Instant::now();
                self.tasks.tidy();
            }
        }
        if !self.has_adopted(orders) {
            return;
        }
        let (handles, seen) = (&self.handles, (orders.as_ref(), view.as_ref()));
        self.mtu
            .keep(
                &self.data_path,
                &handles.local,
                &handles.warnings,
                seen,
                slow,
            )
            .await;
        self.listening.keep(&self.handles.local, orders).await;
        self.tell_gossip(orders);
        if slow {
            self.tell_pressure();
        }
        if let Some(manager) = self.handles.manager.get() {
            for (node, member) in view.members.iter() {
                if member.state == MemberState::Down {
                    manager.report_node_down(node).await;
                }
            }
        }
        self.compile(orders, view);
        self.report_loads(orders, view);
    }

    /// Whether everything that ran here before is attached again, or had its time.
    fn has_adopted(&mut self, orders: &Assignment) -> bool {
        if !self.adopted {
            // What is to end has connections to finish, and is attached without being ready.
            let running = orders.own.tasks.iter().filter(|t| {
                let ran = t.status.state == TaskState::Running;
                ran && (t.is_wanted() || self.tasks.live(&t.id))
            });
            let missing = running
                .flat_map(|t| t.attachments.iter().map(move |a| (a, t.is_wanted())))
                .chain(orders.own.endpoints.iter().map(|e| (&e.attachment, true)))
                .any(|(a, serves)| {
                    let local = self.handles.local.get(&a.endpoint);
                    !local.is_some_and(|p| p.record.ready || !serves)
                });
            self.adopted = !missing || self.started.elapsed() > ADOPTION;
        }
        self.adopted
    }

    /// Who is a member and where, as the orders have it.
    fn tell_members(&mut self, orders: &Arc<Assignment>) {
        if self.told_of.as_ref().is_some_and(|of| of.is(orders)) {
            return;
        }
        self.told_of = Some(Arc::clone(orders));
        let gossip = &self.data_path.gossip;
        let members = gossip_members(orders);
        if members != self.told_members {
            gossip.set_members(members.clone());
            self.told_members = members;
        }
        let seeds: BTreeSet<SocketAddr> = orders
            .shared
            .nodes
            .iter()
            .filter(|n| n.id != orders.own.node.id)
            .map(|n| SocketAddr::new(n.addr, n.gossip_port))
            .collect();
        if seeds != self.told_seeds {
            // Before they speak to this node.
            let others = orders
                .shared
                .nodes
                .iter()
                .filter(|n| n.id != orders.own.node.id);
            gossip.expect(others.map(|n| (n.id.clone(), [n.addr].into())).collect());
            gossip.join(seeds.iter().copied().collect());
            self.told_seeds = seeds;
        }
    }

    /// Own records out, own stale ones back.
    fn tell_gossip(&mut self, orders: &Arc<Assignment>) {
        self.tell_members(orders);
        let gossip = &self.data_path.gossip;
        if self.told_keys != orders.shared.gossip_keys {
            match gossip.set_keys(orders.shared.gossip_keys.clone()) {
                Ok(()) => self.told_keys.clone_from(&orders.shared.gossip_keys),
                Err(error) => tracing::error!(%error, "the orders hold no gossip key"),
            }
        }
        let node = NodeRecord {
            closed_ports: self
                .data_path
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
            heard: self.heard(orders),
            merging_port: self.data_path.second_ports.own(),
        };
        let generation = self.handles.local.generation();
        if self.told_generation != Some(generation) {
            self.told_generation = Some(generation);
            self.tell_endpoints();
        }
        // Last: with it the others believe that they have heard all.
        if self.told_node.as_ref() != Some(&node) {
            let own = orders.node_id().as_str();
            put(&self.data_path.gossip, Table::Node, own, &node);
            self.told_node = Some(node);
        }
    }

    /// How much what runs here waits: the balancers of all nodes have it, this one's too, by the view.
    fn tell_pressure(&mut self) {
        let seen = weft_sys::pressure::worst().unwrap_or(0);
        let Some(pressure) = self.told_pressure.news(seen) else {
            return;
        };
        let (gossip, own) = (&self.data_path.gossip, self.handles.node_id.as_str());
        match pressure {
            0 => gossip.delete(Table::Load, own.to_owned()),
            pressure => put(gossip, Table::Load, own, &PressureRecord { pressure }),
        }
    }

    /// Nodes whose questions by VXLAN have arrived here, where they want to hear so by gossip.
    fn heard(&self, orders: &Assignment) -> Vec<HeardQuestion> {
        let heard = self
            .data_path
            .questions
            .heard(weft_wire::Instant(monotonic_nanos()));
        let nodes = &orders.shared.nodes;
        let told = heard.into_iter().filter_map(|(from, number)| {
            let node = nodes.iter().find(|n| n.data_path_addr == from)?;
            Some(HeardQuestion {
                node: node.id.clone(),
                number,
            })
        });
        told.collect()
    }

    fn tell_endpoints(&mut self) {
        let gossip = &self.data_path.gossip;
        let local = self.handles.local.all();
        let mut told = BTreeSet::new();
        for port in &local {
            // A value that did not change costs gossip nothing.
            put(
                gossip,
                Table::Endpoint,
                port.record.id.as_str(),
                &port.record.said(),
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
        let mtus = self.data_path.mtus.load_full();
        let sources = Sources {
            orders: Arc::clone(orders),
            local: self.handles.local.generation(),
            view: Arc::clone(view),
            mtus: Arc::clone(&mtus),
        };
        let same = self.sources.as_ref().is_some_and(|last| last.are(&sources));
        let last = self.sources.replace(sources);
        let now = Instant::now();
        let moment = weft_wire::Instant(monotonic_nanos());
        let long_without = self.loads.gaps.end_long(moment);
        if same && !long_without && !self.remembered.waits() {
            self.remembered.keep(self.epoch, now);
            return;
        }
        // Gossip says who is there and which endpoints take connections; all else the orders say.
        let before = last.map(|last| last.view).unwrap_or_default();
        let own = orders.node_id();
        self.remembered.follow(&before, view, own, now);
        let local = self.handles.local.all();
        let snapshot = self.data_path.plane.snapshot();
        let inputs = Inputs {
            assignment: orders,
            heard: self.remembered.heard(),
            local: &local,
            mesh_port: self.data_path.mesh_port.as_ref(),
            mesh_ip: MESH_IP,
            mesh_ip6: self.data_path.mesh_ip6(),
            mtus: &mtus,
            epoch: self.epoch + 1,
            before: &snapshot.services,
        };
        if let Some(compiled) = self.compiler.compile(&inputs, &mut self.loads) {
            self.epoch += 1;
            self.publish(orders, compiled, &local);
        }
    }

    fn publish(&mut self, orders: &Assignment, compiled: Compiled, local: &[LocalPort]) {
        let now = weft_wire::Instant(monotonic_nanos());
        self.loads.follow(&compiled.changes, now);
        let peers = orders.shared.peers.iter().filter_map(|peer| {
            let mut networks = orders.shared.networks.iter();
            let network = networks.find(|n| n.id == peer.network)?;
            Some((Vni::new(network.vni)?, peer.ip))
        });
        let changed = self.announcements.take(&compiled.snapshot.switch, peers);
        self.data_path.plane.publish(Arc::new(compiled.snapshot));
        announce(&changed, local);
        self.handles.dns.set_zone(Arc::new(compiled.zone));
        self.data_path.there.store(Arc::new(compiled.there));
        self.data_path.mesh.update(&compiled.published);
        if compiled.problems.is_empty() {
            self.handles.warnings.clear("names");
        } else {
            let text = compiled.problems.join("; ");
            self.handles.warnings.set("names", text);
        }
        tracing::debug!(
            epoch = self.epoch,
            orders = orders.shared.version,
            work = ?compiled.work,
            local = local.len(),
            "new tables"
        );
    }

    /// Tells the counters of limits and of how many nodes share them, where orders or tables are
    /// others, and resolvers of stacks. True when the reports of others count than before.
    fn follow_orders(&mut self, orders: &Assignment) -> bool {
        let shared = &orders.shared;
        let (of, epoch) = &self.shares;
        let same_orders = of.as_ref().is_some_and(|of| Arc::ptr_eq(of, shared));
        if same_orders && *epoch == self.epoch {
            return false;
        }
        self.shares = (Some(Arc::clone(shared)), self.epoch);
        let limits = shared.services.iter();
        let limits = limits.map(|s| (&s.id, s.connections.limit)).collect();
        self.loads.set_shares(&limits, shared.nodes.len());
        if same_orders {
            return false;
        }
        self.loads.set_limits(&limits);
        tell_tasks(&self.handles.dns, orders);
        let ending = shared.ending.iter().map(|s| &s.id);
        let services: BTreeSet<_> = limits.keys().copied().chain(ending).collect();
        self.loads.retain_services(|id| services.contains(id));
        let nodes = shared.nodes.iter().map(|n| &n.id);
        let others = nodes.filter(|id| **id != self.handles.node_id);
        let reporters: BTreeSet<NodeId> = others.cloned().collect();
        let differ = reporters != self.reporters;
        self.reporters = reporters;
        differ
    }

    /// Counts of open connections, both ways.
    fn report_loads(&mut self, orders: &Assignment, view: &Arc<NetdbView>) {
        let ticked = std::mem::take(&mut self.ticked);
        if self.follow_orders(orders) {
            self.intake.read_again();
        }
        let due = self.intake.look(view, ticked, Instant::now());
        // Every node says what has changed once in a tick; what it does not say is as it was.
        let tick = u64::try_from(TICK.as_nanos()).unwrap_or(0);
        let counted = weft_wire::Instant(monotonic_nanos().saturating_sub(tick));
        let reporters = &self.reporters;
        due.give(view, &mut self.loads, |by| reporters.contains(by), counted);
        let waits = self.intake.tell || self.loads.is_urgent();
        // Who says that a replica gets nothing new must not have a worker that still sends there.
        let settled = self.data_path.plane.is_settled();
        self.unsettled = !settled && self.loads.is_urgent();
        if !waits || !settled {
            return;
        }
        let changes = if std::mem::take(&mut self.intake.tell) {
            self.loads.take_changes()
        } else {
            self.loads.take_urgent()
        };
        for (endpoint, record) in changes {
            let gossip = &self.data_path.gossip;
            match record {
                Some(record) => put(gossip, Table::Load, endpoint.as_str(), &record),
                None => gossip.delete(Table::Load, endpoint.as_str().to_owned()),
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
