//! The other nodes of the cluster, as far as the exchange of images needs to know them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_model::id::NodeId;
use weft_swarm::Identity;

/// Where a node hands out contents of images: the TCP port after that of gossip. None where that is
/// the last one there is.
#[must_use]
pub(crate) fn port(gossip_port: u16) -> Option<u16> {
    gossip_port.checked_add(1)
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Which: nobody else is spoken to.
    pub(crate) node: NodeId,
    /// Where it hands out contents.
    pub(crate) addr: SocketAddr,
}

/// Who the others are. The membership knows.
pub(crate) trait Circle: Send + Sync {
    /// This node's certificates, the newest.
    fn identity(&self) -> Arc<Identity>;

    /// This node.
    fn node(&self) -> NodeId;

    /// The address that others know this node by.
    fn source(&self) -> IpAddr;

    /// Others that answer, as far as is known, without this node.
    fn peers(&self) -> Vec<Peer>;

    /// Whether that is a node of the cluster still: certificates of removed nodes count for a while.
    fn is_member(&self, node: &NodeId) -> bool;
}
