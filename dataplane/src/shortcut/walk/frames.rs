//! The way of a segment: by the programs where they know it, else by a worker, as `egress.rs` and
//! `ingress.rs` have it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use weft_fastpath::Way;
use weft_mesh::{Forward, Install, Origin, Reverse};
use weft_vxlan::{Destination, Egress, Ingress, PortSource};
use weft_wire::frame::{Frame, TCP_SYN, parse};
use weft_wire::{FiveTuple, IpInfo, Mac, PortId, mac_for_ip};

use super::super::cache::Memory;
use super::super::round::Leaving;
use super::bed::Bed;
use super::connection::{End, Target};
use super::segment::Segment;
use super::world::{ENDPOINTS, Place, ip, number, vip, vni, vtep, worker_of};
use crate::worker::context;

/// The port of the socket that workers send from.
pub(super) const SOURCE_PORT: u16 = 50_000;

/// What a worker decides about a frame.
#[derive(Debug)]
enum Verdict {
    /// It goes on as it is.
    Passed,
    /// The answer of a replica goes on as the service's.
    Answered,
    /// It goes on to a replica, which sees the client by these addresses.
    Requested(Destination, Option<Box<Install>>, FiveTuple),
    /// The same, were it not too big.
    Oversized(FiveTuple),
    /// Another worker is to look at it.
    ToOwner(usize),
    /// The client is told that there is nobody.
    Refused,
    Dropped,
}

/// What the flow table says of a frame that may be a replica's.
fn answered(verdict: &Reverse) -> Verdict {
    match verdict {
        Reverse::Rewritten { .. } => Verdict::Answered,
        Reverse::ToOwner { worker } => Verdict::ToOwner((*worker).into()),
        _ => Verdict::Dropped,
    }
}

fn info(frame: &[u8]) -> IpInfo {
    match parse(frame) {
        Ok(Frame::Ip(info)) => info,
        other => panic!("not an IP packet: {other:?}"),
    }
}

impl Bed {
    /// One end of a connection sends a segment; whether it went its way.
    pub(super) fn send(&mut self, at: usize, end: End, flags: u8, data: u32, size: u16) -> bool {
        self.now = self.now.after(Duration::from_millis(1));
        let segment = self.connections[at].segment(end, flags, data, size);
        let from = self.connections[at].endpoint(end);
        let went = match self.world.endpoints[from].place {
            Place::Here(port) => self.leaves(at, end, port, &segment),
            Place::Behind(node) => self.comes(at, end, node, &segment),
            Place::Gone => false,
        };
        if !self.batch {
            self.settle();
        }
        went
    }

    /// Out of the sandbox behind a port.
    fn leaves(&mut self, at: usize, end: End, port: PortId, segment: &Segment) -> bool {
        let from = self.connections[at].endpoint(end);
        let mut programs = self.programs.borrow_mut();
        let entry = programs.leave(number(from), segment, self.now);
        drop(programs);
        let Some(entry) = entry else {
            let index = worker_of(from);
            self.begin(index);
            let verdict = self.egress(index, port, segment, self.macs(at, end));
            return self.follow((at, end), index, segment, verdict);
        };
        assert!(!self.is_captured(), "a capture sees everything");
        self.counts.sent(port, segment);
        if let Way::Local { other, .. } = entry.way {
            let to = (0..ENDPOINTS).find(|at| number(*at) == other);
            let to = self.world.endpoints[to.expect("a sandbox")].place;
            let Place::Here(to) = to else {
                panic!("into a sandbox that is not here: {entry:?}");
            };
            self.counts.received(to, segment);
        }
        self.counts.balanced(&self.connections[at], end, segment);
        true
    }

