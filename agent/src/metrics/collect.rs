//! From a [`Sample`] to OpenMetrics families.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use weft_mesh::ProbeCounters;
use weft_model::api::ConnectTime;
use weft_swarm::door::DoorSample;

use super::sample::{
    MeshPortSample, MeshReplicaSample, MetricsSource, PortSample, Sample, UnreachableCounters,
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
        encode_mesh(out, &sample.mesh_ports)?;
        encode_replicas(out, &sample.mesh_replicas)?;
        encode_probes(out, sample.probes)?;
        encode_unreachable(out, sample.unreachable)?;
        encode_dns(out, &sample)?;
        encode_gossip(out, &sample)?;
        encode_doors(out, &sample.doors)?;
        gauge(
            out,
            "snapshot_epoch",
            "Epoch of the tables that workers forward by",
            [(NO_LABELS, sample.epoch)],
        )?;
        gauge(
            out,
            "session_connected",
            "1 while the session to a manager is open",
            [(NO_LABELS, u64::from(sample.session_connected))],
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

const NO_LABELS: [(&str, &str); 0] = [];

type Value<'a> = fn(&'a PortSample) -> u64;
type MeshValue = fn(&MeshPortSample) -> u64;
type ReplicaValue = fn(&MeshReplicaSample) -> u64;

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

/// A node knows every replica of the cluster and uses few of them: the others have their health alone.
fn encode_replicas(out: &mut DescriptorEncoder<'_>, replicas: &[MeshReplicaSample]) -> fmt::Result {
    let all = || replicas.iter().map(|r| (replica_labels(r), r));
    let used: Vec<&MeshReplicaSample> = replicas.iter().filter(|r| r.was_used()).collect();
    let used = || used.iter().map(|r| (replica_labels(r), *r));
    let counters: [(&str, &str, ReplicaValue); 5] = [
        (
            "replica_accepted_connections",
            "Connections of this node that the replica answered",
            |r| r.accepted,
        ),
        (
            "replica_refused_connections",
            "Connections of this node that the replica refused or left unanswered",
            |r| r.refused,
        ),
        (
            "replica_retried_connections",
            "Those of the refused connections that went on to another replica",
            |r| r.retried,
        ),
        (
            "replica_rx_bytes",
            "Bytes from clients of this node to the replica",
            |r| r.rx_bytes,
        ),
        (
            "replica_tx_bytes",
            "Bytes from the replica to clients of this node",
            |r| r.tx_bytes,
        ),
    ];
    for (name, help, value) in counters {
        let series = used().map(|(labels, r)| (labels, value(r)));
        counter(out, name, help, series)?;
    }
    connect_time(
        out,
        ("replica_connects", "replica_connect_seconds"),
        used().map(|(labels, r)| (labels, r.connect)),
    )?;
    gauge(
        out,
        "replica_open_connections",
        "Connections open from this node to the replica",
        all()
            .filter(|(_, r)| r.open > 0 || r.was_used())
            .map(|(labels, r)| (labels, r.open)),
    )?;
    gauge(
        out,
        "replica_healthy",
        "1 while the replica takes new connections",
        all().map(|(labels, r)| (labels, r.healthy.into())),
    )?;
    gauge(
        out,
        "replica_ejected",
        "1 while this node leaves the replica out after failures",
        used().map(|(labels, r)| (labels, r.ejected.into())),
    )?;
    counter(
        out,
        "replica_ejections",
        "Times that this node left the replica out",
        used().map(|(labels, r)| (labels, r.ejections)),
    )
}

fn replica_labels(replica: &MeshReplicaSample) -> [(&'static str, &str); 4] {
    [
        ("service", replica.service.as_str()),
        ("replica", replica.replica.as_str()),
        ("node", replica.node.as_str()),
        ("network", replica.network.as_str()),
    ]
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
    gauge(
        out,
        "dns_cached",
        "Replies from outside in the DNS cache",
        [(NO_LABELS, sample.dns.cached)],
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
    gauge(
        out,
        "gossip_entries",
        "Table entries that are visible",
        [(NO_LABELS, sample.gossip.entries)],
    )?;
    gauge(
        out,
        "gossip_undecodable_entries",
        "Table entries that are visible but cannot be decoded",
        [(NO_LABELS, sample.gossip_undecodable)],
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

/// Two counters whose quotient is the mean: how many, and how long all of them took.
fn connect_time<L: AsRef<str>, const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    (count, seconds): (&str, &str),
    series: impl Iterator<Item = ([(&'static str, L); N], ConnectTime)> + Clone,
) -> fmt::Result {
    counter(
        out,
        count,
        "Connections that a replica answered, whose time is in the seconds",
        series.clone().map(|(labels, time)| (labels, time.count)),
    )?;
    let help = "Seconds from the SYN to the replica's answer, over all connections";
    let series = series.map(|(labels, time)| (labels, time.total_us));
    family(out, seconds, help, MetricType::Counter, series, |us| {
        ConstCounter::new(std::time::Duration::from_micros(us).as_secs_f64())
    })
}

fn counter<L: AsRef<str>, const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = ([(&'static str, L); N], u64)>,
) -> fmt::Result {
    family(
        out,
        name,
        help,
        MetricType::Counter,
        series,
        ConstCounter::new,
    )
}

fn gauge<L: AsRef<str>, const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = ([(&'static str, L); N], u64)>,
) -> fmt::Result {
    family(out, name, help, MetricType::Gauge, series, ConstGauge::new)
}

fn family<L: AsRef<str>, M: EncodeMetric, const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl IntoIterator<Item = ([(&'static str, L); N], u64)>,
    metric: impl Fn(u64) -> M,
) -> fmt::Result {
    let mut encoder = out.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        let metric = metric(value);
        if N == 0 {
            return metric.encode(encoder);
        }
        let labels = labels.each_ref().map(|(key, text)| (*key, text.as_ref()));
        metric.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
