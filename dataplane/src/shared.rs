//! What workers and the agent share: tables, letter boxes, counters.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
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
use crate::shortcut::Kernel;
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
    /// There once its self-test has passed.
    pub(crate) fast_path: OnceLock<Kernel>,
    /// Where VXLAN datagrams are received, where that is one address of IPv4.
    pub(crate) own: Option<SocketAddrV4>,
    /// VTEPs that it is slower for: see `Dataplane::segment_for`.
    pub(crate) segment_for: ArcSwap<HashSet<Ipv4Addr, RandomState>>,
}

impl Shared {
    /// For so many workers, with empty tables, for datagrams that arrive at `local`.
    ///
    /// # Errors
    /// The kernel has no descriptor for a letter box.
    pub(crate) fn new(workers: usize, local: SocketAddr) -> std::io::Result<Self> {
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
            fast_path: OnceLock::new(),
            own: match local {
                SocketAddr::V4(own) if !own.ip().is_unspecified() => Some(own),
                SocketAddr::V4(_) | SocketAddr::V6(_) => None,
            },
            segment_for: ArcSwap::default(),
        })
    }
}
