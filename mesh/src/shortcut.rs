//! Connections and exchanges of datagrams that are carried past the table for a while: by the kernel,
//! which rewrites their frames and counts them. The table stays the whole truth: it says which may be,
//! is told what was carried, and tells when one may not be any more.

use weft_wire::{FiveTuple, Instant, Vni};

use crate::carriage::{Carriage, CarriageKind};
use crate::context::{Context, port_load};
use crate::flow::{Flow, FlowKind};
use crate::key::{Key, Scope};
use crate::load::ReplicaLoad;
use crate::state::FlowState;
use crate::store::FlowId;
use crate::table::FlowTable;

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
    /// where that is known, and 0 for what alone is not.
    pub client: Option<(u32, u32)>,
}

impl FlowTable {
    /// The connection that `sent` belongs to, if somebody may carry it: open, nothing of it has been
    /// closed, and its frames need another address of the service, and another port of a client outside
    /// at most. `sent` is what a client here sends, or a replica here where the client came through
    /// another node; `vni` the network of a sandbox. Datagrams may be once the replica has answered
    /// one. From now on [`Self::poll_ended`] tells when that is not so any more.
    pub fn carry(
        &mut self,
        cx: &Context<'_>,
        kind: CarriageKind,
        (vni, sent): (Vni, FiveTuple),
    ) -> Option<Carriage> {
        let at = self.find_carried(kind, vni, sent)?;
        let alive = self.is_alive(cx, at);
        let flow = self.store.get_mut(at)?;
        if !alive || !is_simple(flow, kind) {
            return None;
        }
        let carriage = Carriage::of(flow).filter(|carriage| carriage.kind == kind)?;
        (flow.carried, flow.behind) = (true, true);
        Some(carriage)
    }

    /// Takes note of what was carried of a connection, as if its frames had come by here.
    pub fn carried(
        &mut self,
        cx: &Context<'_>,
        kind: CarriageKind,
        (vni, sent): (Vni, FiveTuple),
        carried: &Carried,
    ) {
        let worker = self.config.worker;
        let at = self.find_carried(kind, vni, sent);
        let Some(flow) = at.and_then(|at| self.store.get_mut(at)) else {
            return;
        };
        // The next one of that client's port: nobody carries it yet.
        if matches!(
            flow.state,
            FlowState::SynSent | FlowState::SynAnswered | FlowState::Datagrams
        ) {
            return;
        }
        flow.last_seen = flow.last_seen.max(carried.last);
        // What a client has closed came by here after all that was carried, and has the newer ones.
        let has_closed = matches!(flow.state, FlowState::FinClient | FlowState::Closing);
        if let Some((end, ack)) = carried.client.filter(|_| !has_closed) {
            flow.client_end = end;
            flow.client_ack = ack;
        }
        flow.behind = flow.carried;
        // Counted where its client came in.
        if kind == CarriageKind::Return {
            return;
        }
        let (port, load) = match &flow.open {
            Some(open) => (open.port(), Some(open.load())),
            // It is over, and this is the rest of it.
            None => {
                let replica = cx.services.replica(flow.origin.vni(), flow.replica_key);
                let port = port_load(cx, &flow.origin, &flow.forward);
                (port, replica.map(|replica| &*replica.load))
            }
        };
        let tallies = [port.map(|port| port.tally()), load.map(ReplicaLoad::tally)];
        for tally in tallies.into_iter().flatten() {
            tally.count_rx(worker, carried.from_client);
            tally.count_tx(worker, carried.to_client);
        }
    }

    /// The next connection that may not be carried any more. Ask until there is none, once for each
    /// round; then tell what was carried of it to the end.
    pub fn poll_ended(&mut self) -> Option<Carriage> {
        self.ended.pop()
    }

    fn find_carried(&self, kind: CarriageKind, vni: Vni, sent: FiveTuple) -> Option<FlowId> {
        let key = |scope| Key { scope, tuple: sent };
        match kind {
            CarriageKind::Virtual => self.store.find_forward(&key(Scope::network(vni))),
            CarriageKind::Published => self.store.find_forward(&key(Scope::MESH)),
            // Flows of all kinds are found by what their replicas send.
            CarriageKind::Return => {
                self.store
                    .find_reverse(&key(Scope::network(vni)))
                    .filter(|at| {
                        let flow = self.store.get(*at);
                        flow.is_some_and(|flow| flow.kind == FlowKind::Return)
                    })
            }
        }
    }
}

/// Whether no frame has to be looked at. Those that open, close or reset a connection come by here
/// in any case. The replica has to see the client's address as it is: what answers its own request sees
/// the service. Clients of published ports have another port at every replica of this node; of others,
/// which are given one where they share theirs with another connection, that is rare, and both ends of
/// their frames would be others. Where a router has told of a narrow link, segments are measured.
fn is_simple(flow: &Flow, kind: CarriageKind) -> bool {
    let (client, seen_as) = (flow.forward.tuple, flow.reverse.tuple);
    let open = match flow.state {
        FlowState::Established => true,
        // Through published ports they come from a listener, with both ends to rewrite.
        FlowState::DatagramsAnswered => kind == CarriageKind::Virtual,
        _ => false,
    };
    open && flow.path_mtu == 0
        && seen_as.dst == client.src
        && (seen_as.dport == client.sport || kind != CarriageKind::Virtual)
}
