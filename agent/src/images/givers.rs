//! Which nodes gave what, and whose copies were bad: those are not asked for them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_images::Digest;
use weft_model::id::NodeId;

/// While one image is fetched.
#[derive(Debug, Default)]
pub(super) struct Givers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    gave: BTreeMap<Digest, BTreeSet<NodeId>>,
    bad: BTreeMap<Digest, BTreeSet<NodeId>>,
}

impl Givers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is a single step, so it stays whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node begins to send a content, or goes on with it.
    pub(super) fn gives(&self, node: &NodeId, digest: &Digest) {
        let mut known = self.lock();
        let gave = known.gave.entry(digest.clone()).or_default();
        gave.insert(node.clone());
    }

    /// What came of a content was not right: whoever gave of it is not asked for that again. True
    /// where anybody was.
    pub(super) fn were_bad(&self, digest: &Digest) -> bool {
        let mut known = self.lock();
        let Some(gave) = known.gave.remove(digest) else {
            return false;
        };
        for node in &gave {
            tracing::warn!(%node, %digest, "a node sends a content that is damaged or cut");
        }
        known.bad.entry(digest.clone()).or_default().extend(gave);
        true
    }

    /// Whether a node may be asked for a content.
    pub(super) fn is_good(&self, node: &NodeId, digest: &Digest) -> bool {
        let known = self.lock();
        let bad = known.bad.get(digest);
        !bad.is_some_and(|bad| bad.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_copy_shuts_out_one_node_for_one_content() {
        let givers = Givers::default();
        let (one, two) = (NodeId::from("n1"), NodeId::from("n2"));
        let (bad, other) = (Digest::of(b"bad"), Digest::of(b"other"));
        assert!(!givers.were_bad(&bad), "nobody gave it");
        givers.gives(&one, &bad);
        givers.gives(&one, &other);
        assert!(givers.is_good(&one, &bad));
        assert!(givers.were_bad(&bad));
        assert!(!givers.is_good(&one, &bad));
        assert!(givers.is_good(&two, &bad) && givers.is_good(&one, &other));
        assert!(!givers.were_bad(&bad), "it is told once");
    }
}
