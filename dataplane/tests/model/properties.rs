//! The two against each other.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_wire::frame::{TCP, TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, UDP};
use weft_wire::{FiveTuple, Mac, VnetHdr};

use crate::fast::{Fast, Outcome, info, make_super, merge, split};
use crate::packet::{Packet, assert_same};
use crate::reference::{Reference, Verdict};
use crate::world::{Change, ENDPOINTS, Place, SERVICES, VTEPS, World, vip, vip_mac, vtep};

/// Where a packet of an endpoint is addressed to.
#[derive(Debug, Clone, Copy)]
enum To {
    Service(u8),
    Endpoint(u8),
    /// A service's hardware address, and an address that is no service's.
    NoService,
    Nobody,
    Everybody,
}

#[derive(Debug, Clone, Copy)]
enum Lie {
    None,
    Mac,
    Ip,
}

#[derive(Debug, Clone)]
enum Step {
    Send {
        from: u8,
        to: To,
        lie: Lie,
        shape: Shape,
    },
    /// The client of one of the flows says more.
    Again {
        pick: usize,
        shape: Shape,
    },
    /// A replica answers one of the flows.
    Reply {
        pick: usize,
        shape: Shape,
        breaks: Vec<bool>,
        /// Another node sends it.
        lie: bool,
    },
    /// Another node sends something, in its own name or another's.
    Arrive {
        by: u8,
        to: u8,
        mac_of: To,
        ip_of: To,
        shape: Shape,
    },
    Change(Change),
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    ipv6: bool,
    udp: bool,
    sport: u16,
    dport: u16,
    flags: u8,
    seq: u32,
    id: u16,
    len: usize,
    /// Bytes of data in each packet.
    size: usize,
}

