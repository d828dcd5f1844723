//! What a worker does with shortcuts.

use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;

use weft_fastpath::{FlowCache, FlowKey, InEntry, Installer, OutEntry, RecordPool, Scope, Way};
use weft_vxlan::Destination;
use weft_wire::ecn::Dscp;
use weft_wire::frame::{TCP, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Fragment, Instant, IpInfo, Mac, PortId, Vni, flow};

use super::candidates::{Candidates, Direction};
use super::epochs::FlowEpochs;
use super::installed::{Installed, Table};
use super::kernel::Kernel;
use super::sandbox::Shortcut;
use crate::port::Port;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Between two looks at what was carried.
const LOOK: Duration = Duration::from_secs(1);
/// Entries looked at in one round.
const LOOK_BUDGET: usize = 2048;
/// Flows that wait for their entries at most: the others come again.
const DUE: usize = 64;

/// A flow that gets its entries at the end of the round.
#[derive(Debug)]
struct Due {
    hash: u64,
    flow: FiveTuple,
    port: Arc<Port>,
    dst_mac: Mac,
    to: Destination,
}

/// The shortcuts of one worker.
#[derive(Debug)]
pub(crate) struct Shortcuts {
    candidates: Candidates,
    table: Table,
    pool: RecordPool,
    installer: Installer,
    due: Vec<Due>,
    hasher: RandomState,
    /// When entries are looked at next; a look that is not at its end goes on in each round.
    look_at: Instant,
    /// Flows that are over: kept for its room.
    over: Vec<u64>,
}

impl Shortcuts {
    /// Of one worker out of `workers`.
    fn open(kernel: &Kernel, index: usize, workers: usize) -> Option<Self> {
        let part = FlowCache::FLOWS / u32::try_from(workers).ok()?.max(1);
        let first = part * u32::try_from(index).ok()?;
        // The last two are those of the self-test.
        let end = (first + part).min(FlowCache::FLOWS - 2);
        match kernel.cache.installer() {
            Ok(installer) => Some(Self {
                candidates: Candidates::new(),
                table: Table::default(),
                pool: RecordPool::new(first..end),
                installer,
                due: Vec::with_capacity(DUE),
                hasher: RandomState::default(),
                look_at: Instant(0),
                over: Vec::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "this worker's flows take no shortcut");
                None
            }
        }
    }

    /// How long the worker may sleep before entries are looked at.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        (self.table.len() > 0).then(|| self.look_at.since(now))
    }

    fn hash(&self, vni: Vni, flow: &FiveTuple) -> u64 {
        // 0 names an empty place.
        self.hasher.hash_one((vni.get(), flow)) | 1
    }

    /// A frame that the worker carried, of a flow and its other direction by hash; true when the flow
    /// is to get entries.
    fn saw(
        &mut self,
        (hash, back): (u64, u64),
        direction: Direction,
        info: &IpInfo,
        now: Instant,
    ) -> bool {
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            self.candidates.forget(hash);
            if self.table.len() > 0 {
                self.over.extend([hash, back]);
            }
            return false;
        }
        self.candidates
            .seen(hash, direction, info.payload_len(), now)
    }

    /// Deletes the entries of flows that are over.
    fn end(&mut self, kernel: &Kernel, now: Instant) {
        while let Some(flow) = self.over.pop() {
            let Some(mut installed) = self.table.remove(flow) else {
                continue;
            };
            self.installer.remove_out(installed.out);
            if let Some(inward) = installed.inward {
                self.installer.remove_in(inward);
            }
            installed.follow(&kernel.cache.records.read(installed.record), now);
            self.pool.close(installed.record);
        }
    }
}

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

impl Shortcuts {
    /// The other direction of a flow that stays on this node.
    fn back(&self, snapshot: &Snapshot, due: &Due) -> Option<Due> {
        let Destination::Local(to) = due.to else {
            return None;
        };
        let flow = due.flow.reversed();
        Some(Due {
            hash: self.hash(due.port.vni, &flow),
            flow,
            port: Arc::clone(snapshot.ports.get(&to)?),
            dst_mac: due.port.mac,
            to: Destination::Local(due.port.id),
        })
    }

