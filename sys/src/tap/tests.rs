use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::epoll::Epoll;
use crate::netns::Netns;

const PEER_MAC: [u8; 6] = [2, 0x42, 10, 9, 0, 2];

fn ip(args: &str) {
    let status = Command::new("ip")
        .args(args.split(' '))
        .status()
        .expect("ip");
    assert!(status.success(), "ip {args}");
}

/// The next frame with this ethertype, without its virtio header's place being lost.
fn next_frame(tap: &Tap, ethertype: [u8; 2]) -> Vec<u8> {
    let mut epoll = Epoll::new(1).expect("epoll");
    epoll.add(tap, 0).expect("add");
    let mut buffer = vec![0; 70_000];
    for _ in 0..100 {
        assert_eq!(
            epoll
                .wait(Some(Duration::from_secs(5)))
                .expect("wait")
                .len(),
            1,
            "no frame"
        );
        let n = tap.read(&mut buffer).expect("read");
        if buffer[VNET_HEADER_LEN + 12..VNET_HEADER_LEN + 14] == ethertype {
            return buffer[..n].to_vec();
        }
    }
    panic!("no frame with ethertype {ethertype:?} among 100");
}

fn answer_arp(tap: &Tap) {
    let mut frame = next_frame(tap, [0x08, 0x06]);
    let arp = &mut frame[VNET_HEADER_LEN..];
    let asker: [u8; 6] = arp[6..12].try_into().expect("six");
    arp[..6].copy_from_slice(&asker);
    arp[6..12].copy_from_slice(&PEER_MAC);
    arp[21] = 2;
    let (sender, target): ([u8; 10], [u8; 10]) = (
        arp[22..32].try_into().expect("ten"),
        arp[32..42].try_into().expect("ten"),
    );
    arp[22..28].copy_from_slice(&PEER_MAC);
    arp[28..32].copy_from_slice(&target[6..]);
    arp[32..42].copy_from_slice(&sender);
    tap.write(&frame).expect("write");
}

#[test]
fn frames_go_both_ways_with_partial_checksums() {
    let netns = Netns::create_anonymous().expect("netns");
    let mut config = TapConfig::new("t0");
    config.mac = Some([2, 0x42, 10, 9, 0, 1]);
    config.mtu = Some(1450);
    let (tap, socket) = netns
        .run_in(|| {
            let tap = Tap::open(&config).expect("tap");
            ip("addr add 10.9.0.1/24 dev t0");
            let socket = UdpSocket::bind("10.9.0.1:7000").expect("bind");
            (tap, socket)
        })
        .expect("run");
    assert!(tap.offloads().checksum() && tap.offloads().tcp_segmentation());
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("timeout");

    socket
        .send_to(b"there and back", "10.9.0.2:7001")
        .expect("send");
    answer_arp(&tap);
    let mut frame = next_frame(&tap, [0x08, 0x00]);
    assert_eq!(frame[0] & 1, 1, "NEEDS_CSUM is set");
    let eth = &mut frame[VNET_HEADER_LEN..];
    assert_eq!(eth[..6], PEER_MAC);
    // Swap both ends: neither the IP header checksum nor the pseudo-header sum changes by that.
    let (a, b) = eth[..12].split_at_mut(6);
    a.swap_with_slice(b);
    let (a, b) = eth[26..34].split_at_mut(4);
    a.swap_with_slice(b);
    let (a, b) = eth[34..38].split_at_mut(2);
    a.swap_with_slice(b);
    tap.writev(&[IoSlice::new(&frame[..20]), IoSlice::new(&frame[20..])])
        .expect("writev");

    let mut answer = [0; 64];
    let (n, from) = socket.recv_from(&mut answer).expect("answer");
    assert_eq!(
        (&answer[..n], from.to_string().as_str()),
        (&b"there and back"[..], "10.9.0.2:7001")
    );

    let link = netns
        .run_in(|| {
            Command::new("ip")
                .args(["link", "show", "t0"])
                .output()
                .expect("ip")
                .stdout
        })
        .expect("run");
    let link = String::from_utf8(link).expect("text");
    for part in ["mtu 1450", "qlen 5000", "02:42:0a:09:00:01", "UP"] {
        assert!(link.contains(part), "{part} in {link}");
    }
}

#[test]
fn a_tap_knows_its_namespace_whatever_became_of_the_path() {
    let netns = Netns::create_anonymous().expect("netns");
    let config = TapConfig {
        persist: false,
        ..TapConfig::new("t0")
    };
    let tap = netns.run_in(|| Tap::open(&config)).expect("run");
    let found = tap.expect("tap").netns().expect("namespace");
    assert!(found.same_as(&netns).expect("inodes"));
    assert!(
        !found
            .same_as(&Netns::current().expect("own"))
            .expect("inodes")
    );
}

#[test]
fn a_persistent_tap_is_adopted_and_a_busy_one_is_named() {
    let netns = Netns::create_anonymous().expect("netns");
    netns
        .run_in(|| {
            let config = TapConfig::new("t0");
            let tap = Tap::open(&config).expect("create");
            assert!(matches!(Tap::open(&config), Err(TapError::Busy { name }) if name == "t0"));
            drop(tap);
            assert!(std::path::Path::new("/proc/self/net/dev").exists());
            let again = Tap::open(&config).expect("adopt");
            again.set_persist(false).expect("unpersist");
            drop(again);
            let left = Command::new("ip")
                .args(["link", "show", "t0"])
                .output()
                .expect("ip");
            assert!(!left.status.success(), "device is gone");
        })
        .expect("run");
}

#[test]
fn other_interfaces_and_bad_names_are_refused() {
    let netns = Netns::create_anonymous().expect("netns");
    netns
        .run_in(|| {
            ip("link add d0 type bridge");
            let error = Tap::open(&TapConfig::new("d0")).expect_err("bridge");
            assert!(matches!(error, TapError::OtherKind { .. }), "{error}");
            let error = Tap::open(&TapConfig::new("name/with/slash")).expect_err("name");
            assert!(
                error.to_string().contains("invalid interface name"),
                "{error}"
            );
        })
        .expect("run");
}

#[test]
fn offloads_can_be_left_off() {
    let netns = Netns::create_anonymous().expect("netns");
    netns
        .run_in(|| {
            let mut config = TapConfig::new("t0");
            config.offload = false;
            assert_eq!(Tap::open(&config).expect("tap").offloads().bits(), 0);
        })
        .expect("run");
}
