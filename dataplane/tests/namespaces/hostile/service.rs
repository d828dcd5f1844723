//! Fragments that fit nowhere, sent to a service; a replica's node that repeats itself and lies.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;

use etherparse::PacketBuilder;
use weft_wire::frame::{self, Frame, TCP, parse};
use weft_wire::{DropReason, IpInfo, mac_for_ip};

use super::frames::{
    ETH, encapsulated, fragment4, fragment6, mac, pong4, put, tcp4, udp4, udp6, v4,
};
use super::{LIMIT, Raw, all, one_more, quiet_sandbox, silent_sandbox};
use crate::common::{Node, VIP, VIP6, VXLAN, nodes, publish, vni};

const ME: u8 = 2;
const REPLICA: u8 = 3;

/// Headers of a packet to the service, in one of the families.
fn to_service(like: IpAddr, whole: &[u8]) -> Vec<u8> {
    let frame = put(whole.to_vec(), 0, &mac_for_ip(like).0);
    match like {
        IpAddr::V4(ip) => put(frame, ETH + 16, &ip.octets()),
        IpAddr::V6(ip) => put(frame, ETH + 24, &ip.octets()),
    }
}

/// A fragment of datagram `id` to the service.
fn piece(like: IpAddr, id: u16, offset: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    if like.is_ipv4() {
        let frame = to_service(like, &udp4(ME, REPLICA, b""));
        fragment4(&frame, id, offset, more, bytes)
    } else {
        let frame = to_service(like, &udp6(ME, REPLICA, b""));
        fragment6(&frame, id.into(), offset, more, bytes)
    }
}

/// A UDP header for a datagram of 1000 bytes, and data that nothing else has.
fn first_bytes(port: u16, mark: u8) -> Vec<u8> {
    let mut bytes = vec![0x0f, 0xa0];
    bytes.extend(port.to_be_bytes());
    bytes.extend([3, 232, 0, 0]);
    bytes.extend([mark; 16]);
    bytes
}

/// What is sent after each other, and why it does not pass; none for what does.
type Step = (&'static str, Option<DropReason>, Vec<u8>);

fn steps(like: IpAddr) -> Vec<Step> {
    use DropReason::{BadFragment, Fragment, FragmentEarly, FragmentOverlap};
    let first = |id, port, mark| piece(like, id, 0, true, &first_bytes(port, mark));
    let mut steps = vec![
        (
            "a later fragment, before any first",
            Some(FragmentEarly),
            piece(like, 1, 24, false, &[9; 8]),
        ),
        ("a first fragment", None, first(2, 53, 2)),
        (
            "one that writes over the checked header",
            Some(FragmentOverlap),
            piece(like, 2, 8, true, &[9; 16]),
        ),
        (
            "the rest of that datagram",
            Some(FragmentOverlap),
            piece(like, 2, 24, false, &[9; 8]),
        ),
        ("another first fragment", None, first(3, 53, 3)),
        (
            "a second first one, to another port",
            Some(FragmentOverlap),
            first(3, 54, 4),
        ),
        ("a third datagram", None, first(4, 53, 5)),
        ("its end", None, piece(like, 4, 40, false, &[6; 8])),
        (
            "more behind the end",
            Some(FragmentOverlap),
            piece(like, 4, 48, true, &[9; 8]),
        ),
        ("a fourth datagram", None, first(5, 53, 7)),
        (
            "an inner fragment of an odd length",
            Some(BadFragment),
            piece(like, 5, 24, true, &[9; 12]),
        ),
        (
            "one that ends behind the longest datagram",
            Some(BadFragment),
            piece(like, 5, 65_528, false, &[9; 16]),
        ),
        (
            "a fragment of no bytes",
            Some(BadFragment),
            piece(like, 5, 24, true, &[]),
        ),
    ];
    if like.is_ipv4() {
        let ping = put(to_service(like, &pong4(ME, REPLICA, 1)), ETH + 20, &[8]);
        let tcp = to_service(like, &tcp4(ME, REPLICA));
        steps.push((
            "a ping in fragments",
            Some(Fragment),
            fragment4(&ping, 6, 0, true, &ping[ETH + 20..ETH + 28]),
        ));
        steps.push((
            "a first fragment without the flags of TCP",
            Some(DropReason::BadTransportHeader),
            fragment4(&tcp, 7, 0, true, &tcp[ETH + 20..ETH + 28]),
        ));
    }
    steps
}

fn fragments(like: IpAddr) {
    let [a, b] = nodes(1);
    let mut me = quiet_sandbox(&a, VIP, ME);
    let mut replica = silent_sandbox(&a, VIP, REPLICA);
    me.ip = me.port.ips[usize::from(like.is_ipv6())];
    replica.ip = replica.port.ips[usize::from(like.is_ipv6())];
    publish(&a, 1, &[&me, &replica], &[], &b, &[&replica]);
    let (sender, mut receiver) = (Raw::speaking(&me), Raw::open(&replica.ns));
    let drops = &me.port.counters.drops;
    let foreign = |frame: &[u8]| frame[6..12] != mac(REPLICA);
    // Also once before the first, so that what the kernel said by itself is counted already.
    let mut fences = 0;
    let mut fence = |receiver: &mut Raw, name: &str| {
        fences += 1;
        let fence = pong4(ME, REPLICA, fences);
        sender.send(&fence).expect("send");
        receiver.nothing_before(&fence, foreign, name);
    };
    fence(&mut receiver, "at first");
    for (name, reason, frame) in steps(like) {
        let before = all(drops);
        sender.send(&frame).expect(name);
        match reason {
            Some(reason) => one_more(drops, &before, reason, name),
            // The checksum in front of the data is another one now.
            None => receiver.nothing_before(&frame[frame.len() - 8..], foreign, name),
        }
        fence(&mut receiver, name);
    }
    assert!(a.plane.alive());
}

#[test]
fn fragments_that_fit_nowhere_do_not_reach_a_replica() {
    fragments(VIP);
}

#[test]
fn fragments_of_ipv6_that_fit_nowhere_do_not_reach_a_replica() {
    fragments(VIP6);
}

/// The replica's node, by hand.
struct Peer<'a> {
    node: &'a Node,
    socket: UdpSocket,
}

