//! What a worker does with shortcuts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_vxlan::Destination;
use weft_wire::frame::TCP;
use weft_wire::{Fragment, IpInfo, Mac, PortId};

use super::candidates::Direction;
use super::shortcuts::{DUE, Due, LOOK, Shortcuts};
use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Entries looked at in one round.
const LOOK_BUDGET: usize = 2048;

/// Whether a frame may be one of a flow that takes shortcuts.
fn is_plain(info: &IpInfo) -> bool {
    info.proto == TCP && info.fragment == Fragment::None
}

impl Worker {
    /// A frame of `port` goes to `to` as it is, by no balancer.
    pub(crate) fn saw_leave(
        &mut self,
        port: &Arc<Port>,
        to: Destination,
        info: Option<&IpInfo>,
        dst_mac: Mac,
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
        let hash = shortcuts.hash(port.vni, &flow);
        let back = match to {
            Destination::Local(_) => shortcuts.hash(port.vni, &flow.reversed()),
            Destination::Remote(_) => hash,
        };
        if shortcuts.saw((hash, back), Direction::Out, info, self.now)
            && shortcuts.due.len() < DUE
            && shortcuts.due.iter().all(|due| due.hash != hash)
        {
            shortcuts.due.push(Due {
                hash,
                flow,
                port: Arc::clone(port),
                dst_mac,
                to,
            });
        }
    }

    /// A frame reaches `port` as it is, by no balancer.
    pub(crate) fn saw_arrive(&mut self, port: &Port, info: &IpInfo) {
        let Some(shortcuts) = self.shortcuts.as_mut() else {
            return;
        };
        if !is_plain(info) || port.shortcut.load().is_none() {
            return;
        }
        let hash = shortcuts.hash(port.vni, &info.five_tuple().reversed());
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
        if !shortcuts.over.is_empty() {
            shortcuts.end(kernel, self.now);
        }
        while let Some(due) = shortcuts.due.pop() {
            let tables = (snapshot, self.dscp);
            // Who only acknowledges what a sandbox of this node sends would never get an entry of
            // its own.
            let back = shortcuts.back(snapshot, &due);
            for due in back.iter().chain(Some(&due)) {
                if shortcuts.install(&self.shared, kernel, tables, due, self.now) {
                    let counters = &self.shared.counters[self.index];
                    counters.shortcuts_made.fetch_add(1, Ordering::Relaxed);
                }
            }
            shortcuts.candidates.forget(due.hash);
        }
        if self.now >= shortcuts.look_at && shortcuts.table.len() > 0 {
            let (records, now) = (&kernel.cache.records, self.now);
            let done = shortcuts
                .table
                .look(LOOK_BUDGET, &mut shortcuts.over, |installed| {
                    let record = records.read(installed.record);
                    let over = installed.follow(&record, now) || record.bound;
                    over || !installed.has_devices()
                });
            if done {
                shortcuts.look_at = now.after(LOOK);
            }
            shortcuts.end(kernel, now);
        }
        let counters = &self.shared.counters[self.index];
        let count = shortcuts.table.len() as u64;
        counters.shortcuts.store(count, Ordering::Relaxed);
    }

    /// A port is gone, and its entries with it.
    pub(crate) fn end_shortcuts_of(&mut self, port: PortId) {
        let (Some(kernel), Some(shortcuts)) =
            (self.shared.fast_path.get(), self.shortcuts.as_mut())
        else {
            return;
        };
        shortcuts.over.extend(shortcuts.table.of_port(port));
        shortcuts.due.retain(|due| due.port.id != port);
        shortcuts.end(kernel, self.now);
    }
}
