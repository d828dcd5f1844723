//! Endpoints, services and ways of one node, how they change, and tables of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use weft_mesh::{Balancer, Limits, Replica, ReplicaLoad, Service, ServicesBuilder};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{Mac, PortId, Vni, mac_for_ip};

use super::super::epochs::FlowEpochs;
use super::super::sandbox::{Shortcut, UnderlayRoute};
use crate::port::Port;
use crate::snapshot::Snapshot;

pub(super) const ENDPOINTS: usize = 6;
pub(super) const SERVICES: usize = 2;
pub(super) const VTEPS: usize = 2;
pub(super) const WORKERS: usize = 2;
/// Where everybody listens.
pub(super) const SERVED: u16 = 80;
/// The data path's.
const VXLAN: u16 = 4789;

pub(super) fn vni() -> Vni {
    Vni::new(4096).unwrap()
}

fn address(last: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(last).unwrap()).into()
}

pub(super) fn ip(endpoint: usize) -> IpAddr {
    address(10 + endpoint)
}

pub(super) fn vip(service: usize) -> IpAddr {
    address(200 + service)
}

pub(super) fn vtep(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(2 + index).unwrap())
}

/// Where this node receives.
pub(super) fn own() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), VXLAN)
}

/// Number of an endpoint's sandbox.
pub(super) fn number(endpoint: usize) -> u16 {
    u16::try_from(endpoint + 1).unwrap()
}

/// The worker that reads an endpoint's frames, from whichever side.
pub(super) fn worker_of(endpoint: usize) -> usize {
    endpoint % WORKERS
}

/// A device for ports whose frames nobody reads.
fn tap() -> Arc<Tap> {
    static TAP: OnceLock<Arc<Tap>> = OnceLock::new();
    let open = || {
        let config = TapConfig {
            persist: false,
            ..TapConfig::new("walk0")
        };
        let netns = Netns::create_anonymous().expect("a namespace");
        let tap = netns.run_in(|| Tap::open(&config)).expect("a thread");
        Arc::new(tap.expect("a TAP"))
    };
    Arc::clone(TAP.get_or_init(open))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here(PortId),
    /// Of the VTEPs.
    Behind(usize),
    Gone,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) mac: Mac,
    pub(super) place: Place,
    /// Changes when another one has its address.
    pub(super) life: u64,
    pub(super) serves: Option<usize>,
    draining: bool,
    /// Numbers its devices.
    devices: u32,
}

/// A change of tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// It is on this node by another port, behind a node, or gone. Its sandbox has other devices where
    /// it is `anew`.
    Move {
        endpoint: usize,
        to: usize,
        anew: bool,
    },
    /// Another one has its place and its address.
    Replace { endpoint: usize },
    /// It is a replica of another service, or of none.
    Serve { endpoint: usize, service: usize },
    /// It takes no new connections, or takes them again.
    Drain { endpoint: usize },
    /// What the network carries is another size.
    Mtu { narrow: bool },
    /// The way to a VTEP is narrow, or as wide as the network.
    Path { vtep: usize, narrow: bool },
    /// Tables with another number.
    Same,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) endpoints: Vec<Endpoint>,
    /// All that ever were.
    pub(super) ports: HashMap<PortId, Arc<Port>>,
    pub(super) mtu: u16,
    pub(super) paths: [Option<u16>; VTEPS],
    pub(super) routes: [UnderlayRoute; VTEPS],
    pub(super) loads: HashMap<u64, Arc<ReplicaLoad>>,
    flow_epochs: FlowEpochs,
    epoch: u64,
    devices: u32,
}

impl World {
    /// Half of the endpoints are here, half behind two nodes; the first two serve nothing.
    pub(super) fn new() -> Self {
        let endpoints = (0..ENDPOINTS).map(|index| Endpoint {
            mac: mac_for_ip(ip(index)),
            place: Place::Gone,
            life: 0,
            serves: index.checked_sub(2).map(|index| index % SERVICES),
            draining: false,
            devices: 0,
        });
        let mut world = Self {
            endpoints: endpoints.collect(),
            ports: HashMap::new(),
            mtu: 1450,
            paths: [None; VTEPS],
            routes: [0, 1].map(|index| route(index, 0)),
            loads: HashMap::new(),
            flow_epochs: FlowEpochs::default(),
            epoch: 0,
            devices: 0,
        };
        for endpoint in 0..ENDPOINTS {
            let to = [0, 0, 1, 0, 2, 1][endpoint];
            world.change(Change::Move {
                endpoint,
                to,
                anew: true,
            });
        }
        world
    }

    /// Key of an endpoint as a replica.
    pub(super) fn key(&self, endpoint: usize) -> u64 {
        self.endpoints[endpoint].life * 100 + endpoint as u64
    }

    pub(super) fn is_replica(&self, endpoint: usize) -> bool {
        let endpoint = &self.endpoints[endpoint];
        endpoint.serves.is_some() && endpoint.place != Place::Gone
    }

    /// Largest packet to another node.
    pub(super) fn mtu_to(&self, vtep: usize) -> u16 {
        self.paths[vtep].map_or(self.mtu, |path| path.min(self.mtu))
    }