    /// From another node.
    pub(super) fn comes(&mut self, at: usize, end: End, node: usize, segment: &Segment) -> bool {
        let to = self.connections[at].endpoint(end.other());
        let by = (vtep(node), self.world.routes[node].device);
        let entry = self.programs.borrow_mut().pop(by, segment, self.now);
        let Some(entry) = entry else {
            let index = worker_of(to);
            self.begin(index);
            let macs = self.macs(at, end);
            let verdict = self.ingress(index, vtep(node), segment, macs);
            return self.follow((at, end), index, segment, verdict);
        };
        assert!(!self.is_captured(), "a capture sees everything");
        let Place::Here(port) = self.world.endpoints[to].place else {
            panic!("into a sandbox that is not here: {entry:?}");
        };
        self.counts.carried += 1;
        self.counts.received(port, segment);
        self.counts.balanced(&self.connections[at], end, segment);
        true
    }

    /// A worker has decided about a frame; whether it goes its way.
    fn follow(
        &mut self,
        (at, end): (usize, End),
        index: usize,
        segment: &Segment,
        verdict: Verdict,
    ) -> bool {
        let went = match verdict {
            Verdict::Passed => {
                let ended = &mut self.connections[at].ended[index];
                *ended = !segment.is_plain() || (*ended && segment.data == 0);
                true
            }
            Verdict::Answered => {
                self.counts.balanced(&self.connections[at], end, segment);
                true
            }
            Verdict::Requested(to, install, seen) => {
                if let (Destination::Local(port), Some(install)) = (to, install) {
                    let holder = self.world.ports[&port].worker;
                    if holder != index {
                        self.readers[holder].flows.install(self.now, *install);
                    }
                }
                self.requested(at, segment, seen);
                true
            }
            Verdict::Oversized(seen) => {
                self.requested(at, segment, seen);
                false
            }
            Verdict::ToOwner(owner) => {
                self.begin(owner);
                let verdict = self.handed_over(owner, segment, self.macs(at, end));
                self.follow((at, end), owner, segment, verdict)
            }
            Verdict::Refused => {
                self.connections[at].over = true;
                false
            }
            Verdict::Dropped => false,
        };
        if !self.batch {
            self.finish(index);
        }
        went
    }

    /// The balancer sends a client's segment to a replica, which sees it by these addresses.
    fn requested(&mut self, at: usize, segment: &Segment, seen: FiveTuple) {
        let server = (0..ENDPOINTS).find(|at| ip(*at) == seen.dst);
        let server = server.expect("it is an endpoint");
        let connection = &mut self.connections[at];
        if segment.flags & TCP_SYN != 0 {
            connection.server = server;
            connection.key = self.world.key(server);
            connection.port = match self.world.endpoints[connection.client].place {
                Place::Here(port) => Some(port),
                Place::Behind(_) | Place::Gone => None,
            };
        }
        assert_eq!(connection.server, server, "it has gone to another replica");
        assert_eq!(connection.flow(End::Server).reversed(), seen);
        self.counts
            .balanced(&self.connections[at], End::Client, segment);
    }

    /// Hardware addresses of what one end sends.
    fn macs(&self, at: usize, end: End) -> (Mac, Mac) {
        let connection = &self.connections[at];
        let mac = |endpoint: usize| self.world.endpoints[endpoint].mac;
        let to = match connection.target {
            Target::Service(service) if end == End::Client => mac_for_ip(vip(service)),
            _ => mac(connection.endpoint(end.other())),
        };
        (mac(connection.endpoint(end)), to)
    }

