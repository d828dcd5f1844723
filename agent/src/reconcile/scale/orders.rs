//! What the orders say of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use weft_model::assignment::{Assignment, EndpointView, NodeView, Own, ServiceView, Shared};
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};
use weft_model::objects::{
    ConnectionPolicy, EndpointMode, Ipam, Mac, Meta, Network, NetworkAttachmentSpec, NetworkSpec,
    Node, PortSpec, ServiceMode, Subnet, Vip,
};

use super::cluster::{addr, endpoint_id, node_id};
use super::{ENDPOINTS_OF_EACH, NODES, SERVICES};
use crate::compile::sample;

fn is_published(service: usize) -> bool {
    service >= SERVICES / 2
}

/// Of an endpoint, or the virtual address of a service.
fn ip_of(number: usize, service: usize) -> IpAddr {
    let [_, _, hi, lo] = u32::try_from(number).unwrap().to_be_bytes();
    let network = if is_published(service) { 101 } else { 100 };
    [10, network, hi, lo].into()
}

fn node(n: usize) -> Node {
    sample::node(NodeId(node_id(n)), format!("node{n}"), addr(n).ip())
}

fn network(name: &str, vni: u32) -> Network {
    let [.., second] = vni.to_be_bytes();
    Network {
        id: NetworkId::from(name),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            ingress: name == "ingress",
            ipam: Ipam {
                config: vec![Subnet {
                    cidr: format!("10.{second}.0.0/16").parse().unwrap(),
                    // Apart from the endpoints, which begin with the first address.
                    gateway: [10, second, 255, 254].into(),
                }],
            },
            ..NetworkSpec::default()
        },
        vni,
        ending: false,
    }
}

fn network_of(service: usize) -> NetworkId {
    NetworkId::from(if is_published(service) {
        "ingress"
    } else {
        "back"
    })
}

fn service(n: usize) -> ServiceView {
    let network = network_of(n);
    let port = PortSpec {
        published: 10_000 + u16::try_from(n).unwrap(),
        target: 80,
        ..PortSpec::default()
    };
    let (mut networks, mut vips, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    if is_published(n) {
        ports.push(port);
    } else {
        networks.push(NetworkAttachmentSpec {
            target: network.to_string(),
            aliases: Vec::new(),
            stack_aliases: Vec::new(),
        });
        vips.push(Vip {
            network,
            addr: ip_of(60_000 + n, n).into(),
        });
    }
    ServiceView {
        id: ServiceId(format!("service{n}")),
        name: format!("service{n}"),
        mode: ServiceMode::Replicated { replicas: 50 },
        networks,
        endpoint_mode: EndpointMode::Vip,
        connections: ConnectionPolicy::default(),
        vips,
        ports,
        stack: None,
        names_before_healthy: false,
    }
}

fn endpoint_view(n: usize) -> EndpointView {
    let service = n % SERVICES;
    let ip = ip_of(n, service);
    EndpointView {
        id: EndpointId(endpoint_id(n)),
        network: network_of(service),
        node: NodeId(node_id(n / ENDPOINTS_OF_EACH)),
        name: format!("service{service}.{n}"),
        ips: vec![ip],
        mac: Mac::for_ip(ip),
        aliases: Vec::new(),
        service: Some(ServiceId(format!("service{service}"))),
        task: None,
    }
}

pub(super) fn orders() -> Assignment {
    let endpoints = ENDPOINTS_OF_EACH..NODES * ENDPOINTS_OF_EACH;
    Assignment {
        payloads: Arc::default(),
        shared: Arc::new(Shared {
            version: 1,
            cluster_id: "c".to_owned(),
            data_path_port: 4789,
            nodes: (0..NODES).map(|n| NodeView::from(&node(n))).collect(),
            networks: vec![network("back", 4096 + 100), network("ingress", 4096 + 101)],
            services: (0..SERVICES).map(service).collect(),
            ending: Vec::new(),
            endpoints: endpoints.map(|n| Arc::new(endpoint_view(n))).collect(),
            peers: Vec::new(),
            gossip_keys: Vec::new(),
        }),
        own: Arc::new(Own {
            version: 1,
            node: node(0),
            tasks: Vec::new(),
            endpoints: Vec::new(),
        }),
    }
}
