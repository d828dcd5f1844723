//! What a worker does with shortcuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_mesh::{CarriageKind, Origin};
use weft_vxlan::Destination;
use weft_wire::frame::{TCP, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Fragment, IpInfo, Mac, PortId, Vni};

use super::balanced::{Balanced, Due};
use super::candidates::Direction;
use super::shortcuts::{LOOK, Shortcuts};
use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

/// Entries looked at in one round.
const LOOK_BUDGET: usize = 2048;

/// Whether a frame may be one of a flow that takes shortcuts.
fn is_plain(info: &IpInfo) -> bool {
    info.proto == TCP && info.fragment == Fragment::None
}

/// What flows of clients from there are to the flow table, and where their addresses mean something.
/// None where nobody may carry them: a listener's connections have both ends rewritten.
const fn kind_of(origin: &Origin) -> Option<(CarriageKind, Option<Vni>)> {
    match origin {
        Origin::Port { vni, .. } => Some((CarriageKind::Virtual, Some(*vni))),
        Origin::Mesh {
            keeps_client: true, ..
        } => Some((CarriageKind::Published, None)),
        Origin::Mesh { .. } => None,
    }
}

/// What the sender of a TCP segment has received (RFC 9293 section 3.1).
pub(crate) fn acknowledged(frame: &[u8], info: &IpInfo) -> u32 {
    let field = frame.get(info.l4 + 8..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

impl Worker {
    /// A frame of `port` goes to `to` as it is, by no balancer. `ack` is what it acknowledges, where no
    /// worker tells this one of the other direction.
    pub(crate) fn saw_leave(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        info: Option<&IpInfo>,
        dst_mac: Mac,
        ack: Option<u32>,
    ) {
        let Some(info) = info.filter(|info| is_plain(info)) else {
            return;
        };
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if port.shortcut.load().is_none() {
            return;
        }
        let flow = info.five_tuple();
        let vni = Some(port.vni);
        let hash = shortcuts.hash(vni, &flow);
        let back = match to {
            Destination::Local(_) => shortcuts.hash(vni, &flow.reversed()),
            Destination::Remote(_) => hash,
        };
        let mut worth = shortcuts.saw((hash, back), Direction::Out, info, self.now);
        if let Some(ack) = ack
            && info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
        {
            worth |= shortcuts.candidates.heard(hash, 0, ack, self.now);
        }
        if worth {
            shortcuts.enter(Due {
                hash,
                vni: port.vni,
                flow,
                back: flow.reversed(),
                port: Arc::clone(port),
                macs: [dst_mac, port.mac],
                back_macs: [port.mac, dst_mac],
                to,
                balanced: None,
                source_port: self.queue.source_port(&flow),
            });
        }
    }

    /// A client's frame for the balancer: what the kernel has carried of its flow comes first, as the
    /// balancer asks of a reset whether it can be the client's own.
    pub(crate) fn catch_up(&mut self, snapshot: &Snapshot, origin: &Origin, info: &IpInfo) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        if shortcuts.table.len() == 0 || !is_plain(info) {
            return;
        }
        let Some((_, vni)) = kind_of(origin) else {
            return;
        };
        let hash = shortcuts.hash(vni, &info.five_tuple());
        if let Some(installed) = shortcuts.table.get_mut(hash) {
            let record = kernel.cache.records.read(installed.record);
            let cx = context(self.now, snapshot);
            installed.follow(&record, &mut self.flows, &cx);
        }
    }

    /// As [`Self::catch_up`], for a reset that node `via` has sent on, of a client at its published port.
    pub(crate) fn catch_up_return(
        &mut self,
        snapshot: &Snapshot,
        vni: Vni,
        via: Mac,
        info: &IpInfo,
    ) {
        if info.tcp_flags & TCP_RST == 0 || !is_plain(info) {
            return;
        }
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        let Some(answer) = self.flows.answer_to(via, info) else {
            return;
        };
        let hash = shortcuts.hash(Some(vni), &answer);
        if let Some(installed) = shortcuts.table.get_mut(hash) {
            let record = kernel.cache.records.read(installed.record);
            let cx = context(self.now, snapshot);
            installed.follow(&record, &mut self.flows, &cx);
        }
    }

    /// A client's frame, which came by `port`, goes to its replica, in `held`.
    pub(crate) fn saw_request(
        &mut self,
        (port, origin): (&Arc<Port>, &Origin),
        to: Destination,
        held: &Held,
        info: &IpInfo,
        dst_mac: Mac,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        let Some((kind, vni)) = kind_of(origin) else {
            return;
        };
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let flow = info.five_tuple();
        let hash = shortcuts.hash(vni, &flow);
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            // Whether that ends it, the balancer decides, and tells.
            shortcuts.candidates.forget(hash);
            return;
        }
        let ack = acknowledged(self.queue.bytes(held.frame.clone()), info);
        let data = info.payload_len();
        if shortcuts.candidates.heard(hash, data, ack, self.now) {
            let vni = origin.vni();
            shortcuts.enter(Due {
                hash,
                vni,
                flow,
                // The balancer says so once the entries are written, and the addresses.
                back: flow.reversed(),
                port: Arc::clone(port),
                macs: [dst_mac, port.mac],
                back_macs: [port.mac, dst_mac],
                to,
                balanced: Some(Balanced::new(kind, vni, flow, info.payload)),
                source_port: self.queue.source_port(&flow),
            });
        }
    }

    /// A frame of `port`, a replica's, goes to the node that its client came through.
    pub(crate) fn saw_answer(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        info: &IpInfo,
        dst_mac: Mac,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let (vni, flow) = (port.vni, info.five_tuple());
        let hash = shortcuts.hash(Some(vni), &flow);
        if shortcuts.saw((hash, hash), Direction::Out, info, self.now) {
            let balanced = Balanced::new(CarriageKind::Return, vni, flow, info.payload);
            shortcuts.enter(Due {
                hash,
                vni,
                flow,
                back: flow.reversed(),
                port: Arc::clone(port),
                macs: [dst_mac, port.mac],
                back_macs: [port.mac, dst_mac],
                to,
                balanced: Some(balanced),
                source_port: self.queue.source_port(&flow),
            });
        }
    }

    /// A frame reaches `port` by no balancer of this node; `answer` is what is sent in return, where that
    /// is not as the frame says.
    pub(crate) fn saw_arrive(&mut self, port: &Port, info: &IpInfo, answer: Option<FiveTuple>) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let answer = answer.unwrap_or_else(|| info.five_tuple().reversed());
        let hash = shortcuts.hash(Some(port.vni), &answer);
        shortcuts.saw((hash, hash), Direction::In, info, self.now);
    }

    /// Once for each round, after everything that was read has left: writes and deletes entries.
    pub(crate) fn keep_shortcuts(&mut self, snapshot: &Snapshot) {
        let Some(kernel) = self.shared.fast_path.get() else {
            return;
        };
        if self.shortcuts.is_none() && !self.shortcuts_refused {
            let workers = self.shared.inboxes.len();
            self.shortcuts = Shortcuts::open(kernel, self.index, workers);
            self.shortcuts_refused = self.shortcuts.is_none();
        }
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        let cx = context(self.now, snapshot);
        // Flows of the balancer, by whatever they have ended in this round.
        while let Some(ended) = self.flows.poll_ended() {
            let network = Some(ended.vni);
            let asked = match ended.kind {
                CarriageKind::Published => None,
                CarriageKind::Virtual | CarriageKind::Return => network,
            };
            for (vni, flow) in [(asked, ended.request), (network, ended.answer)] {
                let hash = shortcuts.hash(vni, &flow);
                shortcuts.over.push(hash);
            }
        }
        shortcuts.end(kernel, &mut self.flows, &cx);
        while let Some(mut due) = shortcuts.due.pop() {
            shortcuts.candidates.forget(due.hash);
            if let Some(balanced) = &due.balanced {
                let carriage = self.flows.carry(&cx, balanced.kind, balanced.of());
                let Some(carriage) = carriage else {
                    continue;
                };
                due.follow(&carriage);
            }
            let tables = (snapshot, self.dscp);
            // Who only acknowledges what a sandbox of this node sends would never get an entry of
            // its own.
            let back = shortcuts.back(snapshot, &due);
            for due in back.iter().chain(Some(&due)) {
                let flows = &mut self.flows;
                if shortcuts.install(&self.shared, kernel, tables, flows, due, &cx) {
                    let counters = &self.shared.counters[self.index];
                    counters.shortcuts_made.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if self.now >= shortcuts.look_at && shortcuts.table.len() > 0 {
            let records = &kernel.cache.records;
            let flows = &mut self.flows;
            let done = shortcuts
                .table
                .look(LOOK_BUDGET, &mut shortcuts.over, |installed| {
                    let record = records.read(installed.record);
                    let over = installed.follow(&record, flows, &cx) || record.bound;
                    over || !installed.has_devices()
                });
            if done {
                shortcuts.look_at = self.now.after(LOOK);
            }
            shortcuts.end(kernel, flows, &cx);
        }
        let counters = &self.shared.counters[self.index];
        let count = shortcuts.table.len() as u64;
        counters.shortcuts.store(count, Ordering::Relaxed);
    }

    /// A port is gone, and its entries with it.
    pub(crate) fn end_shortcuts_of(&mut self, snapshot: &Snapshot, port: PortId) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        shortcuts.over.extend(shortcuts.table.of_port(port));
        shortcuts.due.retain(|due| due.port.id != port);
        let cx = context(self.now, snapshot);
        shortcuts.end(kernel, &mut self.flows, &cx);
    }
}
