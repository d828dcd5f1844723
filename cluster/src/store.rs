//! What those who plan hear of where the desired state lives: one file, or a replicated log.

use weft_model::id::NodeId;

use crate::machine::Stale;

/// Why changes did not make it into the state. Nothing changed, but for one reason, which says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Someone else changed the state since it was read: plan again.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Another manager decides, or none does.
    #[error("{}", not_led(leader.as_ref()))]
    NotLeader {
        /// Who does, as far as this manager knows.
        leader: Option<NodeId>,
    },
    /// It is longer than an entry of the log may be.
    #[error(
        "the change has {bytes} bytes, and an entry of the log may have {limit}: ask for less at once"
    )]
    TooLarge {
        /// Of the changes, as they are written.
        bytes: usize,
        /// Most that there may be.
        limit: usize,
    },
    /// The disk does not take it, for this reason.
    #[error("cannot store the change: {0}")]
    Disk(String),
    /// This manager lost its lead before it knew whether the others took it. It may be part of the
    /// state or not.
    #[error(
        "this manager lost the lead of the swarm while it stored the change: it may have been made or \
         not; look whether it was, and try again"
    )]
    Undecided,
    /// The manager is about to end.
    #[error("cannot store the change: the manager is stopping")]
    Closed,
}

/// Docker's words where it has some.
fn not_led(leader: Option<&NodeId>) -> String {
    match leader {
        Some(leader) => {
            format!("this manager does not lead the swarm: node {leader} does, ask there")
        }
        None => {
            "The swarm does not have a leader. It's possible that too few managers are online. \
                 Make sure more than half of the managers are online."
                .to_owned()
        }
    }
}

/// Whether a manager decides for its cluster. Of all managers one does, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This one does: it plans, judges nodes and certifies them.
    Leader {
        /// Since when, as a number: what it knew of nodes in another term may not be so any more,
        /// as another manager may have decided between.
        term: u64,
    },
    /// It only keeps a copy of the state.
    Follower {
        /// Who decides, as far as it knows.
        leader: Option<NodeId>,
    },
}

impl Leadership {
    /// True of the manager that decides.
    #[must_use]
    pub const fn leads(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }

    /// The term in which this manager decides, if it does.
    #[must_use]
    pub const fn term(&self) -> Option<u64> {
        match self {
            Self::Leader { term } => Some(*term),
            Self::Follower { .. } => None,
        }
    }
}
