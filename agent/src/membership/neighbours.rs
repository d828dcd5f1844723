//! The other nodes of the swarm, for the exchange of images: who answers, where, and who is a member.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use weft_model::id::NodeId;
use weft_swarm::Identity;

use crate::images::{Circle, Peer, port};
use crate::parts::handles::Handles;

/// Subject of the warning.
const SUBJECT: &str = "images";

/// What the membership knows of the others.
pub(super) struct Neighbours {
    // The images are a part of them.
    handles: Weak<Handles>,
    node: NodeId,
    source: IpAddr,
    /// Until the handles are gone.
    first: Arc<Identity>,
}

impl Neighbours {
    /// From now on images are exchanged with the others, until [`crate::images::Images::part`].
    pub(super) fn meet(handles: &Arc<Handles>) {
        let home = &handles.membership.node;
        let circle = Arc::new(Self {
            handles: Arc::downgrade(handles),
            node: handles.node_id.clone(),
            source: home.addr,
            first: handles.session.identity(),
        });
        let listen = port(home.gossip_port).map(|port| SocketAddr::new(home.addr, port));
        match handles.images.join(circle, listen) {
            Ok(()) => handles.warnings.clear(SUBJECT),
            Err(error) => handles.warnings.set(SUBJECT, format!("{error:#}")),
        }
    }
}

impl Circle for Neighbours {
    fn identity(&self) -> Arc<Identity> {
        let handles = self.handles.upgrade();
        handles.map_or_else(
            || Arc::clone(&self.first),
            |handles| handles.session.identity(),
        )
    }

    fn node(&self) -> NodeId {
        self.node.clone()
    }

    fn source(&self) -> IpAddr {
        self.source
    }

    fn peers(&self) -> Vec<Peer> {
        let Some(handles) = self.handles.upgrade() else {
            return Vec::new();
        };
        let Some(orders) = handles.session.assignments().borrow().clone() else {
            return Vec::new();
        };
        let data_path = handles.data_path.load_full();
        let view = data_path.map(|data_path| data_path.gossip.view().borrow().clone());
        // Where gossip does not run yet everybody may be there.
        let is_up = |node: &NodeId| {
            let member = view.as_ref().map(|view| view.members.get(node));
            member.is_none_or(|member| member.is_some_and(|member| member.state.is_active()))
        };
        let others = orders
            .shared
            .nodes
            .iter()
            .filter(|node| node.id != self.node);
        let others = others.filter(|node| !node.addr.is_unspecified() && is_up(&node.id));
        let peers = others.filter_map(|node| {
            Some(Peer {
                node: node.id.clone(),
                addr: SocketAddr::new(node.addr, port(node.gossip_port)?),
            })
        });
        peers.collect()
    }

    fn is_member(&self, node: &NodeId) -> bool {
        let Some(handles) = self.handles.upgrade() else {
            return false;
        };
        let orders = handles.session.assignments().borrow().clone();
        orders.is_some_and(|orders| {
            let by_id = |other: &weft_model::assignment::NodeView| other.id.cmp(node);
            // In the order of their ids.
            orders.shared.nodes.binary_search_by(by_id).is_ok()
        })
    }
}
