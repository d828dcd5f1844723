//! The end of a task, in two phases: first every node stops sending it new connections and says so,
//! then the open ones may end; and only then the task is asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_control::gossip::NetdbView;
use weft_control::id::{EndpointId, NodeId};

/// What gossip needs to reach every node, at least: names are withdrawn too, and nobody says so.
pub(super) const WITHDRAW: Duration = Duration::from_millis(500);

/// How long nodes may take to say that they send nothing new.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// How long connections that are open by then may go on.
const FINISHED_WITHIN: Duration = Duration::from_secs(5);

/// Where a task is on its way out. Time is an argument.
#[derive(Debug)]
pub(super) struct Drain {
    endpoints: BTreeSet<EndpointId>,
    acknowledged: Option<Duration>,
}

impl Drain {
    /// Of a task with these endpoints, which were withdrawn just now.
    pub(super) fn new(endpoints: impl IntoIterator<Item = EndpointId>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            acknowledged: None,
        }
    }

    /// Whether the task may be stopped, `since` after it was withdrawn.
    pub(super) fn is_over(&mut self, view: &NetdbView, since: Duration) -> bool {
        let (open, silent) = self.look(view);
        let acknowledged = *match &self.acknowledged {
            Some(at) => at,
            // Nobody balances to a task without a virtual address and published ports.
            None if since >= WITHDRAW && silent.is_none_or(|silent| silent == 0) => {
                self.acknowledged.insert(since)
            }
            None if since >= ACKNOWLEDGED_WITHIN => self.acknowledged.insert(since),
            None => return false,
        };
        open == 0 || since >= acknowledged + FINISHED_WITHIN
    }

    /// Connections that all nodes have open to the task, and how many of the nodes still send new
    /// ones; nothing when none ever said a word.
    fn look(&self, view: &NetdbView) -> (u64, Option<usize>) {
        let mut open = 0;
        let mut acknowledged: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for (owner, endpoint, load) in view.loads() {
            if self.endpoints.iter().any(|e| e.as_str() == endpoint) {
                open += u64::from(load.active);
                if load.draining {
                    *acknowledged.entry(owner).or_default() += 1;
                }
            }
        }
        // Some of the endpoints may be on networks where nobody balances: the most that anybody
        // acknowledged is what there is.
        let wanted = acknowledged.values().copied().max();
        let silent = wanted.map(|wanted| {
            view.members
                .iter()
                .filter(|(_, member)| member.state.is_active())
                .filter(|(node, _)| acknowledged.get(node).copied().unwrap_or(0) < wanted)
                .count()
        });
        (open, silent)
    }
}
