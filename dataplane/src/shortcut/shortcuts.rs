//! The shortcuts of one worker: which flows get entries, what is written into these, when they go.

use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use weft_fastpath::{
    FlowCache, FlowKey, Hardware, InEntry, Installer, MESH_NUMBER, OutEntry, RecordPool, Records,
    Rewrite, Scope, Way,
};
use weft_mesh::{CarriageKind, Context, FlowTable};
use weft_vxlan::Destination;
use weft_wire::ecn::Dscp;
use weft_wire::frame::{TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{FiveTuple, Instant, IpInfo, Vni};

use super::balanced::Due;
use super::cache::{Entries, Memory};
use super::candidates::{Candidates, Direction};
use super::datagrams::Datagrams;
use super::epochs::FlowEpochs;
use super::installed::{Installed, Receiver, Table};
use super::kernel::Kernel;
use super::sandbox::Shortcut;
use crate::snapshot::Snapshot;

/// Between two looks at what was carried.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Flows that wait for their entries at most: the others come again.
const DUE: usize = 64;
/// One port has this part of a worker's entries at most.
const SHARE: u32 = 8;
/// Such parts of the clients outside, who all come by one port.
const MESH_SHARES: usize = 4;

/// What entries are made of.
#[derive(Debug)]
pub(super) struct Basis<'a, C> {
    pub(super) kernel: &'a Kernel<C>,
    pub(super) snapshot: &'a Snapshot,
    /// Where VXLAN datagrams are received, where that is one address of IPv4.
    pub(super) own: Option<SocketAddrV4>,
    pub(super) dscp: Dscp,
}

/// The shortcuts of one worker.
#[derive(Debug)]
pub(crate) struct Shortcuts<E = Installer> {
    pub(super) candidates: Candidates,
    pub(super) table: Table,
    pub(super) pool: RecordPool,
    pub(super) installer: E,
    pub(super) due: Vec<Due>,
    hasher: RandomState,
    /// When entries are looked at next; a look that is not at its end goes on in each round.
    pub(super) look_at: Instant,
    /// Flows that are over: kept for its room.
    pub(super) over: Vec<u64>,
    /// Entries that one port may have, so that no sandbox takes all.
    share: usize,
}

impl Shortcuts {
    /// Of one worker out of `workers`.
    pub(super) fn open(kernel: &Kernel, index: usize, workers: usize) -> Option<Self> {
        match kernel.cache.installer() {
            Ok(installer) => Self::new(installer, kernel.hasher.clone(), (index, workers)),
            Err(error) => {
                tracing::warn!(%error, "this worker's flows take no shortcut");
                None
            }
        }
    }
}

impl<E: Entries> Shortcuts<E> {
    /// As [`Shortcuts::open`], written by `installer`.
    pub(super) fn new(
        installer: E,
        hasher: RandomState,
        (index, workers): (usize, usize),
    ) -> Option<Self> {
        let part = FlowCache::FLOWS / u32::try_from(workers).ok()?.max(1);
        let first = part * u32::try_from(index).ok()?;
        // The last two are those of the self-test.
        let end = (first + part).min(FlowCache::FLOWS - 2);
        Some(Self {
            candidates: Candidates::new(),
            table: Table::default(),
            pool: RecordPool::new(first..end),
            installer,
            due: Vec::with_capacity(DUE),
            hasher,
            look_at: Instant(0),
            over: Vec::new(),
            share: (end.saturating_sub(first) / SHARE) as usize,
        })
    }

