use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use weft_wire::mac_for_ip;

use super::*;
use crate::epoll::Epoll;
use crate::netlink::{Netlink, Veth};
use crate::netns::Netns;
use crate::offload::{Offloads, set_segments_datagrams};

fn in_fresh_netns<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let netns = Netns::create_anonymous().expect("netns");
    netns
        .run_in(|| {
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .expect("ip");
            assert!(up.success());
            f()
        })
        .expect("run")
}

fn bind(addr: &str) -> VxlanSocket {
    VxlanSocket::bind(addr.parse().expect("addr")).expect("bind")
}

fn wait_readable(socket: &VxlanSocket) {
    let mut epoll = Epoll::new(1).expect("epoll");
    epoll.add(socket, 0).expect("add");
    assert_eq!(
        epoll
            .wait(Some(Duration::from_secs(5)))
            .expect("wait")
            .len(),
        1,
        "nothing came"
    );
}

/// VXLAN header and Ethernet header, which is what steering looks at.
fn vxlan_frame(ethertype: u16, dest: IpAddr) -> Vec<u8> {
    let mut frame = vec![0u8; 80];
    frame[0] = 0x08;
    frame[8..14].copy_from_slice(&mac_for_ip(dest).0);
    frame[20..22].copy_from_slice(&ethertype.to_be_bytes());
    frame
}

#[test]
fn datagrams_land_on_the_worker_of_their_inner_destination() {
    steered("127.0.0.1");
}

#[test]
fn so_they_do_over_ipv6() {
    steered("[::1]");
}

fn steered(host: &str) {
    in_fresh_netns(|| {
        const WORKERS: usize = 3;
        let at = format!("{host}:4789");
        let sockets: Vec<VxlanSocket> = (0..WORKERS).map(|_| bind(&at)).collect();
        sockets[0].attach_steering(WORKERS).expect("attach");
        let sender = bind(&format!("{host}:0"));
        let mut batch = RecvBatch::new(8);
        let mut expect_on = |frame: &[u8], worker: usize| {
            let mut send = SendBatch::with_capacity(1, 1);
            send.piece(0, 0..frame.len());
            send.push(sockets[0].local_addr(), None);
            assert_eq!(send.flush(&sender, &[frame]).sent, 1);
            wait_readable(&sockets[worker]);
            for (i, socket) in sockets.iter().enumerate() {
                let got = batch.recv(socket).expect("recv");
                assert_eq!(
                    got,
                    usize::from(i == worker),
                    "socket {i} of frame for {worker}"
                );
            }
        };
        for last in 0..7u8 {
            let v4 = IpAddr::from([10, 1, 2, last]);
            let v6: IpAddr = format!("fd00:1::10:{last}").parse().expect("ip");
            for ethertype in [0x0800, 0x0806, 0x88cc] {
                expect_on(&vxlan_frame(ethertype, v4), worker_for(v4, WORKERS));
            }
            expect_on(&vxlan_frame(0x86dd, v6), worker_for(v6, WORKERS));
        }
        expect_on(b"short", 0);
    });
}

#[test]
fn segments_are_cut_merged_and_reported() {
    in_fresh_netns(|| {
        let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:4789"));
        let headers = [7u8; 8];
        let payload: Vec<u8> = (0..4000u32).map(|i| i as u8).collect();
        let mut send = SendBatch::with_capacity(4, 16);
        // Three datagrams of 1008 bytes and one of 508, each a header piece and a payload piece.
        for chunk in [0..1000, 1000..2000, 2000..3000, 3000..3500] {
            send.piece(0, 0..8);
            send.piece(1, chunk);
        }
        send.push(receiver.local_addr(), Some(1008));
        send.piece(1, 3500..4000);
        send.push(receiver.local_addr(), None);
        let report = send.flush(&sender, &[&headers, &payload]);
        assert_eq!(report, SendReport { sent: 2, failed: 0 });
        assert!(send.is_empty());

        wait_readable(&receiver);
        let mut batch = RecvBatch::new(8);
        assert_eq!(batch.recv(&receiver).expect("recv"), 2);
        let first = batch.message(0).expect("first");
        assert_eq!(first.gso_size, Some(1008));
        assert_eq!(first.from, sender.local_addr());
        assert!(!first.truncated);
        let bytes = &batch.arena()[first.range];
        assert_eq!(bytes.len(), 3 * 1008 + 508);
        assert_eq!(bytes[..8], headers);
        assert_eq!(bytes[8..1008], payload[..1000]);
        assert_eq!(bytes[3 * 1008 + 8..], payload[3000..3500]);
        let second = batch.message(1).expect("second");
        assert_eq!(second.gso_size, None);
        assert_eq!(batch.arena()[second.range], payload[3500..]);
        assert!(batch.message(2).is_none());
        assert_eq!(batch.recv(&receiver).expect("recv"), 0);
    });
}

