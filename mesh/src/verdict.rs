//! What becomes of a frame.

use weft_wire::{DropReason, Mac, Vni};

use crate::flow::Target;
use crate::install::Install;

/// What becomes of a client's frame.
#[derive(Debug, Clone, Copy)]
pub enum Forward {
    /// Rewritten in place; deliver it on network `vni` to `dst_mac`.
    Rewritten {
        /// Network of the replica.
        vni: Vni,
        /// The replica's Ethernet address, already in the frame.
        dst_mac: Mac,
        /// Hand this to the worker that reads the replica's frames, before the frame itself.
        install: Option<Install>,
    },
    /// A ping of a virtual address: answer it in its name.
    AnswerEcho,
    /// Opens a connection to a service that has no replica just now, and was kept until it has:
    /// [`crate::FlowTable::admit`].
    Held,
    /// Unchanged; tell the client that there is nobody.
    Refuse(Refusal),
    /// Unchanged; drop it.
    Drop(DropReason),
}

/// How to tell a client that there is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// With a TCP reset.
    Reset(DropReason),
    /// With ICMP port unreachable.
    PortUnreachable(DropReason),
}

impl Refusal {
    /// What to count.
    #[must_use]
    pub const fn reason(&self) -> DropReason {
        match self {
            Self::Reset(reason) | Self::PortUnreachable(reason) => *reason,
        }
    }
}

/// What becomes of a frame that may come from a replica.
#[derive(Debug, Clone, Copy)]
pub enum Reverse {
    /// Belongs to no flow here; unchanged, treat it as any other frame.
    NotAFlow,
    /// Rewritten in place: the client sees the service answer.
    Rewritten {
        /// Where the client is.
        to: Target,
    },
    /// The replica refused the connection, which goes to the next one before the client notices.
    /// Drop this frame ([`DropReason::Retried`]) and send [`crate::FlowTable::retry_frame`] instead.
    Retry {
        /// Network of the next replica.
        vni: Vni,
        /// Its Ethernet address, already in that frame.
        dst_mac: Mac,
        /// Hand this to the worker that reads its frames, before the frame itself.
        install: Option<Install>,
    },
    /// Unchanged; give it to that worker, whose [`crate::FlowTable::reverse`] decides. Only frames that
    /// open, end or first answer a flow take this way.
    ToOwner {
        /// Number of the worker.
        worker: u16,
    },
    /// It answers a client that came through another node: deliver it, its Ethernet addresses set,
    /// to `dst_mac` on the same network.
    Return {
        /// The other node's address on the ingress network.
        dst_mac: Mac,
    },
    /// Drop it.
    Drop(DropReason),
}
