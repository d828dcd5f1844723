//! What workers and the agent share: tables, letter boxes, counters.

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_queue::ArrayQueue;
use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::capture::Capture;
use crate::counters::WorkerCounters;
use crate::handover::{HeardLoopback, Inbox, LOOPBACKS, NODE_FRAMES, NodeFrame};
use crate::inject::Injector;
use crate::snapshot::Snapshot;

/// What all workers and the agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) counters: Vec<WorkerCounters>,
    pub(crate) capture: ArcSwapOption<Capture>,
    /// Answers to what the node itself sent.
    pub(crate) for_node: ArrayQueue<NodeFrame>,
    /// What other nodes answered the node, or want it to know.
    pub(crate) heard: ArrayQueue<HeardLoopback>,
    pub(crate) stop: AtomicBool,
    /// There once its self-test has passed.
    pub(crate) injector: OnceLock<Injector>,
    /// VTEPs that it is slower for: see `Dataplane::segment_for`.
    pub(crate) segment_for: ArcSwap<HashSet<Ipv4Addr, RandomState>>,
}

impl Shared {
    /// For so many workers, with empty tables.
    ///
    /// # Errors
    /// The kernel has no descriptor for a letter box.
    pub(crate) fn new(workers: usize) -> std::io::Result<Self> {
        Ok(Self {
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            inboxes: (0..workers)
                .map(|_| Inbox::new())
                .collect::<Result<_, _>>()?,
            counters: (0..workers).map(|_| WorkerCounters::default()).collect(),
            capture: ArcSwapOption::empty(),
            for_node: ArrayQueue::new(NODE_FRAMES),
            heard: ArrayQueue::new(LOOPBACKS),
            stop: AtomicBool::new(false),
            injector: OnceLock::new(),
            segment_for: ArcSwap::default(),
        })
    }
}
