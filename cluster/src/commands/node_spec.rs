//! What people set of a node, but for its role and its address.

use weft_model::api::NodeUpdate;
use weft_model::names;
use weft_model::objects::{Meta, Node};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::sizes;
use super::super::state::ClusterState;

/// Whether an object is as it was when whoever changes it read it: `read` is the version then, where he
/// says so.
///
/// # Errors
/// It is not: Docker's word for it, and both versions.
pub fn check_version(meta: &Meta, read: Option<u64>) -> Result<(), CommandError> {
    let now = meta.version.index;
    match read {
        Some(read) if read != now => Err(CommandError::conflict(format!(
            "update out of sequence: it was read at version {read} and is at {now}; read it again, and \
             change what it is now"
        ))),
        _ => Ok(()),
    }
}

/// `weft node update --availability --label-add --label-rm`. Labels are added first.
///
/// # Errors
/// The node does not exist or is not at that version, a label cannot be read or is not there to be
/// taken away, or the labels are too long.
pub fn change_node(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    reference: &str,
    version: Option<u64>,
    update: &NodeUpdate,
) -> Result<Planned<Node>, CommandError> {
    let before = state.find_node(reference)?;
    check_version(&before.meta, version)?;
    let mut node = before.clone();
    let spec = &mut node.spec;
    spec.availability = update.availability.unwrap_or(spec.availability);
    names::check_labels(&update.label_add)?;
    let added = update.label_add.iter();
    let added = added.map(|(key, value)| (key.clone(), value.clone()));
    spec.labels.extend(added);
    for key in &update.label_rm {
        if spec.labels.remove(key).is_none() {
            let there: Vec<&str> = spec.labels.keys().map(String::as_str).collect();
            return Err(CommandError::bad(format!(
                "key {key} doesn't exist in node's labels: there is {}",
                if there.is_empty() {
                    "none".to_owned()
                } else {
                    there.join(", ")
                }
            )));
        }
    }
    sizes::check_labels(&spec.labels)?;
    let mut draft = Draft::new(state, now, entropy);
    if node != *before {
        draft.put(node.clone());
    }
    let node = draft.state.nodes.get(&node.id).cloned().unwrap_or(node);
    Ok(draft.plan(node))
}
