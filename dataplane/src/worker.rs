//! The state of one worker, which nobody else touches. What is done with it is in the files that
//! have an `impl Worker`; the event loop calls them.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_mesh::{Context, FlowTable, Record};
use weft_sys::clock::monotonic_nanos;
use weft_sys::udp::{RecvBatch, VxlanSocket};
use weft_wire::ecn::Dscp;
use weft_wire::frame::MAX_FRAME_LEN;
use weft_wire::gro::Coalescer;
use weft_wire::{Instant, IpInfo};

use crate::capture::Capture;
use crate::counters::WorkerCounters;
use crate::handover::FlowQuestion;
use crate::loopback_budget::LoopbackBudget;
use crate::send_queue::SendQueue;
use crate::shared::Shared;
use crate::shortcut::Shortcuts;
use crate::snapshot::Snapshot;

/// Frames read from one port before the others have their turn.
pub(crate) const PORT_BUDGET: usize = 64;
/// Datagram batches read from the socket before the ports have their turn.
pub(crate) const UNDERLAY_BUDGET: usize = 4;
/// Messages of one batch, at most.
const RECV_MESSAGES: usize = 32;
/// Flows looked at for expiry in one round.
pub(crate) const EXPIRE_BUDGET: usize = 256;
/// Flows looked at after a change of tables in one round.
pub(crate) const SWEEP_BUDGET: usize = 1024;
/// Clients that wait for a replica looked at in one round: each one let in is a frame to send.
pub(crate) const ADMIT_BUDGET: usize = 256;

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
    /// Who wants copies of frames, as of this round.
    pub(crate) capture: Option<Arc<Capture>>,
    /// Flows of an earlier process, until the first tables are there.
    pub(crate) saved: Vec<Record>,
    /// When they are given up.
    pub(crate) saved_until: Option<Instant>,
    /// Who is being told the flows.
    pub(crate) question: Option<FlowQuestion>,
    /// What others may ask of the node.
    pub(crate) loopbacks: LoopbackBudget,
    /// Flows that the kernel carries, once it does.
    pub(crate) shortcuts: Option<Shortcuts>,
    /// It does, but not for this worker.
    pub(crate) shortcuts_refused: bool,
    pub(crate) dscp: Dscp,
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
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
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
            capture: None,
            saved: parts.saved,
            saved_until: None,
            question: None,
            loopbacks: LoopbackBudget::default(),
            shortcuts: None,
            shortcuts_refused: false,
            dscp: parts.dscp,
        }
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.index]
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
