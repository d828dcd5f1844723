//! Packets: those that were not delivered, and those that somebody watches.

use serde::{Deserialize, Serialize};

/// Parameters of the query of `weft drops`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropsQuery {
    /// One port only: endpoint name, `underlay`, `mesh`, or `earlier ports`.
    pub port: Option<String>,
}

/// `weft drops`: packets not delivered, by reason and by port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Drops {
    /// Sum over all ports and workers; reasons that never happened are left out.
    pub total: Vec<DropCount>,
    /// By port; ports without drops are left out.
    pub ports: Vec<PortDrops>,
}

/// A reason and how often it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DropCount {
    /// Short name, as in the metrics.
    pub reason: String,
    /// One sentence.
    pub help: String,
    /// Packets.
    pub packets: u64,
}

/// Drops of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortDrops {
    /// Endpoint name, `underlay`, `mesh`, or `earlier ports`: the sum of those that are gone.
    pub port: String,
    /// Reasons with counts.
    pub drops: Vec<DropCount>,
}

/// `weft capture`: which frames, as parameters of the query. Every one may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureQuery {
    /// Endpoint name, `underlay`, or `mesh`.
    pub port: Option<String>,
    /// One direction only.
    pub dir: Option<CaptureDir>,
    /// The stream ends after so many frames.
    pub count: Option<u64>,
    /// Bytes kept of each frame, at most.
    pub snaplen: Option<u32>,
}

/// Direction of a frame, seen from its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDir {
    /// Into the sandbox.
    In,
    /// Out of it, and on its way.
    Out,
    /// Dropped.
    Drop,
}

impl CaptureDir {
    /// As in the query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Drop => "drop",
        }
    }
}
