//! Frames that come from the underlay, by whichever worker they came first.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_mesh::Reverse;
use weft_sys::udp::Received;
use weft_vxlan::{Destination, Ingress};
use weft_wire::frame::{self, Frame, TCP, parse};
use weft_wire::gro::{MAX_SEGMENTS, Offer};
use weft_wire::{DropReason, GsoKind, IpInfo, PortId, VnetHdr, Vni, ecn, superframe};

use crate::handover::Handover;
use crate::node_frames::keep_for_node;
use crate::snapshot::Snapshot;
use crate::worker::{RunStart, UNDERLAY_BUDGET, Worker, context};

/// A decapsulated frame, in pieces of the receive arena.
struct Inner<'a> {
    vni: Vni,
    vnet: VnetHdr,
    head: Range<usize>,
    tails: &'a [Range<usize>],
    parsed: Frame,
    /// Where an answer goes.
    vtep: SocketAddr,
    /// The kernel had merged it with other datagrams, and steered them by the first.
    merged: bool,
}

impl Worker {
    /// Reads what waits on the VXLAN socket, up to the budget.
    pub(crate) fn read_underlay(&mut self, snapshot: &Snapshot) {
        for _ in 0..UNDERLAY_BUDGET {
            let received = match self.recv.recv(&self.underlay) {
                Ok(n) => n,
                Err(error) => {
                    tracing::error!(%error, "cannot read the VXLAN socket");
                    return;
                }
            };
            if received == 0 {
                return;
            }
            self.take_entries();
            self.counters()
                .rx_datagrams
                .fetch_add(received as u64, Ordering::Relaxed);
            for i in 0..received {
                self.datagram(snapshot, i);
            }
            self.close_run(snapshot);
            if !self.recv.more() {
                return;
            }
        }
    }

    fn datagram(&mut self, snapshot: &Snapshot, index: usize) {
        let Some(message) = self.recv.message(index) else {
            return;
        };
        if message.truncated {
            self.counters().underlay.add(DropReason::Truncated);
            return;
        }
        let step = message
            .gso_size
            .map_or(message.range.len(), usize::from)
            .max(1);
        // The source port is entropy; answers go to the port that VXLAN listens on.
        let from = SocketAddr::new(message.from.ip(), self.vxlan_port);
        // A run is held against one sender.
        if self.run.as_ref().is_some_and(|run| run.vtep != from) {
            self.close_run(snapshot);
        }
        let mut at = message.range.start;
        // Once also for a datagram without a byte.
        loop {
            let end = message.range.end.min(at + step);
            let verdict = self.encapsulated(snapshot, from, at..end, &message);
            if let Err(reason) = verdict {
                self.counters().underlay.add(reason);
                self.copy_datagram(from, at..end, reason);
            }
            at = end;
            if at >= message.range.end {
                return;
            }
        }
    }

    /// One VXLAN packet: into the open run, or on its own.
    fn encapsulated(
        &mut self,
        snapshot: &Snapshot,
        from: SocketAddr,
        packet: Range<usize>,
        message: &Received,
    ) -> Result<(), DropReason> {
        let bytes = &self.recv.arena()[packet.clone()];
        let (vni, inner) = match snapshot.switch.admit(from.ip(), bytes) {
            Ok(admitted) => admitted,
            Err(DropReason::UnknownVni) => return self.of_no_network(snapshot, from, packet),
            Err(reason) => return Err(reason),
        };
        let frame = packet.start + inner.start..packet.start + inner.end;
        if message.class != 0 {
            ecn::decapsulate(&mut self.recv.arena_mut()[frame.clone()], message.class)?;
        }
        let parsed = parse(&self.recv.arena()[frame.clone()])?;
        let Some(info) = parsed.ip() else {
            self.close_run(snapshot);
            let inner = Inner {
                vni,
                vnet: VnetHdr::NONE,
                head: frame,
                tails: &[],
                parsed,
                vtep: from,
                merged: message.gso_size.is_some(),
            };
            return self.inner_frame(snapshot, &inner);
        };
        // The kernel merges only datagrams whose outer checksum it verified.
        let trusted = message.gso_size.is_some();
        if !trusted {
            let mtu = snapshot
                .switch
                .mtu_from(vni, from.ip(), info)
                .map_or(1450, usize::from);
            let narrow = self.flows.path_mtu(vni, info);
            let mtu = narrow.map_or(mtu, |narrow| mtu.min(narrow.into()));
            let vnet = superframe::fixup(&mut self.recv.arena_mut()[frame.clone()], info, mtu)?;
            if vnet != VnetHdr::NONE {
                self.close_run(snapshot);
                let inner = Inner {
                    vni,
                    vnet,
                    head: frame,
                    tails: &[],
                    parsed,
                    vtep: from,
                    merged: false,
                };
                return self.inner_frame(snapshot, &inner);
            }
        }
        let key = u64::from(vni.get());
        let mut offer = self
            .coalescer
            .offer(self.recv.arena(), frame.clone(), info, key, trusted);
        if offer == Offer::Refused {
            self.close_run(snapshot);
            offer = self
                .coalescer
                .offer(self.recv.arena(), frame, info, key, trusted);
        }
        if offer == Offer::Started {
            self.run = Some(RunStart {
                info: *info,
                vtep: from,
                merged: trusted,
            });
        }
        Ok(())
    }

