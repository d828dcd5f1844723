//! What is told of connections that are carried past their table: [`FlowTable::carry`] lets somebody do
//! that.
//!
//! [`FlowTable::carry`]: crate::FlowTable::carry

use weft_wire::{FiveTuple, Vni};

use crate::flow::Flow;

/// Both directions of a connection to a virtual address, each as its sender sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carriage {
    /// Network of both ends.
    pub vni: Vni,
    /// Client to service.
    pub request: FiveTuple,
    /// Replica to client.
    pub answer: FiveTuple,
}

impl Carriage {
    pub(crate) const fn of(flow: &Flow) -> Self {
        Self {
            vni: flow.origin.vni(),
            request: flow.forward.tuple,
            answer: flow.reverse.tuple,
        }
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
            self.0.push(Carriage::of(flow));
        }
        carried
    }

    /// The next one.
    pub(crate) fn pop(&mut self) -> Option<Carriage> {
        self.0.pop()
    }
}
