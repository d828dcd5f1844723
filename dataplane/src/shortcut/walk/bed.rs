//! One node: its workers with the real tables and decisions, in rounds as the event loop has them, and
//! the programs in front.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_utils::sync::Parker;
use weft_mesh::{FlowConfig, FlowTable};
use weft_wire::ecn::Dscp;
use weft_wire::{Instant, PortId};

use super::super::cache::Memory;
use super::super::kernel::Kernel;
use super::super::shortcuts::{Basis, Shortcuts};
use super::connection::Connection;
use super::counts::Counts;
use super::programs::{Cache, Programs, Writer};
use super::world::{Change, ENDPOINTS, Place, WORKERS, World, ip, own, route, vtep, worker_of};
use crate::capture::{Capture, CaptureFilter};
use crate::snapshot::Snapshot;
use crate::worker::context;

/// One worker.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) flows: FlowTable,
    pub(super) shortcuts: Shortcuts<Writer>,
    pub(super) snapshot: Arc<Snapshot>,
    /// Records that it had at first.
    pub(super) records: usize,
    watched: Vec<PortId>,
    sweeping: bool,
    /// A round has begun, and is not at its end.
    pub(super) is_reading: bool,
}

#[derive(Debug)]
pub(super) struct Bed {
    pub(super) world: World,
    pub(super) kernel: Kernel<Cache>,
    pub(super) programs: Rc<RefCell<Programs>>,
    pub(super) readers: Vec<Reader>,
    published: ArcSwap<Snapshot>,
    capture: ArcSwapOption<Capture>,
    pub(super) now: Instant,
    pub(super) connections: Vec<Connection>,
    /// A round reads more than one frame: it ends when the bed settles.
    pub(super) batch: bool,
    /// Tables that come between the decisions of a round and what it writes.
    pub(super) meanwhile: Option<Change>,
    pub(super) counts: Counts,
}

impl Reader {
    fn new(index: usize, seed: u64, kernel: &Kernel<Cache>, writer: Writer) -> Self {
        let hasher = kernel.hasher.clone();
        let shortcuts = Shortcuts::new(writer, hasher, (index, WORKERS)).expect("records");
        let flows = FlowTable::new(FlowConfig {
            worker: u16::try_from(index).unwrap(),
            capacity: 1000,
            syn_copies: 64,
            waiting: 64,
            seed,
            ..FlowConfig::default()
        });
        Self {
            flows,
            records: shortcuts.pool.free(),
            shortcuts,
            snapshot: Arc::new(Snapshot::empty()),
            watched: Vec::new(),
            sweeping: false,
            is_reading: false,
        }
    }
}

impl Bed {
    pub(super) fn new(seed: u64) -> Self {
        let (programs, cache) = Programs::load();
        let programs = Rc::new(RefCell::new(programs));
        let kernel = Kernel::new(cache, true);
        let readers = (0..WORKERS)
            .map(|index| Reader::new(index, seed, &kernel, Writer(Rc::clone(&programs))))
            .collect();
        let mut bed = Self {
            world: World::new(),
            kernel,
            readers,
            programs,
            published: ArcSwap::from_pointee(Snapshot::empty()),
            capture: ArcSwapOption::empty(),
            now: Instant(1_000_000_000_000),
            connections: Vec::new(),
            batch: false,
            meanwhile: None,
            counts: Counts::default(),
        };
        bed.set_routes();
        bed.publish();
        bed.pass(Duration::ZERO);
        bed
    }

    fn set_routes(&self) {
        let routes = self.world.routes.iter().enumerate();
        let routes = routes.map(|(index, route)| (vtep(index), *route));
        self.kernel.set_routes(routes);
    }

    /// As `Dataplane::publish`; a worker sees it when it begins its next round.
    fn publish(&mut self) {
        let tables = self.world.tables(&self.published.load());
        self.published.store(Arc::new(tables));
        self.kernel.tell(&self.published);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.world.change(change);
        self.publish();
        self.check(false);
        self.settle();
    }

    /// Another way leads to a VTEP.
    pub(super) fn route(&mut self, index: usize, way: u8) {
        self.world.routes[index] = route(index, way);
        self.set_routes();
        self.settle();
    }

    /// A capture begins, or ends.
    pub(super) fn capture(&mut self, on: bool) {
        let capture = on.then(|| {
            let reader = Parker::new().unparker().clone();
            Arc::new(Capture::new(CaptureFilter::default(), reader))
        });
        self.capture.store(capture);
        self.kernel.beat_at(self.now, &self.capture);
        self.settle();
    }

    pub(super) fn is_captured(&self) -> bool {
        self.capture.load().is_some()
    }

    /// Time passes, and the agent lives.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.kernel.beat_at(self.now, &self.capture);
        self.settle();
    }

    /// A round of a worker begins, unless it has.
    pub(super) fn begin(&mut self, index: usize) {
        let snapshot = self.published.load_full();
        let reader = &mut self.readers[index];
        let is_reading = std::mem::replace(&mut reader.is_reading, true);
        if is_reading || snapshot.epoch == reader.snapshot.epoch {
            return;
        }
        let records = self.kernel.cache.records();
        let cx = context(self.now, &snapshot);
        let mut gone = std::mem::take(&mut reader.watched);
        gone.retain(|port| !snapshot.ports.contains_key(port));
        for port in gone {
            let flows = &mut reader.flows;
            reader.shortcuts.end_port(records, flows, &cx, port);
            reader.flows.close_port(port, |_| ());
        }
        let ports = snapshot.ports.values();
        let ports = ports.filter(|port| port.worker == index);
        reader.watched = ports.map(|port| port.id).collect();
        reader.snapshot = snapshot;
        reader.sweeping = true;
    }

    /// The round ends.
    pub(super) fn finish(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        let snapshot = Arc::clone(&reader.snapshot);
        let cx = context(self.now, &snapshot);
        if reader.sweeping {
            reader.sweeping = !reader.flows.sweep(&cx, 1024, |_| ());
        }
        reader.flows.expire(self.now, 256);
        while let Some(removal) = self.readers[index].flows.poll_removal() {
            let replica = (0..ENDPOINTS).find(|at| ip(*at) == removal.replica_ip());
            let holder = worker_of(replica.expect("it is an endpoint"));
            if holder != index {
                self.readers[holder].flows.uninstall(removal);
            }
        }
        if let Some(change) = self.meanwhile.take() {
            self.world.change(change);
            self.publish();
        }
        let basis = Basis {
            kernel: &self.kernel,
            snapshot: &snapshot,
            own: Some(own()),
            dscp: Dscp::default(),
        };
        let reader = &mut self.readers[index];
        let made = reader.shortcuts.keep(&basis, &mut reader.flows, &cx);
        reader.is_reading = false;
        self.counts.made += made;
        self.check(false);
    }

    /// Everything is done that there is to do, by the newest tables.
    pub(super) fn settle(&mut self) {
        for index in (0..WORKERS).chain(0..WORKERS) {
            loop {
                self.begin(index);
                self.finish(index);
                if !self.readers[index].sweeping {
                    break;
                }
            }
        }
        for connection in &mut self.connections {
            let client = self.world.endpoints[connection.client].place;
            let is_known = connection.port.map(Place::Here) == Some(client);
            let is_there = self.world.is_replica(connection.server)
                && self.world.key(connection.server) == connection.key;
            connection.over |= connection.is_balanced() && !(is_there && is_known);
        }
        self.check(true);
    }
}