    /// Delivers the open run, if there is one.
    fn close_run(&mut self, snapshot: &Snapshot) {
        let Some(RunStart { info, vtep, merged }) = self.run.take() else {
            return;
        };
        let Some(run) = self.coalescer.take(self.recv.arena_mut()) else {
            return;
        };
        let Some(vni) = u32::try_from(run.key).ok().and_then(Vni::new) else {
            return;
        };
        let (vnet, head, count) = (run.vnet, run.head.clone(), run.tails.len());
        let mut tails = [const { 0..0 }; MAX_SEGMENTS];
        tails[..count].clone_from_slice(run.tails);
        let inner = Inner {
            vni,
            vnet,
            head,
            tails: &tails[..count],
            parsed: Frame::Ip(info),
            vtep,
            merged,
        };
        if let Err(reason) = self.inner_frame(snapshot, &inner) {
            self.counters().underlay.add_many(reason, 1 + count as u64);
            self.copy_run(vtep, &inner.head, inner.tails, reason);
        }
    }

    /// Looks a frame up, undoes a balancer's rewrite, and delivers it.
    fn inner_frame(&mut self, snapshot: &Snapshot, inner: &Inner<'_>) -> Result<(), DropReason> {
        let vni = inner.vni;
        let frame = &self.recv.arena()[inner.head.clone()];
        let from = inner.vtep.ip();
        match snapshot.switch.ingress(vni, from, frame, &inner.parsed) {
            Ingress::Local(to) => {
                let Frame::Ip(info) = &inner.parsed else {
                    return Err(DropReason::Multicast);
                };
                let bytes = &mut self.recv.arena_mut()[inner.head.clone()];
                let cx = context(self.now, snapshot);
                let partial = inner.vnet.needs_csum();
                let mut verdict = self.flows.reverse(&cx, vni, bytes, info, partial);
                // A port belongs to the worker of its first address, which is one of IPv4 where it
                // has both; its IPv6 address may be steered elsewhere.
                if (inner.merged || !info.is_ipv4())
                    && matches!(verdict, Reverse::NotAFlow)
                    && let Some(worker) = self.steered_past(snapshot, vni, info, to)
                {
                    verdict = Reverse::ToOwner { worker };
                }
                if matches!(verdict, Reverse::NotAFlow)
                    && let Some(mesh) = snapshot.mesh.as_ref()
                    && mesh.vni == vni
                    && mesh.port != to
                    && mesh.is_from_outside(info)
                {
                    if let Some(worker) = self.other_owner(snapshot, to) {
                        // Its port's worker has to know where the answers go.
                        verdict = Reverse::ToOwner { worker };
                    } else {
                        let bytes = &mut self.recv.arena_mut()[inner.head.clone()];
                        self.flows.arrived(&cx, vni, bytes, info, partial);
                    }
                }
                let frame = &self.recv.arena()[inner.head.clone()];
                if matches!(verdict, Reverse::NotAFlow)
                    && keep_for_node(&self.shared, snapshot, to, frame, info)
                {
                    return Ok(());
                }
                let is_plain = matches!(verdict, Reverse::NotAFlow);
                let frames = 1 + inner.tails.len();
                self.saw_answer(vni, info, &verdict, frames);
                let to = self.settle(snapshot, vni, to, verdict, &inner.vnet, |w| {
                    w.gather(&inner.head, inner.tails)
                })?;
                let Some(to) = to else { return Ok(()) };
                let port = snapshot.ports.get(&to).ok_or(DropReason::PortGone)?;
                if is_plain && port.worker == self.index {
                    self.saw_arrive(port, info, frames);
                }
                let arena = self.recv.arena();
                self.write_pieces_of(port, &inner.vnet, arena, &inner.head, inner.tails);
                Ok(())
            }
            Ingress::Answer(answer) => {
                let len = answer.write(frame, &mut self.scratch);
                self.send_scratch(vni, inner.vtep, len)
            }
            // VIPs are translated where the client is; a peer outside the cluster has no balancer.
            Ingress::Virtual => Err(DropReason::NoService),
            Ingress::Drop(reason) => Err(reason),
        }
    }