    /// Writes the entries of a flow; false when it cannot have any.
    fn install(
        &mut self,
        shared: &Shared,
        kernel: &Kernel,
        (snapshot, dscp): (&Snapshot, Dscp),
        due: &Due,
        now: Instant,
    ) -> bool {
        let vni = due.port.vni;
        // Before the routes: see `Kernel::word`.
        let epoch = kernel.word(snapshot.flow_epochs.of(vni));
        let Some(at) = due.port.shortcut.load_full() else {
            return false;
        };
        if !kernel.ipv6 && due.flow.src.is_ipv6() {
            return false;
        }
        let Some((way, from)) = way(shared, kernel, (snapshot, dscp), due) else {
            return false;
        };
        let largest = match way {
            Way::Remote { to, .. } => snapshot.switch.mtu_to(vni, IpAddr::V4(*to.ip())),
            Way::Local { .. } => snapshot.switch.network(vni).map(|network| network.mtu),
        };
        let Some(largest) = largest else {
            return false;
        };
        let out = FlowKey {
            scope: Scope::Out(at.number),
            flow: due.flow,
        };
        let inward = from.map(|_| FlowKey {
            scope: Scope::In(vni),
            flow: due.flow.reversed(),
        });
        // Entries of before are found by their own keys.
        let before = self.table.get_mut(due.hash);
        if before.is_some_and(|before| !before.is_of((out, inward), *at)) {
            self.over.push(due.hash);
            self.end(kernel, now);
        }
        let known = self.table.get_mut(due.hash).map(|known| {
            known.since = now;
            known.record
        });
        let Some(record) = known.or_else(|| self.pool.open(&kernel.cache.records)) else {
            return false;
        };
        if known.is_none() {
            let receiver = match due.to {
                Destination::Local(to) => snapshot.ports.get(&to).map(Arc::clone),
                Destination::Remote(_) => None,
            };
            let ports = (Arc::clone(&due.port), receiver);
            let keys = (out, inward);
            let installed = Installed::new(due.hash, keys, record, ports, *at, now);
            self.table.put(installed);
            self.look_at = self.look_at.min(now.after(LOOK));
        }
        let entry = OutEntry {
            record,
            network: FlowEpochs::place(vni),
            epoch,
            second: at.second,
            largest,
            way,
        };
        match self.write((out, entry), inward.zip(from), &at) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a flow takes no shortcut");
                self.over.push(due.hash);
                self.end(kernel, now);
                false
            }
        }
    }

    /// What comes first: what leaves tells the kernel of the flow's socket.
    fn write(
        &mut self,
        (out, entry): (FlowKey, OutEntry),
        inward: Option<(FlowKey, (SocketAddrV4, SocketAddrV4))>,
        at: &Shortcut,
    ) -> Result<(), weft_fastpath::InstallError> {
        self.installer.put_out(out, entry)?;
        let Some((key, (from, to))) = inward else {
            return Ok(());
        };
        let inward = InEntry {
            record: entry.record,
            network: entry.network,
            epoch: entry.epoch,
            device: at.host_end,
            from: *from.ip(),
            to,
        };
        self.installer.put_in(key, inward)
    }
}

/// The way of a flow out of its sandbox; to another node also the VTEPs of the way back, from and to.
fn way(
    shared: &Shared,
    kernel: &Kernel,
    (snapshot, dscp): (&Snapshot, Dscp),
    due: &Due,
) -> Option<(Way, Option<(SocketAddrV4, SocketAddrV4)>)> {
    match due.to {
        Destination::Local(port) => {
            let other = snapshot.ports.get(&port)?.shortcut.load_full()?;
            let way = Way::Local {
                device: other.host_end,
                other: other.number,
            };
            Some((way, None))
        }
        Destination::Remote(SocketAddr::V4(vtep)) => {
            let route = kernel.route(*vtep.ip())?;
            let own = shared.own?;
            let way = Way::Remote {
                device: route.device,
                next_hop: route.next_hop,
                from: SocketAddrV4::new(*own.ip(), flow::entropy_port(&due.flow)),
                to: vtep,
                vni: due.port.vni,
                dst_mac: due.dst_mac,
                src_mac: due.port.mac,
                dscp,
            };
            Some((way, Some((vtep, own))))
        }
        Destination::Remote(SocketAddr::V6(_)) => None,
    }
}
