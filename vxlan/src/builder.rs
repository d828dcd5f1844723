//! Compiles what the agent knows into a [`Switch`].

use std::net::{IpAddr, SocketAddr};

use hashbrown::hash_map::Entry;
use weft_wire::{Mac, PortId, Vni, mac_for_ip};

use crate::fdb::{Map, Owner, Place, Set};
use crate::network::NetworkEntry;
use crate::switch::Switch;

/// Collects networks, endpoints and peers.
///
/// Where two entries claim one hardware address or one address of a network, the stronger stays:
/// gateway, then virtual address, then local port, then remote endpoint; among equals the later.
#[derive(Debug, Default)]
pub struct SwitchBuilder {
    networks: Map<Vni, NetworkEntry>,
    fdb: Map<(Vni, Mac), Place>,
    neighbors: Map<(Vni, IpAddr), (Mac, u8)>,
    /// True for one that may speak on every network.
    vteps: Map<IpAddr, bool>,
    peers: Set<(IpAddr, Vni)>,
    paths: Map<IpAddr, u16>,
    receives: u16,
}

impl SwitchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a network with its gateway addresses.
    pub fn network(&mut self, entry: NetworkEntry) -> &mut Self {
        if !entry.gateways.is_empty() {
            self.endpoint(
                entry.vni,
                entry.gateway_mac(),
                &entry.gateways,
                Place::Gateway,
            );
        }
        self.networks.insert(entry.vni, entry);
        self
    }

    /// Adds an endpoint behind a port of this node.
    pub fn local(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], port: PortId) -> &mut Self {
        self.endpoint(vni, mac, ips, Place::Local(port))
    }

    /// Adds an endpoint behind another VTEP, whose datagrams are accepted on that network from now
    /// on. That is all that a static peer may do; for a node see [`SwitchBuilder::vtep`].
    pub fn remote(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], vtep: SocketAddr) -> &mut Self {
        let ip = vtep.ip().to_canonical();
        self.vteps.entry(ip).or_insert(false);
        self.peers.insert((ip, vni));
        self.endpoint(vni, mac, ips, Place::Remote(vtep))
    }

    /// Adds an address that the balancer answers for: a service's virtual address, or this node's
    /// own on the network. Its hardware address is [`mac_for_ip`].
    pub fn virtual_ip(&mut self, vni: Vni, ip: IpAddr) -> &mut Self {
        self.endpoint(vni, mac_for_ip(ip), &[ip], Place::Virtual)
    }

    /// Accepts datagrams of every network from a VTEP: that of a node, which may have endpoints that
    /// nobody has told of yet.
    pub fn vtep(&mut self, ip: IpAddr) -> &mut Self {
        self.vteps.insert(ip.to_canonical(), true);
        self
    }

    /// Largest inner packet that the way to a VTEP carries, in bytes; without it the network's MTU.
    pub fn path_mtu(&mut self, vtep: IpAddr, mtu: u16) -> &mut Self {
        self.paths.insert(vtep.to_canonical(), mtu);
        self
    }

    /// Largest inner packet that can arrive in one datagram, in bytes, where that is more than a
    /// network's MTU.
    pub fn receives(&mut self, mtu: u16) -> &mut Self {
        self.receives = mtu;
        self
    }

    /// The finished tables.
    #[must_use]
    pub fn build(self) -> Switch {
        let fdb = &self.fdb;
        let owner = |(key, (mac, _)): ((Vni, IpAddr), (Mac, u8))| {
            let place = *fdb.get(&(key.0, mac))?;
            Some((key, Owner { mac, place }))
        };
        let owners = self.neighbors.into_iter().filter_map(owner).collect();
        let widest = self.networks.values().map(|n| n.mtu).max().unwrap_or(0);
        let paths = self.paths.into_iter();
        Switch {
            narrow: paths.filter(|(_, mtu)| *mtu < widest).collect(),
            receives: self.receives,
            networks: self.networks,
            owners,
            fdb: self.fdb,
            vteps: self.vteps,
            peers: self.peers,
        }
    }

    fn endpoint(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], place: Place) -> &mut Self {
        match self.fdb.entry((vni, mac)) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(mut entry) if place.strength() >= entry.get().strength() => {
                entry.insert(place);
            }
            Entry::Occupied(_) => {}
        }
        for ip in ips {
            let known = self.neighbors.entry((vni, *ip)).or_insert((mac, 0));
            if place.strength() >= known.1 {
                *known = (mac, place.strength());
            }
        }
        self
    }
}
