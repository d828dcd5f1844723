//! One worker: its event loop and the state that nobody else touches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weft_mesh::{Context, FlowTable, Record};
use weft_sys::affinity::yield_cpu;
use weft_sys::clock::monotonic_nanos;
use weft_sys::epoll::{Epoll, Ready};
use weft_sys::udp::{RecvBatch, VxlanSocket};
use weft_wire::ecn::Dscp;
use weft_wire::frame::MAX_FRAME_LEN;
use weft_wire::gro::Coalescer;
use weft_wire::{Instant, IpInfo, PortId};

use crate::capture::Capture;
use crate::counters::WorkerCounters;
use crate::handover::FlowQuestion;
use crate::listing::PAUSE;
use crate::loopback_budget::LoopbackBudget;
use crate::port::Port;
use crate::send_queue::SendQueue;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::spin::Spin;

/// Token of the VXLAN socket; ports use their number.
const UNDERLAY: u64 = u64::MAX;
/// Token of the letter box.
const WAKEUP: u64 = u64::MAX - 1;

/// Frames read from one port before the others have their turn.
pub(crate) const PORT_BUDGET: usize = 64;
/// Datagram batches read from the socket before the ports have their turn.
pub(crate) const UNDERLAY_BUDGET: usize = 4;
/// Messages of one batch, at most.
const RECV_MESSAGES: usize = 32;
/// Flows looked at for expiry in one round.
const EXPIRE_BUDGET: usize = 256;
/// Flows looked at after a change of tables in one round.
const SWEEP_BUDGET: usize = 1024;

/// State of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Instant,
    pub(crate) flows: FlowTable,
    pub(crate) queue: SendQueue,
    pub(crate) recv: RecvBatch,
    pub(crate) coalescer: Coalescer,
    /// The frame that opened the coalescer's run.
    pub(crate) run: Option<RunStart>,
    pub(crate) vxlan_port: u16,
    /// Answers, resets and repeated SYNs are built here.
    pub(crate) scratch: Box<[u8]>,
    pub(crate) underlay: VxlanSocket,
    spin: Spin,
    /// Who wants copies of frames, as of this round.
    pub(crate) capture: Option<Arc<Capture>>,
    epoll: Epoll,
    ready: Vec<Ready>,
    watched: HashMap<PortId, Arc<Port>, RandomState>,
    epoch: u64,
    sweeping: bool,
    /// Flows of an earlier process, until the first tables are there.
    pub(crate) saved: Vec<Record>,
    /// When they are given up.
    pub(crate) saved_until: Option<Instant>,
    /// Who is being told the flows.
    pub(crate) question: Option<FlowQuestion>,
    /// What others may ask of the node.
    pub(crate) loopbacks: LoopbackBudget,
}

