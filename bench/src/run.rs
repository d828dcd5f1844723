//! One run of a test: what was brought, how fast, and at what cost.

use serde_json::{Value, json};

use crate::figures::{P50, P90, P99, P99_9, QUANTILES};
use crate::usage::Usage;

/// Microseconds at each of [`QUANTILES`].
pub(crate) type Latency = [f64; QUANTILES.len()];

/// What one run cost and brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Run {
    /// Bits, datagrams or round trips per second, as the test has it.
    pub(crate) rate: f64,
    /// Bytes of data delivered.
    pub(crate) bytes: f64,
    /// Datagrams delivered, or round trips; zero for streams.
    pub(crate) count: f64,
    /// Share of datagrams or requests that were lost.
    pub(crate) lost: f64,
    /// Times of round trips.
    pub(crate) latency: Option<Latency>,
    /// Wall time in seconds.
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
    /// Memory in RAM of the biggest agent afterwards, in bytes; zero where there is none. Of a
    /// balancer: of all its processes.
    pub(crate) resident: f64,
    /// CPU seconds of agents that carry packets for a balancer that is not theirs.
    pub(crate) overlay: f64,
    /// What only tests of its kind tell.
    pub(crate) more: Vec<Figure>,
}

/// One more figure of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

impl Run {
    /// Everything, for `--format json`.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "Rate": self.rate,
            "Bytes": self.bytes,
            "Count": self.count,
            "LossPercent": self.lost * 100.0,
            "Seconds": self.seconds,
            "AgentCPUSeconds": self.usage.agents,
            "MachineCPUSeconds": self.usage.machine,
            "GeneratorUserCPUSeconds": self.usage.generator_user,
            "GeneratorSystemCPUSeconds": self.usage.generator_system,
            "AgentContextSwitches": self.usage.switches,
            "AgentResidentBytes": self.resident,
        });
        for figure in &self.more {
            value["More"][figure.name] = json!(figure.value);
        }
        if self.overlay > 0.0 {
            value["OverlayCPUSeconds"] = json!(self.overlay);
        }
        if let Some(times) = &self.latency {
            value["Latency"] = json!({
                "P50": times[P50],
                "P90": times[P90],
                "P99": times[P99],
                "P99.9": times[P99_9],
            });
            value["Quantiles"] = QUANTILES
                .iter()
                .zip(times)
                .map(|(share, time)| json!([share, time]))
                .collect();
        }
        value
    }
}

/// What the figures of a test's runs mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meaning {
    /// Unit of the rate.
    pub(crate) unit: &'static str,
    /// What costs are shown for.
    pub(crate) per: &'static str,
    /// How much of it a run did.
    pub(crate) amount: fn(&Run) -> f64,
    pub(crate) carrier: Carrier,
}

/// Whose costs are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Those of agents, or of the kernel, between two sandboxes.
    Overlay,
    /// Those of a balancer, apart from those of the overlay behind it.
    Balancer,
}
