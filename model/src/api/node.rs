//! Calls about nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::objects::{Availability, Node, Role};

/// A row of `weft node ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeRow {
    /// The node. Its part as a manager says who leads and who answers, as the manager that answers
    /// knows.
    #[serde(flatten)]
    pub node: Node,
    /// True for the node that answers.
    #[serde(rename = "Self")]
    pub is_self: bool,
    /// Whom its gossip sees, as it said with its last heartbeat; absent where it has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<NodeSight>,
    /// Whether its certificate is of the root that makes them now.
    #[serde(default, rename = "TLSStatus")]
    pub tls: TlsStatus,
    /// A second machine has shown the node's identity in the last half minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<NodeClone>,
}

/// Whose certificate a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsStatus {
    /// It has not opened a session yet.
    #[default]
    Unknown,
    /// Of the root that makes them now.
    Ready,
    /// Of one that is being replaced.
    NeedsRotation,
}

/// Two machines with one identity: a data directory was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeClone {
    /// Address of the one with the session.
    pub first: IpAddr,
    /// Address of the one that was refused.
    pub second: IpAddr,
}

/// Whom the gossip of a node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeSight {
    /// Other members.
    pub others: u32,
    /// How many of them it sees.
    pub seen: u32,
    /// Names of those that it does not see; not all, where they are very many.
    pub unseen: Vec<String>,
}

/// `weft node rm`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NodeRemove {
    /// Also a node that is not down.
    #[serde(default)]
    pub force: bool,
}

/// `weft node update`, `promote` and `demote`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NodeUpdate {
    /// Whether the scheduler may use the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// What it is in the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Becomes a worker also where the managers that stay are no quorum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Where others reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise_addr: Option<IpAddr>,
    /// Labels that it has from now on, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_add: BTreeMap<String, String>,
    /// Keys of labels that it has no more; added ones are added before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_rm: Vec<String>,
}

/// Answer to [`NodeUpdate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeUpdated {
    /// The node, as it is now.
    #[serde(flatten)]
    pub node: Node,
    /// What a person should know of the change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
