//! What is told of connections that are carried past their table: [`FlowTable::carry`] lets somebody do
//! that.
//!
//! [`FlowTable::carry`]: crate::FlowTable::carry

use weft_wire::{FiveTuple, Mac, Vni};

use crate::flow::{Flow, FlowKind, Origin};

/// Where the ends of a connection are that is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CarriageKind {
    /// A sandbox of this node has connected to a virtual address.
    Virtual,
    /// A client outside has connected to a published port of this node.
    Published,
    /// A client outside has connected to a published port of another node; the replica is here.
    Return,
}

impl CarriageKind {
    /// None where a frame has more than one end to rewrite, or is another worker's.
    pub(crate) const fn of(flow: &Flow) -> Option<Self> {
        match (flow.kind, flow.origin) {
            (FlowKind::Owned, Origin::Port { .. }) => Some(Self::Virtual),
            (
                FlowKind::Owned,
                Origin::Mesh {
                    keeps_client: true, ..
                },
            ) => Some(Self::Published),
            (FlowKind::Return, _) => Some(Self::Return),
            (FlowKind::Owned | FlowKind::Guest { .. }, _) => None,
        }
    }
}

/// Both directions of a connection, each as its sender sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carriage {
    /// Where its ends are.
    pub kind: CarriageKind,
    /// Network that its replica is on.
    pub vni: Vni,
    /// Client to service; where the service is another node's, to the replica.
    pub request: FiveTuple,
    /// Replica to client.
    pub answer: FiveTuple,
    /// Ethernet addresses of what the replica gets: destination and source.
    pub to_replica: [Mac; 2],
    /// Those of what goes back, to the client or to the node that it came through.
    pub to_client: [Mac; 2],
}

impl Carriage {
    /// None of a flow that nobody may carry.
    pub(crate) fn of(flow: &Flow) -> Option<Self> {
        let from = match flow.origin {
            Origin::Port { .. } => flow.client_mac,
            Origin::Mesh { node_mac, .. } => node_mac,
        };
        Some(Self {
            kind: CarriageKind::of(flow)?,
            vni: flow.origin.vni(),
            request: flow.forward.tuple,
            answer: flow.reverse.tuple,
            to_replica: [flow.replica_mac, from],
            to_client: [flow.client_mac, flow.service_mac],
        })
    }
}

/// Who has to be told that a connection may not be carried any more. One is there once at most until
/// somebody may carry it again, so they are no more than flows.
#[derive(Debug, Default)]
pub(crate) struct Ended(Vec<Carriage>);

impl Ended {
    /// A flow is another one, or over. Whether somebody carried it and was not told yet.
    pub(crate) fn note(&mut self, flow: &mut Flow) -> bool {
        let carried = std::mem::take(&mut flow.carried);
        if carried {
            self.0.extend(Carriage::of(flow));
        }
        carried
    }

    /// The next one.
    pub(crate) fn pop(&mut self) -> Option<Carriage> {
        self.0.pop()
    }
}
