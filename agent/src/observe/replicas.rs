//! Who answers a published port or a name on this node: `weft mesh ls`, `weft why`, metrics.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_cluster::ClusterState;
use weft_dataplane::Snapshot;
use weft_gossip::MemberState;
use weft_mesh::{Ejection, Replica};
use weft_model::api::{ConnectTime, MeshPort, MeshPortState, MeshReplica};
use weft_model::assignment::{Assignment, ServiceView};
use weft_model::id::{NetworkId, NodeId, TaskId};
use weft_model::objects::{Protocol, PublishMode, ServiceMode, Task};
use weft_wire::{Instant, Vni};

use super::index::Index;
use crate::compile::known::KnownEndpoint;
use crate::compile::there::There;
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::published::PortEntry;
use crate::published::busy::NO_ADDRESS;

/// What the node knows at one moment.
pub(crate) struct Seen {
    pub(crate) orders: Arc<Assignment>,
    /// The endpoints that the tables have.
    pub(crate) there: Arc<There>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) entries: Vec<PortEntry>,
    /// Why this node accepts connections that should go on as they are.
    pub(crate) frame_error: Option<String>,
    /// What the manager of this node has, where it is one.
    state: Option<Arc<ClusterState>>,
    index: Index,
    /// Nodes that do not answer gossip.
    pub(crate) down: BTreeSet<NodeId>,
    pub(crate) now: Instant,
}

impl Seen {
    /// Nothing before the first orders.
    pub(crate) fn of(handles: &Handles, data_path: &DataPath) -> Option<Self> {
        let orders = handles.session.assignments().borrow().clone()?;
        let view = data_path.gossip.view().borrow().clone();
        let down = view.members.iter();
        let down = down.filter(|(_, member)| member.state == MemberState::Down);
        let now = Instant(weft_sys::clock::monotonic_nanos());
        Some(Self {
            entries: data_path.mesh.entries(),
            frame_error: data_path.mesh.frame_error(),
            down: down.map(|(node, _)| node.clone()).collect(),
            ..Self::new(
                orders,
                data_path.there.load_full(),
                data_path.plane.snapshot(),
                handles.manager.get().map(|manager| manager.state()),
                now,
            )
        })
    }

    /// By orders and tables alone.
    pub(crate) fn new(
        orders: Arc<Assignment>,
        there: Arc<There>,
        snapshot: Arc<Snapshot>,
        state: Option<Arc<ClusterState>>,
        now: Instant,
    ) -> Self {
        Self {
            index: Index::of(&orders.shared, state.as_deref()),
            orders,
            there,
            snapshot,
            entries: Vec::new(),
            frame_error: None,
            state,
            down: BTreeSet::new(),
            now,
        }
    }

    /// The service of that name, of a published port.
    fn service(&self, name: &str) -> Option<&ServiceView> {
        self.orders.shared.services.get(self.index.service(name)?)
    }

    pub(crate) fn ingress(&self) -> Option<&NetworkId> {
        let networks = &mut self.orders.shared.networks.iter();
        networks.find(|n| n.spec.ingress).map(|n| &n.id)
    }

    fn network(&self, id: &NetworkId) -> String {
        let at = self.index.network(id);
        let network = at.and_then(|at| self.orders.shared.networks.get(at));
        network.map_or_else(|| id.to_string(), |n| n.spec.name.clone())
    }

    pub(crate) fn hostname(&self, id: &NodeId) -> String {
        let at = self.index.node(id);
        let node = at.and_then(|at| self.orders.shared.nodes.get(at));
        node.map_or_else(|| id.to_string(), |n| n.hostname.clone())
    }

    /// Every published port of this node.
    pub(crate) fn ports(&self) -> Vec<MeshPort> {
        self.entries.iter().map(|entry| self.port(entry)).collect()
    }

