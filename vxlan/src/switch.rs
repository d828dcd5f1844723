//! The tables that a worker reads for every frame.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use weft_wire::frame::{self, ETHERNET_LEN, ICMPV6};
use weft_wire::{
    ArpInfo, DropReason, Fragment, Frame, IpInfo, Mac, Parts, PortId, Vni, reply, vxlan,
};

use crate::answer::Answer;
use crate::fdb::{Map, Owner, Place, Set, number};
use crate::network::NetworkEntry;

/// Immutable tables of all networks on this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Switch {
    pub(crate) networks: Map<Vni, NetworkEntry>,
    /// The forwarding database: where a hardware address is.
    pub(crate) fdb: Parts<(Vni, Mac), Place>,
    pub(crate) owners: Parts<(Vni, IpAddr), Owner>,
    /// Who may send here, and whether on every network: a node may, a static peer only where
    /// [`Switch::peers`] names it.
    pub(crate) vteps: Map<u128, bool>,
    pub(crate) peers: Set<(IpAddr, Vni)>,
    /// Largest inner packet to a VTEP, where that is less than some network's MTU.
    pub(crate) narrow: Map<IpAddr, u16>,
    /// Largest inner packet that the underlay can deliver here.
    pub(crate) receives: u16,
}

/// Where an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Behind a port of this node.
    Local(PortId),
    /// Behind another VTEP.
    Remote(SocketAddr),
}

/// The port that a frame came from, and what it may call itself.
#[derive(Clone, Copy, Debug)]
pub struct PortSource<'a> {
    /// The port.
    pub port: PortId,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses. The IPv6 link-local address that follows from `mac` need not be listed.
    pub ips: &'a [IpAddr],
}

impl PortSource<'_> {
    /// Whether the port may send from `ip`.
    fn owns(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip) || ip == IpAddr::V6(link_local(self.mac))
    }
}

/// What happens to a frame from a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Egress {
    /// It goes to another port of this node.
    Local(PortId),
    /// It goes to another VTEP.
    Remote(SocketAddr),
    /// Its destination is a virtual address: the balancer decides.
    Virtual,
    /// It goes by way of the gateway to an address of no network. Answers to clients of published
    /// ports do that; anything else is to be dropped ([`DropReason::OtherNetwork`]).
    Routed,
    /// It is answered, back to the port.
    Answer(Answer),
    /// It is dropped.
    Drop(DropReason),
}

/// What happens to a frame from the underlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ingress {
    /// It goes to a port of this node.
    Local(PortId),
    /// Its destination is a virtual address: the balancer decides.
    Virtual,
    /// It is answered, back to the VTEP that it came from.
    Answer(Answer),
    /// It is dropped.
    Drop(DropReason),
}

impl Switch {
    /// Decides over a frame that a port sent into its network. `info` is what
    /// [`frame::parse`] says of `frame`.
    #[must_use]
    pub fn egress(&self, vni: Vni, source: PortSource<'_>, frame: &[u8], info: &Frame) -> Egress {
        if frame::src_mac(frame) != source.mac {
            return Egress::Drop(DropReason::SpoofedMac);
        }
        let answer = match info {
            Frame::Arp(arp) => {
                if arp.sender_mac != source.mac {
                    return Egress::Drop(DropReason::SpoofedMac);
                }
                // RFC 5227 section 1.1: a probe has no sender address.
                if !arp.sender_ip.is_unspecified() && !source.owns(arp.sender_ip.into()) {
                    return Egress::Drop(DropReason::SpoofedIp);
                }
                self.answer_arp(vni, arp, |ip| source.owns(ip))
            }
            Frame::Ip(ip) => {
                let group = frame::dst_mac(frame).is_multicast();
                if !source.owns(ip.src) {
                    // Only what looks for an address of its own has none: duplicate address
                    // detection and router solicitation (RFC 4861), DHCP. All go to groups.
                    let nameless = group && ip.src.is_unspecified();
                    return Egress::Drop(if nameless {
                        DropReason::Multicast
                    } else {
                        DropReason::SpoofedIp
                    });
                }
                if is_discovery(ip) {
                    self.answer_nd(vni, frame, ip, |ip| source.owns(ip))
                } else if group {
                    Err(DropReason::Multicast)
                } else {
                    return match self.fdb.get(&(vni, frame::dst_mac(frame))) {
                        Some(Place::Local(port)) => Egress::Local(*port),
                        Some(Place::Remote(vtep)) => Egress::Remote(*vtep),
                        Some(Place::Virtual) => Egress::Virtual,
                        Some(Place::Gateway) => match self.at_gateway(vni, ip) {
                            Ok(answer) => Egress::Answer(answer),
                            Err(_) if !self.is_gateway(vni, ip.dst) => Egress::Routed,
                            Err(reason) => Egress::Drop(reason),
                        },
                        None => Egress::Drop(DropReason::UnknownMac),
                    };
                }
            }
        };
        match answer {
            Ok(answer) => Egress::Answer(answer),
            Err(reason) => Egress::Drop(reason),
        }
    }

