//! Connection counts of replicas: kept across snapshots, fed by gossip, reported by gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_control::id::{EndpointId, ServiceId};
use weft_control::objects::Protocol;
use weft_control::records::LoadRecord;
use weft_mesh::{PortLoad, ReplicaLoad, ServiceLoad};
use weft_wire::Instant;

/// The counters that workers share, by endpoint of the replica.
#[derive(Debug, Default)]
pub(super) struct Loads {
    counters: BTreeMap<EndpointId, Arc<ReplicaLoad>>,
    services: BTreeMap<ServiceId, Arc<ServiceLoad>>,
    ports: BTreeMap<(ServiceId, Protocol, u16), Arc<PortLoad>>,
    /// Replicas that took connections once and take no more.
    draining: BTreeSet<EndpointId>,
    /// Workers that count.
    workers: usize,
    reported: BTreeMap<EndpointId, LoadRecord>,
}

impl Loads {
    /// Counters that so many workers share.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// The counter of a replica, made on first use.
    pub(super) fn of(&mut self, endpoint: &EndpointId) -> Arc<ReplicaLoad> {
        let new = || Arc::new(ReplicaLoad::with_workers(self.workers));
        Arc::clone(self.counters.entry(endpoint.clone()).or_insert_with(new))
    }

    /// The counters of a service, made on first use.
    pub(super) fn of_service(&mut self, service: &ServiceId) -> Arc<ServiceLoad> {
        Arc::clone(self.services.entry(service.clone()).or_default())
    }

    /// The counters of a port at the mesh address, made on first use.
    pub(super) fn of_port(
        &mut self,
        service: &ServiceId,
        protocol: Protocol,
        mesh_port: u16,
    ) -> Arc<PortLoad> {
        let key = (service.clone(), protocol, mesh_port);
        let new = || Arc::new(PortLoad::with_workers(self.workers));
        Arc::clone(self.ports.entry(key).or_insert_with(new))
    }

    /// Notes which replicas take connections, and since when.
    pub(super) fn set_ready(&mut self, ready: impl Fn(&EndpointId) -> bool, now: Instant) {
        for (endpoint, load) in &self.counters {
            match (ready(endpoint), load.ready_since()) {
                (true, None) => {
                    load.set_ready_since(Some(now));
                    self.draining.remove(endpoint);
                }
                (false, Some(_)) => {
                    load.set_ready_since(None);
                    self.draining.insert(endpoint.clone());
                }
                _ => {}
            }
        }
    }

    /// Takes in what the other nodes have open, summed by replica, and when that was counted.
    /// Replicas that nobody reports count zero.
    pub(super) fn set_others(&mut self, others: &BTreeMap<EndpointId, u32>, counted: Instant) {
        for (endpoint, load) in &self.counters {
            load.set_others_at(others.get(endpoint).copied().unwrap_or(0), counted);
        }
    }

    /// Forgets services that are not in `keep`.
    pub(super) fn retain_services(&mut self, keep: impl Fn(&ServiceId) -> bool) {
        self.services.retain(|service, _| keep(service));
        self.ports.retain(|(service, _, _), _| keep(service));
    }

    /// Forgets replicas that are not in `keep` and have nothing open from here.
    pub(super) fn retain(&mut self, keep: impl Fn(&EndpointId) -> bool) {
        self.counters
            .retain(|endpoint, load| keep(endpoint) || load.own() > 0);
        self.draining.retain(keep);
    }

    /// Own counts that differ from the last report: what gossip has to be told. `None` stands for
    /// an entry that is to be deleted.
    pub(super) fn take_changes(&mut self) -> Vec<(EndpointId, Option<LoadRecord>)> {
        let mut changes = Vec::new();
        for (endpoint, load) in &self.counters {
            let own = load.own();
            load.note_reported(own);
            let draining = self.draining.contains(endpoint);
            let record = LoadRecord {
                active: own,
                draining,
            };
            let record = (own > 0 || draining).then_some(record);
            if self.reported.get(endpoint) != record.as_ref() {
                changes.push((endpoint.clone(), record));
            }
        }
        for endpoint in self.reported.keys() {
            if !self.counters.contains_key(endpoint) {
                changes.push((endpoint.clone(), None));
            }
        }
        for (endpoint, own) in &changes {
            match own {
                Some(own) => self.reported.insert(endpoint.clone(), *own),
                None => self.reported.remove(endpoint),
            };
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_changes_once_and_forgets_the_idle() {
        let mut loads = Loads::default();
        let (a, b) = (EndpointId::from("a"), EndpointId::from("b"));
        let flow = loads.of(&a).open();
        loads.of(&b);
        let one = LoadRecord {
            active: 1,
            draining: false,
        };
        assert_eq!(loads.take_changes(), [(a.clone(), Some(one))]);
        assert_eq!(loads.take_changes(), []);
        loads.retain(|_| false);
        assert_eq!(loads.take_changes(), [], "an open flow keeps its counter");
        drop(flow);
        assert_eq!(loads.take_changes(), [(a.clone(), None)]);
        loads.set_others(&BTreeMap::from([(a.clone(), 7)]), Instant(1));
        assert_eq!(loads.of(&a).total(), 7);
        loads.retain(|_| false);
        assert_eq!(loads.of(&a).total(), 0);
    }

    #[test]
    fn a_replica_that_was_not_ready_is_a_newcomer_again() {
        let mut loads = Loads::default();
        let load = loads.of(&EndpointId::from("a"));
        let mut since = |ready, now| {
            loads.set_ready(|_| ready, Instant(now));
            load.ready_since()
        };
        assert_eq!(since(false, 1), None);
        assert_eq!(since(true, 2), Some(Instant(2)));
        assert_eq!(since(true, 3), Some(Instant(2)));
        assert_eq!(since(false, 4), None);
        assert_eq!(since(true, 5), Some(Instant(5)));
    }

    #[test]
    fn tells_that_a_replica_gets_nothing_new() {
        let mut loads = Loads::default();
        let a = EndpointId::from("a");
        loads.of(&a);
        loads.set_ready(|_| false, Instant(1));
        assert_eq!(loads.take_changes(), [], "it starts");
        loads.set_ready(|_| true, Instant(2));
        let flow = loads.of(&a).open();
        let record = |active, draining| Some(LoadRecord { active, draining });
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, false))]);
        loads.set_ready(|_| false, Instant(3));
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, true))]);
        drop(flow);
        assert_eq!(loads.take_changes(), [(a.clone(), record(0, true))]);
        loads.retain(|_| false);
        assert_eq!(loads.take_changes(), [(a, None)]);
    }
}
