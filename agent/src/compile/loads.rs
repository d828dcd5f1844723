//! Connection counts of replicas: kept across snapshots, fed by gossip, reported by gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_mesh::{NodePressure, PortLoad, ReplicaLoad, ServiceLoad};
use weft_model::id::{EndpointId, NodeId, ServiceId};
use weft_model::objects::Protocol;
use weft_model::records::{LoadRecord, PressureRecord};
use weft_wire::Instant;

use super::gaps::Gaps;
use super::known::PlacedEndpoint;
use super::reports::{Balanced, Figures, Reports};
use super::there::Change;

/// The counters that workers share, by endpoint of the replica.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    counters: BTreeMap<EndpointId, Arc<ReplicaLoad>>,
    /// Nodes that replicas are on, and others that have said that they are not calm.
    nodes: BTreeMap<NodeId, Arc<NodePressure>>,
    services: BTreeMap<ServiceId, Arc<ServiceLoad>>,
    ports: BTreeMap<(ServiceId, Protocol, u16), Arc<PortLoad>>,
    /// Replicas whose counters were made since the last [`Self::follow`], and whether they take
    /// connections.
    fresh: Vec<(EndpointId, bool)>,
    /// Replicas that took connections once and take no more.
    draining: BTreeSet<EndpointId>,
    /// What is gone, and had something open from here.
    gone: BTreeSet<EndpointId>,
    /// What others wait to hear of: whether it is draining.
    urgent: BTreeSet<EndpointId>,
    /// Services that have no replica just now.
    pub(crate) gaps: Gaps,
    /// Workers that count.
    workers: usize,
    reported: BTreeMap<EndpointId, LoadRecord>,
    others: Reports,
    /// Counters of the replicas that `others` has, by its numbers, where they have one.
    balanced: Vec<Option<Arc<ReplicaLoad>>>,
}

/// Among which others an endpoint is balanced, if it is.
fn balanced(placed: &PlacedEndpoint) -> Option<Balanced<'_>> {
    let record = &placed.record;
    Some(Balanced {
        group: (record.service.as_ref()?, &record.network),
        ready: record.ready,
    })
}

/// Connections of this node to the replica with a number.
fn own(balanced: &[Option<Arc<ReplicaLoad>>], number: usize) -> u32 {
    let load = balanced.get(number).and_then(Option::as_ref);
    load.map_or(0, |load| load.own())
}

fn set(load: &ReplicaLoad, figures: Figures, counted: Instant) {
    load.set_others_at(figures.balanced, counted);
    load.set_claimed(figures.claimed);
}

impl Loads {
    /// Counters that so many workers share.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// The counter of a replica, made on first use; `ready` says whether it takes connections. A
    /// replica stays on its node.
    pub(crate) fn of(
        &mut self,
        endpoint: &EndpointId,
        node: &NodeId,
        ready: bool,
    ) -> Arc<ReplicaLoad> {
        if let Some(load) = self.counters.get(endpoint) {
            return Arc::clone(load);
        }
        let node = self.of_node(node);
        let load = Arc::new(ReplicaLoad::on_node(self.workers, node));
        self.counters.insert(endpoint.clone(), Arc::clone(&load));
        self.fresh.push((endpoint.clone(), ready));
        load
    }

