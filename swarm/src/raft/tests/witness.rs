//! What may never be seen of managers, whatever happens to them: two leaders of one term, two states of
//! one version, a state that goes back while a manager lives, something that is given out twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_model::objects::Protocol;

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
            self.faults.push(format!("version {version}: {what} twice"));
        }
        self.states.insert(version, state);
    }
}

/// Something that one has alone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim<'a> {
    Vni(u32),
    Port(u16, Protocol),
    Address(&'a NetworkId, IpAddr),
    /// Of a node, to the others.
    Machine(IpAddr),
}

/// All that was given out by those who plan.
fn claims(state: &ClusterState) -> Vec<Claim<'_>> {
    let mut claims = Vec::new();
    for network in state.networks.values() {
        claims.push(Claim::Vni(network.vni));
        let gateways = network.subnets().iter().map(|subnet| subnet.gateway);
        claims.extend(gateways.map(|ip| Claim::Address(&network.id, ip)));
        if network.spec.ingress {
            let of_nodes = state.nodes.values().flat_map(|node| node.ips_on(network));
            claims.extend(of_nodes.map(|ip| Claim::Address(&network.id, ip)));
        }
    }
    for service in state.services.values() {
        let ports = service.endpoint.ports.iter();
        claims.extend(ports.map(|port| Claim::Port(port.published, port.protocol)));
    }
    let of_services = state.services.values().flat_map(|s| &s.endpoint.vips);
    let of_ending = state.ending.values().flat_map(|s| &s.vips);
    let vips = of_services.chain(of_ending);
    claims.extend(vips.map(|vip| Claim::Address(&vip.network, vip.addr.addr())));
    let tasks = state.tasks.values();
    let tasks = tasks.filter(|task| !task.status.state.is_terminal());
    for attachment in tasks.flat_map(|task| &task.attachments) {
        claims.extend(
            attachment
                .ips()
                .map(|ip| Claim::Address(&attachment.network, ip)),
        );
    }
    let nodes = state.nodes.values();
    claims.extend(nodes.map(|node| Claim::Machine(node.data_path_addr)));
    claims
}

/// What two have. Before a swarm begins nobody plans.
pub(super) fn twice(state: &ClusterState) -> Option<String> {
    state.cluster.as_ref()?;
    let subnets = state
        .networks
        .values()
        .flat_map(|network| network.subnets());
    let subnets: Vec<_> = subnets.map(|subnet| subnet.cidr).collect();
    for (at, one) in subnets.iter().enumerate() {
        let mut others = subnets.iter().skip(at + 1);
        if let Some(other) = others.find(|other| one.contains(*other) || other.contains(one)) {
            return Some(format!("{one} and {other}"));
        }
    }
    repeated(&claims(state))
}

fn repeated(claims: &[Claim<'_>]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let again = claims.iter().find(|claim| !seen.insert(*claim));
    again.map(|claim| format!("{claim:?}"))
}

#[test]
fn what_two_have_is_found() {
    let mut state = ClusterState::default();
    let one_vni = [network("a", 1), network("b", 1)];
    state.apply(&one_vni);
    assert_eq!(twice(&state), None, "nobody has planned that");
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
    let vni = repeated(&claims(&state));
    assert_eq!(
        vni.as_deref(),
        Some("Vni(4096)"),
        "as networks of tests have"
    );
}
