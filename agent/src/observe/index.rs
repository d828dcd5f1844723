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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_mesh::{Balancer, Limits, Replica, ReplicaLoad, Service, ServicesBuilder};
    use weft_model::assignment::EndpointView;
    use weft_model::id::EndpointId;
    use weft_model::objects::Mac;
    use weft_model::records::EndpointRecord;
    use weft_wire::mac_for_ip;

    use super::*;

    fn endpoint(id: &str, service: Option<&str>, ip: IpAddr) -> KnownEndpoint {
        let view = EndpointView {
            id: EndpointId::from(id),
            network: NetworkId::from("back"),
            node: NodeId::from("n"),
            name: id.to_owned(),
            ips: vec![ip],
            mac: Mac::for_ip(ip),
            aliases: Vec::new(),
            service: service.map(ServiceId::from),
            task: None,
        };
        let said = EndpointRecord {
            id: view.id.clone(),
            ready: true,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        KnownEndpoint::new(view, &said)
    }

    #[test]
    fn everything_is_where_it_says() {
        let vni = Vni::new(4097).unwrap();
        let [a, b, other] = [3, 4, 5].map(|last| IpAddr::from([10, 0, 1, last]));
        let mut tables = ServicesBuilder::new();
        for ips in [vec![a, b], vec![b]] {
            let replicas = ips.into_iter().map(|ip| Replica {
                key: 1,
                vni,
                ip,
                mac: mac_for_ip(ip),
                local: false,
                draining: false,
                load: Arc::new(ReplicaLoad::with_workers(1)),
            });
            tables.service(Service {
                id: "web".into(),
                name: "web".into(),
                local_first: false,
                balancer: Balancer::default(),
                limits: Limits {
                    connections: 0,
                    per_client: 0,
                },
                replicas: replicas.collect(),
            });
        }
        let endpoints = [
            endpoint("w1", Some("web"), a),
            endpoint("alone", None, other),
            endpoint("w2", Some("web"), b),
        ];
        let orders = Shared {
            version: 1,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: Vec::new(),
            networks: Vec::new(),
            services: Vec::new(),
            ending: Vec::new(),
            endpoints: Vec::new(),
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        };
        let index = Index::of(&orders, &endpoints, &tables.build(), None);
        assert_eq!(index.endpoints(&"web".into()), [0, 2]);
        assert_eq!(index.endpoints(&"db".into()), [0; 0]);
        assert_eq!(index.replicas(vni, a), [(0, 0)]);
        assert_eq!(
            index.replicas(vni, b),
            [(0, 1), (1, 0)],
            "a port has its own"
        );
        assert!(index.replicas(vni, other).is_empty());
        assert_eq!(index.network(&"back".into()), None);
        assert!(index.tasks(&"web".into()).is_empty());
    }
}
