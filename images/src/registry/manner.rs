//! How a registry is asked that may not be reachable.

/// How long a registry is waited for, and whether it is asked at all where it could not be reached a
/// moment ago.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// As long as it may take, unless it could not be reached a moment ago.
    #[default]
    Usual,
    /// The same, for no longer than a moment: there is an answer without it.
    Brief,
    /// Once more for the same purpose: only what was waited for in vain is not waited for again.
    Retry,
    /// Somebody wants it asked, whatever is remembered.
    Again,
}

impl Manner {
    /// The same for what there is no other answer to.
    #[must_use]
    pub fn unhurried(self) -> Self {
        match self {
            Self::Brief => Self::Usual,
            other => other,
        }
    }

    /// The same for a further attempt at the same thing.
    #[must_use]
    pub(super) fn retried(self) -> Self {
        match self {
            Self::Again => Self::Again,
            _ => Self::Retry,
        }
    }
}
