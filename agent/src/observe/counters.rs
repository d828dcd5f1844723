//! Counters of the node, for `weft drops` and `/metrics`.

#[cfg(test)]
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_dataplane::{Dataplane, DropCounters, Port, UNDERLAY, WorkerCounters};
use weft_fastpath::{Event, EventCounts};
use weft_gossip::{MemberState, NetdbView};
use weft_model::api::{DropCount, Drops, MeshPort, MeshPortState, PortDrops};
use weft_model::records::Table;
use weft_wire::DropReason;

use super::replicas::Seen;
use crate::api::{Answer, ApiError};
use crate::dns::DnsStats;
use crate::gossip::GossipStats;
use crate::metrics::{
    DnsSample, FastPathSample, GossipSample, MeshPortSample, MeshReplicaSample, MetricsSource,
    PortSample, Sample, WorkerEvents, WorkerSample,
};
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

/// Name of the row of ports that are gone, in `weft drops`.
const EARLIER: &str = "earlier ports";

/// A sample that was read already.
#[derive(Debug)]
pub(crate) struct Once(Arc<Sample>);

impl From<Sample> for Once {
    fn from(sample: Sample) -> Self {
        Self(Arc::new(sample))
    }
}

impl MetricsSource for Once {
    fn sample(&self) -> Arc<Sample> {
        Arc::clone(&self.0)
    }
}

/// Every port, `mesh` included, with the name of its network.
fn ports(handles: &Handles, data_path: &DataPath) -> Vec<(Arc<Port>, String)> {
    let orders = handles.session.assignments().borrow().clone();
    let network = |id: &weft_model::id::NetworkId| {
        orders
            .as_ref()
            .and_then(|o| o.shared.networks.iter().find(|n| &n.id == id))
            .map_or_else(|| id.as_str().to_owned(), |n| n.spec.name.clone())
    };
    let mut ports: Vec<(Arc<Port>, String)> = handles
        .local
        .all()
        .into_iter()
        .map(|p| (p.port, network(&p.record.network)))
        .collect();
    if let Some(mesh) = &data_path.mesh_port {
        ports.push((Arc::clone(mesh), String::new()));
    }
    ports
}

/// Refuses the name of a port that is not on this node, to capture its frames.
pub(crate) fn check_port(handles: &Handles, data_path: &DataPath, name: &str) -> Answer<()> {
    check_name(handles, data_path, name, &[UNDERLAY])
}

/// The same of one whose drops are asked for.
pub(crate) fn check_row(handles: &Handles, data_path: &DataPath, name: &str) -> Answer<()> {
    check_name(handles, data_path, name, &[EARLIER, UNDERLAY])
}

fn check_name(handles: &Handles, data_path: &DataPath, name: &str, others: &[&str]) -> Answer<()> {
    let mut known: Vec<String> = ports(handles, data_path)
        .into_iter()
        .map(|(port, _)| port.name.to_string())
        .collect();
    known.extend(others.iter().map(|&other| other.to_owned()));
    if known.iter().any(|k| k == name) {
        return Ok(());
    }
    known.sort();
    Err(ApiError::not_found(format!(
        "no such port on this node: {name}; there are {}",
        known.join(", ")
    )))
}

fn count(reason: DropReason, packets: u64) -> DropCount {
    DropCount {
        reason: reason.name().to_owned(),
        help: reason.help().to_owned(),
        packets,
    }
}

fn counts(drops: &DropCounters) -> Vec<DropCount> {
    drops.iter().map(|(r, n)| count(r, n)).collect()
}