    /// Decides over a frame that came from `vtep` in a datagram which [`Switch::admit`] let in. It
    /// never goes back to the underlay, but for an answer to its sender.
    ///
    /// A frame for a port is held against its sender: whose source the tables place elsewhere is
    /// [`DropReason::ForeignSource`]. A source that they do not know may come from anywhere: clients
    /// of published ports are none of the network's, and of an endpoint frames arrive before word.
    #[must_use]
    pub fn ingress(&self, vni: Vni, vtep: IpAddr, frame: &[u8], info: &Frame) -> Ingress {
        let answer = match info {
            Frame::Arp(arp) => self.answer_arp(vni, arp, |ip| self.is_elsewhere(vni, ip)),
            Frame::Ip(ip) if is_discovery(ip) => {
                self.answer_nd(vni, frame, ip, |ip| self.is_elsewhere(vni, ip))
            }
            Frame::Ip(ip) => {
                let dst = frame::dst_mac(frame);
                if dst.is_multicast() {
                    return Ingress::Drop(DropReason::Multicast);
                }
                match self.fdb.get(&(vni, dst)) {
                    Some(Place::Local(_)) if self.is_foreign(vni, vtep, frame, ip) => {
                        Err(DropReason::ForeignSource)
                    }
                    Some(Place::Local(port)) => return Ingress::Local(*port),
                    Some(Place::Virtual) => return Ingress::Virtual,
                    Some(Place::Remote(_)) => Err(DropReason::Hairpin),
                    Some(Place::Gateway) => self.at_gateway(vni, ip),
                    None => Err(DropReason::UnknownMac),
                }
            }
        };
        match answer {
            Ok(answer) => Ingress::Answer(answer),
            Err(reason) => Ingress::Drop(reason),
        }
    }

    /// Where an endpoint is: for frames whose destination the balancer rewrote.
    #[must_use]
    pub fn lookup(&self, vni: Vni, mac: Mac) -> Option<Destination> {
        match self.fdb.get(&(vni, mac))? {
            Place::Local(port) => Some(Destination::Local(*port)),
            Place::Remote(vtep) => Some(Destination::Remote(*vtep)),
            Place::Virtual | Place::Gateway => None,
        }
    }

    /// Hardware address of an address on a network.
    #[must_use]
    pub fn neighbor(&self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        if let Some(owner) = self.owners.get(&(vni, ip)) {
            return Some(owner.mac);
        }
        // Link-local addresses are not in the tables: they say themselves whose they are.
        let mac = link_local_owner(ip)?;
        self.fdb.contains_key(&(vni, mac)).then_some(mac)
    }

    /// Checks a datagram that arrived on the VXLAN port from `outer_src`; returns the network and
    /// the bytes of the inner frame.
    ///
    /// # Errors
    /// `UnknownVtep`, `Truncated`, `BadVxlanHeader`, `UnknownVni`, or `OtherPeer` for what a static
    /// peer sends into a network where it is none.
    pub fn admit(
        &self,
        outer_src: IpAddr,
        datagram: &[u8],
    ) -> Result<(Vni, Range<usize>), DropReason> {
        let known = self.vteps.get(&number(outer_src));
        let everywhere = *known.ok_or(DropReason::UnknownVtep)?;
        let vni = vxlan::parse(datagram)?;
        if !self.networks.contains_key(&vni) {
            return Err(DropReason::UnknownVni);
        }
        if !everywhere && !self.peers.contains(&(outer_src.to_canonical(), vni)) {
            return Err(DropReason::OtherPeer);
        }
        if datagram.len() < vxlan::HEADER_LEN + ETHERNET_LEN {
            return Err(DropReason::Truncated);
        }
        Ok((vni, vxlan::HEADER_LEN..datagram.len()))
    }

    /// Whether a VTEP is a node's, which may speak on every network.
    #[must_use]
    pub fn is_node(&self, vtep: IpAddr) -> bool {
        self.vteps.get(&number(vtep)) == Some(&true)
    }