    fn of_node(&mut self, node: &NodeId) -> Arc<NodePressure> {
        if let Some(pressure) = self.nodes.get(node) {
            return Arc::clone(pressure);
        }
        let pressure = Arc::<NodePressure>::default();
        self.nodes.insert(node.clone(), Arc::clone(&pressure));
        pressure
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

    /// Takes in which endpoints came, went and changed, after the tables were made in which they did;
    /// notes which replicas take connections, and since when.
    pub(crate) fn follow(&mut self, changes: &[Change], now: Instant) {
        for change in changes {
            let number = self.others.number(&change.id);
            if let Some(place) = number.and_then(|number| self.balanced.get_mut(number)) {
                *place = None;
            }
        }
        self.others.follow(changes.iter().map(|change| {
            let after = change.after.as_ref();
            (&change.id, after.and_then(balanced))
        }));
        for change in changes {
            match change.after.as_ref().and_then(balanced) {
                Some(replica) => {
                    self.gone.remove(&change.id);
                    self.set_ready(&change.id, replica.ready, now);
                }
                None => self.forget(&change.id),
            }
        }
        let fresh = std::mem::take(&mut self.fresh);
        for (id, ready) in &fresh {
            self.set_ready(id, *ready, now);
        }
        let ids = changes.iter().map(|change| &change.id);
        for id in ids.chain(fresh.iter().map(|(id, _)| id)) {
            if let Some(number) = self.others.number(id) {
                let len = self.balanced.len().max(number + 1);
                self.balanced.resize(len, None);
                if let Some(place) = self.balanced.get_mut(number) {
                    *place = self.counters.get(id).cloned();
                }
                self.others.look_again(number);
            }
        }
    }

    fn set_ready(&mut self, endpoint: &EndpointId, ready: bool, now: Instant) {
        let Some(load) = self.counters.get(endpoint) else {
            return;
        };
        match (ready, load.ready_since()) {
            (true, None) => {
                load.set_ready_since(Some(now));
                if self.draining.remove(endpoint) {
                    self.urgent.insert(endpoint.clone());
                }
            }
            (false, Some(_)) => {
                load.set_ready_since(None);
                self.draining.insert(endpoint.clone());
                self.urgent.insert(endpoint.clone());
            }
            _ => {}
        }
    }

    /// Forgets a replica, as soon as it has nothing open from here.
    fn forget(&mut self, endpoint: &EndpointId) {
        let Some(load) = self.counters.get(endpoint) else {
            return;
        };
        load.set_ready_since(None);
        if load.own() > 0 {
            self.gone.insert(endpoint.clone());
        } else {
            self.counters.remove(endpoint);
        }
        self.draining.remove(endpoint);
        self.urgent.insert(endpoint.clone());
    }

    fn forget_idle(&mut self) {
        let counters = &mut self.counters;
        self.gone.retain(|endpoint| {
            let open = counters.get(endpoint).is_some_and(|load| load.own() > 0);
            if !open {
                counters.remove(endpoint);
            }
            open
        });
        // Every counter of a replica there holds it.
        self.nodes
            .retain(|_, node| Arc::strong_count(node) > 1 || node.get() > 0);
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

    /// Limits of services; 0 is none.
    pub(crate) fn set_limits(&mut self, limits: &BTreeMap<&ServiceId, u32>) {
        let limits = limits.iter();
        let limits = limits.map(|(service, limit)| ((*service).clone(), *limit));
        self.others.set_limits(limits.collect());
    }

    /// Takes in what other nodes say otherwise than before of what they have open: who, of which
    /// replica, and the report, none where there is none any more.
    pub(crate) fn hear<'a>(
        &mut self,
        news: impl Iterator<Item = (&'a NodeId, &'a str, Option<LoadRecord>)>,
    ) {
        for (by, replica, load) in news {
            self.others.hear(by, replica, load.map(|load| load.active));
        }
    }

    /// Forgets what the other nodes have said they have open, to hear all of it again.
    pub(crate) fn forget_reports(&mut self) {
        self.others.forget();
    }

    /// Gives the workers what nodes say of their pressure otherwise than before. It is kept of nodes
    /// without a replica, too, which may get one.
    pub(crate) fn set_pressures<'a>(
        &mut self,
        news: impl Iterator<Item = (&'a NodeId, PressureRecord)>,
    ) {
        for (id, record) in news {
            match self.nodes.get(id) {
                Some(node) => node.set(record.pressure),
                None if record.pressure > 0 => self.of_node(id).set(record.pressure),
                None => {}
            }
        }
    }

    /// Gives the workers what was heard of every replica, and when that was so. Replicas that nobody
    /// reports count zero.
    pub(crate) fn set_others(&mut self, counted: Instant) {
        let balanced = &self.balanced;
        let own = |number: usize| own(balanced, number);
        self.others.follow_own(own);
        self.others.settle(own);
        for (number, load) in self.balanced.iter().enumerate() {
            if let Some(load) = load {
                set(load, self.others.figures(number), counted);
            }
        }
        for load in self.gone.iter().filter_map(|id| self.counters.get(id)) {
            load.set_others_at(0, counted);
        }
    }

    /// The same for what has changed since. A service's replicas are compared with each other, so the
    /// reports on all of them have one age; services of which nothing was heard are left as they are.
    pub(crate) fn set_changed(&mut self, counted: Instant) {
        let balanced = &self.balanced;
        let settled = self.others.settle(|number| own(balanced, number));
        let load = |number: usize| self.balanced.get(number)?.as_ref();
        for number in settled.replicas {
            if let Some(load) = load(number) {
                set(load, self.others.figures(number), counted);
            }
        }
        for group in settled.groups {
            let mates = self.others.members(group).filter_map(load);
            mates.for_each(|load| load.set_counted(counted));
        }
    }

    /// Forgets services that are not in `keep`.
    pub(crate) fn retain_services(&mut self, keep: impl Fn(&ServiceId) -> bool) {
        self.services.retain(|service, _| keep(service));
        self.gaps.retain(&keep);
        self.ports.retain(|(service, _, _), _| keep(service));
    }

    /// Own counts that differ from the last report: what gossip has to be told. `None` stands for
    /// an entry that is to be deleted.
    pub(crate) fn take_changes(&mut self) -> Vec<(EndpointId, Option<LoadRecord>)> {
        self.forget_idle();
        self.urgent.clear();
        let counters = self.counters.iter();
        let mut changes: Vec<_> = counters
            .filter_map(|(endpoint, load)| self.change(endpoint, Some(load)))
            .collect();
        let told = self.reported.keys();
        let forgotten = told.filter(|endpoint| !self.counters.contains_key(*endpoint));
        changes.extend(forgotten.map(|endpoint| (endpoint.clone(), None)));
        self.note(&changes);
        changes
    }

    /// The same of those alone that others wait to hear of.
    pub(crate) fn take_urgent(&mut self) -> Vec<(EndpointId, Option<LoadRecord>)> {
        let urgent = std::mem::take(&mut self.urgent);
        let changes = urgent.iter().filter_map(|endpoint| {
            let load = self.counters.get(endpoint);
            self.change(endpoint, load)
        });
        let changes: Vec<_> = changes.collect();
        self.note(&changes);
        changes
    }

    /// Whether others wait to hear of something.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// What is to be told of one, if anything.
    fn change(
        &self,
        endpoint: &EndpointId,
        load: Option<&Arc<ReplicaLoad>>,
    ) -> Option<(EndpointId, Option<LoadRecord>)> {
        let record = load.and_then(|load| {
            let own = load.own();
            load.note_reported(own);
            let draining = self.draining.contains(endpoint);
            let record = LoadRecord {
                active: own,
                draining,
            };
            (own > 0 || draining).then_some(record)
        });
        let told = self.reported.get(endpoint) == record.as_ref();
        (!told).then(|| (endpoint.clone(), record))
    }

    fn note(&mut self, changes: &[(EndpointId, Option<LoadRecord>)]) {
        for (endpoint, own) in changes {
            match own {
                Some(own) => self.reported.insert(endpoint.clone(), *own),
                None => self.reported.remove(endpoint),
            };
        }
    }
}

#[cfg(test)]
mod tests;