    fn port(&self, entry: &PortEntry) -> MeshPort {
        let published = &entry.published;
        let (mut healthy, mut total, mut ejected) = (0, 0, 0);
        if let (Some(service), Some(ingress)) = (self.service(&published.service), self.ingress()) {
            let host = published.mode == PublishMode::Host;
            let own = &self.orders.own.node.id;
            let replicas = self.there.of_service(&service.id);
            let replicas = replicas.filter(|r| r.network == *ingress && (!host || r.node == *own));
            for record in replicas {
                total += 1;
                let replica = self.replica(record);
                let out = replica.and_then(|r| r.load.health().ejection(self.now));
                healthy += u32::from(record.ready && out.is_none());
                ejected += u32::from(record.ready && out.is_some());
            }
            if let (ServiceMode::Replicated { replicas }, false) = (service.mode, host) {
                total = total.max(replicas);
            }
        }
        let (state, held_by) = match (&entry.closed, published.serving) {
            (Some(closed), _) if closed.owner == NO_ADDRESS => {
                (MeshPortState::NoAddress, String::new())
            }
            (Some(closed), _) => (MeshPortState::Busy, closed.owner.clone()),
            (None, true) => (
                MeshPortState::Listening,
                entry.held_by.clone().unwrap_or_default(),
            ),
            (None, false) => (MeshPortState::NoReplica, String::new()),
        };
        let stats = entry.stats.as_ref();
        // Packets from elsewhere pass the listener by.
        let protocol = match published.protocol {
            Protocol::Tcp => weft_mesh::Protocol::Tcp,
            Protocol::Udp => weft_mesh::Protocol::Udp,
        };
        let behind = self
            .snapshot
            .services
            .published(protocol, published.mesh_port);
        let frame = behind.map(|p| p.load.tally());
        let failed = stats.map_or(0, |s| s.refused) + frame.map_or(0, |f| f.refused());
        MeshPort {
            port: published.port,
            protocol: published.protocol,
            mode: published.mode,
            service: published.service.clone(),
            host_ip: published.host_ip,
            front_end: entry.front_end().to_owned(),
            state,
            held_by,
            healthy,
            total,
            accepted: stats.map_or(0, |s| s.accepted) + frame.map_or(0, |f| f.accepted()),
            active: stats.map_or(0, |s| s.open) + behind.map_or(0, |p| p.load.open()),
            failed,
            retried: frame.map_or(0, |f| f.retried()),
            ejected,
            rx_bytes: stats.map_or(0, |s| s.rx_bytes) + frame.map_or(0, |f| f.rx_bytes()),
            tx_bytes: stats.map_or(0, |s| s.tx_bytes) + frame.map_or(0, |f| f.tx_bytes()),
            connect: stats.map(|s| s.connect).unwrap_or_default()
                + frame.map_or_else(ConnectTime::default, |f| connect_time(f.connect())),
        }
    }

    /// The replica that an endpoint is in the tables.
    fn replica(&self, record: &KnownEndpoint) -> Option<&Replica> {
        let networks = &self.orders.shared.networks;
        let vni = Vni::new(networks.get(self.index.network(&record.network)?)?.vni)?;
        let mut keys = record.ips.iter().map(|ip| record.replica_key(*ip));
        keys.find_map(|key| self.snapshot.services.replica(vni, key))
    }

    /// Replicas of a service as this node sees them; on a manager also those that nobody hears of.
    pub(crate) fn replicas(&self, service: &ServiceView) -> Vec<MeshReplica> {
        let mut rows = Vec::new();
        let own: Vec<_> = self.there.of_service(&service.id).collect();
        for record in &own {
            let replica = self.replica(record);
            let load = replica.map(|replica| &replica.load);
            let health = load.map(|load| load.health());
            let tally = load.map(|load| load.tally());
            let ejection = health.and_then(|health| health.ejection(self.now));
            let why_not = if !record.ready {
                self.why_not_ready(record)
            } else if replica.is_none_or(|replica| replica.draining) {
                "this node has not taken it into its tables yet".to_owned()
            } else {
                let port = health.and_then(weft_mesh::Health::failed_port);
                let at = record.ips.first().zip(port);
                let at = at.map(|(ip, port)| SocketAddr::new(*ip, port));
                ejection
                    .map(|ejection| said_of_ejection(ejection, at))
                    .unwrap_or_default()
            };
            rows.push(MeshReplica {
                name: record.name.clone(),
                node: self.hostname(&record.node),
                network: self.network(&record.network),
                ips: record.ips.clone(),
                active: load.map_or(0, |l| l.own()),
                active_everywhere: load.map_or(0, |l| l.total()),
                accepted: tally.map_or(0, |t| t.accepted()),
                refused: tally.map_or(0, |t| t.refused()),
                retried: tally.map_or(0, |t| t.retried()),
                rx_bytes: tally.map_or(0, |t| t.rx_bytes()),
                tx_bytes: tally.map_or(0, |t| t.tx_bytes()),
                connect: tally.map_or_else(ConnectTime::default, |t| connect_time(t.connect())),
                ejected: ejection.is_some(),
                ejections: health.map_or(0, weft_mesh::Health::ejections),
                why_not,
            });
        }
        if let Some(state) = &self.state {
            let heard: BTreeSet<&TaskId> = own.iter().filter_map(|r| r.task.as_ref()).collect();
            let tasks = self.index.tasks(&service.id).iter();
            let tasks = tasks.filter_map(|id| state.tasks.get(id));
            let unheard = tasks.filter(|task| task.is_wanted() && !heard.contains(&task.id));
            for task in unheard {
                let down = task.node.as_ref().is_some_and(|id| {
                    let node = state.nodes.get(id);
                    node.is_none_or(|n| n.status.state == weft_model::objects::NodeState::Down)
                });
                rows.push(MeshReplica {
                    name: task.name(),
                    node: task
                        .node
                        .as_ref()
                        .map(|n| self.hostname(n))
                        .unwrap_or_default(),
                    why_not: if down {
                        "node down".to_owned()
                    } else {
                        no_endpoint(task)
                    },
                    ..MeshReplica::default()
                });
            }
        }
        rows.sort_by(|a, b| (&a.name, &a.network).cmp(&(&b.name, &b.network)));
        rows
    }

