//! Families of series, as prometheus-client writes them.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use weft_model::api::ConnectTime;

/// Two counters whose quotient is the mean: how many, and how long all of them took.
pub(super) fn connect_time<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    (count, seconds): (&str, &str),
    series: impl Iterator<Item = (L, ConnectTime)> + Clone,
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
        ConstCounter::new(Duration::from_micros(us).as_secs_f64())
    })
}

pub(super) fn counter<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, u64)>,
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

pub(super) fn gauge<L: EncodeLabelSet>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    family(out, name, help, MetricType::Gauge, series, ConstGauge::new)
}

/// A gauge of the node as a whole, without labels.
pub(super) fn plain(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let encoder = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(encoder)
}

/// A counter of the node as a whole, without labels.
pub(super) fn total(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let encoder = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(encoder)
}

fn family<L: EncodeLabelSet, M: EncodeMetric>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: impl IntoIterator<Item = (L, u64)>,
    metric: impl Fn(u64) -> M,
) -> fmt::Result {
    let mut encoder = out.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        metric(value).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
