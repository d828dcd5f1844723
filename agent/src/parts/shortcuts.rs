//! How the sandboxes of a node stand with the kernel's flow cache.

/// Sandboxes with a port of the data plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SandboxCounts {
    /// Their flows may be carried by the kernel.
    pub(crate) attached: usize,
    /// They have no second device, by which that goes.
    pub(crate) without_second: usize,
    /// They have one that does not do, or their kernel settings do not allow it.
    pub(crate) refused: usize,
}
