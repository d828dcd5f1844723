//! Connections of other managers to this one. The last one of a leader ends with its process.

use std::sync::Arc;

use weft_model::id::NodeId;

use super::shared::Shared;
use super::store::RaftStore;

/// One connection, as long as this lives.
#[derive(Debug)]
pub(crate) struct Presence {
    shared: Arc<Shared>,
    node: NodeId,
}

impl RaftStore {
    /// A manager has opened a connection to this one.
    pub(crate) fn greet(&self, node: &NodeId) -> Presence {
        self.shared.links.opened(node);
        Presence {
            shared: Arc::clone(&self.shared),
            node: node.clone(),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Self { shared, node } = self;
        let leader = shared.view.borrow().leader;
        let leads = leader.filter(|leader| {
            *leader != shared.file.member && shared.node_of(*leader).as_ref() == Some(node)
        });
        shared.links.closed(node, leads);
    }
}
