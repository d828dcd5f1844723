//! Under what a test was made: figures of different conditions compare with nothing.

use weft_lab::Bed;

/// Whether weft may leave flows to programs in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FastPath {
    /// Every frame passes the workers.
    Off,
    /// Where the node can.
    Auto,
}

impl FastPath {
    /// As `weftd --fast-path` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
        }
    }

    /// What a side of weft with it is called.
    pub(crate) fn side(self) -> &'static str {
        match self {
            Self::Off => "weft",
            Self::Auto => "fast path",
        }
    }
}

/// What a test's name does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// The link between the nodes, on both sides.
    pub(crate) bed: Bed,
    /// Busy loops beside every run.
    pub(crate) busy_loops: u8,
    /// Of weft's side.
    pub(crate) fast_path: FastPath,
}
