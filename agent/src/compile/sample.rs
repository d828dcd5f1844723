//! What tests make orders of.

use std::net::IpAddr;

use weft_model::id::NodeId;
use weft_model::objects::{Description, Meta, Node, NodeSpec, NodeState, NodeStatus};

/// A worker that is ready, with one address for all.
pub(crate) fn node(id: NodeId, hostname: String, addr: IpAddr) -> Node {
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Description {
            hostname,
            ..Description::default()
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr,
            impaired: None,
        },
        manager_status: None,
        data_path_addr: addr,
        gossip_port: 7946,
        certified: 0,
        certified_by: String::new(),
        ingress_ip: None,
    }
}
