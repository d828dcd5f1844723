//! Connections and datagrams that are carried past the table.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use weft_mesh::{Carriage, CarriageKind, Carried, Context, FlowState, Forward, Origin, Reverse};
use weft_wire::{FiveTuple, Instant, Mac, PortId};

use crate::bench::*;

/// A client outside, and the node that it came through where that is another one.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const VIA: Mac = Mac([2, 0x42, 10, 0, 0, 201]);

fn keeps_client() -> Origin {
    Origin::Mesh {
        vni: vni(),
        node_ip: v4(200),
        node_mac: NODE_MAC,
        keeps_client: true,
    }
}

fn request(sport: u16) -> FiveTuple {
    tuple(client(), sport, vip(), 80, 6)
}

fn carry(b: &mut Bench, request: FiveTuple) -> Option<Carriage> {
    carry_kind(b, CarriageKind::Virtual, request)
}

fn carry_kind(b: &mut Bench, kind: CarriageKind, sent: FiveTuple) -> Option<Carriage> {
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table.carry(&cx, kind, (vni(), sent))
}

/// Of a connection to the virtual address.
fn carriage(b: &Bench, sport: u16, seen: FiveTuple) -> Carriage {
    Carriage {
        kind: CarriageKind::Virtual,
        vni: vni(),
        request: request(sport),
        answer: seen.reversed(),
        to_replica: [b.replicas[0].mac, CLIENT],
        to_client: [CLIENT, VIP_MAC],
    }
}

fn carried(b: &mut Bench, sport: u16, last: Instant, client: Option<(u32, u32)>) {
    let carried = Carried {
        from_client: 1000,
        to_client: 70,
        last,
        client,
    };
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let sent = (vni(), request(sport));
    b.table.carried(&cx, CarriageKind::Virtual, sent, &carried);
}

#[test]
fn a_connection_is_carried_while_it_is_open_and_needs_no_second_rewrite() {
    let mut b = Bench::new(1);
    assert_eq!(carry(&mut b, request(1)), None, "there is none");
    let seen = b.half_open(1);
    assert_eq!(carry(&mut b, request(1)), None, "nobody has answered");
    b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    assert_eq!(carry(&mut b, request(1)), None, "nor confirmed");
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b""));
    let expected = carriage(&b, 1, seen);
    assert_eq!(carry(&mut b, request(1)), Some(expected));
    // From the same port by another virtual address: the replica sees another port.
    let other = tuple(client(), 1, v4(3), 80, 6);
    let segment = |flags, ack| tcp((CLIENT, VIP_MAC), other, (flags, 100, ack), b"");
    let seen = info(&b.forwarded(&port(), segment(SYN, 0))).five_tuple();
    assert_ne!(seen.sport, 1);
    b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    b.forwarded(&port(), segment(ACK, 501));
    let state = b.table.state_of(vni(), other);
    assert_eq!(state, Some(FlowState::Established));
    assert_eq!(carry(&mut b, other), None);
    // Its replica drains, and is gone.
    b.replicas[0].draining = true;
    b.publish();
    assert_eq!(carry(&mut b, request(1)), Some(expected));
    b.replicas.clear();
    b.publish();
    assert_eq!(carry(&mut b, request(1)), None);
}

#[test]
fn whoever_carries_a_connection_hears_once_that_it_ended() {
    let mut b = Bench::new(1);
    let seen: Vec<_> = (0..4).map(|sport| b.open(sport)).collect();
    for sport in 1..4 {
        carry(&mut b, request(sport)).unwrap();
        carry(&mut b, request(sport)).unwrap();
    }
    assert_eq!(b.table.poll_ended(), None);
    // One that nobody carries, and three ways to end.
    b.returned(&port(), answer(seen[0], FIN | ACK, 501, 101, b""));
    b.returned(&port(), answer(seen[1], FIN | ACK, 501, 101, b""));
    b.forwarded(&port(), to_vip(2, RST | ACK, 101, 501, b""));
    let mut ended = Vec::new();
    ended.extend(b.table.poll_ended());
    ended.extend(b.table.poll_ended());
    b.table.close_port(PortId(1), |_| ());
    ended.extend(b.table.poll_ended());
    assert_eq!(b.table.poll_ended(), None);
    ended.sort_by_key(|carriage| carriage.request.sport);
    let expected = [1, 2, 3].map(|sport| carriage(&b, sport, seen[usize::from(sport)]));
    assert_eq!(ended, expected);
    assert_eq!(carry(&mut b, request(1)), None);
}

