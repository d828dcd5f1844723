//! What a worker does with shortcuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_mesh::{CarriageKind, Context, FlowTable, Origin, Reverse};
use weft_vxlan::Destination;
use weft_wire::frame::{Frame, TCP, TCP_FIN, TCP_RST, TCP_SYN, UDP, parse};
use weft_wire::{FiveTuple, Fragment, GsoKind, Instant, IpInfo, Mac, PortId, VnetHdr, Vni};

use super::balanced::{Balanced, Due};
use super::candidates::Direction;
use super::kernel::Kernel;
use super::shortcuts::{LOOK, Shortcuts};
use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

/// Entries looked at in one round.
const LOOK_BUDGET: usize = 2048;

/// Whether a frame may be one of a flow that takes shortcuts.
fn is_plain(info: &IpInfo) -> bool {
    matches!(info.proto, TCP | UDP) && info.fragment == Fragment::None
}

/// Whether a frame that leaves may be. One with several datagrams is of a stream, and the kernel leaves
/// it alone.
fn may_leave(info: &IpInfo, vnet: &VnetHdr) -> bool {
    is_plain(info) && (info.proto == TCP || vnet.gso() == GsoKind::None)
}

/// Counts a datagram that leaves for another port of this node, and what its sender has got; whether
/// the flow is to get entries.
fn saw_datagram(
    shortcuts: &mut Shortcuts,
    kernel: &Kernel,
    (hash, back): (u64, u64),
    now: Instant,
) -> bool {
    kernel.datagrams.note(hash, 1);
    let got = kernel.datagrams.count(back);
    shortcuts.candidates.asked(hash, got, now)
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

/// Looks at what was carried, and ends what is over.
fn look(shortcuts: &mut Shortcuts, kernel: &Kernel, flows: &mut FlowTable, cx: &Context<'_>) {
    let (records, now) = (&kernel.cache.records, cx.now);
    let (over, installer) = (&mut shortcuts.over, &shortcuts.installer);
    let done = shortcuts.table.look(LOOK_BUDGET, |installed| {
        let record = records.read(installed.record);
        let is_over = installed.follow(&record, flows, cx) || record.bound;
        if is_over || !installed.has_devices() {
            over.push(installed.flow);
        }
        if let Some(time) = installed.judge(&record, (installer, records), now) {
            let answers = installed.receiver.as_ref().map(|receiver| receiver.flow);
            for flow in [installed.flow].into_iter().chain(answers) {
                kernel.datagrams.hold(flow, now.after(time));
                over.push(flow);
            }
        }
    });
    if done {
        shortcuts.look_at = now.after(LOOK);
    }
    shortcuts.end(kernel, flows, cx);
}

impl Worker {
    /// A frame of `port` goes to `to` as it is, by no balancer. `ack` is what it acknowledges, where no
    /// worker tells this one of the other direction.
    pub(crate) fn saw_leave(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        (info, vnet): (Option<&IpInfo>, &VnetHdr),
        dst_mac: Mac,
        ack: Option<u32>,
    ) {
        let Some(info) = info.filter(|info| may_leave(info, vnet)) else {
            return;
        };
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
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
        let now = self.now;
        let worth = if info.proto == UDP {
            let worth = match to {
                Destination::Local(_) => saw_datagram(shortcuts, kernel, (hash, back), now),
                Destination::Remote(_) => {
                    let candidates = &mut shortcuts.candidates;
                    candidates.datagrams(hash, Direction::Out, 1, now)
                }
            };
            worth && shortcuts.is_free(kernel, hash, now)
        } else {
            let worth = shortcuts.saw((hash, back), Direction::Out, info, now);
            let ack = ack.filter(|_| info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0);
            let heard = ack.is_some_and(|ack| shortcuts.candidates.heard(hash, 0, ack, now));
            worth || heard
        };
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
        // Of datagrams nothing is asked that the next look does not tell in time.
        if shortcuts.table.len() == 0 || !is_plain(info) || info.proto != TCP {
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
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        let Some((kind, vni)) = kind_of(origin) else {
            return;
        };
        if !may_leave(info, &held.vnet) || port.shortcut.load().is_none() {
            return;
        }
        let flow = info.five_tuple();
        let hash = shortcuts.hash(vni, &flow);
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            // Whether that ends it, the balancer decides, and tells.
            shortcuts.candidates.forget(hash);
            return;
        }
        let (now, frame) = (self.now, self.queue.bytes(held.frame.clone()));
        let worth = if info.proto == UDP {
            // Its replica's address is in it by now: so the answers are known.
            let Ok(Frame::Ip(request)) = parse(frame) else {
                return;
            };
            let answers = shortcuts.hash(vni, &request.five_tuple().reversed());
            let got = kernel.datagrams.count(answers);
            let worth = shortcuts.candidates.asked(hash, got, now);
            worth && shortcuts.is_free(kernel, hash, now)
        } else {
            let (data, ack) = (info.payload_len(), acknowledged(frame, info));
            shortcuts.candidates.heard(hash, data, ack, now)
        };
        if worth {
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
    pub(crate) fn saw_return(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        info: &IpInfo,
        dst_mac: Mac,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        // Datagrams of clients outside come by listeners.
        if info.proto != TCP || !is_plain(info) || port.shortcut.load().is_none() {
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

    /// So many frames of a replica reach their client if the balancer says so. Its worker may be
    /// another one.
    pub(crate) fn saw_answer(&self, vni: Vni, info: &IpInfo, verdict: &Reverse, frames: usize) {
        if info.proto != UDP || !matches!(verdict, Reverse::Rewritten { .. }) {
            return;
        }
        if let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_ref())
        {
            let hash = shortcuts.hash(Some(vni), &info.five_tuple());
            let count = u32::try_from(frames).unwrap_or(u32::MAX);
            kernel.datagrams.note(hash, count);
        }
    }

    /// So many frames reach `port` by no balancer of this node; of more than one, the headers are those
    /// of the first. `answer` is what is sent in return, where that is not as the frames say.
    pub(crate) fn saw_arrive(
        &mut self,
        port: &Port,
        info: &IpInfo,
        answer: Option<FiveTuple>,
        frames: usize,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let answer = answer.unwrap_or_else(|| info.five_tuple().reversed());
        let hash = shortcuts.hash(Some(port.vni), &answer);
        if info.proto == UDP {
            let count = u32::try_from(frames).unwrap_or(u32::MAX);
            let candidates = &mut shortcuts.candidates;
            candidates.datagrams(hash, Direction::In, count, self.now);
        } else {
            shortcuts.saw((hash, hash), Direction::In, info, self.now);
        }
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
            look(shortcuts, kernel, &mut self.flows, &cx);
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