    fn egress(
        &mut self,
        index: usize,
        port: PortId,
        segment: &Segment,
        (src_mac, dst_mac): (Mac, Mac),
    ) -> Verdict {
        let reader = &mut self.readers[index];
        let snapshot = Arc::clone(&reader.snapshot);
        let frame = &mut segment.frame(src_mac, dst_mac)[..];
        let (info, now) = (info(frame), self.now);
        let (flows, cx) = (&mut reader.flows, context(now, &snapshot));
        let (port, vnet) = (&snapshot.ports[&port], segment.vnet());
        let leaving = |to| Leaving {
            port,
            info: &info,
            vnet: &vnet,
            dst_mac,
            to,
        };
        let too_big = |to| {
            let vtep = match to {
                Destination::Local(_) => None,
                Destination::Remote(vtep) => Some(vtep.ip()),
            };
            let found = snapshot.switch.too_big(vni(), vtep, &info, &vnet);
            found.is_some()
        };
        let source = PortSource {
            port: port.id,
            mac: port.mac,
            ips: &port.ips,
        };
        let (parsed, datagrams) = (Frame::Ip(info), &self.kernel.datagrams);
        match snapshot.switch.egress(vni(), source, frame, &parsed) {
            Egress::Local(to) => {
                let to = Destination::Local(to);
                if too_big(to) {
                    return Verdict::Dropped;
                }
                let verdict = flows.reverse(&cx, vni(), frame, &info, false);
                if !matches!(verdict, Reverse::NotAFlow) {
                    return answered(&verdict);
                }
                let (shortcuts, ack) = (&mut reader.shortcuts, Some(segment.ack));
                shortcuts.left(datagrams, &leaving(to), ack, now, |_| SOURCE_PORT);
                Verdict::Passed
            }
            Egress::Remote(vtep) => {
                let to = Destination::Remote(vtep);
                if too_big(to) {
                    return Verdict::Dropped;
                }
                let shortcuts = &mut reader.shortcuts;
                shortcuts.left(datagrams, &leaving(to), None, now, |_| SOURCE_PORT);
                Verdict::Passed
            }
            Egress::Virtual => {
                let origin = Origin::Port {
                    vni: vni(),
                    port: port.id,
                };
                let records = self.kernel.cache.records();
                let shortcuts = &mut reader.shortcuts;
                shortcuts.catch_up(records, flows, &cx, (&origin, &info));
                let (dst_mac, install) = match flows.forward(&cx, &origin, frame, &info, false) {
                    Forward::Rewritten {
                        dst_mac, install, ..
                    } => (dst_mac, install),
                    Forward::Refuse(_) => return Verdict::Refused,
                    _ => return Verdict::Dropped,
                };
                let seen = self::info(frame).five_tuple();
                let Some(to) = snapshot.switch.lookup(vni(), dst_mac) else {
                    return Verdict::Oversized(seen);
                };
                if too_big(to) {
                    return Verdict::Oversized(seen);
                }
                let leaving = Leaving {
                    dst_mac,
                    ..leaving(to)
                };
                let sent = (&origin, &*frame);
                shortcuts.requested(datagrams, &leaving, sent, now, |_| SOURCE_PORT);
                Verdict::Requested(to, install.map(Box::new), seen)
            }
            _ => Verdict::Dropped,
        }
    }

    fn ingress(
        &mut self,
        index: usize,
        by: Ipv4Addr,
        segment: &Segment,
        (src_mac, dst_mac): (Mac, Mac),
    ) -> Verdict {
        let reader = &mut self.readers[index];
        let snapshot = Arc::clone(&reader.snapshot);
        let frame = &mut segment.frame(src_mac, dst_mac)[..];
        let info = info(frame);
        let cx = context(self.now, &snapshot);
        let parsed = Frame::Ip(info);
        let ingress = snapshot.switch.ingress(vni(), by.into(), frame, &parsed);
        let Ingress::Local(to) = ingress else {
            return Verdict::Dropped;
        };
        let verdict = reader.flows.reverse(&cx, vni(), frame, &info, false);
        if !matches!(verdict, Reverse::NotAFlow) {
            return answered(&verdict);
        }
        let port = &snapshot.ports[&to];
        if port.worker == index {
            let answer = info.five_tuple().reversed();
            reader
                .shortcuts
                .arrived(port, &info, (&answer, 1), self.now);
        }
        Verdict::Passed
    }

    fn handed_over(
        &mut self,
        owner: usize,
        segment: &Segment,
        (src_mac, dst_mac): (Mac, Mac),
    ) -> Verdict {
        let reader = &mut self.readers[owner];
        let snapshot = Arc::clone(&reader.snapshot);
        let frame = &mut segment.frame(src_mac, dst_mac)[..];
        let info = info(frame);
        let cx = context(self.now, &snapshot);
        let verdict = reader.flows.reverse(&cx, vni(), frame, &info, false);
        answered(&verdict)
    }
}