/// What the ends of a cable do with a train of datagrams.
#[derive(Clone, Copy, PartialEq)]
enum Cable {
    /// As a veth is made: it carries a train whole.
    AsMade,
    /// The sender's end has TSO, and leaves the segmentation of datagrams to the kernel.
    WithTso,
    /// The sender's end segments nothing, as a plain device.
    Plain,
}

/// Sends a train over a cable whose receiving end runs GRO, to a group of sockets with steering;
/// returns the segment size of each message that arrived.
fn over(cable: Cable) -> Vec<Option<u16>> {
    const SEGMENTS: usize = 8;
    const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let (near, far) = (
        Netns::create_anonymous().expect("netns"),
        Netns::create_anonymous().expect("netns"),
    );
    Netlink::open_in(&near)
        .expect("netlink")
        .add_veth(&Veth {
            name: "a",
            peer: "b",
            peer_netns: Some(&far),
            peer_mac: Some(FAR_MAC),
            mtu: None,
        })
        .expect("veth");
    let sockets = far.run_in(|| {
        let mut links = Netlink::open().expect("netlink");
        let net = "10.9.0.2/24".parse().expect("net");
        links.add_address("b", net).expect("address");
        links.set_up("b", true).expect("up");
        let gro = Offloads {
            gro: true,
            ..Offloads::of("b").expect("offloads")
        };
        gro.apply("b").expect("GRO");
        VxlanSocket::bind_group("10.9.0.2:4789".parse().expect("addr"), 2).expect("bind")
    });
    let sockets = sockets.expect("run");
    let frame = vxlan_frame(0x0800, [10, 1, 2, 3].into());
    let sender = near.run_in(|| {
        let mut links = Netlink::open().expect("netlink");
        let net = "10.9.0.1/24".parse().expect("net");
        links.add_address("a", net).expect("address");
        links.set_up("a", true).expect("up");
        let far_ip = "10.9.0.2".parse().expect("ip");
        links.set_neighbour("a", far_ip, FAR_MAC).expect("known");
        set_segments_datagrams("a", cable == Cable::AsMade).expect("USO");
        let tso = Offloads {
            tso: cable != Cable::Plain,
            ..Offloads::of("a").expect("offloads")
        };
        tso.apply("a").expect("TSO");
        bind("10.9.0.1:0")
    });
    let sender = sender.expect("run");
    let train = frame.repeat(SEGMENTS);
    let mut send = SendBatch::with_capacity(1, 1);
    send.piece(0, 0..train.len());
    send.push(sockets[0].local_addr(), Some(frame.len() as u16));
    assert_eq!(send.flush(&sender, &[&train]).sent, 1);
    let receiver = &sockets[worker_for([10, 1, 2, 3].into(), 2)];
    let mut batch = RecvBatch::new(SEGMENTS);
    let (mut bytes, mut sizes) = (0, Vec::new());
    while bytes < train.len() {
        wait_readable(receiver);
        let count = batch.recv(receiver).expect("recv");
        for message in (0..count).filter_map(|i| batch.message(i)) {
            assert_eq!(
                batch.arena()[message.range.clone()],
                train[..message.range.len()]
            );
            bytes += message.range.len();
            sizes.push(message.gso_size);
        }
    }
    assert_eq!(bytes, train.len());
    sizes
}

#[test]
fn a_train_that_was_cut_on_the_way_is_merged_where_the_cable_is_a_plain_device() {
    let size = Some(vxlan_frame(0, [0; 4].into()).len() as u16);
    assert_eq!(over(Cable::AsMade), [size], "nobody cut it");
    assert_eq!(over(Cable::WithTso), [None; 8], "no GRO for such a sender");
    let merged = over(Cable::Plain);
    assert!(merged.contains(&size), "{merged:?}");
}

