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
use crate::handover::{HeardLoopback, Inbox, NodeFrame};
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
