//! Connection counts of replicas: kept across snapshots, fed by gossip, reported by gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_gossip::LoadReports;
use weft_mesh::{NodePressure, PortLoad, ReplicaLoad, ServiceLoad};
use weft_model::id::{EndpointId, NodeId, ServiceId};
use weft_model::objects::Protocol;
use weft_model::records::{LoadRecord, PressureRecord};
use weft_wire::Instant;

use super::reports::{Balanced, Reports};

/// The counters that workers share, by endpoint of the replica.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    counters: BTreeMap<EndpointId, Arc<ReplicaLoad>>,
    /// Nodes that replicas are on.
    nodes: BTreeMap<NodeId, Arc<NodePressure>>,
    services: BTreeMap<ServiceId, Arc<ServiceLoad>>,
    ports: BTreeMap<(ServiceId, Protocol, u16), Arc<PortLoad>>,
    /// Replicas that took connections once and take no more.
    draining: BTreeSet<EndpointId>,
    /// Workers that count.
    workers: usize,
    reported: BTreeMap<EndpointId, LoadRecord>,
    others: Reports,
    /// Counters of the replicas that `others` has, in its order, where they have one.
    balanced: Vec<Option<Arc<ReplicaLoad>>>,
    /// All other counters.
    unknown: Vec<Arc<ReplicaLoad>>,
}

impl Loads {
    /// Counters that so many workers share.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// The counter of a replica, made on first use. A replica stays on its node.
    pub(crate) fn of(&mut self, endpoint: &EndpointId, node: &NodeId) -> Arc<ReplicaLoad> {
        if let Some(load) = self.counters.get(endpoint) {
            return Arc::clone(load);
        }
        let node = Arc::clone(self.nodes.entry(node.clone()).or_default());
        let load = Arc::new(ReplicaLoad::on_node(self.workers, node));
        self.counters.insert(endpoint.clone(), Arc::clone(&load));
        load
    }

    /// The counters of a service, made on first use.
    pub(crate) fn of_service(&mut self, service: &ServiceId) -> Arc<ServiceLoad> {
        Arc::clone(self.services.entry(service.clone()).or_default())
    }

