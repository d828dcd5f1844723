//! Endpoints and services of one node, and how they change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_wire::{Mac, PortId, Vni, mac_for_ip};

/// Endpoints 0 to 5; each has an address of both families.
pub(crate) const ENDPOINTS: u8 = 6;
/// Services 0 and 1; each has a virtual address of both families.
pub(crate) const SERVICES: u8 = 2;

pub(crate) fn vni() -> Vni {
    Vni::new(4096).unwrap()
}

pub(crate) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

pub(crate) fn v6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
}

pub(crate) fn vip(service: u8, ipv6: bool) -> IpAddr {
    let last = 200 + service;
    if ipv6 { v6(last) } else { v4(last) }
}

/// The hardware address that answers for a virtual address.
pub(crate) fn vip_mac(service: u8, ipv6: bool) -> Mac {
    mac_for_ip(vip(service, ipv6))
}

/// Other nodes.
pub(crate) const VTEPS: u8 = 2;

pub(crate) fn vtep(index: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2 + index], 4789))
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Port(PortId),
    Vtep(SocketAddr),
}

#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) ips: [IpAddr; 2],
    pub(crate) mac: Mac,
    /// None when it is gone.
    pub(crate) place: Option<Place>,
    /// Changes when it comes back: then it is another one.
    pub(crate) life: u64,
    /// Bit for each service that it is a replica of.
    pub(crate) serves: u8,
    pub(crate) draining: bool,
}

impl Endpoint {
    pub(crate) fn port(&self) -> Option<PortId> {
        match self.place {
            Some(Place::Port(port)) => Some(port),
            _ => None,
        }
    }
}

/// Key of an endpoint's address as a replica.
pub(crate) fn replica_key(index: usize, life: u64, ipv6: bool) -> u64 {
    life * 100 + index as u64 * 2 + u64::from(ipv6)
}

/// A change of tables.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// It is on this node, on another, or gone.
    Move { endpoint: u8, to: u8 },
    /// It serves other services.
    Serve { endpoint: u8, serves: u8 },
    /// It takes no new flows, or takes them again.
    Drain { endpoint: u8 },
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) endpoints: Vec<Endpoint>,
}

impl World {
    /// Half of the endpoints are here; the upper ones serve.
    pub(crate) fn new() -> Self {
        let endpoints = (0..ENDPOINTS)
            .map(|i| Endpoint {
                ips: [v4(10 + i), v6(10 + i)],
                mac: mac_for_ip(v4(10 + i)),
                place: Some(if i % 2 == 0 {
                    Place::Port(PortId(u32::from(i)))
                } else {
                    Place::Vtep(vtep(i / 2 % VTEPS))
                }),
                life: 1,
                serves: if i < 2 { 0 } else { 1 + i % 3 },
                draining: false,
            })
            .collect();
        Self { endpoints }
    }

    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Move { endpoint, to } => {
                let e = &mut self.endpoints[usize::from(endpoint)];
                let was_gone = e.place.is_none();
                e.place = match to {
                    0 => Some(Place::Port(PortId(endpoint.into()))),
                    1..=VTEPS => Some(Place::Vtep(vtep(to - 1))),
                    _ => None,
                };
                if was_gone {
                    e.life += 1;
                }
            }
            Change::Serve { endpoint, serves } => {
                self.endpoints[usize::from(endpoint)].serves = serves;
            }
            Change::Drain { endpoint } => {
                let e = &mut self.endpoints[usize::from(endpoint)];
                e.draining = !e.draining;
            }
        }
    }

    /// Replicas of a service: its endpoints that are there.
    pub(crate) fn replicas(&self, service: u8) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.endpoints
            .iter()
            .enumerate()
            .filter(move |(_, e)| e.place.is_some() && e.serves & (1 << service) != 0)
    }
}