impl Shape {
    fn payload(&self) -> Vec<u8> {
        (0..self.len).map(|i| (i * 7 + i / 251) as u8).collect()
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let flags = prop_oneof![
        4 => Just(TCP_SYN),
        4 => Just(TCP_ACK),
        2 => Just(TCP_ACK | TCP_PSH),
        2 => Just(TCP_SYN | TCP_ACK),
        3 => Just(TCP_FIN | TCP_ACK),
        1 => Just(TCP_RST),
    ];
    let numbers = (
        1_u16..4,
        prop::sample::select(vec![53_u16, 80, 80, 80]),
        any::<u32>(),
        any::<u16>(),
    );
    let len = prop_oneof![Just(0_usize), 1_usize..3000, 3000_usize..20_000];
    (
        any::<bool>(),
        any::<bool>(),
        numbers,
        flags,
        len,
        500_usize..1391,
    )
        .prop_map(
            |(ipv6, udp, (sport, dport, seq, id), flags, len, size)| Shape {
                ipv6,
                udp,
                sport,
                dport,
                flags,
                seq,
                id,
                len,
                size,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let whom = || {
        prop_oneof![
            1 => (0..SERVICES).prop_map(To::Service),
            8 => (0..ENDPOINTS).prop_map(To::Endpoint),
            1 => Just(To::Nobody),
        ]
    };
    let to = prop_oneof![
        8 => (0..SERVICES).prop_map(To::Service),
        3 => (0..ENDPOINTS).prop_map(To::Endpoint),
        1 => Just(To::NoService),
        1 => Just(To::Nobody),
        1 => Just(To::Everybody),
    ];
    let lie = prop_oneof![20 => Just(Lie::None), 1 => Just(Lie::Mac), 1 => Just(Lie::Ip)];
    let change = prop_oneof![
        (0..ENDPOINTS, 0_u8..VTEPS + 2).prop_map(|(endpoint, to)| Change::Move { endpoint, to }),
        (0..ENDPOINTS, 0_u8..4).prop_map(|(endpoint, serves)| Change::Serve { endpoint, serves }),
        (0..ENDPOINTS).prop_map(|endpoint| Change::Drain { endpoint }),
    ];
    prop_oneof![
        6 => (0..ENDPOINTS, to, lie, shape())
            .prop_map(|(from, to, lie, shape)| Step::Send { from, to, lie, shape }),
        5 => (any::<usize>(), shape()).prop_map(|(pick, shape)| Step::Again { pick, shape }),
        6 => (any::<usize>(), shape(), vec(any::<bool>(), 0..20), prop::bool::weighted(0.1))
            .prop_map(|(pick, shape, breaks, lie)| Step::Reply { pick, shape, breaks, lie }),
        3 => (0..VTEPS, 0..ENDPOINTS, whom(), whom(), shape())
            .prop_map(|(by, to, mac_of, ip_of, shape)| Step::Arrive { by, to, mac_of, ip_of, shape }),
        2 => change.prop_map(Step::Change),
    ]
}

/// Both sides, and the tables that they share.
struct Pair {
    world: World,
    fast: Fast,
    reference: Reference,
}

impl Pair {
    fn run(&mut self, step: Step) {
        match step {
            Step::Send {
                from,
                to,
                lie,
                shape,
            } => self.send(usize::from(from), to, lie, shape),
            Step::Again { pick, shape } => self.again(pick, shape),
            Step::Reply {
                pick,
                shape,
                breaks,
                lie,
            } => self.reply(pick, shape, &breaks, lie),
            Step::Arrive {
                by,
                to,
                mac_of,
                ip_of,
                shape,
            } => self.arrive(vtep(by), usize::from(to), (mac_of, ip_of), shape),
            Step::Change(change) => {
                self.world.change(change);
                self.fast.publish(&self.world);
            }
        }
        assert_eq!(
            self.fast.flows(),
            (self.reference.len(), self.reference.open())
        );
    }

    fn send(&mut self, from: usize, to: To, lie: Lie, shape: Shape) {
        let packet = self.packet(from, to, lie, shape);
        self.egress(from, &packet, shape.size);
    }

    fn packet(&self, from: usize, to: To, lie: Lie, shape: Shape) -> Packet {
        let sender = &self.world.endpoints[from];
        let other = &self.world.endpoints[(from + 1) % usize::from(ENDPOINTS)];
        let family = usize::from(shape.ipv6);
        let (dst_mac, dst) = match to {
            To::Service(service) => (vip_mac(service, shape.ipv6), vip(service, shape.ipv6)),
            To::Endpoint(index) => {
                let e = &self.world.endpoints[usize::from(index)];
                (e.mac, e.ips[family])
            }
            To::NoService => (vip_mac(0, shape.ipv6), vip(9, shape.ipv6)),
            To::Nobody => (Mac([2, 0, 0, 0, 0, 1]), other.ips[family]),
            To::Everybody => (Mac([0xff; 6]), other.ips[family]),
        };
        let (src_mac, src) = match lie {
            Lie::None => (sender.mac, sender.ips[family]),
            Lie::Mac => (other.mac, sender.ips[family]),
            Lie::Ip => (sender.mac, other.ips[family]),
        };
        self.shaped(
            (src_mac, dst_mac),
            FiveTuple {
                src,
                dst,
                sport: shape.sport,
                dport: shape.dport,
                proto: if shape.udp { UDP } else { TCP },
            },
            shape,
        )
    }

    fn shaped(&self, (src_mac, dst_mac): (Mac, Mac), tuple: FiveTuple, shape: Shape) -> Packet {
        let tcp = tuple.proto == TCP;
        Packet {
            src_mac,
            dst_mac,
            tuple,
            seq: if tcp { shape.seq } else { 0 },
            ack: if tcp && shape.flags & TCP_ACK != 0 {
                7
            } else {
                0
            },
            flags: if tcp { shape.flags } else { 0 },
            id: if tuple.src.is_ipv4() { shape.id } else { 0 },
            payload: shape.payload(),
        }
    }

    /// Sends a packet, as a super-frame where it is long; the reference sends what a network card
    /// would make of it.
    fn egress(&mut self, from: usize, packet: &Packet, size: usize) {
        let Some(port) = self.world.endpoints[from].port() else {
            return;
        };
        // A super-frame opens nothing and closes nothing in the middle.
        let long = packet.payload.len() > size
            && (packet.tuple.proto == UDP || packet.flags & !(TCP_PSH | TCP_FIN) == TCP_ACK);
        if self.reference.would_retry(packet) {
            return;
        }
        let parts = if long {
            packet.segments(size)
        } else {
            let mut short = packet.clone();
            short.payload.truncate(size);
            vec![short]
        };
        let mut frame = if long {
            packet.build()
        } else {
            parts[0].build()
        };
        let vnet = if long {
            make_super(&mut frame, size)
        } else {
            VnetHdr::NONE
        };
        let outcome = self.fast.egress(&self.world, from, &mut frame, long);
        // The first part decides; the others go where it went.
        for (i, part) in parts.iter().enumerate() {
            let verdict = self.reference.egress(&self.world, from, part);
            // What nobody takes is refused once, with its first part.
            if i > 0 && !matches!(outcome, Outcome::Sent(_)) {
                continue;
            }
            let got = match outcome {
                Outcome::Sent(_) => split(&frame, &vnet).swap_remove(i),
                _ => Vec::new(),
            };
            self.compare(port, part, verdict, &outcome, &got);
        }
        if let Outcome::Sent(_) = outcome {
            assert_eq!(split(&frame, &vnet).len(), parts.len());
        }
    }

    fn again(&mut self, pick: usize, shape: Shape) {
        let Some((tuple, src_mac, dst_mac)) = self.reference.again(pick) else {
            return;
        };
        let sender = self.world.endpoints.iter().position(|e| e.mac == src_mac);
        if let Some(sender) = sender {
            let packet = self.shaped((src_mac, dst_mac), tuple, shape);
            self.egress(sender, &packet, shape.size);
        }
    }

    fn reply(&mut self, pick: usize, shape: Shape, breaks: &[bool], lie: bool) {
        let Some((tuple, src_mac, dst_mac)) = self.reference.reply(pick) else {
            return;
        };
        let packet = self.shaped((src_mac, dst_mac), tuple, shape);
        if self.reference.would_retry(&packet) {
            return;
        }
        let sender = self.world.endpoints.iter().position(|e| e.mac == src_mac);
        let Some(sender) = sender else { return };
        match self.world.endpoints[sender].place {
            Some(Place::Port(_)) => self.egress(sender, &packet, shape.size),
            Some(Place::Vtep(own)) => {
                let other = (0..VTEPS).map(vtep).find(|other| *other != own);
                let by = other.filter(|_| lie).unwrap_or(own);
                self.ingress(by, &packet, shape.size, breaks);
            }
            None => {}
        }
    }

    /// A packet with those addresses from another node.
    fn arrive(&mut self, by: SocketAddr, to: usize, (mac_of, ip_of): (To, To), shape: Shape) {
        let family = usize::from(shape.ipv6);
        let addresses = |of: To| match of {
            To::Endpoint(index) => {
                let e = &self.world.endpoints[usize::from(index)];
                (e.mac, e.ips[family])
            }
            To::Service(service) => (vip_mac(service, shape.ipv6), vip(service, shape.ipv6)),
            To::NoService | To::Nobody | To::Everybody => {
                (Mac([2, 0, 0, 0, 0, 1]), vip(9, shape.ipv6))
            }
        };
        let (dst_mac, dst) = addresses(To::Endpoint(u8::try_from(to).unwrap()));
        let tuple = FiveTuple {
            src: addresses(ip_of).1,
            dst,
            sport: shape.sport,
            dport: shape.dport,
            proto: if shape.udp { UDP } else { TCP },
        };
        let packet = self.shaped((addresses(mac_of).0, dst_mac), tuple, shape);
        if !self.reference.would_retry(&packet) {
            self.ingress(by, &packet, shape.size, &[]);
        }
    }

    /// Packets from another node, merged into runs that end anywhere.
    fn ingress(&mut self, by: SocketAddr, packet: &Packet, size: usize, breaks: &[bool]) {
        let parts = if packet.payload.len() > size {
            packet.segments(size)
        } else {
            vec![packet.clone()]
        };
        let frames: Vec<_> = parts.iter().map(Packet::build).collect();
        let mut next = 0;
        let (world, fast, reference) = (&self.world, &mut self.fast, &mut self.reference);
        merge(&frames, breaks, |mut run, at, vnet| {
            let outcome = fast.ingress(by, &mut run, &at, vnet.needs_csum());
            for got in split(&run, &vnet) {
                let verdict = reference.ingress(world, by, &parts[next]);
                next += 1;
                match (&outcome, verdict) {
                    (Outcome::Sent(to), Verdict::Sent(place, want)) => {
                        assert_eq!(*to, place);
                        assert_same(&got, &want.build());
                    }
                    (Outcome::Dropped(got), Verdict::Dropped(want)) => assert_eq!(*got, want),
                    (outcome, verdict) => panic!("{outcome:?}, but {verdict:?}"),
                }
            }
        });
        assert_eq!(next, parts.len(), "frames were lost between runs");
    }

    fn compare(
        &mut self,
        port: weft_wire::PortId,
        part: &Packet,
        verdict: Verdict,
        outcome: &Outcome,
        got: &[u8],
    ) {
        match (outcome, verdict) {
            (Outcome::Sent(to), Verdict::Sent(place, want)) => {
                assert_eq!(*to, place);
                assert_same(got, &want.build());
            }
            (Outcome::Sent(to), Verdict::AnyOf(choices)) => {
                let seen = info(got).five_tuple();
                let taken = choices.iter().find(|c| c.packet.tuple.dst == seen.dst);
                let Some(choice) = taken else {
                    panic!("{seen:?} is none of {choices:?}");
                };
                assert_eq!(Some(*to), choice.place);
                let mut want = choice.packet.clone();
                if choice.other_port {
                    assert_ne!(seen.sport, want.tuple.sport);
                    want.tuple.sport = seen.sport;
                }
                assert_same(got, &want.build());
                self.reference.chosen(port, part, choice, seen);
            }
            (Outcome::Refused(got), Verdict::Refused(want))
            | (Outcome::Dropped(got), Verdict::Dropped(want)) => assert_eq!(*got, want),
            (outcome, verdict) => panic!("{outcome:?}, but {verdict:?}\n{part:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_packet_path_does_what_the_reference_says(
        steps in vec(step(), 1..100),
        seed: u64,
    ) {
        let world = World::new();
        let fast = Fast::new(&world, seed);
        let mut pair = Pair { world, fast, reference: Reference::default() };
        for step in steps {
            pair.run(step);
        }
    }

    #[test]
    fn any_grouping_of_segments_becomes_the_same_segments(
        udp: bool,
        ipv6: bool,
        // Several packets of one flow in a row: the last segment of each is shorter, mostly.
        trains in vec((1_usize..20_000, any::<bool>()), 1..5),
        size in 400_usize..1391,
        seq: u32,
        id: u16,
        breaks in vec(prop::bool::weighted(0.2), 0..150),
    ) {
        let world = World::new();
        let family = usize::from(ipv6);
        let mut packet = Packet {
            src_mac: world.endpoints[0].mac,
            dst_mac: world.endpoints[1].mac,
            tuple: FiveTuple {
                src: world.endpoints[0].ips[family],
                dst: world.endpoints[1].ips[family],
                sport: 9,
                dport: 80,
                proto: if udp { UDP } else { TCP },
            },
            seq: if udp { 0 } else { seq },
            ack: if udp { 0 } else { 7 },
            flags: 0,
            id: if ipv6 { 0 } else { id },
            payload: Vec::new(),
        };
        let (mut want, mut sent) = (Vec::new(), Vec::new());
        for (len, push) in trains {
            packet.payload = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            if !udp {
                packet.flags = TCP_ACK | if push { TCP_PSH } else { 0 };
            }
            let parts = packet.segments(size);
            want.extend(parts.iter().map(Packet::build));
            let mut whole = packet.build();
            let vnet = make_super(&mut whole, size);
            sent.extend(split(&whole, &vnet));
            if !ipv6 {
                packet.id = packet.id.wrapping_add(u16::try_from(parts.len()).unwrap());
            }
            if !udp {
                packet.seq = packet.seq.wrapping_add(u32::try_from(len).unwrap());
            }
        }
        let mut received = Vec::new();
        merge(&sent, &breaks, |run, _, vnet| received.extend(split(&run, &vnet)));
        for frames in [&sent, &received] {
            prop_assert_eq!(frames.len(), want.len());
            for (got, want) in frames.iter().zip(&want) {
                assert_same(got, want);
            }
        }
    }
}