#[test]
fn one_bad_message_does_not_stop_the_others() {
    in_fresh_netns(|| {
        let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:4789"));
        let payload = vec![1u8; 70_000];
        let arenas: [&[u8]; 1] = [&payload];
        let dest = receiver.local_addr();
        let unreachable: SocketAddr = "203.0.113.1:4789".parse().expect("addr");
        let mut send = SendBatch::with_capacity(8, 8);
        let mut message = |range: std::ops::Range<usize>, dest, gso| {
            send.piece(0, range);
            send.push(dest, gso);
        };
        message(0..10, dest, None);
        message(0..70_000, dest, None);
        message(0..69_999, dest, None);
        message(0..10, unreachable, None);
        message(60_000..70_001, dest, None);
        message(0..20, dest, None);
        let report = send.flush(&sender, &arenas);
        assert_eq!(report, SendReport { sent: 2, failed: 4 });
        let mut failures = send.failures().to_vec();
        failures.sort_by_key(|f| f.message);
        let kinds: Vec<_> = failures.iter().map(|f| (f.message, f.kind)).collect();
        assert_eq!(
            kinds,
            [
                (1, SendFailureKind::TooBig),
                (2, SendFailureKind::TooBig),
                (3, SendFailureKind::Unreachable),
                (4, SendFailureKind::BadSlice),
            ]
        );
        wait_readable(&receiver);
        let mut batch = RecvBatch::new(8);
        assert_eq!(batch.recv(&receiver).expect("recv"), 2);
        assert_eq!(batch.message(1).expect("second").range.len(), 20);

        // The batch is reusable, and its failures are forgotten with the next message.
        send.piece(0, 0..5);
        send.push(dest, None);
        assert_eq!((send.len(), send.failures().len()), (1, 0));
        assert_eq!(send.flush(&sender, &arenas).sent, 1);
    });
}

#[test]
fn datagrams_above_the_device_mtu_are_refused_not_fragmented() {
    in_fresh_netns(|| {
        for args in ["link set lo mtu 1500", "addr add fd00::1/128 dev lo"] {
            assert!(
                Command::new("ip")
                    .args(args.split(' '))
                    .status()
                    .expect("ip")
                    .success()
            );
        }
        let payload = vec![1u8; 60_000];
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, receiver) = (bind(addr), bind(addr));
            let mut send = SendBatch::with_capacity(2, 2);
            send.piece(0, 0..1500);
            send.push(receiver.local_addr(), None);
            send.piece(0, 0..6000);
            send.push(receiver.local_addr(), Some(1500));
            send.piece(0, 0..2800);
            send.push(receiver.local_addr(), Some(1400));
            assert_eq!(
                send.flush(&sender, &[&payload]),
                SendReport { sent: 1, failed: 2 }
            );
            assert!(
                send.failures()
                    .iter()
                    .all(|f| f.kind == SendFailureKind::TooBig)
            );
        }
    });
}

#[test]
fn buffers_are_large_and_errors_name_the_address() {
    in_fresh_netns(|| {
        let socket = bind("127.0.0.1:4789");
        assert!(socket.recv_buffer_len().expect("len") >= SOCKET_BUFFER_LEN);
        let error = VxlanSocket::bind("192.0.2.1:4789".parse().expect("addr")).expect_err("bind");
        assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error}");
        let _other = std::net::UdpSocket::bind("127.0.0.1:4790").expect("bind");
        let error = VxlanSocket::bind("127.0.0.1:4790".parse().expect("addr")).expect_err("bind");
        assert!(
            error.to_string().contains("127.0.0.1:4790 is in use"),
            "{error}"
        );
    });
}

#[test]
fn a_second_group_is_refused_and_the_first_undisturbed() {
    in_fresh_netns(|| {
        let addr = "127.0.0.1:4789".parse().expect("addr");
        let group = VxlanSocket::bind_group(addr, 2).expect("first");
        assert_eq!(group.len(), 2);
        let error = VxlanSocket::bind_group(addr, 2).expect_err("second");
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        let wildcard = VxlanSocket::bind_group("0.0.0.0:4789".parse().expect("addr"), 1);
        assert!(matches!(wildcard, Err(BindError::InUse { .. })));
        drop(group);
        VxlanSocket::bind_group(addr, 1).expect("after the first closed");

        let free = VxlanSocket::bind_group("127.0.0.1:0".parse().expect("addr"), 3).expect("any");
        assert_ne!(free[0].local_addr().port(), 0);
        assert!(free.iter().all(|s| s.local_addr() == free[0].local_addr()));
    });
}

#[test]
fn what_comes_by_a_refused_interface_does_not_arrive() {
    let netns = Netns::create_anonymous().expect("netns");
    let arrives = |refused: &[u32]| {
        let socket = VxlanSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
        socket.refuse_from(refused).expect("a filter");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        sender.send_to(b"x", socket.local_addr()).expect("send");
        // Loopback delivers before the call returns.
        socket
            .socket
            .recv(&mut [std::mem::MaybeUninit::uninit(); 8])
            .is_ok()
    };
    let check = || {
        let mut links = Netlink::open().expect("netlink");
        links.set_up("lo", true).expect("up");
        let lo = links.link_index("lo").expect("lo");
        assert!(arrives(&[]));
        assert!(arrives(&[lo + 1, lo + 2]));
        assert!(!arrives(&[lo]));
        assert!(!arrives(&[lo + 1, lo, lo + 2]));
    };
    netns.run_in(check).expect("enter");
}
