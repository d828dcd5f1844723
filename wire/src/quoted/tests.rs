use proptest::prelude::*;

use super::*;
use crate::frame::ICMP;
use crate::reply::{MAX_LEN, icmp_unreachable, packet_too_big};
use crate::rewrite::rewrite_endpoint;
use crate::samples::{Packet, SRC_MAC, info};
use crate::{Mac, checksum::verify_transport};

const GATEWAY_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);

fn gateway(v6: bool) -> IpAddr {
    if v6 {
        "fd00::1".parse().unwrap()
    } else {
        "10.0.0.1".parse().unwrap()
    }
}

/// An error about a frame: packet too big, or port unreachable.
fn error_about(frame: &[u8], too_big: bool) -> Vec<u8> {
    let at = info(frame);
    let ip = gateway(!at.is_ipv4());
    let mut out = [0; MAX_LEN];
    let len = if too_big {
        packet_too_big(frame, &at, GATEWAY_MAC, ip, 1400, &mut out)
    } else {
        icmp_unreachable(frame, &at, GATEWAY_MAC, ip, &mut out)
    };
    assert!(len > 0);
    out[..len].to_vec()
}

/// Makes packets of one transport.
type Make = fn(usize) -> Packet;

fn transport(tcp: bool) -> Make {
    if tcp { Packet::tcp } else { Packet::udp }
}

fn packet(v6: bool, make: Make, payload: usize) -> Packet {
    let packet = make(payload);
    if v6 { packet.over_v6() } else { packet }
}

/// Zero and all ones are one number to a checksum.
fn same_message(left: &[u8], right: &[u8]) -> bool {
    let (mut left, mut right) = (left.to_vec(), right.to_vec());
    for frame in [&mut left, &mut right] {
        let field = info(frame).l4 + 2;
        if be16(frame, field) == 0xffff {
            put16(frame, field, 0);
        }
    }
    left == right
}

#[test]
fn the_quoted_flow_is_that_of_the_packet() {
    for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let frame = packet(v6, transport(tcp), 1400).build();
        let error = error_about(&frame, true);
        let found = quoted(&error, &info(&error)).unwrap();
        assert_eq!(found.tuple, info(&frame).five_tuple());
        assert_eq!(found.end, error.len(), "the quotation was cut");
    }
}

#[test]
fn what_quotes_no_packet_of_a_flow_is_none() {
    let ping = Packet::ping(8).build();
    assert!(quoted(&ping, &info(&ping)).is_none());
    let tcp = Packet::tcp(8).build();
    assert!(quoted(&tcp, &info(&tcp)).is_none());
    // About an ICMP packet.
    let error = error_about(&ping, false);
    assert!(quoted(&error, &info(&error)).is_none());
    let good = error_about(&tcp, false);
    let at = info(&good);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        let now = info(&frame);
        quoted(&frame, &now)
    };
    assert!(changed(at.l4, 3).is_some());
    assert!(changed(at.l4, 5).is_none(), "a redirect");
    assert!(changed(at.l4 + 8, 0x65).is_none(), "version 6");
    assert!(changed(at.l4 + 8, 0x44).is_none(), "a header too short");
    assert!(changed(at.l4 + 8 + 7, 1).is_none(), "a later fragment");
    assert!(changed(at.l4 + 8 + 9, ICMP).is_none());
    // A header with options, but without ports behind them.
    assert!(changed(at.l4 + 8, 0x4f).is_none());
}

#[test]
fn eight_octets_of_transport_header_are_enough_and_seven_are_not() {
    // RFC 792: the internet header and 64 bits of the datagram.
    for (len, known) in [(8, true), (7, false)] {
        let frame = packet(false, Packet::tcp, 100).build();
        let mut error = error_about(&frame, false);
        let at = info(&error);
        let end = at.l4 + 8 + 20 + len;
        error.truncate(end);
        put16(&mut error, at.l3 + 2, u16::try_from(end - at.l3).unwrap());
        let at = info(&error);
        let Some(found) = quoted(&error, &at).filter(|_| known) else {
            assert!(!known);
            assert!(quoted(&error, &at).is_none());
            continue;
        };
        assert!(found.rewrite(&mut error, &at, Side::Source, gateway(false), 9, false));
        assert_eq!(quoted(&error, &at).unwrap().tuple.sport, 9);
    }
}