/// `weft drops`, of one port where `only` names it.
pub(crate) fn drops(handles: &Handles, data_path: &DataPath, only: Option<&str>) -> Drops {
    let mut rows: Vec<PortDrops> = ports(handles, data_path)
        .into_iter()
        .map(|(port, _)| PortDrops {
            port: port.name.to_string(),
            drops: counts(&port.counters.drops),
        })
        .collect();
    let of_underlay = underlay(data_path).into_iter().map(|(r, n)| count(r, n));
    rows.push(PortDrops {
        port: UNDERLAY.to_owned(),
        drops: of_underlay.chain(failed(&data_path.plane)).collect(),
    });
    let earlier = handles.local.earlier_drops().into_iter();
    rows.push(PortDrops {
        port: EARLIER.to_owned(),
        drops: earlier.map(|(r, n)| count(r, n)).collect(),
    });
    rows.retain(|row| !row.drops.is_empty() && only.is_none_or(|name| name == row.port));
    let mut total: Vec<DropCount> = Vec::new();
    for row in rows.iter().flat_map(|r| &r.drops) {
        match total.iter_mut().find(|t| t.reason == row.reason) {
            Some(sum) => sum.packets += row.packets,
            None => total.push(row.clone()),
        }
    }
    total.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.reason.cmp(&b.reason)));
    Drops { total, ports: rows }
}

fn underlay(data_path: &DataPath) -> Vec<(DropReason, u64)> {
    let mut sum: BTreeMap<DropReason, u64> = BTreeMap::new();
    for worker in data_path.plane.counters() {
        for (reason, n) in worker.underlay.iter() {
            *sum.entry(reason).or_default() += n;
        }
    }
    sum.into_iter().collect()
}

/// Packets that the fast path has lost. No port is known of them, and no worker has seen them: so this
/// is no reason of theirs.
fn failed(plane: &Dataplane) -> Option<DropCount> {
    let packets = events(plane)?.get(Event::Failed);
    (packets > 0).then(|| DropCount {
        reason: "fast_path_failed".to_owned(),
        help: "The kernel refused to change a packet that its flow cache carried.".to_owned(),
        packets,
    })
}

/// What happened to packets in the fast path, where there is one.
fn events(plane: &Dataplane) -> Option<EventCounts> {
    match plane.flow_cache()?.events() {
        Ok(events) => Some(events),
        Err(error) => {
            tracing::debug!(%error, "the counters of the fast path were not read");
            None
        }
    }
}

fn fast_path(plane: &Dataplane) -> FastPathSample {
    let events = events(plane);
    let total = |f: fn(&WorkerCounters) -> u64| plane.counters().iter().map(f).sum();
    FastPathSample {
        events: events
            .iter()
            .flat_map(EventCounts::iter)
            .map(|(event, n)| (event.name(), n))
            .collect(),
        flows: total(|w| w.shortcuts.load(Ordering::Relaxed)),
        entries: total(|w| w.shortcuts_made.load(Ordering::Relaxed)),
    }
}

/// `/metrics`
pub(crate) fn sample(handles: &Handles) -> Sample {
    let mut sample = Sample {
        session_connected: handles.session.connected(),
        refused_orders: handles.session.refused_orders(),
        dns: dns(&handles.dns.stats()),
        doors: handles
            .manager
            .get()
            .map(|m| m.door())
            .into_iter()
            .collect(),
        ..Sample::default()
    };
    let Some(data_path) = handles.data_path.load_full() else {
        return sample;
    };
    sample.epoch = data_path.plane.snapshot().epoch;
    sample.ports = ports(handles, &data_path)
        .into_iter()
        .map(|(port, network)| {
            let c = &port.counters;
            PortSample {
                port: port.name.to_string(),
                network,
                // The data plane's view is the sandbox's mirrored.
                rx_packets: c.tx_frames.load(Ordering::Relaxed),
                rx_bytes: c.tx_bytes.load(Ordering::Relaxed),
                tx_packets: c.rx_frames.load(Ordering::Relaxed),
                tx_bytes: c.rx_bytes.load(Ordering::Relaxed),
                drops: c.drops.iter().collect(),
            }
        })
        .collect();
    let workers = data_path.plane.counters();
    let total = |f: fn(&WorkerCounters) -> u64| workers.iter().map(f).sum();
    sample.ports.push(PortSample {
        port: UNDERLAY.to_owned(),
        rx_packets: total(|w| w.rx_datagrams.load(Ordering::Relaxed)),
        tx_packets: total(|w| w.tx_datagrams.load(Ordering::Relaxed)),
        drops: underlay(&data_path),
        ..PortSample::default()
    });
    sample.workers = workers
        .iter()
        .map(|w| WorkerSample {
            flows_active: w.flows.load(Ordering::Relaxed),
        })
        .collect();
    if let Some(seen) = Seen::of(handles, &data_path) {
        (sample.mesh_ports, sample.mesh_replicas) = mesh(&seen);
    }
    sample.fast_path = fast_path(&data_path.plane);
    sample.probes = data_path.probes.read();
    sample.unreachable = data_path.mesh.unreachable();
    sample.worker_events = workers.iter().map(WorkerEvents::from).collect();
    sample.gossip_undecodable = data_path.gossip.view().borrow().undecodable() as u64;
    sample.gossip = gossip(&data_path.gossip.stats(), &data_path.gossip.view().borrow());
    sample.doors.push(data_path.gossip.door());
    sample.doors.extend(handles.images.door());
    sample
}

