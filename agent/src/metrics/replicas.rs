//! What a node counts of each replica. It knows every replica of the cluster and uses few of them: the
//! others have their health alone.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelKey, EncodeLabelSet, LabelSetEncoder,
};
use prometheus_client::registry::Registry;

use super::families::{connect_time, counter, gauge};
use super::sample::{MeshReplicaSample, Sample};

type ReplicaValue = fn(&MeshReplicaSample) -> u64;

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, sample: &Arc<Sample>) -> fmt::Result {
    let all = || sample.mesh_replicas.iter().map(|r| (labels_of(r), r));
    let text = written_labels(sample)?;
    let labels = text.lines().filter_map(|line| {
        let (_, labels) = line.split_once('{')?;
        Some(Written(labels.rsplit_once('}')?.0))
    });
    let used: Vec<(Written<'_>, &MeshReplicaSample)> = labels.zip(used(sample)).collect();
    let used = || used.iter().copied();
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

fn labels_of(replica: &MeshReplicaSample) -> [(&'static str, &str); 4] {
    [
        ("service", replica.service.as_str()),
        ("replica", replica.replica.as_str()),
        ("node", replica.node.as_str()),
        ("network", replica.network.as_str()),
    ]
}

fn used(sample: &Sample) -> impl Iterator<Item = &MeshReplicaSample> {
    sample.mesh_replicas.iter().filter(|r| r.was_used())
}

/// Labels that are written already: ten series of a replica have the same, and to write them is most
/// of what a series costs.
#[derive(Clone, Copy)]
struct Written<'a>(&'a str);

impl EncodeLabelSet for Written<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut label = encoder.encode_label();
        // Keys are written as they are, and no value has to follow.
        let mut key = label.encode_label_key()?;
        EncodeLabelKey::encode(&self.0, &mut key)
    }
}

/// One series for each replica that was used: the library writes their labels once.
#[derive(Debug)]
struct Used(Arc<Sample>);

impl Collector for Used {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let series = used(&self.0).map(|r| (labels_of(r), 0));
        gauge(&mut encoder, "used", "Has labels", series)
    }
}

fn written_labels(sample: &Arc<Sample>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Used(Arc::clone(sample))));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(text)
}