    /// The devices of an endpoint that is here.
    pub(super) fn shortcut(&self, port: PortId) -> Shortcut {
        let shortcut = self.ports[&port].shortcut.load_full();
        *shortcut.expect("each sandbox has its devices")
    }

    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Move { endpoint, to, anew } => self.place(endpoint, to, anew),
            Change::Replace { endpoint } => self.endpoints[endpoint].life += 1,
            Change::Serve { endpoint, service } => {
                self.endpoints[endpoint].serves = Some(service).filter(|at| *at < SERVICES);
            }
            Change::Drain { endpoint } => {
                let draining = &mut self.endpoints[endpoint].draining;
                *draining = !*draining;
            }
            Change::Mtu { narrow } => self.mtu = if narrow { 1300 } else { 1450 },
            Change::Path { vtep, narrow } => self.paths[vtep] = narrow.then_some(1200),
            Change::Same => {}
        }
    }

    fn place(&mut self, endpoint: usize, to: usize, anew: bool) {
        let before = self.endpoints[endpoint].place;
        let after = match to {
            0 => Place::Here(self.port(endpoint, anew)),
            1..=VTEPS => Place::Behind(to - 1),
            _ => Place::Gone,
        };
        // No connection outlives that its replica ends here and begins there.
        let is_same = matches!(
            (before, after),
            (Place::Here(_), Place::Here(_)) | (Place::Behind(_), Place::Behind(_))
        );
        let moved = &mut self.endpoints[endpoint];
        moved.place = after;
        moved.life += u64::from(!is_same);
    }

    /// A new port of an endpoint.
    fn port(&mut self, endpoint: usize, anew: bool) -> PortId {
        let id = PortId(1 + u32::try_from(self.ports.len()).unwrap());
        let owner = &mut self.endpoints[endpoint];
        if anew || owner.devices == 0 {
            self.devices += 1;
            owner.devices = self.devices;
        }
        let shortcut = Shortcut {
            number: number(endpoint),
            second: 1000 + owner.devices,
            second_mac: Mac([2, 0, 0, 0, 0, 2]),
            host_end: 2000 + owner.devices,
        };
        let port = Port {
            id,
            name: "walk".into(),
            vni: vni(),
            mac: owner.mac,
            ips: vec![ip(endpoint)],
            tap: tap(),
            worker: worker_of(endpoint),
            counters: Arc::default(),
            shortcut: ArcSwapOption::from_pointee(shortcut),
        };
        self.ports.insert(id, Arc::new(port));
        id
    }

    /// Tables of now, after those of `before`. The network has another epoch where its switch says
    /// anything else, as the agent has it; services are no matter of that.
    pub(super) fn tables(&mut self, before: &Snapshot) -> Snapshot {
        let mut switch = SwitchBuilder::new();
        switch.network(NetworkEntry {
            vni: vni(),
            mtu: self.mtu,
            gateways: vec![address(1)],
        });
        for index in 0..VTEPS {
            switch.vtep(vtep(index).into());
            if let Some(mtu) = self.paths[index] {
                switch.path_mtu(vtep(index).into(), mtu);
            }
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let ips = [ip(index)];
            match endpoint.place {
                Place::Here(port) => switch.local(vni(), endpoint.mac, &ips, port),
                Place::Behind(node) => {
                    let at = SocketAddr::from((vtep(node), VXLAN));
                    switch.remote(vni(), endpoint.mac, &ips, at)
                }
                Place::Gone => &mut switch,
            };
        }
        let mut services = ServicesBuilder::new();
        for service in 0..SERVICES {
            let replicas = (0..ENDPOINTS).filter(|at| self.endpoints[*at].serves == Some(service));
            let replicas: Vec<_> = replicas.filter(|at| self.is_replica(*at)).collect();
            let replicas = replicas.into_iter().map(|at| self.replica(at)).collect();
            let index = services.service(Service {
                id: format!("service{service}").into(),
                name: "name".into(),
                local_first: false,
                balancer: Balancer::default(),
                limits: Limits::default(),
                in_gap: false,
                replicas,
            });
            switch.virtual_ip(vni(), vip(service));
            services.vip(vni(), vip(service), index);
        }
        let switch = switch.build();
        self.epoch += 1;
        if switch != before.switch {
            let epoch = u32::try_from(self.epoch).unwrap();
            self.flow_epochs.change(vni(), epoch);
        }
        let here = self.endpoints.iter().filter_map(|e| match e.place {
            Place::Here(port) => Some((port, Arc::clone(&self.ports[&port]))),
            _ => None,
        });
        Snapshot {
            epoch: self.epoch,
            switch,
            services: services.build(),
            ports: here.collect(),
            mesh: None,
            flow_epochs: self.flow_epochs.clone(),
        }
    }

    fn replica(&mut self, endpoint: usize) -> Replica {
        let key = self.key(endpoint);
        let load = self.loads.entry(key);
        let load = load.or_insert_with(|| Arc::new(ReplicaLoad::with_workers(WORKERS)));
        let at = &self.endpoints[endpoint];
        Replica {
            key,
            vni: vni(),
            ip: ip(endpoint),
            mac: at.mac,
            local: matches!(at.place, Place::Here(_)),
            draining: at.draining,
            load: Arc::clone(load),
        }
    }
}

/// One of the ways to a VTEP.
pub(super) fn route(index: usize, way: u8) -> UnderlayRoute {
    let router = Ipv4Addr::new(192, 0, 2, 254);
    UnderlayRoute {
        device: 1 + u32::from(way & 1),
        next_hop: if way & 2 == 0 { vtep(index) } else { router },
        second_port: (way & 4 != 0).then_some(4790),
    }
}
