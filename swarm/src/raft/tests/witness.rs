//! What may never be seen of managers, whatever happens to them: two leaders of one term, two states of
//! one version, a state that goes back while a manager lives, something that is given out twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_cluster::given_twice;

use super::*;
use crate::raft::types::RaftId;

#[derive(Debug, Default)]
struct Inner {
    /// By term.
    leaders: BTreeMap<u64, RaftId>,
    /// By version.
    states: BTreeMap<u64, Arc<ClusterState>>,
    faults: Vec<String>,
}

/// See the module. Copies are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Inner>>);

impl Witness {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen by now.
    pub(super) fn faults(&self) -> Vec<String> {
        self.inner().faults.clone()
    }

    /// Looks at a manager for as long as it lives.
    pub(super) fn watch(&self, store: &RaftStore) {
        let (member, witness) = (store.member(), self.clone());
        let (mut states, mut leadership) = (store.subscribe(), store.leadership());
        tokio::spawn(async move {
            let mut before = 0;
            loop {
                let state = Arc::clone(&states.borrow_and_update());
                let term = leadership.borrow_and_update().term();
                let version = state.version;
                witness.inner().see(member, before, state, term);
                before = version;
                let changed = tokio::select! {
                    changed = states.changed() => changed,
                    changed = leadership.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        });
    }
}

impl Inner {
    /// One look at a manager, whose state had a version `before`.
    fn see(&mut self, member: RaftId, before: u64, state: Arc<ClusterState>, term: Option<u64>) {
        if state.version < before {
            let back = format!("{member} goes from {before} to {}", state.version);
            self.faults.push(back);
        }
        self.see_state(member, state);
        if let Some(term) = term {
            self.see_leader(member, term);
        }
    }

    fn see_leader(&mut self, member: RaftId, term: u64) {
        let leader = *self.leaders.entry(term).or_insert(member);
        if leader != member {
            let two = format!("{leader} and {member} lead in term {term}");
            self.faults.push(two);
        }
    }

    fn see_state(&mut self, member: RaftId, state: Arc<ClusterState>) {
        let version = state.version;
        if let Some(known) = self.states.get(&version) {
            if *known != state {
                let two = format!("{member} has another state of version {version}");
                self.faults.push(two);
            }
            return;
        }
        if let Some(what) = twice(&state) {
            self.faults.push(format!("version {version}: {what}"));
        }
        self.states.insert(version, state);
    }
}

/// What two have.
pub(super) fn twice(state: &ClusterState) -> Option<String> {
    given_twice(state).or_else(|| {
        state.cluster.as_ref()?;
        let mut seen = BTreeSet::new();
        // Only a machine that is lost shares its address with the one in its place: nobody is, here.
        let mut machines = state.nodes.values().map(|node| node.data_path_addr);
        let again = machines.find(|addr| !seen.insert(*addr))?;
        Some(format!("two nodes are at {again}"))
    })
}

#[test]
fn what_may_not_be_is_found() {
    let mut state = ClusterState::default();
    let one_vni = [network("a", 1), network("b", 1)];
    state.apply(&one_vni);
    let mut inner = Inner::default();
    inner.see_leader(7, 3);
    inner.see_leader(7, 3);
    inner.see_state(7, Arc::new(state.clone()));
    assert!(inner.faults.is_empty(), "{:?}", inner.faults);
    inner.see_leader(8, 3);
    let mut other = ClusterState::default();
    other.apply(&[network("c", 1)]);
    inner.see_state(8, Arc::new(other));
    assert_eq!(inner.faults.len(), 2, "{:?}", inner.faults);
    inner.see(7, 5, Arc::new(state.clone()), None);
    assert_eq!(inner.faults.len(), 3, "{:?}", inner.faults);
}