#[test]
fn what_was_carried_is_as_what_came_by() {
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    b.pass(Duration::from_secs(60));
    let last = b.now;
    carried(&mut b, 1, last, Some((9_000_000, 8_000_000)));
    b.pass(Duration::from_secs(2));
    let mut rows = Vec::new();
    b.table.list(b.now, 0, 10, &mut rows);
    assert_eq!(rows[0].idle, Duration::from_secs(2));
    let tally = b.loads[0].tally();
    assert_eq!((tally.rx_bytes(), tally.tx_bytes()), (1000, 70));
    // The client's own reset is far from what came by here, and believed.
    b.forwarded(&port(), to_vip(1, RST | ACK, 9_000_000, 8_000_000, b""));
    let state = b.table.state_of(vni(), request(1));
    assert_eq!(state, Some(FlowState::Reset));
    // The rest of it counts, too.
    carried(&mut b, 1, last, None);
    assert_eq!(b.loads[0].tally().rx_bytes(), 2000);
    // The next one from that port is another one.
    b.half_open(1);
    carried(&mut b, 1, last, Some((1, 2)));
    assert_eq!(b.loads[0].tally().rx_bytes(), 2000);
}

#[test]
fn resets_have_the_numbers_of_what_was_carried() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    b.open(2);
    b.open(3);
    carry(&mut b, request(1)).unwrap();
    b.replicas.clear();
    b.publish();
    let mut resets = Vec::new();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(
        !b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    assert_eq!(resets.len(), 4, "the others, both ends");
    assert_eq!(b.table.poll_ended().map(|c| c.request), Some(request(1)));
    let told = Carried {
        from_client: 0,
        to_client: 0,
        last: cx.now,
        client: Some((9_000_000, 8_000_000)),
    };
    let sent = (vni(), request(1));
    b.table.carried(&cx, CarriageKind::Virtual, sent, &told);
    resets.clear();
    assert!(
        b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    let [to_client, to_replica] = &resets[..] else {
        panic!("{} resets", resets.len());
    };
    assert_eq!(to_client[38..42], 8_000_000_u32.to_be_bytes());
    assert_eq!(to_client[42..46], 9_000_000_u32.to_be_bytes());
    assert_eq!(info(to_replica).five_tuple(), seen);
    assert_eq!(to_replica[38..42], 9_000_000_u32.to_be_bytes());
    assert!(b.table.is_empty() && b.table.poll_ended().is_none());
    // Without a sweep: the client's next frame finds that out.
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    b.replicas.clear();
    b.publish();
    let verdict = b.forward(&port(), &mut to_vip(1, ACK, 101, 501, b"data"));
    assert!(matches!(verdict, Forward::Refuse(_)));
    assert!(b.table.poll_ended().is_some());
}

#[test]
fn a_client_that_has_closed_is_reset_by_the_numbers_of_its_last_segment() {
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    let last = b.now;
    let told = Some((9_000_000, 8_000_000));
    carried(&mut b, 1, last, told);
    // Its end has data, and acknowledges more than what was carried did.
    let end = to_vip(1, FIN | ACK, 9_000_000, 8_000_070, b"bye");
    b.forwarded(&port(), end);
    assert!(b.table.poll_ended().is_some());
    carried(&mut b, 1, last, told);
    b.replicas.clear();
    b.publish();
    let mut resets = Vec::new();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(
        b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    let [to_client, to_replica] = &resets[..] else {
        panic!("{} resets", resets.len());
    };
    assert_eq!(to_client[38..42], 8_000_070_u32.to_be_bytes());
    assert_eq!(to_client[42..46], 9_000_004_u32.to_be_bytes());
    assert_eq!(to_replica[38..42], 9_000_004_u32.to_be_bytes());
}

/// A client outside at published port 8000, with an open connection; as it sends, and as the replica
/// sees it.
fn open_published(b: &mut Bench, origin: &Origin, client: IpAddr, sport: u16) -> [FiveTuple; 2] {
    let sent = tuple(client, sport, mesh_ip(), 8000, 6);
    let segment = |flags, seq| tcp((CLIENT, VIP_MAC), sent, (flags, seq, 501), b"");
    let seen = info(&b.forwarded(origin, segment(SYN, 100))).five_tuple();
    b.returned(origin, answer(seen, SYN | ACK, 500, 101, b""));
    b.forwarded(origin, segment(ACK, 101));
    [sent, seen]
}

#[test]
fn a_connection_through_a_published_port_is_carried_where_its_client_is_kept() {
    let mut b = Bench::new(1);
    let [sent, seen] = open_published(&mut b, &keeps_client(), OUTSIDE, 40_000);
    assert_eq!(carry(&mut b, sent), None, "it is to no virtual address");
    let expected = Carriage {
        kind: CarriageKind::Published,
        vni: vni(),
        request: sent,
        answer: seen.reversed(),
        to_replica: [b.replicas[0].mac, NODE_MAC],
        to_client: [CLIENT, VIP_MAC],
    };
    let carried = carry_kind(&mut b, CarriageKind::Published, sent);
    assert_eq!(carried, Some(expected));
    assert_eq!(
        carry_kind(&mut b, CarriageKind::Return, seen.reversed()),
        None
    );
    // What a listener sends on has both ends rewritten.
    let [by_listener, _] = open_published(&mut b, &mesh(), host_ip(), 40_001);
    let carried = carry_kind(&mut b, CarriageKind::Published, by_listener);
    assert_eq!(carried, None);
    // Its bytes are the replica's; a FIN ends it.
    let told = Carried {
        from_client: 1000,
        to_client: 70,
        last: b.now,
        client: Some((9_000_000, 8_000_000)),
    };
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let of = (vni(), sent);
    b.table.carried(&cx, CarriageKind::Published, of, &told);
    let tally = b.loads[0].tally();
    assert_eq!((tally.rx_bytes(), tally.tx_bytes()), (1000, 70));
    assert_eq!(b.table.poll_ended(), None);
    b.returned(&keeps_client(), answer(seen, FIN | ACK, 501, 101, b""));
    assert_eq!(b.table.poll_ended(), Some(expected));
    assert_eq!(b.table.poll_ended(), None);
}

/// A segment of a client that came to another node, for the replica here; as that sees it.
fn arrive(b: &mut Bench, sent: FiveTuple, flags: u8) -> FiveTuple {
    let mut frame = tcp((VIA, b.replicas[0].mac), sent, (flags, 101, 501), b"");
    let parsed = info(&frame);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let answer = b.table.arrived(&cx, vni(), &mut frame, &parsed, false);
    let seen = info(&frame).five_tuple();
    assert_eq!(answer, Some(seen.reversed()));
    seen
}

#[test]
fn a_connection_by_another_nodes_published_port_is_carried_from_its_replica() {
    let mut b = Bench::new(1);
    let own = tuple(OUTSIDE, 40_000, v4(11), 80, 6);
    let ask = |b: &mut Bench, sent| carry_kind(b, CarriageKind::Return, sent);
    assert_eq!(ask(&mut b, own.reversed()), None, "there is none");
    let seen = arrive(&mut b, own, SYN);
    assert_ne!(seen.sport, own.sport);
    let sent = seen.reversed();
    assert_eq!(ask(&mut b, sent), None, "it is not open");
    let mut back = answer(seen, SYN | ACK, 500, 101, b"");
    assert!(matches!(b.reverse(&mut back), Reverse::Return { dst_mac } if dst_mac == VIA));
    arrive(&mut b, own, ACK);
    let expected = Carriage {
        kind: CarriageKind::Return,
        vni: vni(),
        request: own,
        answer: sent,
        to_replica: [b.replicas[0].mac, VIA],
        to_client: [VIA, b.replicas[0].mac],
    };
    assert_eq!(ask(&mut b, sent), Some(expected));
    assert_eq!(ask(&mut b, own.reversed()), None, "no replica sends that");
    assert_eq!(carry_kind(&mut b, CarriageKind::Virtual, own), None);
    // It is not idle, and counts for nobody here.
    b.pass(Duration::from_secs(3 * 3600));
    let told = Carried {
        from_client: 1000,
        to_client: 70,
        last: b.now,
        client: None,
    };
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table
        .carried(&cx, CarriageKind::Return, (vni(), sent), &told);
    assert_eq!(b.loads[0].tally().rx_bytes(), 0);
    // Either end closes it.
    arrive(&mut b, own, FIN | ACK);
    assert_eq!(b.table.poll_ended(), Some(expected));
    assert_eq!(ask(&mut b, sent), None);
    let other = arrive(&mut b, tuple(OUTSIDE, 40_001, v4(11), 80, 6), ACK);
    let carried = ask(&mut b, other.reversed());
    assert!(carried.is_some(), "a restarted agent has seen no handshake");
    let mut back = answer(other, FIN | ACK, 501, 101, b"");
    assert!(matches!(b.reverse(&mut back), Reverse::Return { .. }));
    assert_eq!(b.table.poll_ended(), carried);
}

#[test]
fn a_replica_here_has_the_client_at_another_port_and_is_carried_all_the_same() {
    let mut b = Bench::new(1);
    b.replicas[0].local = true;
    b.publish();
    let [sent, seen] = open_published(&mut b, &keeps_client(), OUTSIDE, 40_000);
    assert_ne!(seen.sport, sent.sport);
    let carried = carry_kind(&mut b, CarriageKind::Published, sent);
    let ways = carried.map(|carriage| (carriage.request, carriage.answer));
    assert_eq!(ways, Some((sent, seen.reversed())));
    // Another one by another node.
    let second = tuple(OUTSIDE, 40_000, v4(11), 80, 6);
    let seen = arrive(&mut b, second, ACK);
    assert_eq!(b.table.len(), 2);
    let carried = carry_kind(&mut b, CarriageKind::Return, seen.reversed());
    let ways = carried.map(|carriage| (carriage.request, carriage.answer));
    assert_eq!(ways, Some((second, seen.reversed())));
}

const UDP: u8 = 17;

fn datagram(b: &mut Bench, payload: &[u8]) -> FiveTuple {
    let asked = tuple(client(), 1, vip(), 80, UDP);
    let sent = b.forwarded(&port(), udp((CLIENT, VIP_MAC), asked, payload));
    info(&sent).five_tuple()
}

fn answered(b: &mut Bench, seen: FiveTuple) {
    let macs = (Mac([9; 6]), Mac([8; 6]));
    b.returned(&port(), udp(macs, seen.reversed(), b"answer"));
}

#[test]
fn datagrams_are_carried_once_they_are_answered_until_their_time_is_up() {
    let mut b = Bench::new(1);
    let asked = tuple(client(), 1, vip(), 80, UDP);
    let seen = datagram(&mut b, b"question");
    assert_eq!(carry(&mut b, asked), None, "nobody has answered");
    answered(&mut b, seen);
    let expected = Carriage {
        request: asked,
        ..carriage(&b, 1, seen)
    };
    assert_eq!(carry(&mut b, asked), Some(expected));
    datagram(&mut b, b"by the worker, once");
    answered(&mut b, seen);
    assert_eq!(b.table.poll_ended(), None, "it is the same flow");
    // What the kernel carries keeps it from being idle.
    for _ in 0..10 {
        b.pass(Duration::from_secs(100));
        let cx = Context {
            now: b.now,
            epoch: b.epoch,
            services: &b.services,
        };
        let told = Carried {
            from_client: 10,
            to_client: 20,
            last: cx.now,
            client: None,
        };
        b.table
            .carried(&cx, CarriageKind::Virtual, (vni(), asked), &told);
        b.table.expire(b.now, 10);
        assert_eq!(b.table.len(), 1);
    }
    b.pass(Duration::from_secs(300));
    b.table.expire(b.now, 10);
    assert!(b.table.is_empty());
    assert_eq!(b.table.poll_ended(), Some(expected));
}

#[test]
fn datagrams_move_to_another_replica_and_whoever_carried_them_is_told() {
    let mut b = Bench::new(2);
    let asked = tuple(client(), 1, vip(), 80, UDP);
    let seen = datagram(&mut b, b"question");
    answered(&mut b, seen);
    let before = carry(&mut b, asked).unwrap();
    let gone = b.replica_at(seen.dst);
    b.replicas.remove(gone);
    b.publish();
    assert_eq!(carry(&mut b, asked), None, "its replica is gone");
    let moved = datagram(&mut b, b"question");
    assert_ne!(moved.dst, seen.dst);
    assert_eq!(b.table.poll_ended(), Some(before));
    // The rest of the old one is not the new one's: that has not been answered yet.
    let last = b.now.after(Duration::from_secs(100));
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let rest = Carried {
        from_client: 10,
        to_client: 20,
        last,
        client: None,
    };
    b.table
        .carried(&cx, CarriageKind::Virtual, (vni(), asked), &rest);
    b.pass(Duration::from_secs(60));
    b.table.expire(b.now, 10);
    assert!(b.table.is_empty());
}

#[test]
fn the_sweep_ends_datagrams_without_a_reset() {
    let mut b = Bench::new(1);
    let asked = tuple(client(), 1, vip(), 80, UDP);
    let seen = datagram(&mut b, b"question");
    answered(&mut b, seen);
    let carriage = carry(&mut b, asked);
    b.replicas.clear();
    b.publish();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(!b.table.sweep(&cx, 10, |_| panic!("no reset")));
    assert_eq!(b.table.poll_ended(), carriage);
    assert!(b.table.sweep(&cx, 10, |_| panic!("no reset")));
    assert!(b.table.is_empty() && b.table.poll_ended().is_none());
}
