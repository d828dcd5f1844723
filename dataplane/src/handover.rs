//! What one worker passes to another: rare, bounded, never a packet of the fast path.

use crossbeam_queue::ArrayQueue;
use weft_mesh::{Install, Removal};
use weft_sys::event::Wakeup;
use weft_wire::{VnetHdr, Vni};

use crate::listing::{QUESTIONS, Question};
use crate::loopback::{self, LOOPBACKS};
use crate::node_frames::{NODE_FRAMES, NodeFrame};

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

/// A worker's letter box. Senders are the other workers and the agent; the reader is its owner.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// An entry is pushed before the first frame is delivered, so a reader that looks here after
    /// it read the answer always finds it.
    pub(crate) entries: ArrayQueue<Entry>,
    pub(crate) frames: ArrayQueue<Handover>,
    /// Who wants to know the flows.
    pub(crate) questions: ArrayQueue<Question>,
    /// What the node itself sends into the ingress network.
    pub(crate) from_node: ArrayQueue<NodeFrame>,
    /// What the node asks other nodes; of the first worker.
    pub(crate) loopbacks: ArrayQueue<loopback::Question>,
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
