//! From a [`Sample`] to OpenMetrics families.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use weft_mesh::ProbeCounters;
use weft_swarm::door::DoorSample;

use super::families::{connect_time, counter, gauge, plain, total};
use super::replicas;
use super::sample::{
    FastPathSample, MeshPortSample, MetricsSource, PortSample, Sample, UnreachableCounters,
    WorkerEvents,
};

/// Reads the source at each scrape.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Arc<dyn MetricsSource>);

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = self.0.sample();
        let out = &mut encoder;
        encode_ports(out, &sample.ports)?;
        encode_workers(out, &sample)?;
        encode_fast_path(out, &sample.fast_path)?;
        encode_mesh(out, &sample.mesh_ports)?;
        replicas::encode(out, &sample)?;
        encode_probes(out, sample.probes)?;
        encode_unreachable(out, sample.unreachable)?;
        encode_dns(out, &sample)?;
        encode_gossip(out, &sample)?;
        encode_doors(out, &sample.doors)?;
        plain(
            out,
            "snapshot_epoch",
            "Epoch of the tables that workers forward by",
            sample.epoch,
        )?;
        plain(
            out,
            "session_connected",
            "1 while the session to a manager is open",
            u64::from(sample.session_connected),
        )?;
        let refused = sample.refused_orders.iter();
        counter(
            out,
            "session_refused_orders",
            "Messages of orders that this node refused, by why",
            refused.map(|(why, count)| ([("kind", *why)], *count)),
        )
    }
}

type Value<'a> = fn(&'a PortSample) -> u64;
type MeshValue = fn(&MeshPortSample) -> u64;

fn encode_ports<'a>(out: &mut DescriptorEncoder<'_>, ports: &'a [PortSample]) -> fmt::Result {
    let families: [(&str, &str, Value<'a>); 4] = [
        ("port_rx_packets", "Packets taken from a port", |p| {
            p.rx_packets
        }),
        ("port_rx_bytes", "Bytes taken from a port", |p| p.rx_bytes),
        ("port_tx_packets", "Packets given to a port", |p| {
            p.tx_packets
        }),
        ("port_tx_bytes", "Bytes given to a port", |p| p.tx_bytes),
    ];
    for (name, help, value) in families {
        counter(
            out,
            name,
            help,
            ports.iter().map(|p| {
                let labels = [("port", p.port.as_str()), ("network", p.network.as_str())];
                (labels, value(p))
            }),
        )?;
    }
    counter(
        out,
        "dropped_packets",
        "Packets that were not delivered, by port and reason",
        ports.iter().flat_map(|p| {
            p.drops.iter().map(|(reason, packets)| {
                let labels = [
                    ("port", p.port.as_str()),
                    ("network", p.network.as_str()),
                    ("reason", reason.name()),
                ];
                (labels, *packets)
            })
        }),
    )
}

fn encode_workers(out: &mut DescriptorEncoder<'_>, sample: &Sample) -> fmt::Result {
    gauge(
        out,
        "flows_active",
        "Entries in the flow table of a worker",
        sample
            .workers
            .iter()
            .enumerate()
            .map(|(i, worker)| ([("worker", i.to_string())], worker.flows_active)),
    )?;
    let events = |w: &WorkerEvents| {
        [
            ("created", w.flows_created),
            ("retried", w.flows_retried),
            ("refused", w.flows_refused),
            ("expired", w.flows_expired),
            ("evicted_closed", w.flows_evicted_closed),
            ("evicted_handshakes", w.flows_evicted_handshakes),
            ("evicted_datagrams", w.flows_evicted_datagrams),
            ("evicted_open", w.flows_evicted_open),
            ("evicted_guests", w.flows_evicted_guests),
            ("full", w.flows_full),
            ("lost_replica", w.flows_lost_replica),
            ("held", w.flows_held),
            ("held_refused", w.flows_held_refused),
        ]
    };
    let workers = || sample.worker_events.iter().enumerate();
    counter(
        out,
        "flow_events",
        "What happened to the flows of a worker, by kind",
        workers().flat_map(|(i, worker)| {
            let series = move |(event, n): (&str, u64)| {
                let labels = [("worker", i.to_string()), ("event", event.to_owned())];
                (labels, n)
            };
            events(worker).map(series)
        }),
    )?;
    counter(
        out,
        "unsegmented_sends",
        "Segmented sends that the kernel refused, sent again one by one",
        workers().map(|(i, worker)| ([("worker", i.to_string())], worker.unsegmented)),
    )?;
    counter(
        out,
        "tunnel_offloads",
        "Super-frames that the kernel segments together with their tunnel headers",
        workers().map(|(i, worker)| ([("worker", i.to_string())], worker.injected)),
    )?;
    counter(
        out,
        "overlay_pings_answered",
        "Packets of other nodes' weft ping and weft doctor that were answered",
        workers().map(|(i, worker)| ([("worker", i.to_string())], worker.loopbacks_answered)),
    )
}

fn encode_fast_path(out: &mut DescriptorEncoder<'_>, sample: &FastPathSample) -> fmt::Result {
    let events = sample.events.iter();
    counter(
        out,
        "fast_path_events",
        "What happened to packets of flows that the kernel's flow cache knew; a super-frame counts once",
        events.map(|(event, n)| ([("event", *event)], *n)),
    )?;
    plain(
        out,
        "fast_path_flows",
        "Flows in the kernel's flow cache",
        sample.flows,
    )?;
    total(
        out,
        "fast_path_entries",
        "Times that a flow was entered into the kernel's flow cache, or entered anew",
        sample.entries,
    )
}

