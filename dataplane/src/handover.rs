//! What workers and the agent pass to each other: rare, bounded, never a packet on its usual way.

use std::net::IpAddr;
use std::sync::mpsc::SyncSender;

use crossbeam_queue::ArrayQueue;
use weft_mesh::{FlowRow, Install, Removal};
use weft_sys::event::Wakeup;
use weft_wire::loopback::Loopback;
use weft_wire::{Instant, VnetHdr, Vni};

/// Longest frame: Ethernet, IPv6, TCP with all of its options.
pub const NODE_FRAME_LEN: usize = 14 + 40 + 60;
/// Frames of the node, or for it, that wait at most.
pub(crate) const NODE_FRAMES: usize = 256;
/// Loopback messages that wait in one direction, at most.
pub(crate) const LOOPBACKS: usize = 256;
/// Who may ask a worker for its flows at once.
const QUESTIONS: usize = 4;

/// Entries of flows whose replica's frames another worker reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// Take it in.
    Install(Install),
    /// Forget it.
    Remove(Removal),
}

/// A frame of a replica, for the worker that owns the client's side. Two kinds:
///
/// - of a local replica, and it opens, ends or first answers a flow: the copy is made once or twice
///   per connection, and only where client and replica belong to different workers;
/// - of a remote one, and the kernel had merged it with datagrams for other workers (GRO on the
///   receiving device looks at outer headers only).
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) vni: Vni,
    pub(crate) vnet: VnetHdr,
    pub(crate) frame: Box<[u8]>,
}

/// A frame of the node, or for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFrame {
    bytes: [u8; NODE_FRAME_LEN],
    len: usize,
}

impl NodeFrame {
    /// None when it is too long.
    pub(crate) fn new(frame: &[u8]) -> Option<Self> {
        let mut bytes = [0; NODE_FRAME_LEN];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(Self {
            bytes,
            len: frame.len(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Somebody who wants to know the flows of a worker.
#[derive(Debug)]
pub(crate) struct FlowQuestion {
    pub(crate) answer: SyncSender<Vec<FlowRow>>,
    /// Place of the table to go on at.
    pub(crate) next: usize,
}

/// A question of this node to the one behind a VTEP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopbackQuestion {
    pub(crate) vtep: IpAddr,
    /// That of the data path when absent.
    pub(crate) port: Option<u16>,
    pub(crate) said: Loopback,
}

/// A message from another node: an answer, or a question that is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardLoopback {
    /// The other node's end of the data path.
    pub from: IpAddr,
    /// What it said.
    pub said: Loopback,
    /// When the worker read it.
    pub at: Instant,
}

/// A worker's letter box. Senders are the other workers and the agent; the reader is its owner.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// An entry is pushed before the first frame is delivered, so a reader that looks here after
    /// it read the answer always finds it.
    pub(crate) entries: ArrayQueue<Entry>,
    pub(crate) frames: ArrayQueue<Handover>,
    /// Who wants to know the flows.
    pub(crate) questions: ArrayQueue<FlowQuestion>,
    /// What the node itself sends into the ingress network.
    pub(crate) from_node: ArrayQueue<NodeFrame>,
    /// What the node asks other nodes; of the first worker.
    pub(crate) loopbacks: ArrayQueue<LoopbackQuestion>,
    pub(crate) wakeup: Wakeup,
}

impl Inbox {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            entries: ArrayQueue::new(8192),
            frames: ArrayQueue::new(1024),
            questions: ArrayQueue::new(QUESTIONS),
            from_node: ArrayQueue::new(NODE_FRAMES),
            loopbacks: ArrayQueue::new(LOOPBACKS),
            wakeup: Wakeup::new()?,
        })
    }
}
