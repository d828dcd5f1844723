//! The rules, as plainly as they can be said: lists that are searched from the front, packets that
//! are copied, no tables, no checksums.

use std::net::SocketAddr;

use weft_wire::frame::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use weft_wire::{DropReason, FiveTuple, Mac, PortId};

use crate::packet::Packet;
use crate::world::{Place, SERVICES, World, replica_key, vip, vip_mac};

/// Longest opening segment of which a copy is kept, so that another replica can be asked.
const LONGEST_SYN: usize = 14 + 60 + 60;

/// What should become of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It arrives there, as this.
    Sent(Place, Packet),
    Refused(DropReason),
    Dropped(DropReason),
    /// It opens a flow: any of these may come of it.
    AnyOf(Vec<Choice>),
}

/// One replica that may take a new flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) place: Option<Place>,
    pub(crate) packet: Packet,
    /// The client's port is taken on the way to this replica: another one is chosen.
    pub(crate) other_port: bool,
    key: u64,
}

/// A flow between a client on this node and a replica.
#[derive(Debug, Clone)]
struct Flow {
    /// As the client sends it.
    sent: FiveTuple,
    /// As the replica sees it.
    seen: FiveTuple,
    client: PortId,
    client_mac: Mac,
    service_mac: Mac,
    replica_mac: Mac,
    key: u64,
    answered: bool,
    acknowledged: bool,
    fin_client: bool,
    fin_replica: bool,
    reset: bool,
    /// Sequence number after the last byte of the client.
    client_next: Option<u32>,
    /// What the client has acknowledged, or will before anything else.
    client_acked: Option<u32>,
    /// What the replica has acknowledged in the open connection.
    replica_acked: Option<u32>,
}

impl Flow {
    fn is_over(&self) -> bool {
        self.reset || (self.fin_client && self.fin_replica)
    }

    /// The replica has answered, and the client said nothing to that.
    fn is_half_open(&self) -> bool {
        let went_on = self.acknowledged || self.fin_client || self.fin_replica || self.reset;
        self.answered && !went_on
    }

    /// One end has gone on after the handshake.
    fn is_open(&self) -> bool {
        (self.acknowledged || self.fin_client || self.fin_replica) && !self.is_over()
    }

    /// Nobody but the client has spoken, and it only to open the connection.
    fn is_unanswered(&self) -> bool {
        let spoken = self.answered || self.acknowledged || self.fin_client || self.fin_replica;
        self.sent.proto == TCP && !spoken && !self.reset
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    flows: Vec<Flow>,
}

impl Reference {
    /// A packet that an endpoint of this node sends.
    pub(crate) fn egress(&mut self, world: &World, from: usize, packet: &Packet) -> Verdict {
        let sender = &world.endpoints[from];
        if packet.src_mac != sender.mac {
            return Verdict::Dropped(DropReason::SpoofedMac);
        }
        if !sender.ips.contains(&packet.tuple.src) {
            return Verdict::Dropped(DropReason::SpoofedIp);
        }
        if packet.dst_mac.is_multicast() {
            return Verdict::Dropped(DropReason::Multicast);
        }
        if is_service(packet.dst_mac) {
            return self.ask_service(world, from, packet);
        }
        match place_of(world, packet.dst_mac) {
            None => Verdict::Dropped(DropReason::UnknownMac),
            Some(Place::Vtep(vtep)) => Verdict::Sent(Place::Vtep(vtep), packet.clone()),
            Some(here) => self.deliver_here(here, packet),
        }
    }

    /// A packet that another node sent.
    pub(crate) fn ingress(&mut self, world: &World, by: SocketAddr, packet: &Packet) -> Verdict {
        if is_service(packet.dst_mac) {
            // Services are for members of the cluster: their own node translates.
            return Verdict::Dropped(DropReason::NoService);
        }
        match place_of(world, packet.dst_mac) {
            None => Verdict::Dropped(DropReason::UnknownMac),
            Some(Place::Vtep(_)) => Verdict::Dropped(DropReason::Hairpin),
            Some(_) if is_anothers(world, by, packet) => {
                Verdict::Dropped(DropReason::ForeignSource)
            }
            Some(here) => self.deliver_here(here, packet),
        }
    }

    /// The answer of a replica goes to the client as the service's; anything else goes on.
    fn deliver_here(&mut self, to: Place, packet: &Packet) -> Verdict {
        let found = self
            .flows
            .iter_mut()
            .find(|flow| flow.seen.reversed() == packet.tuple);
        let Some(flow) = found else {
            return Verdict::Sent(to, packet.clone());
        };
        note_replica(flow, packet);
        let mut out = packet.clone();
        out.tuple = flow.sent.reversed();
        (out.src_mac, out.dst_mac) = (flow.service_mac, flow.client_mac);
        Verdict::Sent(Place::Port(flow.client), out)
    }

