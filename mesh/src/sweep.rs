//! Resets for connections that lost an end: nobody should wait on a socket that is dead.

use std::net::SocketAddr;

use weft_wire::frame::TCP;
use weft_wire::reply::{self, tcp_reset};
use weft_wire::{FiveTuple, Mac, PortId, Vni};

use crate::context::Context;
use crate::flow::{Flow, FlowKind, Origin, Target};
use crate::store::FlowId;
use crate::table::{FlowTable, Sweep};

/// Longest reset: Ethernet, IPv6, TCP.
pub(crate) const RESET_BYTES: usize = 14 + 40 + 20;

/// Where a [`Reset`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// To the client.
    Client(Target),
    /// To the replica, should it still be there.
    Replica {
        /// Its network.
        vni: Vni,
        /// Its Ethernet address.
        mac: Mac,
    },
}

/// A reset to send.
#[derive(Debug, Clone, Copy)]
pub struct Reset<'a> {
    /// Where it goes.
    pub to: ResetTo,
    /// The frame: complete checksums, no offload asked for.
    pub frame: &'a [u8],
}

impl FlowTable {
    /// Ends the flows whose replica is gone, and resets both ends of their connections.
    ///
    /// Call it after the epoch has changed until it returns true; looks at `budget` entries at
    /// most each time. Flows of draining replicas go on. Connections that no replica has answered
    /// are left to their client's next SYN, which chooses another one. Connections that are carried
    /// past the table end with the next call: a reset is believed for its sequence numbers, and those
    /// have to be told first ([`FlowTable::poll_ended`]).
    pub fn sweep(
        &mut self,
        cx: &Context<'_>,
        budget: usize,
        mut out: impl FnMut(Reset<'_>),
    ) -> bool {
        if self.sweep.epoch != cx.epoch {
            self.sweep = Sweep {
                epoch: cx.epoch,
                next: 0,
            };
        }
        let places = self.store.places();
        let end = places.min(self.sweep.next.saturating_add(budget));
        let mut next = end;
        for place in self.sweep.next..end {
            let Some((at, flow)) = self.store.at(place) else {
                continue;
            };
            if flow.state.is_unanswered() && flow.kind == FlowKind::Owned {
                continue;
            }
            if self.is_alive(cx, at) {
                continue;
            }
            let flow = self.store.get_mut(at);
            if flow.is_some_and(|flow| self.ended.note(flow)) {
                next = next.min(place);
                continue;
            }
            self.end_flow(at, true, &mut out);
        }
        self.sweep.next = next;
        next >= places
    }

    /// Ends the flows of a client whose port was removed, and resets the replicas' side. Returns
    /// how many. O(table): for the rare removal of a port.
    pub fn close_port(&mut self, port: PortId, mut out: impl FnMut(Reset<'_>)) -> usize {
        let mut closed = 0;
        for place in 0..self.store.places() {
            let Some((at, flow)) = self.store.at(place) else {
                continue;
            };
            let theirs = matches!(flow.origin, Origin::Port { port: p, .. } if p == port);
            if theirs && flow.kind == FlowKind::Owned {
                self.end_flow(at, false, &mut out);
                closed += 1;
            }
        }
        self.waiting.forget_port(port);
        closed
    }

    fn end_flow(&mut self, at: FlowId, tell_client: bool, out: &mut impl FnMut(Reset<'_>)) {
        let Some(flow) = self.remove(at) else { return };
        if flow.kind != FlowKind::Owned || flow.forward.tuple.proto != TCP || flow.state.is_over() {
            return;
        }
        // Nobody believes a reset without its numbers. Who speaks next is answered with one that has
        // them, as of no known flow.
        if tell_client {
            self.counters.lost_replica += 1;
            if flow.client_ack != 0 {
                let to = ResetTo::Client(flow.origin.target());
                emit(&client_reset(&flow), to, out);
            }
        }
        if next_of_client(&flow) != 0 {
            let to = ResetTo::Replica {
                vni: flow.origin.vni(),
                mac: flow.replica_mac,
            };
            emit(&replica_reset(&flow), to, out);
        }
    }
}

/// What the service would send: the next byte that the client expects, all of its own taken.
fn client_reset(flow: &Flow) -> reply::Reset {
    let (src, dst) = ends(flow.forward.tuple.reversed());
    reply::Reset {
        src,
        dst,
        seq: flow.client_ack,
        ack: Some(next_of_client(flow)),
        src_mac: flow.service_mac,
        dst_mac: flow.client_mac,
    }
}

/// What the client would send, as the replica sees it.
fn replica_reset(flow: &Flow) -> reply::Reset {
    let (src, dst) = ends(flow.reverse.tuple.reversed());
    reply::Reset {
        src,
        dst,
        seq: next_of_client(flow),
        ack: Some(flow.client_ack),
        src_mac: match flow.origin {
            Origin::Port { .. } => flow.client_mac,
            Origin::Mesh { node_mac, .. } => node_mac,
        },
        dst_mac: flow.replica_mac,
    }
}

/// Of an earlier process's flow only the replica may have said it; 0 where nobody has.
const fn next_of_client(flow: &Flow) -> u32 {
    if flow.client_end == 0 {
        flow.replica_ack
    } else {
        flow.client_end
    }
}

fn ends(tuple: FiveTuple) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(tuple.src, tuple.sport),
        SocketAddr::new(tuple.dst, tuple.dport),
    )
}

fn emit(reset: &reply::Reset, to: ResetTo, out: &mut impl FnMut(Reset<'_>)) {
    let mut bytes = [0; RESET_BYTES];
    let len = tcp_reset(reset, &mut bytes);
    if let Some(frame) = bytes.get(..len).filter(|frame| !frame.is_empty()) {
        out(Reset { to, frame });
    }
}
