//! What the listeners do, for people.

use super::MeshSockets;
use super::port::{BusyPort, PortStats, Published};

/// A published port of this node and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortEntry {
    /// The port.
    pub(crate) published: Published,
    /// Its figures; none while it is not open.
    pub(crate) stats: Option<PortStats>,
    /// Why it is not open.
    pub(crate) closed: Option<BusyPort>,
    /// The connection that has the port in place of the listener for this node's own programs.
    pub(crate) held_by: Option<String>,
    /// Packets from elsewhere pass the listener by.
    pub(crate) frame: bool,
}

impl PortEntry {
    /// What takes connections from elsewhere, for people.
    #[must_use]
    pub(crate) const fn front_end(&self) -> &'static str {
        if self.frame { "frame" } else { "socket" }
    }
}

impl MeshSockets {
    /// Every port that this node has to accept, by address and number.
    #[must_use]
    pub(crate) fn entries(&self) -> Vec<PortEntry> {
        let state = self.lock();
        state
            .wanted
            .iter()
            .map(|(key, published)| PortEntry {
                published: published.clone(),
                stats: state
                    .open
                    .get(key)
                    .map(|listener| listener.counters.stats(&listener.published)),
                held_by: state.open.get(key).and_then(|l| l.held_by.clone()),
                closed: state.busy.get(key).cloned(),
                frame: state.open.contains_key(key)
                    && self.frames.iter().any(|f| f.takes(published))
                    && !self.frames.iter().any(|f| f.fails(published)),
            })
            .collect()
    }
}
