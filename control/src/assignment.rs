//! What a manager streams to a node: everything that the node needs to do its part, as one value.
//!
//! The node compares it with what it runs and repairs the difference (level-triggered), and keeps
//! the last one on disk so that a restart without managers changes nothing.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::objects::{Endpoint, Network, Node, Service, StaticPeer, Task};

/// The whole of a node's orders at one version of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Grows with every change.
    pub version: u64,
    /// Cluster id.
    pub cluster_id: String,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// The node itself.
    pub node: Node,
    /// Every node of the cluster (addresses for gossip and the data path).
    pub nodes: Vec<Node>,
    /// Every network.
    pub networks: Vec<Network>,
    /// Every service: names, VIPs and published ports are known on every node.
    pub services: Vec<Service>,
    /// Tasks of this node, wanted and not yet forgotten.
    pub tasks: Vec<Task>,
    /// Endpoints of this node made by `network connect`.
    pub endpoints: Vec<Endpoint>,
    /// Static peers of every network.
    pub peers: Vec<StaticPeer>,
    /// Gossip keys: the first seals, all open; the next one, and the one before, if any. Never
    /// logged.
    pub gossip_keys: Vec<GossipKey>,
}

impl Assignment {
    /// Id of the node that this is for.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.node.id
    }
}

/// A key of the gossip ring: 32 bytes for AES-256-GCM.
#[derive(
    Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop,
)]
pub struct GossipKey {
    /// Tells receivers which key sealed a message.
    pub epoch: u32,
    /// The key.
    pub key: [u8; 32],
    /// Since when it seals, in Unix milliseconds by the managers' clock; 0 while it never has.
    #[serde(default)]
    pub sealing_since: u64,
}

impl std::fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GossipKey {{ epoch: {}, .. }}", self.epoch)
    }
}
