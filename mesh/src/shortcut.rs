//! Connections that are carried past the table for a while: by the kernel, which rewrites their frames
//! and counts them. The table stays the whole truth: it says which may be, is told what was carried,
//! and tells when one may not be any more.

use weft_wire::{FiveTuple, Instant, Vni};

use crate::carriage::Carriage;
use crate::context::Context;
use crate::flow::{Flow, FlowKind, Origin};
use crate::key::{Key, Scope};
use crate::state::FlowState;
use crate::table::{FlowTable, Found};

/// What was carried of a connection since that was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of data from the client.
    pub from_client: u64,
    /// Bytes of data to it.
    pub to_client: u64,
    /// When the last frame was.
    pub last: Instant,
    /// Sequence number after the last byte that the client has sent, and what it has acknowledged;
    /// where that is known.
    pub client: Option<(u32, u32)>,
}

impl FlowTable {
    /// The connection that a client's frames on network `vni` belong to, if somebody may carry it:
    /// open, nothing of it has been closed, and its frames need another address of the service and
    /// nothing else. From now on [`Self::poll_ended`] tells when that is not so any more.
    pub fn carry(&mut self, cx: &Context<'_>, vni: Vni, request: FiveTuple) -> Option<Carriage> {
        let Found { at, alive } = self.lookup(cx, &key(vni, request))?;
        let flow = self.store.get_mut(at)?;
        if !alive || !is_simple(flow) {
            return None;
        }
        flow.carried = true;
        Some(Carriage::of(flow))
    }

    /// Takes note of what was carried of a connection, as if its frames had come by here.
    pub fn carried(&mut self, cx: &Context<'_>, vni: Vni, request: FiveTuple, carried: &Carried) {
        let worker = self.config.worker;
        let at = self.store.find_forward(&key(vni, request));
        let Some(flow) = at.and_then(|at| self.store.get_mut(at)) else {
            return;
        };
        // The next one of that client's port: nobody carries it yet.
        if matches!(flow.state, FlowState::SynSent | FlowState::SynAnswered) {
            return;
        }
        flow.last_seen = flow.last_seen.max(carried.last);
        // What a client has closed came by here after all that was carried, and has the newer ones.
        let has_closed = matches!(flow.state, FlowState::FinClient | FlowState::Closing);
        if let Some((end, ack)) = carried.client.filter(|_| !has_closed) {
            flow.client_end = end;
            flow.client_ack = ack;
        }
        let load = match &flow.open {
            Some(open) => Some(open.load()),
            // It is over, and this is the rest of it.
            None => {
                let replica = cx.services.replica(vni, flow.replica_key);
                replica.map(|replica| &*replica.load)
            }
        };
        if let Some(load) = load {
            load.tally().count_rx(worker, carried.from_client);
            load.tally().count_tx(worker, carried.to_client);
        }
    }

    /// The next connection that may not be carried any more. Ask until there is none, once for each
    /// round; then tell what was carried of it to the end.
    pub fn poll_ended(&mut self) -> Option<Carriage> {
        self.ended.pop()
    }
}

const fn key(vni: Vni, tuple: FiveTuple) -> Key {
    Key {
        scope: Scope::network(vni),
        tuple,
    }
}

/// Whether no frame has to be looked at. Those that open, close or reset a connection come by here
/// in any case. The replica has to see the client as it is: what answers its own request sees the
/// service, and who shares a port with another connection is given one. Where a router has told of a
/// narrow link, segments are measured.
fn is_simple(flow: &Flow) -> bool {
    let (client, seen_as) = (flow.forward.tuple, flow.reverse.tuple);
    flow.kind == FlowKind::Owned
        && matches!(flow.origin, Origin::Port { .. })
        && flow.state == FlowState::Established
        && flow.path_mtu == 0
        && (seen_as.dst, seen_as.dport) == (client.src, client.sport)
}
