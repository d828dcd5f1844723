//! What happened to packets that the programs knew.

/// `enum counter` of `bpf/weft.bpf.c`, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Left for another node.
    Out,
    /// Came from another node.
    In,
    /// Went to another sandbox of this node.
    Local,
    /// To the workers: the entry is of tables that have changed, or the agent is gone.
    Stale,
    /// To the workers: larger than the path takes, or several datagrams in one.
    TooLarge,
    /// To the workers: no socket of the sandbox's own that takes packets from any device, or one that
    /// what is carried does not help.
    NoSocket,
    /// To the workers: datagrams that the kernel had merged for them.
    Merged,
    /// To the workers: the underlay has marked congestion, which the inner packet has to carry on.
    Marked,
    /// To the workers: from another node than the flow's.
    OtherNode,
    /// Lost: the kernel has refused to change the packet, or its entry became stale while it was
    /// between the devices of its sandbox.
    Failed,
}

impl Event {
    /// All, in their order.
    pub const ALL: [Self; 10] = [
        Self::Out,
        Self::In,
        Self::Local,
        Self::Stale,
        Self::TooLarge,
        Self::NoSocket,
        Self::Merged,
        Self::Marked,
        Self::OtherNode,
        Self::Failed,
    ];

    /// Its name in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Local => "local",
            Self::Stale => "stale",
            Self::TooLarge => "too_large",
            Self::NoSocket => "no_socket",
            Self::Merged => "merged",
            Self::Marked => "marked",
            Self::OtherNode => "other_node",
            Self::Failed => "failed",
        }
    }
}

/// One number for each [`Event`], over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts(pub(crate) [u64; Event::ALL.len()]);

impl EventCounts {
    /// How often it happened.
    #[must_use]
    pub fn get(&self, event: Event) -> u64 {
        self.0[event as usize]
    }

    /// All events with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Event, u64)> {
        Event::ALL.into_iter().map(|event| (event, self.get(event)))
    }
}
