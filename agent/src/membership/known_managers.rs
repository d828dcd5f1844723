//! Where the managers are, as this node knows it: the newest word of its orders and of its own manager, and
//! what was kept of that when `weftd` started.

use std::net::SocketAddr;

use weft_model::objects::Role;
use weft_swarm::Membership;

use crate::blocking::blocking;
use crate::parts::handles::Handles;

/// All managers by their newest addresses, `host:port`, this node's own too; none before the first orders.
fn newest(handles: &Handles) -> Vec<String> {
    let orders = handles.session.assignments().borrow().clone();
    let nodes = orders.iter().flat_map(|orders| &orders.shared.nodes);
    let ordered = nodes.filter(|node| node.role == Role::Manager);
    let ordered = ordered.filter_map(|node| node.manager_addr);
    let manager = handles.manager.get();
    let members = manager.iter().flat_map(|manager| manager.managers());
    let members = members.map(|member| member.addr);
    once(ordered.chain(members).map(|addr| addr.to_string()))
}

/// Each of them once, where it comes first.
fn once(managers: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for manager in managers {
        if !found.contains(&manager) {
            found.push(manager);
        }
    }
    found
}

/// The other managers by now, then those that were known at the start.
pub(super) fn others(handles: &Handles, own: SocketAddr) -> Vec<String> {
    let told = handles.membership.managers.iter().cloned();
    let own = own.to_string();
    let known = newest(handles).into_iter().chain(told);
    once(known.filter(|manager| *manager != own))
}

/// What was kept last, of this life of `weftd`.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<String>);

impl Kept {
    /// Keeps where the managers are, for the next start: the orders may be lost by then. Nothing to do
    /// while they are where they were. Nobody else may write the membership meanwhile.
    pub(super) async fn keep(&mut self, handles: &Handles) {
        let mut now = newest(handles);
        now.sort_unstable();
        if now.is_empty() || now == self.0 {
            return;
        }
        self.0.clone_from(&now);
        let data_dir = handles.config.data_dir.clone();
        let written = blocking(move || -> Result<(), String> {
            let loaded = Membership::load(&data_dir).map_err(|error| error.to_string())?;
            let (membership, _) = loaded.ok_or("the node is no member any more")?;
            let after = membership.with_managers(&now);
            if after == membership {
                return Ok(());
            }
            after.replace(&data_dir).map_err(|error| error.to_string())
        });
        let written = written.await.map_err(|error| error.to_string());
        if let Err(error) = written.and_then(|written| written) {
            tracing::warn!(
                error,
                "where the managers are is not kept for the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_and_the_newest_word_first() {
        let known = ["b", "a", "b", "c", "a"].map(str::to_owned);
        assert_eq!(once(known.into_iter()), ["b", "a", "c"]);
    }
}