    /// A network.
    #[must_use]
    pub fn network(&self, vni: Vni) -> Option<&NetworkEntry> {
        self.networks.get(&vni)
    }

    /// Answers an ARP request; `silent` says for which addresses not: one's own (gratuitous ARP,
    /// RFC 5227 probes), or what another node has to answer for.
    fn answer_arp(
        &self,
        vni: Vni,
        arp: &ArpInfo,
        silent: impl Fn(IpAddr) -> bool,
    ) -> Result<Answer, DropReason> {
        let ip = arp.target_ip;
        if !arp.request || arp.sender_ip == ip || silent(ip.into()) {
            return Err(DropReason::Multicast);
        }
        self.neighbor(vni, ip.into())
            .map(|mac| Answer::Arp { mac, ip })
            .ok_or(DropReason::UnknownNeighbor)
    }

    /// The same for neighbor discovery. Advertisements, redirects and router messages are never
    /// delivered: the tables say all that they could, and nobody can lie through them.
    fn answer_nd(
        &self,
        vni: Vni,
        frame: &[u8],
        info: &IpInfo,
        silent: impl Fn(IpAddr) -> bool,
    ) -> Result<Answer, DropReason> {
        let ip = reply::nd_target(frame, info)
            .filter(|ip| !info.src.is_unspecified() && !silent((*ip).into()))
            .ok_or(DropReason::Multicast)?;
        let mac = self
            .neighbor(vni, ip.into())
            .ok_or(DropReason::UnknownNeighbor)?;
        let router = self
            .network(vni)
            .is_some_and(|network| network.gateways.contains(&ip.into()));
        Ok(Answer::NeighborAdvert { mac, ip, router })
    }

    /// Whether an address is behind another VTEP.
    fn is_elsewhere(&self, vni: Vni, ip: IpAddr) -> bool {
        self.neighbor(vni, ip)
            .and_then(|mac| self.fdb.get(&(vni, mac)))
            .is_some_and(|place| matches!(place, Place::Remote(_)))
    }

    /// Whether the tables place the source of a frame from `vtep` anywhere but behind it: here, behind
    /// another VTEP, at a service or the gateway.
    fn is_foreign(&self, vni: Vni, vtep: IpAddr, frame: &[u8], ip: &IpInfo) -> bool {
        let elsewhere = |place: &Place| match place {
            Place::Remote(at) => at.ip().to_canonical() != vtep.to_canonical(),
            Place::Local(_) | Place::Virtual | Place::Gateway => true,
        };
        let stands = |mac: Mac| self.fdb.get(&(vni, mac)).is_some_and(elsewhere);
        let mac = frame::src_mac(frame);
        let owner = self.owners.get(&(vni, ip.src));
        match owner {
            Some(owner) if elsewhere(&owner.place) => true,
            // Nearly every frame: both addresses by one look-up.
            Some(owner) if owner.mac == mac => false,
            Some(_) => stands(mac),
            None => stands(mac) || link_local_owner(ip.src).is_some_and(stands),
        }
    }

    /// The gateway answers ping.
    fn is_gateway(&self, vni: Vni, ip: IpAddr) -> bool {
        self.network(vni)
            .is_some_and(|network| network.gateways.contains(&ip))
    }

    fn at_gateway(&self, vni: Vni, info: &IpInfo) -> Result<Answer, DropReason> {
        if !self.is_gateway(vni, info.dst) {
            Err(DropReason::OtherNetwork)
        } else if info.fragment != Fragment::None {
            Err(DropReason::Fragment)
        } else if info.is_echo_request() {
            Ok(Answer::Echo)
        } else {
            Err(DropReason::OtherNetwork)
        }
    }
}

/// Whether a packet is a message of neighbor discovery: router and neighbor solicitation and
/// advertisement, redirect (RFC 4861 section 4).
const fn is_discovery(info: &IpInfo) -> bool {
    info.proto == ICMPV6 && !info.is_ipv4() && matches!(info.icmp_type, 133..=137)
}

/// The link-local address that a host with hardware address `mac` gives itself (RFC 4291
/// appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = [0; 16];
    octets[0] = 0xfe;
    octets[1] = 0x80;
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

/// The inverse of [`link_local`].
fn link_local_owner(ip: IpAddr) -> Option<Mac> {
    let IpAddr::V6(ip) = ip else { return None };
    let [.., a, b, c, _, _, d, e, f] = ip.octets();
    let mac = Mac([a ^ 2, b, c, d, e, f]);
    (link_local(mac) == ip).then_some(mac)
}

#[cfg(test)]
mod tests;