    /// The counters of a port at the mesh address, made on first use.
    pub(crate) fn of_port(
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
    pub(crate) fn set_ready(&mut self, ready: impl Fn(&EndpointId) -> bool, now: Instant) {
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

    /// Says what each node may always take of a service's limit: an equal part, and one connection
    /// at least.
    pub(crate) fn set_shares(&self, limits: &BTreeMap<&ServiceId, u32>, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        for (service, load) in &self.services {
            let limit = limits.get(service).copied().unwrap_or(0);
            load.set_share((limit / nodes).max(1));
        }
    }

    /// Says which replicas there are, all of them, and the limits of their services. To be called
    /// after each change of the counters by other methods.
    pub(crate) fn set_replicas<'a>(
        &mut self,
        replicas: impl Iterator<Item = Balanced<'a>>,
        limits: &BTreeMap<&ServiceId, u32>,
    ) {
        self.others.set_replicas(replicas, limits);
        let numbered = self.others.replicas();
        self.balanced = numbered.map(|id| self.counters.get(id).cloned()).collect();
        let unknown = self.counters.iter();
        let unknown = unknown.filter(|(id, _)| !self.others.knows(id));
        self.unknown = unknown.map(|(_, load)| Arc::clone(load)).collect();
    }

    /// Takes in what the other nodes say they have open, in the order of their ids.
    pub(crate) fn hear<'a>(&mut self, said: impl Iterator<Item = (&'a NodeId, LoadReports)>) {
        self.others.hear(said);
    }

    /// Gives the workers what all nodes say of their pressure, in the order of their ids; who is not
    /// named is calm.
    pub(crate) fn set_pressures<'a>(
        &self,
        said: impl Iterator<Item = (&'a NodeId, PressureRecord)>,
    ) {
        let mut said = said.peekable();
        for (id, node) in &self.nodes {
            while said.next_if(|(by, _)| *by < id).is_some() {}
            let own = said.next_if(|(by, _)| *by == id);
            node.set(own.map_or(0, |(_, record)| record.pressure));
        }
    }

    /// Gives the workers what was heard, and when that was counted. Replicas that nobody reports
    /// count zero.
    pub(crate) fn set_others(&self, counted: Instant) {
        let own = self.balanced.iter();
        let own: Vec<u32> = own
            .map(|load| load.as_ref().map_or(0, |load| load.own()))
            .collect();
        let figures = self.others.figures(&own);
        for (load, figures) in self.balanced.iter().zip(figures) {
            if let Some(load) = load {
                load.set_others_at(figures.balanced, counted);
                load.set_claimed(figures.claimed);
            }
        }
        for load in &self.unknown {
            load.set_others_at(0, counted);
        }
    }

    /// Forgets services that are not in `keep`.
    pub(crate) fn retain_services(&mut self, keep: impl Fn(&ServiceId) -> bool) {
        self.services.retain(|service, _| keep(service));
        self.ports.retain(|(service, _, _), _| keep(service));
    }

    /// Forgets replicas that are not in `keep` and have nothing open from here.
    pub(crate) fn retain(&mut self, keep: impl Fn(&EndpointId) -> bool) {
        self.counters
            .retain(|endpoint, load| keep(endpoint) || load.own() > 0);
        // Every counter of a replica there holds it.
        self.nodes.retain(|_, node| Arc::strong_count(node) > 1);
        self.draining.retain(keep);
    }

    /// Own counts that differ from the last report: what gossip has to be told. `None` stands for
    /// an entry that is to be deleted.
    pub(crate) fn take_changes(&mut self) -> Vec<(EndpointId, Option<LoadRecord>)> {
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
    use std::time::Duration;

    use bytes::Bytes;
    use weft_gossip::{Config, Gossip, Identity};
    use weft_model::id::NetworkId;
    use weft_model::records::Table;

    use super::*;

    fn of(loads: &mut Loads, endpoint: &EndpointId) -> Arc<ReplicaLoad> {
        loads.of(endpoint, &NodeId::from("n"))
    }

    fn gossip(node: &str) -> Gossip {
        let addr = ([10, 0, 0, 1], 7946).into();
        let id = Identity::new(node.into(), addr, 1);
        Gossip::new(Config::default(), id, [0; 32], Duration::ZERO)
    }

    #[test]
    fn reports_changes_once_and_forgets_the_idle() {
        let mut loads = Loads::default();
        let (a, b) = (EndpointId::from("a"), EndpointId::from("b"));
        let flow = of(&mut loads, &a).open();
        of(&mut loads, &b);
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
    }

    #[test]
    fn what_others_have_open_reaches_the_counters_of_what_is_balanced() {
        let mut other = gossip("n");
        for replica in ["a", "b"] {
            let seven = Bytes::from_static(br#"{"active": 7}"#);
            other
                .put(Duration::ZERO, Table::Load, replica, seven)
                .unwrap();
        }
        let view = other.view();
        let mut loads = Loads::default();
        let ids = ["a", "b", "c"].map(EndpointId::from);
        let [a, b, c] = ids.each_ref().map(|id| of(&mut loads, id));
        let (service, network) = (ServiceId::from("s"), NetworkId::from("n"));
        let balanced = |replica| Balanced {
            replica,
            group: (&service, &network),
            ready: true,
        };
        loads.hear(view.reports());
        let limits = BTreeMap::from([(&service, 5)]);
        loads.set_replicas([&ids[0], &ids[2]].map(balanced).into_iter(), &limits);
        loads.set_others(Instant(1));
        let counts = [&a, &b, &c].map(|load| (load.others(), load.claimed()));
        assert_eq!(counts, [(7, 5), (0, 0), (0, 0)]);
        loads.hear(std::iter::empty());
        loads.set_others(Instant(2));
        assert_eq!((a.others(), a.claimed()), (0, 0));
    }

    #[test]
    fn all_replicas_of_a_node_have_the_pressure_that_it_tells_of() {
        let mut hot = gossip("n");
        let mut says = |value: Option<&'static [u8]>| {
            let now = Duration::ZERO;
            let changed = match value {
                Some(value) => hot.put(now, Table::Load, "n", Bytes::from_static(value)),
                None => Ok(hot.delete(now, Table::Load, "n")),
            };
            assert!(changed.unwrap());
            hot.view()
        };
        let mut loads = Loads::default();
        let ids = ["a", "b", "c"].map(EndpointId::from);
        let [a, b] = [&ids[0], &ids[1]].map(|id| of(&mut loads, id));
        // Of a node before it, and one behind it, that say nothing.
        let before = loads.of(&ids[2], &"m".into());
        let behind = loads.of(&"d".into(), &"o".into());
        let pressures = || [&a, &b, &before, &behind].map(|load| load.node().get());
        loads.set_pressures(says(Some(br#"{"pressure": 4200}"#)).pressures());
        assert_eq!(pressures(), [4200, 4200, 0, 0]);
        let other = of(&mut loads, &"e".into());
        assert_eq!(other.node().get(), 4200, "a new one is there, too");
        loads.set_pressures(says(None).pressures());
        assert_eq!(pressures(), [0; 4]);
    }

    #[test]
    fn a_replica_that_was_not_ready_is_a_newcomer_again() {
        let mut loads = Loads::default();
        let load = of(&mut loads, &EndpointId::from("a"));
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
        of(&mut loads, &a);
        loads.set_ready(|_| false, Instant(1));
        assert_eq!(loads.take_changes(), [], "it starts");
        loads.set_ready(|_| true, Instant(2));
        let flow = of(&mut loads, &a).open();
        let record = |active, draining| Some(LoadRecord { active, draining });
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, false))]);
        loads.set_ready(|_| false, Instant(3));
        assert_eq!(loads.take_changes(), [(a.clone(), record(1, true))]);
        drop(flow);
        assert_eq!(loads.take_changes(), [(a.clone(), record(0, true))]);
        loads.retain(|_| false);
        assert_eq!(loads.take_changes(), [(a, None)]);
    }

    #[test]
    fn a_share_is_an_equal_part_and_one_at_least() {
        let mut loads = Loads::default();
        let service = ServiceId::from("s");
        let load = loads.of_service(&service);
        let share = |limit, nodes| {
            loads.set_shares(&BTreeMap::from([(&service, limit)]), nodes);
            load.share()
        };
        assert_eq!(share(1000, 3), 333);
        assert_eq!(share(2, 3), 1);
        assert_eq!(share(10, 0), 10);
    }
}
