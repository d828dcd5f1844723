//! A small cluster in which everything changes, and addresses meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use weft_dataplane::{Port, PortCounters};
use weft_model::assignment::{EndpointView, NodeView, ServiceView, Shared};
use weft_model::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId};
use weft_model::objects::{
    Affinity, ConnectionPolicy, EndingService, EndpointMode, Ipam, Mac as PeerMac, Meta, Network,
    NetworkAttachmentSpec, NetworkSpec, Node, PortSpec, PublishMode, ServiceMode, StaticPeer,
    Subnet, Vip,
};
use weft_model::records::{EndpointRecord, NodeRecord};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_wire::{Mac, PortId, Vni};

use crate::compile::heard::{Heard, Words};
use crate::compile::known::{KnownEndpoint, LocalPort};
use crate::compile::mtus::Mtus;
use crate::compile::sample;

const NODES: u8 = 4;
pub(super) const SERVICES: u8 = 3;
const ENDPOINTS: u8 = 8;
/// The last one is the ingress network.
const NETWORKS: [&str; 3] = ["back", "front", "ingress"];

/// One for all ports: nothing is sent.
pub(super) fn tap() -> Arc<Tap> {
    static TAP: OnceLock<Arc<Tap>> = OnceLock::new();
    let open = || {
        let config = TapConfig {
            persist: false,
            ..TapConfig::new("steps0")
        };
        let netns = Netns::create_anonymous().expect("a namespace");
        let tap = netns.run_in(|| Tap::open(&config)).expect("a thread");
        Arc::new(tap.expect("a TAP"))
    };
    Arc::clone(TAP.get_or_init(open))
}

fn node_id(n: u8) -> NodeId {
    NodeId(format!("n{n}"))
}

pub(super) fn service_id(n: u8) -> ServiceId {
    ServiceId(format!("s{n}"))
}

fn endpoint_id(n: u8) -> EndpointId {
    EndpointId(format!("e{n}"))
}

pub(super) fn node(n: u8) -> Node {
    Node {
        ingress_ip: Some([10, 0, 2, 200 + n].into()),
        ..sample::node(node_id(n), format!("node{n}"), [192, 0, 2, n].into())
    }
}

fn network(n: u8) -> Network {
    let name = NETWORKS[usize::from(n)];
    Network {
        id: NetworkId::from(name),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: name.to_owned(),
            ingress: name == "ingress",
            ipam: Ipam {
                config: vec![Subnet {
                    cidr: format!("10.0.{n}.0/24").parse().unwrap(),
                    gateway: [10, 0, n, 254].into(),
                }],
            },
            ..NetworkSpec::default()
        },
        vni: 4097 + u32::from(n),
        ending: false,
    }
}

fn service(n: u8) -> ServiceView {
    let attached = |target: &str| NetworkAttachmentSpec {
        target: target.to_owned(),
        aliases: vec!["all".to_owned(), format!("alias{}", n % 2)],
        stack_aliases: vec!["inner".to_owned(), "alias1".to_owned()],
    };
    let vip = |network: u8| Vip {
        network: NetworkId::from(NETWORKS[usize::from(network)]),
        addr: IpAddr::from([10, 0, network, 100 + n]).into(),
    };
    // Of the last, one of two ports has the number of another one.
    let port = |published, mode| PortSpec {
        published,
        target: 80,
        mode,
        host_ip: (n == 2).then(|| [192, 0, 2, 1].into()),
        ..PortSpec::default()
    };
    ServiceView {
        id: service_id(n),
        name: match n {
            0 => "shop_web".to_owned(),
            n => format!("service{n}"),
        },
        mode: ServiceMode::Replicated { replicas: 1 },
        networks: vec![attached("back"), attached("front")],
        endpoint_mode: EndpointMode::Vip,
        connections: ConnectionPolicy::default(),
        vips: vec![vip(0), vip(1)],
        ports: vec![
            port(8000 + u16::from(n % 2), PublishMode::Ingress),
            port(9000, PublishMode::Host),
        ],
        stack: (n < 2).then(|| "shop".to_owned()),
        names_before_healthy: n == 2,
    }
}

