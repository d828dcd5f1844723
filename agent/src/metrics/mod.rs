//! Counters of the node as OpenMetrics text.
//!
//! Nothing is counted here: every scrape asks a [`MetricsSource`] for one [`Sample`], so the
//! packet path pays nothing for being observed. Names start with `weft_`; counters end with
//! `_total`.

mod collect;
mod families;
mod replicas;
mod sample;

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;

pub(crate) use sample::{
    DnsSample, FastPathSample, GossipSample, MeshPortSample, MeshReplicaSample, MetricsSource,
    PortSample, Sample, UnreachableCounters, WorkerEvents, WorkerSample,
};

/// All metrics of one node.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Metrics that are read from `source` at each scrape.
    pub(crate) fn new(source: Arc<dyn MetricsSource>) -> Self {
        let mut registry = Registry::with_prefix("weft");
        registry.register_collector(Box::new(collect::Reader(source)));
        Self { registry }
    }

    /// OpenMetrics text, with the closing `# EOF`.
    ///
    /// # Errors
    /// Never in practice: text is written to memory.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
pub(crate) mod tests;