    /// How long the worker may sleep before entries are looked at.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        (self.table.len() > 0).then(|| self.look_at.since(now))
    }

    /// By what the worker tells flows. `vni` is where their addresses mean something, none at `weft0`.
    pub(super) fn hash(&self, vni: Option<Vni>, flow: &FiveTuple) -> u64 {
        // 0 names an empty place.
        self.hasher.hash_one((vni.map(Vni::get), flow)) | 1
    }

    /// A frame that the worker carried, of a flow and its other direction by hash; true when the flow
    /// is to get entries.
    pub(super) fn saw(
        &mut self,
        (hash, back): (u64, u64),
        direction: Direction,
        info: &IpInfo,
        now: Instant,
    ) -> bool {
        if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            self.candidates.forget(hash);
            // In the round that found it worth an entry, too.
            self.due.retain(|due| due.hash != hash && due.hash != back);
            if self.table.len() > 0 {
                self.over.extend([hash, back]);
            }
            return false;
        }
        self.candidates
            .seen(hash, direction, info.payload_len(), now)
    }

    /// Whether datagrams that are worth entries may have them by now.
    pub(super) fn is_free(&mut self, datagrams: &Datagrams, hash: u64, now: Instant) -> bool {
        let is_held = datagrams.is_held(hash, now);
        if is_held {
            self.candidates.forget(hash);
        }
        !is_held
    }

    /// A flow is worth an entry.
    pub(super) fn enter(&mut self, due: Due) {
        let is_new = self.due.iter().all(|other| other.hash != due.hash);
        if is_new && self.due.len() < DUE {
            self.due.push(due);
        }
    }

    /// Deletes the entries of flows that are over.
    pub(super) fn end(&mut self, records: &Records, flows: &mut FlowTable, cx: &Context<'_>) {
        while let Some(flow) = self.over.pop() {
            let Some(mut installed) = self.table.remove(flow) else {
                continue;
            };
            match installed.inward {
                Some(inward) => {
                    self.installer.remove_out(installed.out);
                    // One client's port towards two nodes may come to one replica: what comes has one
                    // key then, which is whose it was first.
                    if self.installer.record_in(inward) == Some(installed.record) {
                        self.installer.remove_in(inward);
                    }
                }
                // Of a flow that stays on this node the other port's worker may have entered both
                // directions, too.
                None if self.installer.is_of(installed.out, installed.record) => {
                    self.installer.remove_out(installed.out);
                }
                None => {}
            }
            let record = records.read(installed.record);
            installed.follow(&record, flows, cx);
            self.pool.close(installed.record);
        }
    }

    /// The other direction of a flow that stays on this node.
    pub(super) fn back(&self, snapshot: &Snapshot, due: &Due) -> Option<Due> {
        let Destination::Local(to) = due.to else {
            return None;
        };
        Some(Due {
            hash: self.hash(Some(due.vni), &due.back),
            vni: due.vni,
            flow: due.back,
            back: due.flow,
            port: Arc::clone(snapshot.ports.get(&to)?),
            macs: due.back_macs,
            back_macs: due.macs,
            to: Destination::Local(due.port.id),
            balanced: due.balanced.map(|request| request.answers()),
            source_port: due.source_port,
        })
    }

    /// The other end of a flow that stays on this node.
    fn receiver(&self, snapshot: &Snapshot, due: &Due, way: Way) -> Option<Receiver> {
        let (Destination::Local(to), Way::Local { other, .. }) = (due.to, way) else {
            return None;
        };
        Some(Receiver {
            port: Arc::clone(snapshot.ports.get(&to)?),
            flow: self.hash(Some(due.vni), &due.back),
            out: FlowKey {
                scope: Scope::Out(other),
                flow: due.back,
            },
        })
    }

    /// Whether what comes from another node has an entry of another flow.
    fn is_taken(&mut self, flow: u64, inward: Option<FlowKey>) -> bool {
        let taken = inward.and_then(|inward| self.installer.record_in(inward));
        let own = self.table.get_mut(flow).map(|known| known.record);
        taken.is_some() && taken != own
    }

    /// Writes the entries of a flow; false when it cannot have any.
    pub(super) fn install<C: Memory>(
        &mut self,
        basis: &Basis<'_, C>,
        flows: &mut FlowTable,
        due: &Due,
        cx: &Context<'_>,
    ) -> bool {
        let (kernel, snapshot) = (basis.kernel, basis.snapshot);
        let records = kernel.cache.records();
        let (now, vni) = (cx.now, due.vni);
        // Before the routes: see `Kernel::word`.
        let epoch = kernel.word(snapshot.flow_epochs.of(vni));
        let Some(at) = due.port.shortcut.load_full() else {
            return false;
        };
        if !kernel.ipv6 && due.flow.src.is_ipv6() {
            return false;
        }
        // The frame goes by its hardware address. An entry goes by the other one, and speaks for it.
        let owner = snapshot.switch.neighbor(vni, due.flow.dst);
        if due.balanced.is_none() && owner != Some(due.macs[0]) {
            return false;
        }
        // A client outside is nobody's there. Its node is found by the hardware address alone.
        if due.is(CarriageKind::Return) && snapshot.switch.lookup(vni, due.macs[0]) != Some(due.to)
        {
            return false;
        }
        let Some((way, from)) = way(basis, due, now) else {
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
            flow: due.back,
        });
        if due.is(CarriageKind::Return) && self.is_taken(due.hash, inward) {
            return false;
        }
        let receiver = self.receiver(snapshot, due, way);
        let ports = (due.port.id, receiver.as_ref().map(|at| at.port.id));
        // Entries of before are found by their own keys.
        let before = self.table.get_mut(due.hash);
        if before.is_some_and(|before| !before.is_of((out, inward), *at, ports)) {
            self.over.push(due.hash);
            self.end(records, flows, cx);
        }
        let known = self.table.get_mut(due.hash).map(|known| {
            known.since = now;
            known.record
        });
        if known.is_none() && self.table.count_of(due.port.id) >= self.share_of(&at) {
            return false;
        }
        let Some(record) = known.or_else(|| self.pool.open(records)) else {
            return false;
        };
        if known.is_none() {
            let ports = (Arc::clone(&due.port), receiver);
            let keys = (out, inward);
            let installed = Installed::new(due.hash, keys, record, ports, *at, due.balanced, now);
            self.table.put(installed);
            self.look_at = self.look_at.min(now.after(LOOK));
        }
        let (rewrite, rewrite_back) = due.rewrites();
        let entry = OutEntry {
            record,
            network: FlowEpochs::place(vni),
            epoch,
            second: at.second,
            largest,
            way,
            rewrite,
        };
        let back = (rewrite_back, due.by_device());
        match self.write((out, entry), inward.zip(from), back, &at) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a flow takes no shortcut");
                self.over.push(due.hash);
                self.end(records, flows, cx);
                false
            }
        }
    }

    const fn share_of(&self, at: &Shortcut) -> usize {
        if at.number == MESH_NUMBER {
            self.share * MESH_SHARES
        } else {
            self.share
        }
    }

    /// What comes first: what leaves tells the kernel of the flow's socket.
    fn write(
        &mut self,
        (out, entry): (FlowKey, OutEntry),
        inward: Option<(FlowKey, (SocketAddrV4, SocketAddrV4))>,
        (rewrite, by_device): (Option<Rewrite>, Option<Hardware>),
        at: &Shortcut,
    ) -> Result<(), E::Refusal> {
        self.installer.put_out(out, entry)?;
        let Some((key, (from, to))) = inward else {
            return Ok(());
        };
        let inward = InEntry {
            record: entry.record,
            network: entry.network,
            epoch: entry.epoch,
            device: at.host_end,
            underlay: match entry.way {
                Way::Remote { device, .. } => device,
                Way::Local { .. } => 0,
            },
            from: *from.ip(),
            to,
            by_device,
            rewrite,
        };
        self.installer.put_in(key, inward)
    }
}