/// What there is, and what the nodes say. This node is the first.
pub(super) struct World {
    pub(super) shared: Shared,
    pub(super) said: BTreeMap<(u8, u8), EndpointRecord>,
    speaking: BTreeSet<u8>,
    /// Words as they were given the last time: those that are the same are the same allocation.
    pub(super) heard: Heard,
    pub(super) ports: BTreeMap<EndpointId, LocalPort>,
    port: u32,
    pub(super) mtus: Arc<Mtus>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            shared: Shared {
                version: 1,
                cluster_id: "c".to_owned(),
                data_path_port: 4789,
                nodes: (0..NODES).map(|n| NodeView::from(&node(n))).collect(),
                networks: (0..3).map(network).collect(),
                services: (0..SERVICES).map(service).collect(),
                ending: Vec::new(),
                endpoints: Vec::new(),
                peers: Vec::new(),
                gossip_keys: Vec::new(),
            },
            said: BTreeMap::new(),
            speaking: [1, 2].into(),
            heard: Heard::default(),
            ports: BTreeMap::new(),
            port: 0,
            mtus: Arc::new(Mtus {
                port: 1450,
                receives: 1450,
                paths: BTreeMap::new(),
            }),
        }
    }

    fn view(&self, id: &EndpointId) -> Option<&EndpointView> {
        let mut views = self.shared.endpoints.iter().map(|view| &**view);
        views.find(|view| view.id == *id)
    }

    /// The orders name an endpoint, or name it otherwise.
    pub(super) fn order(&mut self, n: u8, at: u8, how: u8) {
        let network = how % 3;
        let ips: [IpAddr; 1] = [[10, 0, network, 10 + n].into()];
        let service = service_id(how / 3 % (SERVICES + 1));
        let is_task = how / 3 % (SERVICES + 1) < SERVICES;
        let view = EndpointView {
            id: endpoint_id(n),
            network: NetworkId::from(NETWORKS[usize::from(network)]),
            node: node_id(at % NODES),
            name: format!("task{n}"),
            ips: ips.to_vec(),
            mac: PeerMac::for_ip(ips[0]),
            aliases: vec![format!("alias{}", how % 2), "sp ace".to_owned()],
            service: is_task.then_some(service),
            task: None,
        };
        self.revoke(n);
        let place = usize::from(at) % (self.shared.endpoints.len() + 1);
        self.shared.endpoints.insert(place, Arc::new(view));
    }

    fn revoke(&mut self, n: u8) {
        self.shared
            .endpoints
            .retain(|view| view.id != endpoint_id(n));
    }

    pub(super) fn say(&mut self, who: u8, n: u8, ready: bool) {
        let record = EndpointRecord {
            id: endpoint_id(n),
            ready,
            draining: false,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        self.said.insert((who, n), record);
    }

    /// What is not ready starts, or drains.
    pub(super) fn drain(&mut self, who: u8, n: u8, drains: bool) {
        if let Some(record) = self.said.get_mut(&(who, n)) {
            record.draining = drains && !record.ready;
        }
        if let Some(port) = self.ports.get_mut(&endpoint_id(n)) {
            let record = Arc::make_mut(&mut port.record);
            record.draining = drains && !record.ready;
        }
    }

    /// A port of this node for an endpoint, whatever the orders say by now; or another `ready`.
    pub(super) fn plug(&mut self, n: u8, ready: bool) {
        let id = endpoint_id(n);
        if let Some(port) = self.ports.get_mut(&id) {
            let record = Arc::make_mut(&mut port.record);
            record.ready = ready;
            record.draining &= !ready;
            return;
        }
        let Some(view) = self.view(&id).cloned() else {
            return;
        };
        let networks = &mut self.shared.networks.iter();
        let Some(vni) = networks.find(|n| n.id == view.network).map(|n| n.vni) else {
            return;
        };
        let said = EndpointRecord {
            id: id.clone(),
            ready,
            draining: false,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        self.port += 1;
        let port = Port {
            id: PortId(self.port),
            name: view.name.as_str().into(),
            vni: Vni::new(vni).unwrap(),
            mac: Mac(view.mac.0),
            ips: view.ips.clone(),
            tap: tap(),
            worker: 0,
            counters: Arc::new(PortCounters::default()),
            shortcut: Default::default(),
        };
        let port = LocalPort {
            port: Arc::new(port),
            record: Arc::new(KnownEndpoint::new(view, &said)),
        };
        self.ports.insert(id, port);
    }

    pub(super) fn step(&mut self, (what, a, b): (u8, u8, u8)) {
        let (n, service) = (a % ENDPOINTS, usize::from(b % SERVICES));
        let shared = &mut self.shared;
        match what % 18 {
            0 | 1 => self.order(n, b, a / ENDPOINTS),
            2 => self.revoke(n),
            // Mostly by whom the orders name.
            3..=6 => {
                let named = self.view(&endpoint_id(n)).map(|view| view.node.clone());
                let named = (1..NODES).find(|who| named == Some(node_id(*who)));
                let who = named.filter(|_| b > 30).unwrap_or(1 + b % (NODES - 1));
                self.say(who, n, a % 3 > 0);
                self.drain(who, n, b % 2 == 0);
            }
            7 => {
                let who = 1 + b % (NODES - 1);
                self.said.remove(&(who, n));
            }
            8 => {
                let who = 1 + b % (NODES - 1);
                if !self.speaking.remove(&who) {
                    self.speaking.insert(who);
                }
            }
            9 => {
                // It dies.
                let who = 1 + b % (NODES - 1);
                self.speaking.remove(&who);
                self.said.retain(|(of, _), _| *of != who);
            }
            10 | 11 => self.plug(n, b > 50),
            12 => drop(self.ports.remove(&endpoint_id(n))),
            13 => {
                let id = service_id(b % SERVICES);
                let known = shared.services.iter().position(|s| s.id == id);
                let ending = shared.ending.iter().position(|s| s.id == id);
                match (known, ending) {
                    (Some(known), _) => {
                        let gone = shared.services.remove(known);
                        shared.ending.push(EndingService {
                            id: gone.id,
                            name: gone.name,
                            vips: gone.vips,
                        });
                    }
                    (None, Some(ending)) => drop(shared.ending.remove(ending)),
                    (None, None) => shared.services.push(self::service(b % SERVICES)),
                }
            }
            14 => {
                if let Some(service) = shared.services.get_mut(service) {
                    match a % 8 {
                        0 => service.connections.limit += 1,
                        1 => service.connections.affinity = Affinity::Client,
                        2 => service.ports.truncate(usize::from(b % 2)),
                        3 => service.vips.truncate(1),
                        4 => service.endpoint_mode = EndpointMode::Dnsrr,
                        5 => service.names_before_healthy = !service.names_before_healthy,
                        6 => {
                            let stack = if b % 2 == 0 { "shop" } else { "blog" };
                            service.stack = (b > 100).then(|| stack.to_owned());
                        }
                        _ => service.networks.truncate(1),
                    }
                }
            }
            15 => {
                let mut mtus = Mtus::clone(&self.mtus);
                mtus.port = 1400 + u16::from(a % 3);
                mtus.paths.insert([192, 0, 2, b % NODES].into(), 1300);
                self.mtus = Arc::new(mtus);
            }
            16 => match a % 3 {
                0 => {
                    let known = shared.networks.len();
                    shared.networks.retain(|n| n.spec.name != "front");
                    if shared.networks.len() == known {
                        shared.networks.push(network(1));
                    }
                }
                1 => {
                    let at = [192, 0, 2, 50 + b % 2].into();
                    if let Some(node) = shared.nodes.get_mut(usize::from(b % NODES)) {
                        node.data_path_addr = at;
                    }
                }
                _ => shared.version += 1,
            },
            _ => {
                let known = shared.peers.pop();
                if known.is_none() {
                    // At an address that an endpoint may have as well.
                    let ip = [10, 0, 0, 10 + b % ENDPOINTS].into();
                    shared.peers.push(StaticPeer {
                        id: PeerId::from("p"),
                        network: NetworkId::from("back"),
                        ip,
                        mac: PeerMac::for_ip(ip),
                        vtep: [192, 0, 2, 99].into(),
                    });
                }
            }
        }
    }

    pub(super) fn hear(&mut self) {
        let mut now: BTreeMap<NodeId, Words> = BTreeMap::new();
        for who in &self.speaking {
            let record = NodeRecord {
                closed_ports: Vec::new(),
                mtu: 1500,
                heard: Vec::new(),
                merging_port: 0,
            };
            now.entry(node_id(*who)).or_default().node = Some(Arc::new(record));
        }
        for ((who, _), record) in &self.said {
            let words = now.entry(node_id(*who)).or_default();
            words.endpoints.push(Arc::new(record.clone()));
        }
        let gone = self.heard.words().keys();
        let gone: Vec<_> = gone.filter(|id| !now.contains_key(*id)).cloned().collect();
        for id in &gone {
            self.heard.remove(id);
        }
        for (id, words) in now {
            let known = self.heard.get(&id);
            if known.is_none_or(|known| **known != words) {
                self.heard.insert(id, Arc::new(words));
            }
        }
    }
}
