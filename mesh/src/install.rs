//! What workers tell each other of flows whose two directions they read apart.

use std::net::IpAddr;

use weft_wire::{Instant, Vni};

use crate::flow::{Flow, FlowKind, Macs, Origin, ReplicaSide};
use crate::key::Key;

/// What the worker that reads a local replica's frames needs to rewrite them without a hop.
///
/// Put it into that worker's queue *before* the frame that it came with is delivered. Where that
/// worker is the one that made it, there is nothing to do.
#[derive(Clone, Copy, Debug)]
pub struct Install {
    owner: u16,
    forward: Key,
    pub(crate) reverse: Key,
    origin: Origin,
    macs: Macs,
    replica_key: u64,
    serial: u64,
}

impl Install {
    /// Network of the replica.
    #[must_use]
    pub const fn vni(&self) -> Vni {
        self.origin.vni()
    }

    /// Address of the replica: with the network it says which worker reads its frames.
    #[must_use]
    pub const fn replica_ip(&self) -> IpAddr {
        self.reverse.tuple.src
    }

    /// Worker that owns the flow.
    #[must_use]
    pub const fn owner(&self) -> u16 {
        self.owner
    }

    /// What another worker needs of a flow that worker `owner` has; nothing where the replica is on
    /// another node.
    pub(crate) fn of(flow: &Flow, owner: u16) -> Option<Self> {
        flow.replica_local.then_some(Self {
            owner,
            forward: flow.forward,
            reverse: flow.reverse,
            origin: flow.origin,
            macs: Macs {
                client: flow.client_mac,
                service: flow.service_mac,
                replica: flow.replica_mac,
            },
            replica_key: flow.replica_key,
            serial: flow.serial,
        })
    }

    /// The entry, in the table of that worker.
    pub(crate) fn into_flow(self, now: Instant) -> Flow {
        let kind = FlowKind::Guest { owner: self.owner };
        let reverse = ReplicaSide {
            key: self.reverse,
            claimed: false,
        };
        let mut flow = Flow::new(kind, self.origin, self.forward, reverse, self.macs, now);
        flow.replica_key = self.replica_key;
        flow.serial = self.serial;
        flow
    }
}

/// Takes an [`Install`] back. Must reach the same worker, at any time after it.
#[derive(Clone, Copy, Debug)]
pub struct Removal {
    owner: u16,
    pub(crate) reverse: Key,
    serial: u64,
}

impl Removal {
    /// What takes back what [`Install::of`] gives.
    pub(crate) fn of(flow: &Flow, owner: u16) -> Option<Self> {
        flow.replica_local.then_some(Self {
            owner,
            reverse: flow.reverse,
            serial: flow.serial,
        })
    }

    /// Whether a flow is the entry that it is about.
    pub(crate) fn is_of(&self, flow: &Flow) -> bool {
        let owner = self.owner;
        flow.serial == self.serial && flow.kind == FlowKind::Guest { owner }
    }

    /// Network of the replica.
    #[must_use]
    pub fn vni(&self) -> Option<Vni> {
        self.reverse.scope.vni()
    }

    /// Address of the replica.
    #[must_use]
    pub const fn replica_ip(&self) -> IpAddr {
        self.reverse.tuple.src
    }
}
