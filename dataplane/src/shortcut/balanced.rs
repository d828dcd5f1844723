//! Flows to a virtual address or through a published port: their frames are rewritten on the way, and
//! the flow table has to know of them what it would see if they came by.
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
//! replica's port. A client of a published port counts as an end on this node, with `weft0` for its
//! sandbox. Where its replica is on another node, that one's entries rewrite nothing: its table only
//! knows which node the answers go to ([`CarriageKind::Return`]).

use std::sync::Arc;

use weft_fastpath::{Hardware, Record, Rewrite};
use weft_mesh::{Carriage, CarriageKind, Carried, Context, FlowTable};
use weft_vxlan::Destination;
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, Mac, Vni};

use crate::port::Port;

/// What is known of a flow that the flow table has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balanced {
    pub(super) kind: CarriageKind,
    vni: Vni,
    /// So the flow table finds it: client to service, or what the replica of another node's client
    /// sends.
    sent: FiveTuple,
    /// What leaves are the answers of a replica on this node.
    answers: bool,
    /// Headers of a frame, in bytes. They are alike in all: what may differ is about losses.
    headers: u64,
}

impl Balanced {
    /// Of what leaves here, `sent`, whose frames have so many bytes of headers.
    pub(super) const fn new(kind: CarriageKind, vni: Vni, sent: FiveTuple, headers: usize) -> Self {
        Self {
            kind,
            vni,
            sent,
            answers: false,
            headers: headers as u64,
        }
    }

    /// By what the flow table finds it.
    pub(super) const fn of(&self) -> (Vni, FiveTuple) {
        (self.vni, self.sent)
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
        let carried = if self.answers || self.kind == CarriageKind::Return {
            Carried {
                from_client: inward,
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
        flows.carried(cx, self.kind, self.of(), &carried);
    }
}

/// A flow that gets its entries at the end of the round.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) hash: u64,
    /// Network that it is on behind the balancer.
    pub(super) vni: Vni,
    /// As its sandbox sends it, or the client outside.
    pub(super) flow: FiveTuple,
    /// As the other end answers; of a flow of the balancer, that says it.
    pub(super) back: FiveTuple,
    pub(super) port: Arc<Port>,
    /// Ethernet addresses of what leaves, destination and source; those of flows of the balancer are
    /// said by it.
    pub(super) macs: [Mac; 2],
    /// Of the other direction.
    pub(super) back_macs: [Mac; 2],
    pub(super) to: Destination,
    pub(super) balanced: Option<Balanced>,
    /// Outer source port: of the socket that a worker sends it from. What the network says about its
    /// packets finds that socket, and they stay on the way that they have.
    pub(super) source_port: u16,
}

impl Due {
    /// Whether the flow table knows it as one of that kind.
    pub(super) fn is(&self, kind: CarriageKind) -> bool {
        self.balanced.is_some_and(|balanced| balanced.kind == kind)
    }

    /// Takes in what the balancer says of it.
    pub(super) fn follow(&mut self, carriage: &Carriage) {
        self.vni = carriage.vni;
        (self.back, self.macs, self.back_macs) = match carriage.kind {
            CarriageKind::Virtual | CarriageKind::Published => {
                (carriage.answer, carriage.to_replica, carriage.to_client)
            }
            CarriageKind::Return => (carriage.request, carriage.to_client, carriage.to_replica),
        };
    }

    /// Ethernet addresses for a receiver on this node that looks at them: `weft0`, and sandboxes that get
    /// packets from there, by the address of their second device.
    pub(super) fn hardware(&self, second_mac: Mac) -> Option<Hardware> {
        let balanced = self.balanced.as_ref();
        let balanced = balanced.filter(|balanced| balanced.kind == CarriageKind::Published)?;
        let [to, from] = self.macs;
        Some(Hardware {
            to: if balanced.answers { to } else { second_mac },
            from,
        })
    }

    /// Those of answers from another node to a client outside.
    pub(super) fn by_device(&self) -> Option<Hardware> {
        let [to, from] = self.back_macs;
        let published = self.is(CarriageKind::Published);
        published.then_some(Hardware { to, from })
    }

    /// What is written into what leaves, and into what comes back from another node.
    pub(super) fn rewrites(&self) -> (Option<Rewrite>, Option<Rewrite>) {
        let balanced = self.balanced.as_ref();
        let Some(balanced) = balanced.filter(|b| b.kind != CarriageKind::Return) else {
            return (None, None);
        };
        let request = balanced.sent;
        // The client's port as the replica sees it.
        let seen = if balanced.answers {
            self.flow.dport
        } else {
            self.back.dport
        };
        let differs = seen != request.sport;
        let service = Some(Rewrite {
            side: Side::Source,
            ip: request.dst,
            port: request.dport,
            other_port: differs.then_some(request.sport),
        });
        if balanced.answers {
            return (service, None);
        }
        let replica = Rewrite {
            side: Side::Destination,
            ip: self.back.src,
            port: self.back.sport,
            other_port: differs.then_some(seen),
        };
        (Some(replica), service)
    }
}