/// Published ports of this node, and replicas of every service.
pub(crate) fn mesh(seen: &Seen) -> (Vec<MeshPortSample>, Vec<MeshReplicaSample>) {
    let ports = seen.ports().into_iter().map(mesh_port);
    (ports.collect(), mesh_replicas(seen))
}

fn mesh_port(port: MeshPort) -> MeshPortSample {
    MeshPortSample {
        service: port.service,
        published: port.port,
        protocol: port.protocol,
        host_ip: port.host_ip,
        accepted: port.accepted,
        failed: port.failed,
        open: port.active,
        rx_bytes: port.rx_bytes,
        tx_bytes: port.tx_bytes,
        retried: port.retried,
        ejected: port.ejected.into(),
        connect: port.connect,
        healthy: port.healthy.into(),
        accepted_here: matches!(
            port.state,
            MeshPortState::Listening | MeshPortState::NoReplica
        ),
    }
}

fn mesh_replicas(seen: &Seen) -> Vec<MeshReplicaSample> {
    let mut samples = Vec::new();
    for service in &seen.orders.shared.services {
        // One that nobody heard of yet has no figures.
        let heard = seen.replicas(service).into_iter();
        samples.extend(
            heard
                .filter(|r| !r.network.is_empty())
                .map(|replica| MeshReplicaSample {
                    service: service.name.clone(),
                    replica: replica.name,
                    node: replica.node,
                    network: replica.network,
                    healthy: replica.why_not.is_empty(),
                    open: replica.active.into(),
                    accepted: replica.accepted,
                    refused: replica.refused,
                    retried: replica.retried,
                    rx_bytes: replica.rx_bytes,
                    tx_bytes: replica.tx_bytes,
                    connect: replica.connect,
                    ejected: replica.ejected,
                    ejections: replica.ejections,
                }),
        );
    }
    samples
}

fn dns(s: &DnsStats) -> DnsSample {
    DnsSample {
        queries: vec![
            ("answered", s.answered),
            ("nodata", s.nodata),
            ("nxdomain", s.nxdomain),
            ("servfail", s.servfail),
            ("refused", s.refused),
            ("malformed", s.malformed),
            ("dropped", s.dropped),
            ("forwarded", s.forwarded),
        ],
        cached: s.cached,
    }
}

pub(crate) fn gossip(s: &GossipStats, view: &NetdbView) -> GossipSample {
    let members =
        |state: MemberState| view.members.values().filter(|m| m.state == state).count() as u64;
    let entries = [Table::Node, Table::Endpoint, Table::Load]
        .into_iter()
        .map(|table| view.entries(table).count() as u64)
        .sum();
    GossipSample {
        members: vec![
            ("alive", members(MemberState::Alive)),
            ("suspect", members(MemberState::Suspect)),
            ("down", members(MemberState::Down)),
            ("left", members(MemberState::Left)),
        ],
        events: vec![
            ("datagrams_sent", s.datagrams_out),
            ("datagrams_received", s.datagrams_in),
            ("syncs", s.streams),
            ("syncs_failed", s.streams_failed),
            ("send_errors", s.send_errors),
            ("malformed", s.malformed),
            ("unknown_key", s.unknown_key),
            ("forged", s.forged),
            ("refused", s.refused),
            ("stranger", s.strangers),
            ("lie", s.lies),
        ],
        entries,
    }
}