    fn ask_service(&mut self, world: &World, from: usize, packet: &Packet) -> Verdict {
        let client = world.endpoints[from].port().unwrap();
        // Who was chosen for its own request sees the service as its client, and answers it.
        if self.flows.iter().any(|f| f.seen.reversed() == packet.tuple) {
            return self.deliver_here(Place::Port(client), packet);
        }
        let tcp = packet.tuple.proto == TCP;
        let opens = tcp && opens(packet);
        if let Some(at) = self.flows.iter().position(|f| f.sent == packet.tuple) {
            let flow = &self.flows[at];
            let there = flow.is_over() || is_replica(world, flow);
            let again = if tcp {
                opens && (flow.is_over() || (!there && !flow.is_unanswered()))
            } else {
                !there
            };
            if again {
                self.flows.remove(at);
            } else if !there {
                self.flows.remove(at);
                return stray(packet);
            } else {
                return self.follow_flow(world, at, packet);
            }
        }
        if tcp && !opens {
            return stray(packet);
        }
        self.new_flow(world, packet)
    }

    fn follow_flow(&mut self, world: &World, at: usize, packet: &Packet) -> Verdict {
        let flow = &mut self.flows[at];
        let kept = packet.build().len() <= LONGEST_SYN;
        if packet.tuple.proto == TCP && opens(packet) && flow.is_half_open() && kept {
            // The client did not see the answer: the connection is unanswered again.
            flow.answered = false;
        }
        note_client(flow, packet);
        let out = rewritten(flow, packet);
        match place_of(world, flow.replica_mac) {
            Some(place) => Verdict::Sent(place, out),
            None => Verdict::Dropped(DropReason::NoReplica),
        }
    }

    fn new_flow(&self, world: &World, packet: &Packet) -> Verdict {
        let to = packet.tuple;
        let ipv6 = to.dst.is_ipv6();
        let Some(service) = (0..SERVICES).find(|&s| vip(s, ipv6) == to.dst) else {
            return Verdict::Refused(DropReason::NoService);
        };
        let mut able: Vec<(usize, Choice)> = Vec::new();
        for (index, replica) in world.replicas(service) {
            if replica.draining {
                continue;
            }
            let ip = replica.ips[usize::from(ipv6)];
            let key = replica_key(index, replica.life, ipv6);
            let open = self.flows.iter().filter(|f| f.key == key && !f.is_over());
            let mut out = packet.clone();
            out.tuple.dst = ip;
            out.dst_mac = replica.mac;
            if ip == to.src {
                out.tuple.src = to.dst;
                out.src_mac = packet.dst_mac;
            }
            let other_port = self.flows.iter().any(|f| f.seen == out.tuple);
            let choice = Choice {
                place: replica.place,
                packet: out,
                other_port,
                key,
            };
            able.push((open.count(), choice));
        }
        let Some(fewest) = able.iter().map(|(open, _)| *open).min() else {
            return Verdict::Refused(DropReason::NoReplica);
        };
        let best = able.into_iter().filter(|(open, _)| *open == fewest);
        Verdict::AnyOf(best.map(|(_, choice)| choice).collect())
    }

    /// Takes over which replica was chosen for a packet; `seen` is what it sees.
    pub(crate) fn chosen(
        &mut self,
        client: PortId,
        packet: &Packet,
        choice: &Choice,
        seen: FiveTuple,
    ) {
        assert!(
            self.flows.iter().all(|f| f.seen != seen),
            "two flows look alike to a replica"
        );
        let mut flow = Flow {
            sent: packet.tuple,
            seen,
            client,
            client_mac: packet.src_mac,
            service_mac: packet.dst_mac,
            replica_mac: choice.packet.dst_mac,
            key: choice.key,
            answered: false,
            acknowledged: false,
            fin_client: false,
            fin_replica: false,
            reset: false,
            client_next: None,
            client_acked: None,
            replica_acked: None,
        };
        note_client(&mut flow, packet);
        self.flows.push(flow);
    }