#[test]
fn other_families_and_other_frames_are_refused() {
    let error = error_about(&packet(false, Packet::tcp, 0).build(), false);
    let at = info(&error);
    let found = quoted(&error, &at).unwrap();
    let mut copy = error.clone();
    assert!(!found.rewrite(&mut copy, &at, Side::Source, gateway(true), 9, false));
    let mut short = error[..40].to_vec();
    assert!(!found.rewrite(&mut short, &at, Side::Source, gateway(false), 9, false));
    assert_eq!((copy, short.len()), (error, 40));
}

proptest! {
    #[test]
    fn an_error_about_a_rewritten_packet_becomes_the_one_about_the_original(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        too_big in any::<bool>(),
        payload in 0_usize..1450,
        new_dst in any::<[u8; 16]>(),
        new_src in any::<[u8; 16]>(),
        ports in any::<[u16; 2]>(),
        both in any::<bool>(),
    ) {
        // Unicast: nothing is reported about other packets.
        let address = |mut octets: [u8; 16]| if v6 {
            octets[0] = 0xfd;
            IpAddr::from(octets)
        } else {
            IpAddr::from([10, octets[1], octets[2], 7])
        };
        let frame = packet(v6, transport(tcp), payload).build();
        let before = info(&frame);
        let mut sent = frame.clone();
        prop_assert!(rewrite_endpoint(
            &mut sent, &before, Side::Destination, address(new_dst), Some(ports[0]), false
        ));
        if both {
            prop_assert!(rewrite_endpoint(
                &mut sent, &before, Side::Source, address(new_src), Some(ports[1]), false
            ));
        }
        let want = error_about(&frame, too_big);
        let mut error = error_about(&sent, too_big);
        let at = info(&error);
        let found = quoted(&error, &at).unwrap();
        prop_assert!(found.rewrite(
            &mut error, &at, Side::Destination, before.dst, before.dport, false
        ));
        prop_assert!(found.rewrite(&mut error, &at, Side::Source, before.src, before.sport, false));
        prop_assert!(rewrite_endpoint(
            &mut error, &at, Side::Destination, before.src, None, false
        ));
        prop_assert!(verify_transport(&error, &info(&error)));
        let inner = before.l4 - before.l3 + if tcp { 16 } else { 6 };
        let field = at.l4 + 8 + inner;
        if !matches!(be16(&want, field), 0 | 0xffff) {
            prop_assert!(same_message(&error, &want), "{error:02x?}\n{want:02x?}");
        }
        prop_assert_eq!(&error[..6], SRC_MAC);
    }

    #[test]
    fn hostile_quotations_never_panic_and_keep_the_checksum(
        v6 in any::<bool>(),
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
        cut in 0_usize..200,
        port: u16,
    ) {
        let mut error = error_about(&packet(v6, Packet::tcp, 100).build(), true);
        for (at, value) in changes {
            if let Some(byte) = error.get_mut(at) {
                *byte = value;
            }
        }
        error.truncate(error.len() - cut.min(100));
        let Ok(crate::Frame::Ip(at)) = crate::frame::parse(&error) else { return Ok(()) };
        let right = verify_transport(&error, &at);
        if let Some(found) = quoted(&error, &at) {
            let ip = gateway(!at.is_ipv4());
            prop_assert!(found.rewrite(&mut error, &at, Side::Source, ip, port, false));
            prop_assert_eq!(verify_transport(&error, &info(&error)), right);
            prop_assert_eq!(quoted(&error, &at).unwrap().tuple.sport, port);
        }
    }
}
