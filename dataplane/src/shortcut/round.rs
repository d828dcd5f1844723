//! What the shortcuts of a worker learn of a round, and what they do at its end.

use std::sync::Arc;

use weft_fastpath::Records;
use weft_mesh::{CarriageKind, Context, FlowTable, Origin, Reverse};
use weft_vxlan::Destination;
use weft_wire::frame::{Frame, TCP, TCP_FIN, TCP_RST, TCP_SYN, UDP, parse};
use weft_wire::{FiveTuple, Fragment, GsoKind, Instant, IpInfo, Mac, PortId, VnetHdr, Vni};

use super::balanced::{Balanced, Due};
use super::cache::{Entries, Memory};
use super::candidates::Direction;
use super::datagrams::Datagrams;
use super::installed::Installed;
use super::kernel::Kernel;
use super::shortcuts::{Basis, LOOK, Shortcuts};
use crate::port::Port;

/// Entries looked at in one round: two calls of the kernel for each exchange within the node.
const LOOK_BUDGET: usize = 512;

/// Whether a frame may be one of a flow that takes shortcuts.
fn is_plain(info: &IpInfo) -> bool {
    matches!(info.proto, TCP | UDP) && info.fragment == Fragment::None
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

/// A frame that came by a port, and where it goes.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    pub(super) port: &'a Arc<Port>,
    /// Before a balancer has changed it.
    pub(super) info: &'a IpInfo,
    pub(super) vnet: &'a VnetHdr,
    pub(super) dst_mac: Mac,
    pub(super) to: Destination,
}

impl Leaving<'_> {
    /// Whether it may be one of a flow that takes shortcuts, by a port that has some. One with several
    /// datagrams is of a stream, and the kernel leaves it alone.
    fn is_plain(&self) -> bool {
        is_plain(self.info)
            && (self.info.proto == TCP || self.vnet.gso() == GsoKind::None)
            && self.port.shortcut.load().is_some()
    }

    /// Its flow, which is worth an entry. `vni` is the network that it is on behind the balancer.
    fn due(&self, hash: u64, vni: Vni, balanced: Option<Balanced>, source_port: u16) -> Due {
        let flow = self.info.five_tuple();
        Due {
            hash,
            vni,
            flow,
            // The balancer says so once the entries are written, and the addresses.
            back: flow.reversed(),
            port: Arc::clone(self.port),
            macs: [self.dst_mac, self.port.mac],
            back_macs: [self.port.mac, self.dst_mac],
            to: self.to,
            balanced,
            source_port,
        }
    }
}

impl<E: Entries> Shortcuts<E> {
    /// A frame leaves as it is, by no balancer. `ack` is what it acknowledges, where no worker tells
    /// this one of the other direction; `source_port` says by which port its flow leaves.
    pub(super) fn left(
        &mut self,
        datagrams: &Datagrams,
        frame: &Leaving<'_>,
        ack: Option<u32>,
        now: Instant,
        source_port: impl FnOnce(&FiveTuple) -> u16,
    ) {
        if !frame.is_plain() {
            return;
        }
        let (info, vni) = (frame.info, frame.port.vni);
        let flow = info.five_tuple();
        let hash = self.hash(Some(vni), &flow);
        let back = match frame.to {
            Destination::Local(_) => self.hash(Some(vni), &flow.reversed()),
            Destination::Remote(_) => hash,
        };
        let worth = if info.proto == UDP {
            let worth = match frame.to {
                Destination::Local(_) => self.saw_datagram(datagrams, (hash, back), now),
                Destination::Remote(_) => self.candidates.datagrams(hash, Direction::Out, 1, now),
            };
            worth && self.is_free(datagrams, hash, now)
        } else {
            let worth = self.saw((hash, back), Direction::Out, info, now);
            let ack = ack.filter(|_| info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0);
            let heard = ack.is_some_and(|ack| self.candidates.heard(hash, 0, ack, now));
            worth || heard
        };
        if worth {
            self.enter(frame.due(hash, vni, None, source_port(&flow)));
        }
    }

    /// Counts a datagram that leaves for another port of this node, and what its sender has got; whether
    /// the flow is to get entries.
    fn saw_datagram(
        &mut self,
        datagrams: &Datagrams,
        (hash, back): (u64, u64),
        now: Instant,
    ) -> bool {
        datagrams.note(hash, 1);
        self.candidates.asked(hash, datagrams.count(back), now)
    }

