//! What the node's heartbeats say of it: whether it carries traffic, and whom its gossip sees.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_cluster::{MAX_UNSEEN, Sight, Vitals};
use weft_gossip::NetdbView;
use weft_model::assignment::Assignment;
use weft_model::id::NodeId;

/// A start that takes longer than this is no start any more. It takes a tenth of a second.
pub(crate) const SLOW_START: Duration = Duration::from_secs(10);

/// The data plane does not run.
pub(crate) fn off(why: impl Into<String>) -> Vitals {
    Vitals {
        off: Some(why.into()),
        sight: None,
    }
}

/// The data plane runs; gossip sees these members.
pub(crate) fn on(orders: &Assignment, view: &NetdbView) -> Vitals {
    let own = orders.node_id();
    let others = orders.shared.nodes.iter().filter(|node| node.id != *own);
    let mut sight = Sight::default();
    let mut unseen: BTreeSet<NodeId> = BTreeSet::new();
    for node in others {
        sight.others = sight.others.saturating_add(1);
        if !view.state(&node.id).is_some_and(|state| state.is_active()) {
            sight.unseen = sight.unseen.saturating_add(1);
            if unseen.len() < MAX_UNSEEN {
                unseen.insert(node.id.clone());
            }
        }
    }
    sight.unseen_nodes = unseen;
    Vitals {
        off: None,
        sight: Some(sight),
    }
}
