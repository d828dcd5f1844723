use super::*;
use crate::frame::{TCP_PSH, TCP_URG, parse};
use crate::samples::{
    DST_MAC, DST4, DST6, Packet, SRC_MAC, SRC4, SRC6, assert_canonical, info, make_partial,
};
use crate::{DropReason, Frame, checksum::verify_transport};

const MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

#[test]
fn arp() {
    let request = ArpInfo {
        request: true,
        sender_mac: Mac(SRC_MAC),
        sender_ip: SRC4.into(),
        target_ip: GATEWAY,
    };
    let mut out = [0; 64];
    assert_eq!(arp_reply(&request, MAC, GATEWAY, &mut out), 42);
    assert_eq!(dst_mac(&out), Mac(SRC_MAC));
    assert_eq!(src_mac(&out), MAC);
    let expected = ArpInfo {
        request: false,
        sender_mac: MAC,
        sender_ip: GATEWAY,
        target_ip: SRC4.into(),
    };
    assert_eq!(parse(&out[..42]), Ok(Frame::Arp(expected)));
    assert_eq!(arp_reply(&request, MAC, GATEWAY, &mut out[..41]), 0);
}

#[test]
fn rfc4443_s4_2_echo_over_both_families() {
    for packet in [Packet::ping(56), Packet::ping(1400).over_v6()] {
        let mut frame = packet.build();
        let at = info(&frame);
        assert_eq!(icmp_echo_reply(&mut frame, &at), frame.len());
        assert_canonical(&frame);
        let now = info(&frame);
        assert_eq!((now.src, now.dst), (at.dst, at.src));
        assert!(matches!(now.icmp_type, 0 | 129));
        assert_eq!(now.sport, at.sport);
        assert_eq!(src_mac(&frame), Mac(DST_MAC));
        assert_eq!(dst_mac(&frame), Mac(SRC_MAC));
        assert_eq!(icmp_echo_reply(&mut frame, &now), 0, "a reply has no reply");
    }
}

#[test]
fn echo_with_an_unfinished_checksum() {
    let mut frame = Packet::ping(56).over_v6().build();
    make_partial(&mut frame);
    let at = info(&frame);
    // Found by fuzzing: padding went into the sum.
    frame.extend_from_slice(&[0xee; 9]);
    let len = icmp_echo_reply(&mut frame, &at);
    assert_eq!(len, at.len);
    assert_canonical(&frame[..len]);
}

#[test]
fn echo_of_a_fragment_is_not_answered() {
    let mut frame = Packet::ping(56).build();
    frame[20] = 0x20;
    let at = info(&frame);
    assert_eq!(icmp_echo_reply(&mut frame, &at), 0);
}

fn solicitation(src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 3);
    let mut frame = vec![0; ETHERNET_LEN + 40 + 32];
    ethernet(
        &mut frame,
        Mac(SRC_MAC),
        Mac([0x33, 0x33, 0xff, 0, 0, 3]),
        EthernetProtocol::Ipv6,
    );
    ipv6(&mut frame, src, dst, IpProtocol::Icmpv6, 32);
    Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: Some(Mac(SRC_MAC).into()),
    })
    .emit(
        &src,
        &dst,
        &mut Icmpv6Packet::new_unchecked(&mut frame[ETHERNET_LEN + 40..]),
        &ChecksumCapabilities::default(),
    );
    frame
}