    /// A client's frame goes to its replica, which it is rewritten for in `sent`.
    pub(super) fn requested(
        &mut self,
        datagrams: &Datagrams,
        frame: &Leaving<'_>,
        (origin, sent): (&Origin, &[u8]),
        now: Instant,
        source_port: impl FnOnce(&FiveTuple) -> u16,
    ) {
        let Some((kind, vni)) = kind_of(origin) else {
            return;
        };
        if !frame.is_plain() {
            return;
        }
        let info = frame.info;
        let flow = info.five_tuple();
        let hash = self.hash(vni, &flow);
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            // Whether that ends it, the balancer decides, and tells.
            self.candidates.forget(hash);
            return;
        }
        let worth = if info.proto == UDP {
            // Its replica's address is in it by now: so the answers are known.
            let Ok(Frame::Ip(request)) = parse(sent) else {
                return;
            };
            let answers = self.hash(vni, &request.five_tuple().reversed());
            let got = datagrams.count(answers);
            self.candidates.asked(hash, got, now) && self.is_free(datagrams, hash, now)
        } else {
            let (data, ack) = (info.payload_len(), acknowledged(sent, info));
            self.candidates.heard(hash, data, ack, now)
        };
        if worth {
            let vni = origin.vni();
            let balanced = Balanced::new(kind, vni, flow, info.payload);
            self.enter(frame.due(hash, vni, Some(balanced), source_port(&flow)));
        }
    }

    /// A frame of a replica goes to the node that its client came through.
    pub(super) fn returned(
        &mut self,
        frame: &Leaving<'_>,
        now: Instant,
        source_port: impl FnOnce(&FiveTuple) -> u16,
    ) {
        // Datagrams of clients outside come by listeners.
        if frame.info.proto != TCP || !frame.is_plain() {
            return;
        }
        let (info, vni) = (frame.info, frame.port.vni);
        let flow = info.five_tuple();
        let hash = self.hash(Some(vni), &flow);
        if self.saw((hash, hash), Direction::Out, info, now) {
            let balanced = Balanced::new(CarriageKind::Return, vni, flow, info.payload);
            self.enter(frame.due(hash, vni, Some(balanced), source_port(&flow)));
        }
    }

    /// So many frames of a replica reach their client if the balancer says so. Its worker may be
    /// another one.
    pub(super) fn answered(
        &self,
        datagrams: &Datagrams,
        (vni, info): (Vni, &IpInfo),
        verdict: &Reverse,
        frames: usize,
    ) {
        if info.proto == UDP && matches!(verdict, Reverse::Rewritten { .. }) {
            let hash = self.hash(Some(vni), &info.five_tuple());
            datagrams.note(hash, u32::try_from(frames).unwrap_or(u32::MAX));
        }
    }

    /// So many frames reach `port` by no balancer of this node, and `answer` is what is sent in return;
    /// of more than one, the headers are those of the first.
    pub(super) fn arrived(
        &mut self,
        port: &Port,
        info: &IpInfo,
        (answer, frames): (&FiveTuple, usize),
        now: Instant,
    ) {
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let hash = self.hash(Some(port.vni), answer);
        if info.proto == UDP {
            let count = u32::try_from(frames).unwrap_or(u32::MAX);
            self.candidates.datagrams(hash, Direction::In, count, now);
        } else {
            self.saw((hash, hash), Direction::In, info, now);
        }
    }

    /// Before the balancer sees a client's frame: tells it what was carried of its flow.
    pub(super) fn catch_up(
        &mut self,
        records: &Records,
        flows: &mut FlowTable,
        cx: &Context<'_>,
        (origin, info): (&Origin, &IpInfo),
    ) {
        // Of datagrams nothing is asked that the next look does not tell in time.
        if self.table.len() == 0 || !is_plain(info) || info.proto != TCP {
            return;
        }
        let Some((_, vni)) = kind_of(origin) else {
            return;
        };
        let hash = self.hash(vni, &info.five_tuple());
        self.tell(records, flows, cx, hash);
    }

    /// Before the balancer sees the end of a connection that node `via` has sent on: as
    /// [`Self::catch_up`].
    pub(super) fn catch_up_return(
        &mut self,
        records: &Records,
        flows: &mut FlowTable,
        cx: &Context<'_>,
        (vni, via, info): (Vni, Mac, &IpInfo),
    ) {
        if info.tcp_flags & (TCP_RST | TCP_FIN) == 0 || !is_plain(info) {
            return;
        }
        if let Some(answer) = flows.answer_to(via, info) {
            let hash = self.hash(Some(vni), &answer);
            self.tell(records, flows, cx, hash);
        }
    }

    /// Tells the balancer what was carried of a flow.
    fn tell(&mut self, records: &Records, flows: &mut FlowTable, cx: &Context<'_>, hash: u64) {
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
            let network = Some(ended.vni);
            let asked = match ended.kind {
                CarriageKind::Published => None,
                CarriageKind::Virtual | CarriageKind::Return => network,
            };
            for (vni, flow) in [(asked, ended.request), (network, ended.answer)] {
                let hash = self.hash(vni, &flow);
                self.over.push(hash);
            }
        }
        self.end(records, flows, cx);
        let mut made = 0;
        while let Some(mut due) = self.due.pop() {
            self.candidates.forget(due.hash);
            if let Some(balanced) = &due.balanced {
                let carriage = flows.carry(cx, balanced.kind, balanced.of());
                let Some(carriage) = carriage else {
                    continue;
                };
                due.follow(&carriage);
            }
            // Who only acknowledges what a sandbox of this node sends would never get an entry of
            // its own.
            let back = self.back(basis.snapshot, &due);
            for due in back.iter().chain(Some(&due)) {
                made += u64::from(self.install(basis, flows, due, cx));
            }
        }
        if cx.now >= self.look_at && self.table.len() > 0 {
            self.look(basis.kernel, flows, cx);
        }
        made
    }

    /// Looks at what was carried, and ends what is over.
    fn look<C: Memory>(&mut self, kernel: &Kernel<C>, flows: &mut FlowTable, cx: &Context<'_>) {
        let (datagrams, records) = (&kernel.datagrams, kernel.cache.records());
        let (over, installer, now) = (&mut self.over, &self.installer, cx.now);
        let done = self.table.look(LOOK_BUDGET, |installed| {
            let record = records.read(installed.record);
            let is_over = installed.follow(&record, flows, cx) || record.bound;
            if is_over || !installed.has_devices() {
                over.push(installed.flow);
            }
            // One that was entered a moment ago may be between the two.
            if Installed::is_unanswered(&record) && now.since(installed.since) >= LOOK {
                kernel.unanswered(now);
                over.push(installed.flow);
            }
            if let Some(time) = installed.judge(&record, (installer, records), now) {
                let answers = installed.receiver.as_ref().map(|receiver| receiver.flow);
                for flow in [installed.flow].into_iter().chain(answers) {
                    datagrams.hold(flow, now.after(time));
                    over.push(flow);
                }
            }
        });
        if done {
            self.look_at = now.after(LOOK);
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
