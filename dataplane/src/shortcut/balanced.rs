//! Flows to a virtual address: their frames are rewritten on the way, and the flow table has to know of
//! them what it would see if they came by.
//!
//! The table says which flows may have entries, and tells of each that may not any more, in the round
//! in which it ends ([`FlowTable::carry`], [`FlowTable::poll_ended`]):
//!
//! - closed or reset: such frames are never the kernel's. Datagrams end by silence alone, and their
//!   entries, after 30 s, long before the table's own time is up;
//! - evicted, or the port of the client is gone: the table says so itself;
//! - the replica is gone from the tables: where that is a change of the network, the entry is stale by
//!   its epoch; in any case it goes in the round of the sweep. The resets come one round later, as they
//!   need the sequence numbers that the kernel saw last;
//! - a replica that drains, or other weights: those are about new flows.
//!
//! Datagrams whose replica is gone move to another one with the next that the worker sees. That is the
//! next of all: the tables that the replica is missing from have another epoch, and by the sweep's round
//! the entries are deleted whatever that says.
//!
//! Where both ends are on this node, the client's worker has the entries of both, whoever reads the
//! replica's port.

use std::sync::Arc;

use weft_fastpath::{Record, Rewrite};
use weft_mesh::{Carried, Context, FlowTable};
use weft_vxlan::Destination;
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, Mac, Vni};

use crate::port::Port;

/// What is known of a flow to a virtual address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balanced {
    pub(super) vni: Vni,
    /// Client to service: so the flow table finds it.
    pub(super) request: FiveTuple,
    /// What leaves are the answers of a replica on this node.
    answers: bool,
    /// Headers of a frame, in bytes. They are alike in all: what may differ is about losses.
    headers: u64,
}

impl Balanced {
    /// Of what a client sends, whose frames have so many bytes of headers.
    pub(super) const fn request(vni: Vni, request: FiveTuple, headers: usize) -> Self {
        Self {
            vni,
            request,
            answers: false,
            headers: headers as u64,
        }
    }

    /// Of the answers, on the same node.
    pub(super) const fn answers(self) -> Self {
        Self {
            answers: true,
            ..self
        }
    }

    /// Tells the flow table what was carried, as frames and bytes of what left the sandbox, and of what
    /// came from another node.
    pub(super) fn tell(
        &self,
        flows: &mut FlowTable,
        cx: &Context<'_>,
        carried: [(u64, u64); 2],
        record: &Record,
    ) {
        let [out, inward] =
            carried.map(|(frames, bytes)| bytes.saturating_sub(frames * self.headers));
        let carried = if self.answers {
            Carried {
                from_client: 0,
                to_client: out,
                last: record.last,
                client: None,
            }
        } else {
            Carried {
                from_client: out,
                to_client: inward,
                last: record.last,
                client: record.sent.map(|sent| (sent.end, sent.ack)),
            }
        };
        flows.carried(cx, self.vni, self.request, &carried);
    }
}

/// A flow that gets its entries at the end of the round.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) hash: u64,
    /// As its sandbox sends it.
    pub(super) flow: FiveTuple,
    /// As the other end answers; of a flow to a virtual address the balancer says that.
    pub(super) back: FiveTuple,
    pub(super) port: Arc<Port>,
    pub(super) dst_mac: Mac,
    pub(super) to: Destination,
    pub(super) balanced: Option<Balanced>,
    /// Outer source port: of the socket that a worker sends it from. What the network says about its
    /// packets finds that socket, and they stay on the way that they have.
    pub(super) source_port: u16,
}

impl Due {
    /// What is written into what leaves, and into what comes back from another node.
    pub(super) fn rewrites(&self) -> (Option<Rewrite>, Option<Rewrite>) {
        let Some(balanced) = &self.balanced else {
            return (None, None);
        };
        let service = Some(Rewrite {
            side: Side::Source,
            ip: balanced.request.dst,
            port: balanced.request.dport,
        });
        if balanced.answers {
            return (service, None);
        }
        let replica = Rewrite {
            side: Side::Destination,
            ip: self.back.src,
            port: self.back.sport,
        };
        (Some(replica), service)
    }
}