/// What is known of a run besides its bytes.
#[derive(Debug)]
pub(crate) struct RunStart {
    /// Its first frame, parsed.
    pub(crate) info: IpInfo,
    /// Where an answer goes.
    pub(crate) vtep: SocketAddr,
    /// The kernel had merged it with other datagrams, which it steers by the first of them.
    pub(crate) merged: bool,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) underlay: VxlanSocket,
    pub(crate) senders: Vec<VxlanSocket>,
    pub(crate) segment: bool,
    pub(crate) dscp: Dscp,
    pub(crate) udp_coalesce: bool,
    pub(crate) flows: FlowTable,
    /// Flows of an earlier process.
    pub(crate) saved: Vec<Record>,
    /// How long to look for more work before sleeping.
    pub(crate) spin: Duration,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> std::io::Result<Self> {
        let epoll = Epoll::new(64)?;
        epoll.add(&parts.underlay, UNDERLAY)?;
        epoll.add(&parts.shared.inboxes[parts.index].wakeup, WAKEUP)?;
        Ok(Self {
            index: parts.index,
            now: Instant(monotonic_nanos()),
            flows: parts.flows,
            queue: SendQueue::new(
                parts.senders,
                parts.segment,
                parts.dscp,
                Arc::clone(&parts.shared),
            ),
            shared: parts.shared,
            recv: RecvBatch::new(RECV_MESSAGES),
            coalescer: Coalescer::new(parts.udp_coalesce),
            run: None,
            vxlan_port: parts.underlay.local_addr().port(),
            scratch: vec![0; MAX_FRAME_LEN].into_boxed_slice(),
            underlay: parts.underlay,
            spin: Spin::new(parts.spin),
            capture: None,
            epoll,
            ready: Vec::with_capacity(64),
            watched: HashMap::default(),
            epoch: u64::MAX,
            sweeping: false,
            saved: parts.saved,
            saved_until: None,
            question: None,
            loopbacks: LoopbackBudget::default(),
        })
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.index]
    }

    /// Runs until the agent stops the data plane.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.wait() {
                tracing::error!(worker = self.index, %error, "epoll failed; the worker stops");
                return;
            }
            self.round();
        }
    }

    /// Waits for work: awake for a moment after the last, then asleep.
    fn wait(&mut self) -> std::io::Result<()> {
        let timeout = self.timeout();
        let mut now = self.now;
        while self.spin.polls(now) && timeout != Some(Duration::ZERO) {
            if self.poll(Some(Duration::ZERO))? {
                return Ok(());
            }
            let before = Instant(monotonic_nanos());
            yield_cpu();
            now = Instant(monotonic_nanos());
            self.spin.yielded(before, now);
        }
        self.poll(timeout)?;
        Ok(())
    }

    /// Asks the kernel what is ready; true when anything is.
    fn poll(&mut self, timeout: Option<Duration>) -> std::io::Result<bool> {
        self.ready.clear();
        self.ready.extend(self.epoll.wait(timeout)?);
        Ok(!self.ready.is_empty())
    }

    fn timeout(&self) -> Option<Duration> {
        if self.sweeping {
            return Some(Duration::ZERO);
        }
        let pause = self.question.as_ref().map(|_| PAUSE);
        let deadline = self.flows.next_deadline().map(|at| at.since(self.now));
        match (pause, deadline) {
            (Some(pause), Some(deadline)) => Some(pause.min(deadline)),
            (pause, deadline) => pause.or(deadline),
        }
    }

    /// One round: tables, letter box, everything that is ready, then one flush.
    fn round(&mut self) {
        self.now = Instant(monotonic_nanos());
        if !self.ready.is_empty() {
            self.spin.worked(self.now);
        }
        let snapshot = self.shared.snapshot.load_full();
        self.capture = self.shared.capture.load_full();
        if snapshot.epoch != self.epoch {
            self.epoch = snapshot.epoch;
            self.counters().epoch.store(self.epoch, Ordering::Release);
            if snapshot.epoch > 0 {
                self.restore(&snapshot);
            }
            self.watch_ports(&snapshot);
            self.sweeping = true;
        }
        let mut asked = self.question.is_some();
        for i in 0..self.ready.len() {
            let ready = self.ready[i];
            match ready.token {
                UNDERLAY => self.read_underlay(&snapshot),
                WAKEUP => {
                    self.shared.inboxes[self.index].wakeup.drain();
                    self.take_entries();
                    self.send_loopbacks();
                    asked = true;
                }
                token => self.port_ready(&snapshot, token, ready.closed),
            }
        }
        self.take_handovers(&snapshot);
        self.send_for_node(&snapshot);
        if self.sweeping {
            self.sweep(&snapshot);
        }
        if asked {
            self.tell_flows();
        }
        self.flows.expire(self.now, EXPIRE_BUDGET);
        self.hand_removals(&snapshot);
        let counters = &self.shared.counters[self.index];
        self.queue.flush(counters);
        counters.rounds.fetch_add(1, Ordering::Relaxed);
        counters.store_flows(&self.flows);
    }

    fn port_ready(&mut self, snapshot: &Snapshot, token: u64, closed: bool) {
        let Ok(id) = u32::try_from(token) else {
            return;
        };
        let Some(port) = self.watched.get(&PortId(id)).map(Arc::clone) else {
            return;
        };
        if !self.read_port(snapshot, &port) && closed {
            // The device is gone with its namespace; the agent will notice. Level-triggered
            // readiness would spin until then.
            self.unwatch(snapshot, PortId(id));
        }
    }

    /// Makes the set of watched ports the one of the snapshot.
    fn watch_ports(&mut self, snapshot: &Snapshot) {
        let gone: Vec<PortId> = self
            .watched
            .keys()
            .filter(|id| !snapshot.ports.contains_key(*id))
            .copied()
            .collect();
        for id in gone {
            self.unwatch(snapshot, id);
        }
        for (id, port) in &snapshot.ports {
            if port.worker != self.index || self.watched.contains_key(id) {
                continue;
            }
            match self.epoll.add(&*port.tap, u64::from(id.0)) {
                Ok(()) => {
                    self.watched.insert(*id, Arc::clone(port));
                }
                Err(error) => {
                    tracing::warn!(port = %port.name, %error, "cannot watch the port");
                }
            }
        }
    }

    /// Forgets a port, and ends the flows of the clients behind it: nobody else would, and each of
    /// them counts as load of its replica.
    fn unwatch(&mut self, snapshot: &Snapshot, id: PortId) {
        let Some(port) = self.watched.remove(&id) else {
            return;
        };
        if let Err(error) = self.epoll.delete(&*port.tap) {
            tracing::debug!(port = %port.name, %error, "port was not watched any more");
        }
        let mut resets = Vec::new();
        self.flows.close_port(id, |reset| {
            resets.push((reset.to, Box::<[u8]>::from(reset.frame)));
        });
        for (to, frame) in resets {
            self.send_reset(snapshot, to, &frame);
        }
    }

    /// Tells clients whose replica is gone, a bounded number of flows at a time.
    fn sweep(&mut self, snapshot: &Snapshot) {
        let context = context(self.now, snapshot);
        let mut resets = Vec::new();
        let done = self.flows.sweep(&context, SWEEP_BUDGET, |reset| {
            resets.push((reset.to, Box::<[u8]>::from(reset.frame)));
        });
        for (to, frame) in resets {
            self.send_reset(snapshot, to, &frame);
        }
        self.sweeping = !done;
    }
}

/// What the flow table wants to know with every call.
pub(crate) fn context(now: Instant, snapshot: &Snapshot) -> Context<'_> {
    Context {
        now,
        epoch: snapshot.epoch,
        services: &snapshot.services,
    }
}