/// A published port, with those of its labels that are no texts yet.
struct Labelled<'a> {
    port: &'a MeshPortSample,
    published: String,
    protocol: String,
    host_ip: String,
}

impl<'a> Labelled<'a> {
    fn of(port: &'a MeshPortSample) -> Self {
        let host_ip = port.host_ip;
        Self {
            published: port.published.to_string(),
            protocol: port.protocol.to_string(),
            host_ip: host_ip.map_or_else(String::new, |ip| ip.to_string()),
            port,
        }
    }

    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            ("service", self.port.service.as_str()),
            ("published", self.published.as_str()),
            ("protocol", self.protocol.as_str()),
            ("host_ip", self.host_ip.as_str()),
        ]
    }
}

fn encode_mesh(out: &mut DescriptorEncoder<'_>, ports: &[MeshPortSample]) -> fmt::Result {
    let ports: Vec<Labelled<'_>> = ports.iter().map(Labelled::of).collect();
    let ports = || ports.iter().map(|p| (p.labels(), p.port));
    let counters: [(&str, &str, MeshValue); 5] = [
        (
            "mesh_accepted_connections",
            "Connections accepted on a published port",
            |p| p.accepted,
        ),
        (
            "mesh_failed_connections",
            "Connections that found no replica",
            |p| p.failed,
        ),
        (
            "mesh_retried_connections",
            "Times that a connection went on to another replica",
            |p| p.retried,
        ),
        ("mesh_rx_bytes", "Bytes from clients to replicas", |p| {
            p.rx_bytes
        }),
        ("mesh_tx_bytes", "Bytes from replicas to clients", |p| {
            p.tx_bytes
        }),
    ];
    for (name, help, value) in counters {
        counter(
            out,
            name,
            help,
            ports().map(|(labels, p)| (labels, value(p))),
        )?;
    }
    gauge(
        out,
        "mesh_open_connections",
        "Connections open on a published port",
        ports().map(|(labels, p)| (labels, p.open)),
    )?;
    connect_time(
        out,
        ("mesh_connects", "mesh_connect_seconds"),
        ports().map(|(labels, p)| (labels, p.connect)),
    )?;
    gauge(
        out,
        "mesh_ejected_replicas",
        "Replicas of a published port that this node leaves out after failures",
        ports().map(|(labels, p)| (labels, p.ejected)),
    )?;
    gauge(
        out,
        "mesh_healthy_replicas",
        "Replicas of a published port that take new connections",
        ports().map(|(labels, p)| (labels, p.healthy)),
    )?;
    gauge(
        out,
        "mesh_port_open",
        "1 while the node has the published port, 0 while somebody else holds it",
        ports().map(|(labels, p)| (labels, p.accepted_here.into())),
    )
}

fn encode_probes(out: &mut DescriptorEncoder<'_>, probes: ProbeCounters) -> fmt::Result {
    counter(
        out,
        "mesh_probes",
        "Probes of replicas that were left out: sent, and what came of them",
        [
            ("sent", probes.sent),
            ("passed", probes.passed),
            ("refused", probes.refused),
            ("silent", probes.silent),
        ]
        .map(|(outcome, n)| ([("outcome", outcome)], n)),
    )
}

fn encode_unreachable(
    out: &mut DescriptorEncoder<'_>,
    messages: UnreachableCounters,
) -> fmt::Result {
    counter(
        out,
        "mesh_unreachable_messages",
        "Messages to clients whose datagram to a published port was refused: sent, held back by the limit of a second, or not sent by the kernel",
        [
            ("sent", messages.sent),
            ("held_back", messages.held_back),
            ("failed", messages.failed),
        ]
        .map(|(outcome, n)| ([("outcome", outcome)], n)),
    )
}

fn encode_dns(out: &mut DescriptorEncoder<'_>, sample: &Sample) -> fmt::Result {
    counter(
        out,
        "dns_queries",
        "DNS queries of sandboxes, by outcome",
        sample
            .dns
            .queries
            .iter()
            .map(|(outcome, n)| ([("outcome", *outcome)], *n)),
    )?;
    plain(
        out,
        "dns_cached",
        "Replies from outside in the DNS cache",
        sample.dns.cached,
    )
}

fn encode_gossip(out: &mut DescriptorEncoder<'_>, sample: &Sample) -> fmt::Result {
    gauge(
        out,
        "gossip_members",
        "Members that gossip knows, by state",
        sample
            .gossip
            .members
            .iter()
            .map(|(state, n)| ([("state", *state)], *n)),
    )?;
    counter(
        out,
        "gossip_events",
        "Gossip events, by kind",
        sample
            .gossip
            .events
            .iter()
            .map(|(event, n)| ([("event", *event)], *n)),
    )?;
    plain(
        out,
        "gossip_entries",
        "Table entries that are visible",
        sample.gossip.entries,
    )?;
    plain(
        out,
        "gossip_undecodable_entries",
        "Table entries that are visible but cannot be decoded",
        sample.gossip_undecodable,
    )
}

fn encode_doors(out: &mut DescriptorEncoder<'_>, doors: &[DoorSample]) -> fmt::Result {
    let each = |figures: fn(&DoorSample) -> &[(&'static str, u64)], label: &'static str| {
        doors.iter().flat_map(move |door| {
            let figures = figures(door).iter();
            figures.map(move |(kind, n)| ([("door", door.door), (label, *kind)], *n))
        })
    };
    counter(
        out,
        "door_events",
        "Connections and calls at the TCP ports for other nodes, by what happened to them",
        each(|door| &door.events, "event"),
    )?;
    gauge(
        out,
        "door_open_connections",
        "Connections open at the TCP ports for other nodes, by whose they are",
        each(|door| &door.open, "kind"),
    )
}
