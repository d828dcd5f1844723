//! Where things are in the orders, so that a look at all of them reads each thing once. Endpoints have
//! an index of their own, which the loop keeps ([`crate::compile::there::There`]).

use std::collections::HashMap;

use weft_cluster::ClusterState;
use weft_model::assignment::Shared;
use weft_model::id::{NetworkId, NodeId, ServiceId, TaskId};

/// Places in the lists of the orders.
#[derive(Debug)]
pub(super) struct Index {
    nodes: HashMap<NodeId, usize>,
    networks: HashMap<NetworkId, usize>,
    services: HashMap<String, usize>,
    /// On managers.
    tasks: HashMap<ServiceId, Vec<TaskId>>,
}

impl Index {
    pub(super) fn of(orders: &Shared, state: Option<&ClusterState>) -> Self {
        let nodes = orders.nodes.iter().enumerate();
        let networks = orders.networks.iter().enumerate();
        let services = orders.services.iter().enumerate();
        let mut tasks: HashMap<ServiceId, Vec<TaskId>> = HashMap::new();
        for task in state.into_iter().flat_map(|state| state.tasks.values()) {
            match tasks.get_mut(&task.service) {
                Some(all) => all.push(task.id.clone()),
                None => {
                    tasks.insert(task.service.clone(), vec![task.id.clone()]);
                }
            }
        }
        Self {
            nodes: nodes.map(|(at, n)| (n.id.clone(), at)).collect(),
            networks: networks.map(|(at, n)| (n.id.clone(), at)).collect(),
            services: services.map(|(at, s)| (s.name.clone(), at)).collect(),
            tasks,
        }
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

    /// Tasks of a service, as the manager has them.
    pub(super) fn tasks(&self, service: &ServiceId) -> &[TaskId] {
        self.tasks.get(service).map_or(&[], Vec::as_slice)
    }
}
