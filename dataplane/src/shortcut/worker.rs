//! What a worker tells its shortcuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_mesh::{Origin, Reverse};
use weft_vxlan::Destination;
use weft_wire::{FiveTuple, IpInfo, Mac, PortId, VnetHdr, Vni};

use super::round::Leaving;
use super::shortcuts::{Basis, Shortcuts};
use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

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
        let (Some(kernel), Some(shortcuts), Some(info)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut(), info)
        else {
            return;
        };
        let frame = Leaving {
            port,
            info,
            vnet,
            dst_mac,
            to,
        };
        let (now, queue) = (self.now, &self.queue);
        shortcuts.left(&kernel.datagrams, &frame, ack, now, |flow| {
            queue.source_port(flow)
        });
    }

    /// A client's frame for the balancer: what the kernel has carried of its flow comes first, as the
    /// balancer asks of a reset whether it can be the client's own.
    pub(crate) fn catch_up(&mut self, snapshot: &Snapshot, origin: &Origin, info: &IpInfo) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        let cx = context(self.now, snapshot);
        let records = &kernel.cache.records;
        shortcuts.catch_up(records, &mut self.flows, &cx, (origin, info));
    }

    /// As [`Self::catch_up`], for a frame that node `via` has sent on, of a client at its published port.
    pub(crate) fn catch_up_return(
        &mut self,
        snapshot: &Snapshot,
        vni: Vni,
        via: Mac,
        info: &IpInfo,
    ) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        let cx = context(self.now, snapshot);
        let records = &kernel.cache.records;
        shortcuts.catch_up_return(records, &mut self.flows, &cx, (vni, via, info));
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
        let frame = Leaving {
            port,
            info,
            vnet: &held.vnet,
            dst_mac,
            to,
        };
        let (now, queue) = (self.now, &self.queue);
        let sent = (origin, queue.peek(held.frame.clone()));
        shortcuts.requested(&kernel.datagrams, &frame, sent, now, |flow| {
            queue.source_port(flow)
        });
    }

    /// A frame of `port`, a replica's, goes to the node that its client came through.
    pub(crate) fn saw_return(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        (info, vnet): (&IpInfo, &VnetHdr),
        dst_mac: Mac,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        let frame = Leaving {
            port,
            info,
            vnet,
            dst_mac,
            to,
        };
        let queue = &self.queue;
        shortcuts.returned(&frame, self.now, |flow| queue.source_port(flow));
    }

    /// So many frames of a replica reach their client if the balancer says so. Its worker may be
    /// another one.
    pub(crate) fn saw_answer(&self, vni: Vni, info: &IpInfo, verdict: &Reverse, frames: usize) {
        if let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_ref())
        {
            shortcuts.answered(&kernel.datagrams, (vni, info), verdict, frames);
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
        if let Some(shortcuts) = self.shortcuts.as_mut() {
            let answer = answer.unwrap_or_else(|| info.five_tuple().reversed());
            shortcuts.arrived(port, info, (&answer, frames), self.now);
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
        let basis = Basis {
            kernel,
            snapshot,
            own: self.shared.own,
            dscp: self.dscp,
        };
        let cx = context(self.now, snapshot);
        let made = shortcuts.keep(&basis, &mut self.flows, &cx);
        let counters = &self.shared.counters[self.index];
        if made > 0 {
            counters.shortcuts_made.fetch_add(made, Ordering::Relaxed);
        }
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
        let cx = context(self.now, snapshot);
        let records = &kernel.cache.records;
        shortcuts.end_port(records, &mut self.flows, &cx, port);
    }
}
