//! Endpoints as this node knows them: what the orders say of each, with what its node says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_dataplane::Port;
use weft_model::assignment::{EndpointView, Shared};
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId, TaskId};
use weft_model::objects::Mac;
use weft_model::records::EndpointRecord;

/// One endpoint that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEndpoint {
    pub(crate) id: EndpointId,
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// IPv4 first; the IPv6 one only where the sandbox has it.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) mac: Mac,
    pub(crate) aliases: Vec<String>,
    pub(crate) service: Option<ServiceId>,
    pub(crate) task: Option<TaskId>,
    /// False while it starts or drains: known to the switch, not given to new connections or DNS.
    pub(crate) ready: bool,
    /// Published TCP ports that its program accepts over IPv4 only.
    pub(crate) ipv4_only: Vec<u16>,
    /// The orders give it an IPv6 address that its sandbox does not have.
    without_ipv6: bool,
}

impl KnownEndpoint {
    pub(crate) fn new(view: EndpointView, said: &EndpointRecord) -> Self {
        let mut ips = view.ips;
        if said.without_ipv6 {
            ips.retain(IpAddr::is_ipv4);
        }
        Self {
            id: view.id,
            network: view.network,
            node: view.node,
            name: view.name,
            ips,
            mac: view.mac,
            aliases: view.aliases,
            service: view.service,
            task: view.task,
            ready: said.ready,
            ipv4_only: said.ipv4_only.clone(),
            without_ipv6: said.without_ipv6,
        }
    }

    /// What its node tells the others.
    pub(crate) fn said(&self) -> EndpointRecord {
        EndpointRecord {
            id: self.id.clone(),
            ready: self.ready,
            ipv4_only: self.ipv4_only.clone(),
            without_ipv6: self.without_ipv6,
        }
    }
}

/// An endpoint, and whether its port is on this node.
pub(crate) struct PlacedEndpoint<'a> {
    pub(crate) record: &'a KnownEndpoint,
    pub(crate) local: bool,
}

/// One attachment of a sandbox on this node.
#[derive(Debug, Clone)]
pub(crate) struct LocalPort {
    /// The port in the data plane.
    pub(crate) port: Arc<Port>,
    /// What is known of it; `ready` says whether new connections may come.
    pub(crate) record: KnownEndpoint,
}

/// What other nodes say of endpoints: who speaks, and what.
pub(crate) type Heard = Vec<(NodeId, Arc<EndpointRecord>)>;

/// Endpoints of other nodes: named by the orders, and spoken of by the node that the orders name.
/// Who speaks of what is not his is not believed, and called by his name in `problems`. What the
/// orders do not name may be newer than they are, and is there when they come.
pub(crate) fn of_others(
    shared: &Shared,
    own: &NodeId,
    heard: &Heard,
    problems: &mut Vec<String>,
) -> Vec<KnownEndpoint> {
    let named: BTreeMap<&EndpointId, &EndpointView> =
        shared.endpoints.iter().map(|e| (&e.id, &**e)).collect();
    let hostname = |id: &NodeId| {
        let node = shared.nodes.iter().find(|n| n.id == *id);
        node.map_or_else(|| id.to_string(), |n| n.hostname.clone())
    };
    let mut known = Vec::with_capacity(heard.len());
    let mut liars: BTreeMap<&NodeId, (usize, &EndpointView)> = BTreeMap::new();
    for (speaker, said) in heard {
        let Some(view) = named.get(&said.id) else {
            continue;
        };
        if view.node != *speaker {
            liars.entry(speaker).or_insert((0, view)).0 += 1;
        } else if view.node != *own {
            known.push(KnownEndpoint::new((*view).clone(), said));
        }
    }
    problems.extend(liars.into_iter().map(|(liar, (count, view))| {
        let more = match count {
            1 => String::new(),
            count => format!(" and of {} more", count - 1),
        };
        format!(
            "node {} speaks of endpoint {} of node {}{more}, which is not its own: ignored",
            hostname(liar),
            view.name,
            hostname(&view.node)
        )
    }));
    known
}

