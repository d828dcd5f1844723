//! The flows of a table, for people.

use std::net::SocketAddr;
use std::time::Duration;

use weft_wire::frame::TCP;
use weft_wire::{Instant, Vni};

use crate::flow::{FlowKind, Target};
use crate::services::Protocol;
use crate::state::FlowState;
use crate::table::FlowTable;

/// One connection, or one exchange of datagrams, as its table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRow {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Network that the replica is on.
    pub vni: Vni,
    /// Where the client is.
    pub from: Target,
    /// The client, as it calls itself.
    pub client: SocketAddr,
    /// What the client sends to.
    pub service: SocketAddr,
    /// The client, as the replica sees it.
    pub seen_as: SocketAddr,
    /// Who answers.
    pub replica: SocketAddr,
    /// How far it is.
    pub state: FlowState,
    /// Time since the client's or the replica's last packet.
    pub idle: Duration,
}

impl FlowTable {
    /// Adds the flows that this worker owns to `rows`, from place `from` on; looks at `budget`
    /// places. Returns the place to go on at, none at the end. A flow that begins or ends in
    /// between is there or not.
    pub fn list(
        &self,
        now: Instant,
        from: usize,
        budget: usize,
        rows: &mut Vec<FlowRow>,
    ) -> Option<usize> {
        let places = self.store.places();
        let end = places.min(from.saturating_add(budget));
        for flow in self.store.among(from..end)? {
            if flow.kind != FlowKind::Owned {
                continue;
            }
            let (forward, reverse) = (flow.forward.tuple, flow.reverse.tuple);
            rows.push(FlowRow {
                protocol: if forward.proto == TCP {
                    Protocol::Tcp
                } else {
                    Protocol::Udp
                },
                vni: flow.origin.vni(),
                from: flow.origin.target(),
                client: SocketAddr::new(forward.src, forward.sport),
                service: SocketAddr::new(forward.dst, forward.dport),
                seen_as: SocketAddr::new(reverse.dst, reverse.dport),
                replica: SocketAddr::new(reverse.src, reverse.sport),
                state: flow.state,
                idle: now.since(flow.last_seen),
            });
        }
        (end < places).then_some(end)
    }
}
