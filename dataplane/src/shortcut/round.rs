//! What the shortcuts of a worker learn of a round, and what they do at its end.

use std::sync::Arc;

use weft_fastpath::Records;
use weft_mesh::{Context, FlowTable};
use weft_vxlan::Destination;
use weft_wire::frame::{TCP, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Fragment, Instant, IpInfo, Mac, PortId, Vni};

use super::balanced::{Balanced, Due};
use super::cache::{Entries, Memory};
use super::candidates::Direction;
use super::shortcuts::{Basis, LOOK, Shortcuts};
use crate::port::Port;

/// Entries looked at in one round.
const LOOK_BUDGET: usize = 2048;

/// Whether a frame may be one of a flow that takes shortcuts.
pub(super) fn is_plain(info: &IpInfo) -> bool {
    info.proto == TCP && info.fragment == Fragment::None
}

/// A frame of a port, and where it goes.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    pub(super) port: &'a Arc<Port>,
    /// Before a balancer has changed it.
    pub(super) info: &'a IpInfo,
    pub(super) dst_mac: Mac,
    pub(super) to: Destination,
}

impl<E: Entries> Shortcuts<E> {
    /// A frame leaves as it is, by no balancer. `ack` is what it acknowledges, where no worker tells
    /// this one of the other direction; `source_port` says by which port its flow leaves.
    pub(super) fn left(
        &mut self,
        frame: &Leaving<'_>,
        ack: Option<u32>,
        now: Instant,
        source_port: impl FnOnce(&FiveTuple) -> u16,
    ) {
        let (port, info) = (frame.port, frame.info);
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let flow = info.five_tuple();
        let hash = self.hash(port.vni, &flow);
        let back = match frame.to {
            Destination::Local(_) => self.hash(port.vni, &flow.reversed()),
            Destination::Remote(_) => hash,
        };
        let mut worth = self.saw((hash, back), Direction::Out, info, now);
        if let Some(ack) = ack
            && info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
        {
            worth |= self.candidates.heard(hash, 0, ack, now);
        }
        if worth {
            self.enter(Due {
                hash,
                flow,
                back: flow.reversed(),
                port: Arc::clone(port),
                dst_mac: frame.dst_mac,
                to: frame.to,
                balanced: None,
                source_port: source_port(&flow),
            });
        }
    }

    /// A frame for a virtual address goes to its replica, and acknowledges `ack`.
    pub(super) fn requested(
        &mut self,
        frame: &Leaving<'_>,
        ack: u32,
        now: Instant,
        source_port: impl FnOnce(&FiveTuple) -> u16,
    ) {
        let (port, info) = (frame.port, frame.info);
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let flow = info.five_tuple();
        let hash = self.hash(port.vni, &flow);
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            // Whether that ends it, the balancer decides, and tells.
            self.candidates.forget(hash);
            return;
        }
        if self.candidates.heard(hash, info.payload_len(), ack, now) {
            self.enter(Due {
                hash,
                flow,
                // The balancer says so once the entries are written.
                back: flow.reversed(),
                port: Arc::clone(port),
                dst_mac: frame.dst_mac,
                to: frame.to,
                balanced: Some(Balanced::request(port.vni, flow, info.payload)),
                source_port: source_port(&flow),
            });
        }
    }

    /// A frame reaches `port` as it is, by no balancer.
    pub(super) fn arrived(&mut self, port: &Port, info: &IpInfo, now: Instant) {
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let hash = self.hash(port.vni, &info.five_tuple().reversed());
        self.saw((hash, hash), Direction::In, info, now);
    }

    /// Before the balancer sees a frame: tells it what was carried of its flow.
    pub(super) fn catch_up(
        &mut self,
        records: &Records,
        flows: &mut FlowTable,
        cx: &Context<'_>,
        (vni, info): (Vni, &IpInfo),
    ) {
        if self.table.len() == 0 || !is_plain(info) {
            return;
        }
        let hash = self.hash(vni, &info.five_tuple());
        if let Some(installed) = self.table.get_mut(hash) {
            let record = records.read(installed.record);
            installed.follow(&record, flows, cx);
        }
    }

    /// At the end of a round: writes and deletes entries. How often entries of a flow were written.
    pub(super) fn keep<C: Memory>(
        &mut self,
        basis: &Basis<'_, C>,
        flows: &mut FlowTable,
        cx: &Context<'_>,
    ) -> u64 {
        let records = basis.kernel.cache.records();
        // Flows of the balancer, by whatever they have ended in this round.
        while let Some(ended) = flows.poll_ended() {
            for flow in [ended.request, ended.answer] {
                let hash = self.hash(ended.vni, &flow);
                self.over.push(hash);
            }
        }
        self.end(records, flows, cx);
        let mut made = 0;
        while let Some(mut due) = self.due.pop() {
            self.candidates.forget(due.hash);
            if let Some(balanced) = &due.balanced {
                let Some(carriage) = flows.carry(cx, balanced.vni, balanced.request) else {
                    continue;
                };
                due.back = carriage.answer;
            }
            // Who only acknowledges what a sandbox of this node sends would never get an entry of
            // its own.
            let back = self.back(basis.snapshot, &due);
            for due in back.iter().chain(Some(&due)) {
                made += u64::from(self.install(basis, flows, due, cx));
            }
        }
        if cx.now >= self.look_at && self.table.len() > 0 {
            self.look(records, flows, cx);
        }
        made
    }

    /// Looks at what was carried.
    fn look(&mut self, records: &Records, flows: &mut FlowTable, cx: &Context<'_>) {
        let done = self.table.look(LOOK_BUDGET, &mut self.over, |installed| {
            let record = records.read(installed.record);
            let over = installed.follow(&record, flows, cx) || record.bound;
            over || !installed.has_devices()
        });
        if done {
            self.look_at = cx.now.after(LOOK);
        }
        self.end(records, flows, cx);
    }

    /// A port is gone, and its entries with it.
    pub(super) fn end_port(
        &mut self,
        records: &Records,
        flows: &mut FlowTable,
        cx: &Context<'_>,
        port: PortId,
    ) {
        self.over.extend(self.table.of_port(port));
        self.due.retain(|due| due.port.id != port);
        self.end(records, flows, cx);
    }
}
