//! What the other nodes say, as far as tables are made from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::id::NodeId;
use weft_model::records::{EndpointRecord, NodeRecord};

/// What one node says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Of itself. It says so last: who has said this has said all.
    pub(crate) node: Option<Arc<NodeRecord>>,
    /// Of endpoints.
    pub(crate) endpoints: Vec<Arc<EndpointRecord>>,
}

/// By who speaks. Words that are the same allocation are the same, which is how readers see what
/// has not changed.
pub(crate) type Heard = BTreeMap<NodeId, Arc<Words>>;
