//! Compiles what the agent knows into a [`Switch`].

use std::net::{IpAddr, SocketAddr};

use weft_wire::{Mac, Parts, PortId, Vni, mac_for_ip};

use crate::claims::Claims;
use crate::fdb::{Map, Owner, Place, Set, number};
use crate::network::NetworkEntry;
use crate::switch::Switch;

/// Collects networks, endpoints and peers, and goes on doing so: endpoints come and go, and each
/// [`build`](Self::build) shares the rows of endpoints with the builder, and so with the tables before.
///
/// Where two entries claim one hardware address or one address of a network, the stronger stays:
/// gateway, then virtual address, then local port, then remote endpoint; among equals the greater
/// port, the greater VTEP. The order of the calls does not matter.
#[derive(Debug, Clone, Default)]
pub struct SwitchBuilder {
    networks: Map<Vni, NetworkEntry>,
    fdb: Claims<(Vni, Mac), Place>,
    /// Strength of the claim, whose.
    neighbors: Claims<(Vni, IpAddr), (u8, Mac)>,
    /// What both say together.
    owners: Parts<(Vni, IpAddr), Owner>,
    /// True for one that may speak on every network.
    vteps: Map<u128, bool>,
    peers: Set<(IpAddr, Vni)>,
    /// How many endpoints are behind a VTEP, and how many of them on a network.
    behind: Map<IpAddr, usize>,
    behind_on: Map<(IpAddr, Vni), usize>,
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
            self.claim(
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
        self.claim(vni, mac, ips, Place::Local(port))
    }

    /// Takes back what one call of [`Self::local`] with the same arguments added.
    pub fn remove_local(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], port: PortId) -> &mut Self {
        self.release(vni, mac, ips, Place::Local(port))
    }

    /// Adds an endpoint behind another VTEP, whose datagrams are accepted on that network from now
    /// on. That is all that a static peer may do; for a node see [`SwitchBuilder::vtep`].
    pub fn remote(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], vtep: SocketAddr) -> &mut Self {
        let ip = vtep.ip().to_canonical();
        *self.behind.entry(ip).or_default() += 1;
        *self.behind_on.entry((ip, vni)).or_default() += 1;
        self.vteps.entry(number(ip)).or_insert(false);
        self.peers.insert((ip, vni));
        self.claim(vni, mac, ips, Place::Remote(vtep))
    }

    /// Takes back what one call of [`Self::remote`] with the same arguments added.
    pub fn remove_remote(
        &mut self,
        vni: Vni,
        mac: Mac,
        ips: &[IpAddr],
        vtep: SocketAddr,
    ) -> &mut Self {
        let ip = vtep.ip().to_canonical();
        if was_last(&mut self.behind_on, &(ip, vni)) {
            self.peers.remove(&(ip, vni));
        }
        if was_last(&mut self.behind, &ip) && self.vteps.get(&number(ip)) == Some(&false) {
            self.vteps.remove(&number(ip));
        }
        self.release(vni, mac, ips, Place::Remote(vtep))
    }

    /// Adds an address that the balancer answers for: a service's virtual address, or this node's
    /// own on the network. Its hardware address is [`mac_for_ip`].
    pub fn virtual_ip(&mut self, vni: Vni, ip: IpAddr) -> &mut Self {
        self.claim(vni, mac_for_ip(ip), &[ip], Place::Virtual)
    }

    /// Accepts datagrams of every network from a VTEP: that of a node, which may have endpoints that
    /// nobody has told of yet.
    pub fn vtep(&mut self, ip: IpAddr) -> &mut Self {
        self.vteps.insert(number(ip), true);
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

    /// The tables of what was collected so far. The cost is that of copying those of networks and
    /// VTEPs; those of endpoints are shared.
    #[must_use]
    pub fn build(&self) -> Switch {
        let widest = self.networks.values().map(|n| n.mtu).max().unwrap_or(0);
        let narrow = self.paths.iter().filter(|(_, mtu)| **mtu < widest);
        Switch {
            narrow: narrow.map(|(vtep, mtu)| (*vtep, *mtu)).collect(),
            receives: self.receives,
            networks: self.networks.clone(),
            owners: self.owners.clone(),
            fdb: self.fdb.held().clone(),
            vteps: self.vteps.clone(),
            peers: self.peers.clone(),
        }
    }

    fn claim(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], place: Place) -> &mut Self {
        let before = self.fdb.get(&(vni, mac));
        self.fdb.add((vni, mac), place);
        for ip in ips {
            self.neighbors.add((vni, *ip), (place.strength(), mac));
        }
        self.settle(vni, mac, ips, before)
    }

    fn release(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], place: Place) -> &mut Self {
        let before = self.fdb.get(&(vni, mac));
        self.fdb.remove(&(vni, mac), place);
        for ip in ips {
            self.neighbors.remove(&(vni, *ip), (place.strength(), mac));
        }
        self.settle(vni, mac, ips, before)
    }

    /// Brings the owners up to date after a claim to `mac` and `ips` came or went; `before` had the
    /// hardware address.
    fn settle(&mut self, vni: Vni, mac: Mac, ips: &[IpAddr], before: Option<Place>) -> &mut Self {
        for ip in ips {
            let key = (vni, *ip);
            let owner = self.neighbors.get(&key).and_then(|(_, mac)| {
                let place = self.fdb.get(&(vni, mac))?;
                Some(Owner { mac, place })
            });
            match owner {
                Some(owner) => self.owners.insert(key, owner),
                None => self.owners.remove(&key),
            };
        }
        let now = self.fdb.get(&(vni, mac));
        if let (Some(before), Some(now)) = (before, now)
            && before != now
        {
            // Two claim it, which does not happen but for an instant: other addresses may be told
            // by it.
            let told = |(of, _): &(Vni, IpAddr), owner: &Owner| *of == vni && owner.mac == mac;
            self.owners.change(told, |owner| owner.place = now);
        }
        self
    }
}

/// Counts one less; true when it was the last.
fn was_last<K: Eq + std::hash::Hash>(counts: &mut Map<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else {
        return false;
    };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

#[cfg(test)]
mod tests;
