//! The node's loop: compares orders, gossip and what runs here, and repairs the difference.
//!
//! Level-triggered: a step looks at whole states, never at events, so a lost wake-up costs at
//! most one tick.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_control::assignment::Assignment;
use weft_control::gossip::{MemberState, NetdbView};
use weft_control::id::EndpointId;
use weft_control::records::{EndpointRecord, LoadRecord, NodeRecord, Table};

use super::compile::{Inputs, compile, vtep_of};
use super::loads::Loads;
use super::member::Member;
use super::running::{MESH_IP, Running};
use super::tasks::Tasks;
use crate::session::Session;

/// How often counts are reported and everything is compared again.
const TICK: Duration = Duration::from_millis(250);

/// What the last compiled tables were made from.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    orders: u64,
    remote: Vec<(EndpointRecord, IpAddr)>,
    nodes: Vec<NodeRecord>,
    local: Vec<EndpointRecord>,
}

/// State of the loop.
pub(super) struct Reconciler {
    member: Arc<Member>,
    running: Arc<Running>,
    tasks: Tasks,
    loads: Loads,
    seen: Seen,
    epoch: u64,
    /// Values that gossip was given, to withdraw what is gone.
    told: BTreeSet<EndpointId>,
    told_node: Option<NodeRecord>,
    told_seeds: BTreeSet<SocketAddr>,
}

impl Reconciler {
    pub(super) fn new(member: Arc<Member>, running: Arc<Running>) -> Self {
        Self {
            tasks: Tasks::new(Arc::clone(&member), Arc::clone(&running)),
            member,
            running,
            loads: Loads::default(),
            seen: Seen::default(),
            epoch: 0,
            told: BTreeSet::new(),
            told_node: None,
            told_seeds: BTreeSet::new(),
        }
    }

    /// Runs until `stop` is true; then the sandboxes are left as they are.
    pub(super) async fn run(mut self, session: &Session, mut stop: watch::Receiver<bool>) -> Tasks {
        let mut orders = session.assignments();
        let mut view = self.running.gossip.view();
        let first = orders.borrow().clone();
        if let Some(first) = first {
            self.tasks.end_strangers(&first).await;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let current = orders.borrow_and_update().clone();
            if let Some(current) = current {
                let seen = Arc::clone(&view.borrow_and_update());
                self.step(&current, &seen).await;
            }
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { break },
                changed = view.changed() => if changed.is_err() { break },
                () = self.member.local.changed() => {}
                _ = tick.tick() => self.running.mesh.tick(),
                _ = stop.wait_for(|s| *s) => break,
            }
        }
        self.tasks
    }

    async fn step(&mut self, orders: &Arc<Assignment>, view: &NetdbView) {
        self.tasks.converge(orders).await;
        self.member.endpoints_converge(&self.running, orders).await;
        self.tell_gossip(orders);
        if let Some(manager) = &self.member.manager {
            for (node, member) in &view.members {
                if member.state == MemberState::Down {
                    manager.report_node_down(node).await;
                }
            }
        }
        self.compile(orders, view);
        self.report_loads(view);
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
            gossip.join(seeds.iter().copied().collect());
            self.told_seeds = seeds;
            if let Err(error) = gossip.set_keys(orders.gossip_keys.clone()) {
                tracing::error!(%error, "the orders hold no gossip key");
            }
        }
        let node = NodeRecord {
            node: orders.node.id.clone(),
            hostname: orders.node.hostname.clone(),
            vtep: orders.node.data_path_addr,
            ingress_ip: orders.node.ingress_ip,
            busy_ports: self
                .running
                .mesh
                .busy()
                .into_iter()
                .map(|b| (b.port, b.protocol, b.owner))
                .collect(),
        };
        if self.told_node.as_ref() != Some(&node) {
            put(gossip, Table::Node, node.node.as_str(), &node);
            self.told_node = Some(node);
        }
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
    fn compile(&mut self, orders: &Arc<Assignment>, view: &NetdbView) {
        let own = &orders.node.id;
        let nodes: Vec<NodeRecord> = view
            .nodes()
            .filter(|(owner, record)| *owner != own && record.node == **owner)
            .map(|(_, record)| record)
            .collect();
        let remote: Vec<(EndpointRecord, IpAddr)> = view
            .endpoints()
            .filter(|(owner, record)| *owner != own && record.node == **owner)
            .filter_map(|(owner, record)| vtep_of(orders, &nodes, owner).map(|vtep| (record, vtep)))
            .collect();
        let local = self.member.local.all();
        let seen = Seen {
            orders: orders.version,
            remote,
            nodes,
            local: local.iter().map(|p| p.record.clone()).collect(),
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
                mtu: self.running.mtu,
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
        let busy = self.running.mesh.busy();
        if busy.is_empty() {
            self.member.warnings.clear("ports");
        } else {
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
        tracing::debug!(epoch = self.epoch, "new tables");
        self.seen = seen;
    }

    /// Counts of open connections, both ways.
    fn report_loads(&mut self, view: &NetdbView) {
        let own = &self.member.node_id;
        let mut others: BTreeMap<EndpointId, u32> = BTreeMap::new();
        for (owner, endpoint, load) in view.loads() {
            if owner != own {
                *others.entry(EndpointId::from(endpoint)).or_default() += load.active;
            }
        }
        self.loads.set_others(&others);
        for (endpoint, active) in self.loads.take_changes() {
            match active {
                Some(active) => put(
                    &self.running.gossip,
                    Table::Load,
                    endpoint.as_str(),
                    &LoadRecord { active },
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
