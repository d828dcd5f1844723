//! Whether packets pass, and whether all is as it should be.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Parameters of the query of `weft ping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingQuery {
    /// Bytes of the packet, without Ethernet and tunnel headers; as many as the way carries when
    /// absent.
    pub size: Option<u16>,
    /// How long its answer is waited for, in milliseconds; one second when absent.
    pub timeout_ms: Option<u64>,
}

/// `weft ping`: what came of one packet on the data path to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pong {
    /// Host name of the other node.
    pub node: String,
    /// This node's end of the data path.
    pub from: IpAddr,
    /// The other's.
    pub to: IpAddr,
    /// UDP port of the data path.
    pub port: u16,
    /// Bytes of the packet.
    pub size: u16,
    /// How long the answer took, in microseconds; absent when there was none.
    pub rtt_us: Option<u64>,
    /// Whether packets of this size arrive at the other node.
    pub there: Passage,
    /// Whether its own of this size arrive here.
    pub back: Passage,
}

/// Whether packets pass in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// They do.
    Passes,
    /// They do not.
    Lost,
    /// Nobody can tell: the other direction is closed.
    Unknown,
}

/// One line of `weft doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub next: String,
}

/// Outcome of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, but slower or with less than it could.
    Warn,
    /// Does not work.
    Fail,
}
