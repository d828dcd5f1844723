use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;
use crate::samples::{Packet, info};

fn tunnel() -> Tunnel {
    Tunnel {
        mac: Mac([2, 0x42, 0, 0, 0, 9]),
        src: [192, 0, 2, 1].into(),
        dst: [192, 0, 2, 2].into(),
        src_port: 50_000,
        dst_port: 4789,
        vni: Vni::new(4097).unwrap(),
        class: 0xba,
    }
}

#[test]
fn the_outer_headers_are_what_etherparse_reads() {
    for packet in [Packet::tcp(40_000), Packet::tcp(40_000).over_v6()] {
        let (frame, vnet) = packet.build_super(1300);
        let at = info(&frame);
        let mut out = [0xee; HEADER_LEN];
        tunnel().emit(77, &vnet, &at, &frame, &mut out).unwrap();
        let whole = [&out[VNET_LEN..], &frame].concat();
        let parsed = SlicedPacket::from_ethernet(&whole).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &parsed.net else {
            panic!("no IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(
            (header.source, header.destination),
            ([192, 0, 2, 1], [192, 0, 2, 2])
        );
        assert_eq!((header.identification, header.dont_fragment), (77, false));
        assert_eq!((header.dscp.value(), header.ecn.value()), (0xba >> 2, 2));
        let Some(TransportSlice::Udp(udp)) = &parsed.transport else {
            panic!("no UDP");
        };
        assert_eq!((udp.source_port(), udp.destination_port()), (50_000, 4789));
        assert_eq!(
            usize::from(udp.length()),
            UDP_LEN + vxlan::HEADER_LEN + frame.len()
        );
        assert_eq!(vxlan::parse(udp.payload()), Ok(tunnel().vni));
        assert_eq!(&udp.payload()[vxlan::HEADER_LEN..], &frame[..]);
        // The kernel adds the rest to what stands there: the sum of the pseudo-header.
        assert_eq!(
            udp.checksum(),
            checksum::pseudo_header(
                header.source.into(),
                header.destination.into(),
                UDP,
                usize::from(udp.length())
            )
        );
    }
}

#[test]
fn the_virtio_header_points_at_the_inner_headers() {
    let (frame, vnet) = Packet::tcp(40_000).build_super(1300);
    let at = info(&frame);
    let mut out = [0; HEADER_LEN];
    tunnel().emit(0, &vnet, &at, &frame, &mut out).unwrap();
    let le = |i: usize| usize::from(u16::from_le_bytes([out[i], out[i + 1]]));
    assert_eq!((out[0], out[1]), (9, 0x21));
    assert_eq!(le(2), OUTER_LEN + at.payload);
    assert_eq!(le(4), 1300);
    assert_eq!((le(6), le(8)), (50 + at.l4, 16));
    assert_eq!((le(20), le(22)), (34, 64));
}

#[test]
fn only_tcp_super_frames_with_partial_checksums_that_fit() {
    let (frame, vnet) = Packet::tcp(40_000).build_super(1300);
    let at = info(&frame);
    let refused = |vnet: &VnetHdr, frame: &[u8]| {
        let mut out = [0; HEADER_LEN];
        tunnel().emit(0, vnet, &at, frame, &mut out) == Err(DropReason::BadOffload)
    };
    assert!(!refused(&vnet, &frame));
    assert!(refused(&VnetHdr { flags: 0, ..vnet }, &frame));
    assert!(refused(
        &VnetHdr {
            gso_size: 0,
            ..vnet
        },
        &frame
    ));
    assert!(refused(
        &VnetHdr {
            gso_type: vnet::GSO_TCPV6,
            ..vnet
        },
        &frame
    ));
    assert!(refused(&VnetHdr::NONE, &frame));
    let of = |gso_size| VnetHdr { gso_size, ..vnet };
    let least = at.payload_len().div_ceil(gso::MAX_SEGMENTS) as u16;
    assert!(!refused(&of(least), &frame));
    assert!(refused(&of(least - 1), &frame));
    assert!(refused(&of(1), &frame));
    assert!(refused(&vnet, &frame[..frame.len() - 1]));

    let (datagrams, vnet) = Packet::udp(4_000).build_super(1000);
    let mut out = [0; HEADER_LEN];
    let at = info(&datagrams);
    assert_eq!(
        tunnel().emit(0, &vnet, &at, &datagrams, &mut out),
        Err(DropReason::BadOffload)
    );

    let (large, vnet) = Packet::tcp(65_535 - 40 - 49).build_super(1300);
    let at = info(&large);
    assert_eq!(
        tunnel().emit(0, &vnet, &at, &large, &mut out),
        Err(DropReason::BadOffload)
    );
}