    /// The virtio header of a frame that another worker gave this one, in segments that the way to
    /// the client carries: see [`FlowTable::path_mtu`](weft_mesh::FlowTable::path_mtu).
    fn narrowed(&self, handover: &mut Handover, info: &IpInfo) -> Result<VnetHdr, DropReason> {
        let mut vnet = handover.vnet;
        let Some(mtu) = self.flows.path_mtu(handover.vni, info) else {
            return Ok(vnet);
        };
        match vnet.gso() {
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                let headers = info.payload - info.l3;
                let size = u16::try_from(usize::from(mtu).saturating_sub(headers)).unwrap_or(0);
                vnet.gso_size = vnet.gso_size.min(size.max(1));
                Ok(vnet)
            }
            GsoKind::None if info.proto == TCP && info.ip_len() > usize::from(mtu) => {
                superframe::fixup(&mut handover.frame, info, mtu.into())
            }
            GsoKind::None | GsoKind::UdpL4 | GsoKind::Other => Ok(vnet),
        }
    }

    /// The worker whose flow table may know a frame that does not belong to this one: the kernel
    /// merged it with frames to another address and steered them together, or the port is another
    /// worker's by its first address.
    ///
    /// `None` when this worker may deliver it: the port is its own, or no replica sent the frame.
    fn steered_past(
        &self,
        snapshot: &Snapshot,
        vni: Vni,
        info: &IpInfo,
        to: PortId,
    ) -> Option<u16> {
        if self.shared.inboxes.len() == 1 {
            return None;
        }
        let owner = snapshot.ports.get(&to)?.worker;
        if owner == self.index || !snapshot.services.is_replica(vni, info.src) {
            return None;
        }
        u16::try_from(owner).ok()
    }

    /// The worker that reads a port, when it is another one: a frame came here because the kernel
    /// had merged it with frames to another address.
    fn other_owner(&self, snapshot: &Snapshot, to: PortId) -> Option<u16> {
        let owner = snapshot.ports.get(&to)?.worker;
        (owner != self.index).then_some(u16::try_from(owner).ok()?)
    }

    /// A copy of a frame whose pieces are in the receive arena.
    fn gather(&self, head: &Range<usize>, tails: &[Range<usize>]) -> Box<[u8]> {
        let arena = self.recv.arena();
        let len = head.len() + tails.iter().map(Range::len).sum::<usize>();
        let mut frame = Vec::with_capacity(len);
        for piece in std::iter::once(head).chain(tails) {
            frame.extend_from_slice(&arena[piece.clone()]);
        }
        frame.into_boxed_slice()
    }

    /// Frames of local replicas that other workers passed on to the owner of the flow.
    pub(crate) fn take_handovers(&mut self, snapshot: &Snapshot) {
        let shared = Arc::clone(&self.shared);
        while let Some(mut handover) = shared.inboxes[self.index].frames.pop() {
            if let Err(reason) = self.handed_over(snapshot, &mut handover) {
                self.counters().underlay.add(reason);
                self.copy_handover(&handover.frame, reason);
            }
        }
    }

    fn handed_over(
        &mut self,
        snapshot: &Snapshot,
        handover: &mut Handover,
    ) -> Result<(), DropReason> {
        let vni = handover.vni;
        let Frame::Ip(info) = parse(&handover.frame)? else {
            return Err(DropReason::BadEthertype);
        };
        let vnet = self.narrowed(handover, &info)?;
        let mesh = snapshot.mesh.as_ref().filter(|mesh| mesh.vni == vni);
        // Whoever passed it on has asked where it comes from.
        let to = match snapshot.switch.lookup(vni, frame::dst_mac(&handover.frame)) {
            Some(Destination::Local(to)) => to,
            // By way of the gateway to a client outside: only flows of published ports do that.
            _ => mesh.ok_or(DropReason::PortGone)?.port,
        };
        let cx = context(self.now, snapshot);
        let verdict = self
            .flows
            .reverse(&cx, vni, &mut handover.frame, &info, vnet.needs_csum());
        if matches!(verdict, Reverse::NotAFlow)
            && keep_for_node(&self.shared, snapshot, to, &handover.frame, &info)
        {
            return Ok(());
        }
        if let Reverse::ToOwner { .. } = verdict {
            return Err(DropReason::NotAFlow);
        }
        let arrived = matches!(verdict, Reverse::NotAFlow)
            && mesh.is_some_and(|mesh| mesh.port != to && mesh.is_from_outside(&info));
        if arrived {
            let partial = vnet.needs_csum();
            self.flows
                .arrived(&cx, vni, &mut handover.frame, &info, partial);
        }
        self.saw_answer(vni, &info, &verdict, 1);
        let to = self.settle(snapshot, vni, to, verdict, &vnet, |_| Box::default())?;
        let Some(to) = to else { return Ok(()) };
        let port = snapshot.ports.get(&to).ok_or(DropReason::PortGone)?;
        if arrived && port.worker == self.index {
            self.saw_arrive(port, &info, 1);
        }
        self.write_pieces(port, &vnet, &handover.frame);
        Ok(())
    }
}