#[test]
fn rfc4861_s7_2_4_solicited_advertisement() {
    let frame = solicitation(SRC6.into(), DST6.into());
    let at = info(&frame);
    assert_eq!(nd_target(&frame, &at), Some(DST6.into()));
    let mut out = [0; 86];
    assert_eq!(
        nd_advertisement(&frame, &at, MAC, DST6.into(), true, &mut out),
        86
    );
    assert_eq!(dst_mac(&out), Mac(SRC_MAC));
    let answer = info(&out);
    assert!(verify_transport(&out, &answer));
    assert_eq!(answer.dst, IpAddr::from(SRC6));
    assert_eq!(answer.icmp_type, 136);
    assert_eq!(out[answer.l3 + 7], 255);
    assert_eq!(
        out[answer.l4 + 4],
        0b1110_0000,
        "router, solicited, override"
    );
    assert_eq!(out[answer.l4 + 8..answer.l4 + 24], DST6);
    assert_eq!(out[answer.l4 + 24..], [&[2, 1][..], &MAC.0].concat());
    assert_eq!(
        nd_advertisement(&frame, &at, MAC, DST6.into(), false, &mut out[..85]),
        0
    );
}

#[test]
fn rfc4861_s7_1_1_bad_solicitations_have_no_target() {
    let good = solicitation(SRC6.into(), DST6.into());
    let target = |frame: &[u8]| nd_target(frame, &info(frame));
    assert!(target(&good).is_some());
    let mut hops = good.clone();
    hops[21] = 254;
    assert_eq!(target(&hops), None);
    let mut code = good.clone();
    code[55] = 1;
    assert_eq!(target(&code), None);
    let group = solicitation(SRC6.into(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    assert_eq!(target(&group), None);
    let mut short = good.clone();
    short[19] = 23;
    assert_eq!(parse(&short), Err(DropReason::BadTransportHeader));
    assert_eq!(target(&Packet::ping(56).over_v6().build()), None);
}

#[test]
fn duplicate_address_probe_is_not_answered() {
    let frame = solicitation(Ipv6Addr::UNSPECIFIED, DST6.into());
    let at = info(&frame);
    let mut out = [0; 86];
    assert_eq!(
        nd_advertisement(&frame, &at, MAC, DST6.into(), false, &mut out),
        0
    );
}

#[test]
fn rfc1191_s4_rfc1812_s4_3_2_3_fragmentation_needed() {
    let frame = Packet::udp(3000).build();
    let at = info(&frame);
    let mut out = [0; MAX_LEN];
    let len = packet_too_big(&frame, &at, MAC, GATEWAY.into(), 1450, &mut out);
    assert_eq!(len, 14 + 576);
    let out = &out[..len];
    assert_canonical(out);
    let answer = info(out);
    assert_eq!((answer.src, answer.dst), (GATEWAY.into(), SRC4.into()));
    assert_eq!(out[34..36], [3, 4]);
    assert_eq!(out[38..42], [0, 0, 5, 0xaa], "1450");
    assert_eq!(out[42..], frame[14..14 + 548]);
}

#[test]
fn rfc4443_s3_2_packet_too_big() {
    let frame = Packet::udp(3000).over_v6().build();
    let at = info(&frame);
    let mut out = [0; MAX_LEN];
    let gateway = Ipv6Addr::from(DST6);
    let len = packet_too_big(&frame, &at, MAC, gateway.into(), 1430, &mut out);
    assert_eq!(len, MAX_LEN);
    let answer = info(&out);
    assert!(verify_transport(&out, &answer));
    assert_eq!((answer.icmp_type, out[answer.l4 + 1]), (2, 0));
    assert_eq!(out[answer.l4 + 4..answer.l4 + 8], 1430_u32.to_be_bytes());
}

#[test]
fn port_unreachable_quotes_a_small_packet_whole() {
    for (packet, ip, kind) in [
        (Packet::udp(5), IpAddr::from(DST4), [3, 3]),
        (Packet::udp(5).over_v6(), IpAddr::from(DST6), [1, 4]),
    ] {
        let frame = packet.build();
        let at = info(&frame);
        let mut out = [0; MAX_LEN];
        let len = icmp_unreachable(&frame, &at, MAC, ip, &mut out);
        let out = &out[..len];
        let answer = info(out);
        assert!(verify_transport(out, &answer));
        assert_eq!(out[answer.l4..answer.l4 + 2], kind);
        assert_eq!(out[answer.l4 + 8..], frame[14..]);
        let mut small = [0; 60];
        assert_eq!(icmp_unreachable(&frame, &at, MAC, ip, &mut small), 0);
    }
}

#[test]
fn rfc1122_s3_2_2_rfc4443_s2_4_no_errors_about_errors_fragments_or_groups() {
    let mut out = [0; MAX_LEN];
    let mut answered =
        |frame: &[u8]| icmp_unreachable(frame, &info(frame), MAC, GATEWAY.into(), &mut out) != 0;
    assert!(answered(&Packet::ping(10).build()));
    let mut error = Packet::ping(10).build();
    error[34] = 3;
    assert!(!answered(&error));
    let mut fragment = Packet::udp(10).build();
    fragment[21] = 1;
    assert!(!answered(&fragment));
    let mut broadcast = Packet::udp(10).build();
    broadcast[..6].fill(0xff);
    assert!(!answered(&broadcast));
    let mut group = Packet::udp(10).build();
    group[30] = 224;
    assert!(!answered(&group));
    let mut nobody = Packet::udp(10).build();
    nobody[26..30].fill(0);
    assert!(!answered(&nobody));
    assert!(
        !answered(&Packet::udp(10).over_v6().build()),
        "other family"
    );
}

#[test]
fn rfc9293_s3_10_7_1_reset_of_a_segment_with_ack() {
    let frame = Packet::tcp(100).build();
    let mut out = [0; 74];
    let len = tcp_reset_for(&frame, &info(&frame), &mut out);
    assert_eq!(len, 54);
    assert_canonical(&out[..len]);
    let reset = info(&out[..len]);
    assert_eq!(reset.tcp_flags, TCP_RST);
    assert_eq!(be32(&out, reset.l4 + 4), 77, "<SEQ=SEG.ACK><CTL=RST>");
    assert_eq!(reset.five_tuple(), info(&frame).five_tuple().reversed());
    assert_eq!(dst_mac(&out), Mac(SRC_MAC));
}

#[test]
fn rfc9293_s3_10_7_1_reset_of_a_segment_without_ack() {
    for (flags, count) in [
        (TCP_SYN, 1),
        (TCP_SYN | TCP_FIN | TCP_PSH | TCP_URG, 2),
        (0, 0),
    ] {
        let packet = Packet {
            flags,
            ..Packet::tcp(10)
        };
        let frame = packet.over_v6().build();
        let mut out = [0; 74];
        assert_eq!(tcp_reset_for(&frame, &info(&frame), &mut out), 74);
        assert_canonical(&out);
        let reset = info(&out);
        assert_eq!(reset.tcp_flags, TCP_RST | TCP_ACK);
        assert_eq!(be32(&out, reset.l4 + 4), 0);
        // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
        let expected = 0xffff_f000_u32.wrapping_add(10 + count);
        assert_eq!(be32(&out, reset.l4 + 8), expected);
    }
}

#[test]
fn a_reset_is_not_reset() {
    let frame = Packet {
        flags: TCP_RST,
        ..Packet::tcp(0)
    }
    .build();
    assert_eq!(tcp_reset_for(&frame, &info(&frame), &mut [0; 74]), 0);
    let udp = Packet::udp(0).build();
    assert_eq!(tcp_reset_for(&udp, &info(&udp), &mut [0; 74]), 0);
    let tcp = Packet::tcp(0).build();
    assert_eq!(tcp_reset_for(&tcp, &info(&tcp), &mut [0; 53]), 0);
}

#[test]
fn resets_need_one_family() {
    let reset = Reset {
        src: "10.0.0.1:80".parse().unwrap(),
        dst: "[fd00::1]:80".parse().unwrap(),
        seq: 1,
        ack: None,
        src_mac: MAC,
        dst_mac: MAC,
    };
    assert_eq!(tcp_reset(&reset, &mut [0; 100]), 0);
}