    fn why_not_ready(&self, record: &KnownEndpoint) -> String {
        let task = record.task.as_ref();
        let local = self
            .orders
            .own
            .tasks
            .iter()
            .find(|t| Some(&t.id) == task)
            .cloned();
        let known = local.or_else(|| {
            let state = self.state.as_ref()?;
            state.tasks.get(task?).cloned()
        });
        match known {
            Some(task) if !task.is_wanted() => {
                "draining: it is being stopped, and keeps its open connections".to_owned()
            }
            Some(task) => format!("not ready: its task is {}", word(&task)),
            None => "not ready: it starts or is being stopped".to_owned(),
        }
    }
}

fn connect_time(time: &weft_mesh::ConnectTime) -> ConnectTime {
    ConnectTime {
        count: time.count(),
        total_us: u64::try_from(time.total().as_micros()).unwrap_or(u64::MAX),
    }
}

/// Why a replica that should take connections gets none from here.
///
/// `at` is where it was asked last.
fn said_of_ejection(ejection: Ejection, at: Option<SocketAddr>) -> String {
    let all = ejection.refused.saturating_add(ejection.silent);
    let mut did = match (ejection.refused, ejection.silent) {
        (refused, 0) => format!("refused {refused} of {all}"),
        (0, silent) => format!("did not answer {silent} of {all}"),
        (refused, silent) => format!("refused {refused} and did not answer {silent} of {all}"),
    };
    if let Some(at) = at {
        did += &match ejection.silent {
            0 => format!(", nothing listens on {at}"),
            _ => format!(" on {at}"),
        };
    }
    let seconds = ejection.remaining.as_millis().div_ceil(1000);
    match (seconds, ejection.probed) {
        (0, true) => format!("ejected until it answers a probe: {did}"),
        (0, false) => format!("ejected until it answers a connection: {did}"),
        (seconds, _) => format!("ejected for {seconds} s more: {did}"),
    }
}

fn word(task: &Task) -> String {
    format!("{:?}", task.status.state).to_lowercase()
}

/// Why a task that is wanted has no endpoint.
fn no_endpoint(task: &Task) -> String {
    if task.status.err.is_empty() {
        format!("no task runs: it is {}", word(task))
    } else {
        format!("no task runs: it is {}, {}", word(task), task.status.err)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_ejection_is_said_with_its_time_and_its_cause() {
        let said = |ms, refused, silent, probed| {
            said_of_ejection(
                Ejection {
                    remaining: Duration::from_millis(ms),
                    refused,
                    silent,
                    probed,
                },
                None,
            )
        };
        let at = Some(SocketAddr::from(([10, 0, 0, 8], 81)));
        let ejection = |refused, silent| Ejection {
            remaining: Duration::ZERO,
            refused,
            silent,
            probed: true,
        };
        assert_eq!(
            said_of_ejection(ejection(3, 0), at),
            "ejected until it answers a probe: refused 3 of 3, nothing listens on 10.0.0.8:81"
        );
        assert!(
            said_of_ejection(ejection(0, 3), at).ends_with("did not answer 3 of 3 on 10.0.0.8:81")
        );
        assert_eq!(
            said(11_001, 5, 0, true),
            "ejected for 12 s more: refused 5 of 5"
        );
        assert_eq!(
            said(1, 0, 3, false),
            "ejected for 1 s more: did not answer 3 of 3"
        );
        assert_eq!(
            said(0, 2, 3, true),
            "ejected until it answers a probe: refused 2 and did not answer 3 of 5"
        );
        assert_eq!(
            said(0, 3, 0, false),
            "ejected until it answers a connection: refused 3 of 3"
        );
    }
}
