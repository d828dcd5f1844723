//! Where things are in what a node knows, so that a look at all of it reads each thing once.

use std::collections::HashMap;
use std::net::IpAddr;

use weft_cluster::ClusterState;
use weft_mesh::Services;
use weft_model::assignment::Shared;
use weft_model::id::{NetworkId, NodeId, ServiceId, TaskId};
use weft_wire::Vni;

use crate::compile::known::KnownEndpoint;

/// Places in the lists of the orders, of endpoints, and of the tables.
#[derive(Debug)]
pub(super) struct Index {
    nodes: HashMap<NodeId, usize>,
    networks: HashMap<NetworkId, usize>,
    services: HashMap<String, usize>,
    endpoints: HashMap<ServiceId, Vec<usize>>,
    /// A replica is in several services of the tables where a port leads to it alone. First comes
    /// what comes first there.
    replicas: HashMap<(Vni, IpAddr), Vec<(usize, usize)>>,
    /// On managers.
    tasks: HashMap<ServiceId, Vec<TaskId>>,
}

impl Index {
    pub(super) fn of(
        orders: &Shared,
        endpoints: &[KnownEndpoint],
        tables: &Services,
        state: Option<&ClusterState>,
    ) -> Self {
        let nodes = orders.nodes.iter().enumerate();
        let networks = orders.networks.iter().enumerate();
        let services = orders.services.iter().enumerate();
        let mut this = Self {
            nodes: nodes.map(|(at, n)| (n.id.clone(), at)).collect(),
            networks: networks.map(|(at, n)| (n.id.clone(), at)).collect(),
            services: services.map(|(at, s)| (s.name.clone(), at)).collect(),
            endpoints: HashMap::new(),
            replicas: HashMap::new(),
            tasks: HashMap::new(),
        };
        for (at, endpoint) in endpoints.iter().enumerate() {
            if let Some(service) = &endpoint.service {
                add(&mut this.endpoints, service, at);
            }
        }
        for (at, service) in tables.all().iter().enumerate() {
            for (number, replica) in service.replicas.iter().enumerate() {
                let key = (replica.vni, replica.ip);
                add(&mut this.replicas, &key, (at, number));
            }
        }
        for task in state.into_iter().flat_map(|state| state.tasks.values()) {
            add(&mut this.tasks, &task.service, task.id.clone());
        }
        this
    }

    pub(super) fn node(&self, id: &NodeId) -> Option<usize> {
        self.nodes.get(id).copied()
    }

    pub(super) fn network(&self, id: &NetworkId) -> Option<usize> {
        self.networks.get(id).copied()
    }

    pub(super) fn service(&self, name: &str) -> Option<usize> {
        self.services.get(name).copied()
    }

    /// Endpoints of a service.
    pub(super) fn endpoints(&self, service: &ServiceId) -> &[usize] {
        self.endpoints.get(service).map_or(&[], Vec::as_slice)
    }

    /// Services of the tables with a replica there, and which one it is.
    pub(super) fn replicas(&self, vni: Vni, ip: IpAddr) -> &[(usize, usize)] {
        self.replicas.get(&(vni, ip)).map_or(&[], Vec::as_slice)
    }

    /// Tasks of a service, as the manager has them.
    pub(super) fn tasks(&self, service: &ServiceId) -> &[TaskId] {
        self.tasks.get(service).map_or(&[], Vec::as_slice)
    }
}

/// Copies the key only where it is new.
fn add<K: std::hash::Hash + Eq + Clone, V>(to: &mut HashMap<K, Vec<V>>, key: &K, value: V) {
    match to.get_mut(key) {
        Some(all) => all.push(value),
        None => {
            to.insert(key.clone(), vec![value]);
        }
    }
}
