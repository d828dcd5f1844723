//! How another root certificate takes the place of the present one, with nobody cut off.
//!
//! While there is a successor, all certificates are made by it, with itself signed by the present root
//! beside them, and every node is told to trust both. So whoever has heard of it and whoever has not
//! can verify each other. A node is through when it has opened a session with a certificate of the
//! successor. When all are, the successor takes the place of the present root, which counts no more,
//! and join tokens are others.
//!
//! All of this is in the state: a leader that takes over goes on. Nodes that are unknown to it are
//! waited for. A worker that is down is waited for as long as a machine needs to start again; then it
//! has to join anew, as its certificate is worth nothing any more. A manager is waited for without a
//! limit: one that trusts the old root alone would count for the quorum, and reach no other.

use std::time::Duration;

use weft_model::objects::Node;

use super::conditions::is_indispensable;
use super::draft::Draft;
use super::object::ObjectId;
use super::secrets::Secrets;
use super::state::ClusterState;
use super::waits::{ROTATION_PATIENCE_MS, Waits};

/// How far the nodes are on the way to a certificate of the root that makes them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootProgress {
    /// Nodes that have one.
    pub renewed: usize,
    /// These, and those that are waited for.
    pub total: usize,
    /// Host names of those that are waited for, however long it takes.
    pub waiting: Vec<String>,
    /// Host names of workers that are down without one: they have the time of a start.
    pub away: Vec<String>,
}

impl RootProgress {
    /// Of a state.
    #[must_use]
    pub fn of(state: &ClusterState) -> Self {
        let mut this = Self::default();
        let Some(secrets) = &state.secrets else {
            return this;
        };
        let signer = &secrets.roots.signer().digest;
        for node in state.nodes.values() {
            let name = || node.description.hostname.clone();
            if node.certified_by == *signer {
                this.renewed += 1;
            } else if is_indispensable(node) {
                this.waiting.push(name());
            } else {
                this.away.push(name());
            }
        }
        this.total = this.renewed + this.waiting.len();
        this
    }
}

impl ClusterState {
    /// Nodes without a certificate of the successor; none where there is no successor.
    pub(super) fn unrenewed(&self) -> impl Iterator<Item = &Node> {
        let successor = self
            .secrets
            .as_ref()
            .and_then(|secrets| secrets.roots.successor.as_ref());
        successor.into_iter().flat_map(|successor| {
            let nodes = self.nodes.values();
            nodes.filter(move |node| node.certified_by != successor.root.digest)
        })
    }
}

/// Ends a rotation whose nodes are through.
pub(super) fn turn(draft: &mut Draft<'_>, waits: &Waits) {
    let under_way = |secrets: &Secrets| secrets.roots.successor.is_some();
    if !draft.state.secrets.as_ref().is_some_and(under_way) {
        return;
    }
    let patience = Duration::from_millis(ROTATION_PATIENCE_MS);
    let awaited = draft.state.unrenewed().any(|node| {
        is_indispensable(node) || waits.waited(&ObjectId::Node(node.id.clone())) < patience
    });
    if awaited {
        return;
    }
    let Some(mut secrets) = draft.state.secrets.clone() else {
        return;
    };
    let Some(mut successor) = secrets.roots.successor.take() else {
        return;
    };
    secrets.roots.current = std::mem::take(&mut successor.root);
    secrets.roots.generation += 1;
    // Tokens pin the root, and whoever had its key could have read their secrets.
    secrets.worker = draft.entropy.bytes();
    secrets.manager = draft.entropy.bytes();
    draft.put(secrets);
}