    /// Flows that are not over, and count as load.
    pub(crate) fn open(&self) -> usize {
        self.flows.iter().filter(|f| !f.is_over()).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// A reply to a flow, as its replica would send it.
    pub(crate) fn reply(&self, pick: usize) -> Option<(FiveTuple, Mac, Mac)> {
        let flow = self.flows.get(pick.checked_rem(self.flows.len())?)?;
        let own = flow.seen.src == flow.sent.dst;
        let to = if own {
            flow.service_mac
        } else {
            flow.client_mac
        };
        Some((flow.seen.reversed(), flow.replica_mac, to))
    }

    /// One more packet of a flow's client.
    pub(crate) fn again(&self, pick: usize) -> Option<(FiveTuple, Mac, Mac)> {
        let flow = self.flows.get(pick.checked_rem(self.flows.len())?)?;
        Some((flow.sent, flow.client_mac, flow.service_mac))
    }

    /// Whether the packet would make the balancer try another replica: a matter of its own tests.
    pub(crate) fn would_retry(&self, packet: &Packet) -> bool {
        self.flows.iter().any(|f| {
            f.is_unanswered()
                && ((f.sent == packet.tuple && packet.flags & TCP_SYN != 0)
                    || (f.seen.reversed() == packet.tuple && packet.flags & TCP_RST != 0))
        })
    }
}

fn note_client(flow: &mut Flow, packet: &Packet) {
    if packet.tuple.proto != TCP {
        return;
    }
    let next = end_of(packet);
    // How far ahead of what the client sent last, the shorter way round.
    let ahead = flow
        .client_next
        .map(|last| next.wrapping_sub(last).cast_signed());
    let near = ahead.is_none_or(|ahead| ahead.unsigned_abs() <= 4 << 20);
    let got = flow.replica_acked.filter(|ack| *ack != 0);
    let got = got.is_some_and(|ack| next.wrapping_sub(ack).cast_signed().unsigned_abs() <= 4 << 20);
    if packet.flags & TCP_RST != 0 && !near && !got {
        return;
    }
    if packet.flags & TCP_ACK != 0 {
        flow.client_acked = Some(packet.ack);
    }
    if packet.flags & TCP_SYN != 0 || ahead.is_none_or(|ahead| near && ahead > 0) {
        flow.client_next = Some(next);
    }
    flow.reset |= packet.flags & TCP_RST != 0;
    flow.fin_client |= packet.flags & TCP_FIN != 0;
    flow.acknowledged |= packet.flags & (TCP_ACK | TCP_SYN) == TCP_ACK;
}

fn note_replica(flow: &mut Flow, packet: &Packet) {
    if packet.tuple.proto != TCP {
        return;
    }
    let of_opening = packet.flags & (TCP_SYN | TCP_ACK | TCP_RST);
    if flow.is_unanswered() && of_opening == TCP_SYN | TCP_ACK {
        flow.client_acked = Some(end_of(packet));
    }
    if flow.is_open() && packet.flags & (TCP_ACK | TCP_RST) == TCP_ACK {
        flow.replica_acked = Some(packet.ack);
    }
    if packet.flags & TCP_RST != 0 && !is_believed(flow, packet) {
        return;
    }
    flow.reset |= packet.flags & TCP_RST != 0;
    flow.fin_replica |= packet.flags & TCP_FIN != 0;
    flow.answered |= packet.flags & (TCP_ACK | TCP_SYN) == TCP_ACK | TCP_SYN;
}

/// Whether the client may believe a reset of the replica.
fn is_believed(flow: &Flow, reset: &Packet) -> bool {
    let refuses = flow.is_half_open()
        && reset.flags & TCP_ACK != 0
        && flow
            .client_next
            .is_some_and(|next| next.wrapping_sub(reset.ack) < 1 << 16);
    let acked = flow.client_acked.filter(|ack| *ack != 0);
    refuses || acked.is_none_or(|ack| reset.seq.wrapping_sub(ack) <= 1 << 30)
}

/// Sequence number behind a segment.
fn end_of(packet: &Packet) -> u32 {
    let controls = packet.flags & TCP_SYN != 0;
    let fin = packet.flags & TCP_FIN != 0;
    let len = packet.payload.len() as i64 + i64::from(controls) + i64::from(fin);
    packet.seq.wrapping_add(len as u32)
}

fn rewritten(flow: &Flow, packet: &Packet) -> Packet {
    let mut out = packet.clone();
    out.tuple = flow.seen;
    out.dst_mac = flow.replica_mac;
    out.src_mac = if flow.seen.src == flow.sent.dst {
        flow.service_mac
    } else {
        flow.client_mac
    };
    out
}

/// A reset is never answered.
fn stray(packet: &Packet) -> Verdict {
    if packet.flags & TCP_RST != 0 {
        Verdict::Dropped(DropReason::NotAFlow)
    } else {
        Verdict::Refused(DropReason::NotAFlow)
    }
}

/// A segment that asks for a connection, and says nothing else.
fn opens(packet: &Packet) -> bool {
    packet.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

fn is_service(mac: Mac) -> bool {
    (0..SERVICES).any(|s| mac == vip_mac(s, false) || mac == vip_mac(s, true))
}

/// Whether either address of the sender is known to be somebody's who is not behind that node.
fn is_anothers(world: &World, by: SocketAddr, packet: &Packet) -> bool {
    let src = packet.tuple.src;
    let service = is_service(packet.src_mac)
        || (0..SERVICES).any(|s| src == vip(s, false) || src == vip(s, true));
    let mut there = world.endpoints.iter().filter(|e| e.place.is_some());
    service
        || there.any(|e| {
            let named = e.mac == packet.src_mac || e.ips.contains(&src);
            named && e.place != Some(Place::Vtep(by))
        })
}

fn place_of(world: &World, mac: Mac) -> Option<Place> {
    world.endpoints.iter().find(|e| e.mac == mac)?.place
}

/// Whether the flow's replica still serves something.
fn is_replica(world: &World, flow: &Flow) -> bool {
    (0..SERVICES).any(|service| {
        world.replicas(service).any(|(index, e)| {
            e.ips.contains(&flow.seen.dst)
                && replica_key(index, e.life, flow.seen.dst.is_ipv6()) == flow.key
        })
    })
}