/// The way of a flow out of its sandbox; to another node also the VTEPs of the way back, from and to.
fn way<C: Memory>(
    basis: &Basis<'_, C>,
    due: &Due,
    now: Instant,
) -> Option<(Way, Option<(SocketAddrV4, SocketAddrV4)>)> {
    match due.to {
        Destination::Local(port) => {
            let other = basis.snapshot.ports.get(&port)?.shortcut.load_full()?;
            // The node's own address is nobody's but for clients outside.
            if other.number == MESH_NUMBER && !due.is(CarriageKind::Published) {
                return None;
            }
            let way = Way::Local {
                device: other.host_end,
                other: other.number,
                hardware: due.hardware(other.second_mac),
            };
            Some((way, None))
        }
        // The answers could not come, or do not.
        Destination::Remote(_)
            if due.is(CarriageKind::Published) && !basis.kernel.decapsulates(now) =>
        {
            None
        }
        Destination::Remote(SocketAddr::V4(vtep)) => {
            let route = basis.kernel.route(*vtep.ip())?;
            let own = basis.own?;
            let way = Way::Remote {
                device: route.device,
                next_hop: route.next_hop,
                from: SocketAddrV4::new(*own.ip(), due.source_port),
                to: SocketAddrV4::new(*vtep.ip(), route.second_port.unwrap_or(vtep.port())),
                vni: due.vni,
                dst_mac: due.macs[0],
                src_mac: due.macs[1],
                dscp: basis.dscp,
            };
            Some((way, Some((vtep, own))))
        }
        Destination::Remote(SocketAddr::V6(_)) => None,
    }
}