impl Peer<'_> {
    /// The next TCP segment to the replica, and its frame.
    fn segment(&self) -> (IpInfo, Vec<u8>) {
        let mut buffer = [0; 9000];
        loop {
            let len = self.socket.recv(&mut buffer).expect("a segment");
            let frame = buffer[8..len].to_vec();
            if let Ok(Frame::Ip(info)) = parse(&frame)
                && info.proto == TCP
            {
                assert_eq!(info.dst, v4(REPLICA), "rewritten");
                return (info, frame);
            }
        }
    }

    /// The next one with data.
    fn data(&self) -> Vec<u8> {
        loop {
            let (info, frame) = self.segment();
            if info.payload_len() > 0 {
                return frame[info.payload..info.len].to_vec();
            }
        }
    }

    /// A segment of the replica.
    fn send(&self, port: u16, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let mut packet = PacketBuilder::ethernet2(mac(REPLICA), mac(ME))
            .ipv4(v4(REPLICA).octets(), v4(ME).octets(), 64)
            .tcp(80, port, seq, 8000);
        if flags & frame::TCP_ACK != 0 {
            packet = packet.ack(ack);
        }
        if flags & frame::TCP_SYN != 0 {
            packet = packet.syn();
        }
        if flags & frame::TCP_RST != 0 {
            packet = packet.rst();
        }
        let mut frame = Vec::new();
        packet.write(&mut frame, data).expect("it fits");
        let datagram = encapsulated(8, vni().get(), &frame);
        let to = SocketAddr::new(self.node.underlay, VXLAN);
        self.socket.send_to(&datagram, to).expect("send");
    }
}

/// Replays and resets out of nowhere: the client's connection goes on through its service.
#[test]
fn replayed_answers_of_a_replica_move_no_connection() {
    use frame::{TCP_ACK, TCP_RST, TCP_SYN};
    let [a, b] = nodes(1);
    let me = quiet_sandbox(&a, VIP, ME);
    let replica = quiet_sandbox(&b, VIP, REPLICA);
    publish(&a, 1, &[&me], &[&replica], &b, &[&replica]);
    drop(b.plane);
    let bind = || UdpSocket::bind((b.underlay, VXLAN)).expect("bind");
    let socket = b.ns.run_in(bind).expect("thread");
    socket.set_read_timeout(Some(LIMIT)).expect("timeout");
    let peer = Peer { node: &a, socket };
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(VIP, 80), LIMIT);
    let counters = &a.plane.counters()[0];
    let (mut stream, port, next) = std::thread::scope(|scope| {
        let client = scope.spawn(|| me.ns.run_in(connect).expect("thread"));
        let (syn, bytes) = peer.segment();
        assert_eq!(syn.tcp_flags & (TCP_SYN | TCP_ACK), TCP_SYN);
        let seq = &bytes[syn.l4 + 4..syn.l4 + 8];
        let next = u32::from_be_bytes(seq.try_into().expect("four")).wrapping_add(1);
        // Refusals of another connection: this one is neither refused nor moved.
        for (flags, ack) in [
            (TCP_RST, 0),
            (TCP_RST | TCP_ACK, next.wrapping_add(1)),
            (TCP_RST | TCP_ACK, next.wrapping_sub(100_000)),
        ] {
            let before = all(&counters.underlay);
            peer.send(syn.sport, flags, 0, ack, b"");
            one_more(
                &counters.underlay,
                &before,
                DropReason::NotAFlow,
                "a refusal of another connection",
            );
        }
        peer.send(syn.sport, TCP_SYN | TCP_ACK, 9000, next, b"");
        let stream = client.join().expect("no panic").expect("connected");
        (stream, syn.sport, next)
    });
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    for _ in 0..3 {
        peer.send(port, TCP_SYN | TCP_ACK, 9000, next, b"");
    }
    // Outside the window, so that the client does not believe them.
    peer.send(port, TCP_RST, 1, 0, b"");
    peer.send(port, TCP_RST | TCP_ACK, 1, next, b"");
    stream.write_all(b"still here").expect("write");
    assert_eq!(peer.data(), b"still here");
    peer.send(port, TCP_ACK, 9001, next.wrapping_add(10), b"me too");
    // And once more.
    peer.send(port, TCP_ACK, 9001, next.wrapping_add(10), b"me too");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"me too");
    stream.write_all(b"good").expect("write");
    assert_eq!(peer.data(), b"good");
    for (what, counter, expected) in [
        ("begun", &counters.flows_created, 1),
        ("in the table", &counters.flows, 1),
        ("moved", &counters.flows_retried, 0),
        ("refused", &counters.flows_refused, 0),
    ] {
        assert_eq!(counter.load(Ordering::Relaxed), expected, "{what}");
    }
}