/// Nodes that speak for themselves.
pub(crate) fn speaking<T>(nodes: &[(NodeId, T)]) -> BTreeSet<&NodeId> {
    nodes.iter().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use weft_model::assignment::NodeView;
    use weft_model::objects::Role;

    use super::*;

    fn node(n: u8) -> NodeView {
        NodeView {
            id: NodeId(format!("n{n}")),
            hostname: format!("node{n}"),
            role: Role::Worker,
            addr: [192, 0, 2, n].into(),
            data_path_addr: [192, 0, 2, n].into(),
            gossip_port: 7946,
            ingress_ip: None,
            manager_addr: None,
        }
    }

    fn view(id: &str, at: &str, last: u8) -> EndpointView {
        EndpointView {
            id: EndpointId::from(id),
            network: NetworkId::from("back"),
            node: NodeId::from(at),
            name: format!("{id}.1"),
            ips: vec![[10, 0, 1, last].into()],
            mac: Mac([2, 0x42, 10, 0, 1, last]),
            aliases: Vec::new(),
            service: Some(ServiceId::from("web")),
            task: None,
        }
    }

    fn shared(endpoints: Vec<EndpointView>) -> Shared {
        Shared {
            version: 1,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: (1..=3).map(node).collect(),
            networks: Vec::new(),
            services: Vec::new(),
            ending: Vec::new(),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        }
    }

    /// `said` by the text that arrived, as the tables decode it.
    fn says(owner: &str, said: &str) -> (NodeId, Arc<EndpointRecord>) {
        let said = serde_json::from_str(said).unwrap();
        (NodeId::from(owner), Arc::new(said))
    }

    #[test]
    fn a_node_speaks_of_its_own_endpoints_only() {
        let shared = shared(vec![view("d", "n3", 3), view("w", "n2", 4)]);
        let own = NodeId::from("n1");
        let honest = vec![
            says("n3", r#"{"id": "d", "ready": true}"#),
            says("n2", r#"{"id": "w", "ready": false}"#),
        ];
        let mut problems = Vec::new();
        let known = of_others(&shared, &own, &honest, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let ready: Vec<_> = known.iter().map(|k| (k.id.as_str(), k.ready)).collect();
        assert_eq!(ready, [("d", true), ("w", false)]);
        // Another one's endpoint, with all that a record ever held; a replica and an address that
        // nobody gave; this node's own words from elsewhere.
        let claims = r#""network": "back", "node": "n2", "name": "d.1", "ips": ["10.0.1.3"],
            "mac": "02:42:0a:00:01:03", "aliases": ["db"], "service": "web", "task": null,
            "host_ports": [], "ready": true"#;
        let mut forged = honest.clone();
        for id in ["d", "evil1", "evil2"] {
            forged.push(says("n2", &format!(r#"{{"id": "{id}", {claims}}}"#)));
        }
        forged.push(says("n2", r#"{"id": "w", "ready": false}"#));
        let believed = of_others(&shared, &own, &forged[..5].to_vec(), &mut problems);
        assert_eq!(believed, known, "nothing changed");
        let liar = "node node2 speaks of endpoint d.1 of node node3, which is not its own: ignored";
        assert_eq!(problems, [liar]);
    }

    #[test]
    fn what_orders_and_nodes_say_may_come_in_any_order() {
        let own = NodeId::from("n1");
        let said = vec![says("n2", r#"{"id": "w", "ready": true}"#)];
        let mut problems = Vec::new();
        // The node was faster than the manager, and the other way round.
        assert!(of_others(&shared(Vec::new()), &own, &said, &mut problems).is_empty());
        let orders = shared(vec![view("w", "n2", 4)]);
        assert!(of_others(&orders, &own, &Vec::new(), &mut problems).is_empty());
        assert_eq!(of_others(&orders, &own, &said, &mut problems).len(), 1);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_sandbox_without_ipv6_has_the_ipv4_address_only() {
        let mut with = view("w", "n2", 4);
        with.ips.extend("fd00::a00:104".parse::<IpAddr>());
        let shared = shared(vec![with.clone()]);
        let of = |said: &str| {
            let said = vec![says("n2", said)];
            let known = of_others(&shared, &NodeId::from("n1"), &said, &mut Vec::new());
            (known[0].ips.clone(), known[0].said() == *said[0].1)
        };
        let all = of(r#"{"id": "w", "ready": true, "ipv4_only": [80]}"#);
        assert_eq!(all, (with.ips.clone(), true));
        let half = of(r#"{"id": "w", "ready": true, "without_ipv6": true}"#);
        assert_eq!(half, (with.ips[..1].to_vec(), true));
    }
}
