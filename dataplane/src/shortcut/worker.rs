//! What a worker tells its shortcuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_vxlan::Destination;
use weft_wire::{IpInfo, Mac, PortId};

use super::round::{Leaving, is_plain};
use super::shortcuts::{Basis, Shortcuts};
use crate::frame_slot::Held;
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::{Worker, context};

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
        let (Some(info), Some(shortcuts)) = (info, self.shortcuts.as_mut()) else {
            return;
        };
        let frame = Leaving {
            port,
            info,
            dst_mac,
            to,
        };
        let queue = &self.queue;
        shortcuts.left(&frame, ack, self.now, |flow| queue.source_port(flow));
    }

    /// A frame of `port` for a virtual address: what the kernel has carried of its flow comes first, as
    /// the balancer asks of a reset whether it can be the client's own.
    pub(crate) fn catch_up(&mut self, snapshot: &Snapshot, port: &Port, info: &IpInfo) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        let cx = context(self.now, snapshot);
        let records = &kernel.cache.records;
        shortcuts.catch_up(records, &mut self.flows, &cx, (port.vni, info));
    }

    /// A frame of `port` for a virtual address goes to its replica, in `held`.
    pub(crate) fn saw_request(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        held: &Held,
        info: &IpInfo,
        dst_mac: Mac,
    ) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if !is_plain(info) {
            return;
        }
        let ack = acknowledged(self.queue.bytes(held.frame.clone()), info);
        let frame = Leaving {
            port,
            info,
            dst_mac,
            to,
        };
        let queue = &self.queue;
        shortcuts.requested(&frame, ack, self.now, |flow| queue.source_port(flow));
    }

    /// A frame reaches `port` as it is, by no balancer.
    pub(crate) fn saw_arrive(&mut self, port: &Port, info: &IpInfo) {
        if let Some(shortcuts) = self.shortcuts.as_mut() {
            shortcuts.arrived(port, info, self.now);
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
