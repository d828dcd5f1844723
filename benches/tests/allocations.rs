//! The packet path allocates nothing.

use std::hint::black_box;
use std::net::IpAddr;

use weft_benches::allocations::{Counting, allocations};
use weft_benches::frames::{address, info, segments, tcp, tcp_super};
use weft_benches::network::{NET, switch};
use weft_vxlan::{Egress, Ingress, PortSource};
use weft_wire::gro::{Coalescer, Offer};
use weft_wire::rewrite::{Side, rewrite_endpoint};
use weft_wire::{PortId, frame, gso, mac_for_ip, superframe, vxlan};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_counter_counts() {
    let count = allocations(|| drop(black_box(Box::new(1_u8))));
    assert_eq!(count, 1);
}

#[test]
fn split_does_not_allocate() {
    let (bytes, vnet) = tcp_super(64_000);
    let mut headers = vec![0; gso::arena_len(8)];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let mut count = 0;
    let allocated = allocations(|| {
        let at = info(&bytes);
        count = gso::split(&bytes, &vnet, &at, &[8; 8], &mut headers, &mut out)
            .map_or(0, |split| split.count);
    });
    assert_eq!((allocated, count), (0, 46));
}

#[test]
fn coalesce_does_not_allocate() {
    let (bytes, vnet) = tcp_super(64_000);
    let (mut arena, ranges) = segments(&bytes, &vnet);
    let mut to = Coalescer::default();
    let mut len = 0;
    let allocated = allocations(|| {
        for range in &ranges {
            let at = info(&arena[range.clone()]);
            let offer = to.offer(&arena, range.clone(), &at, 1, false);
            assert_ne!(offer, Offer::Refused);
        }
        len = to.take(&mut arena).map_or(0, |run| run.len);
    });
    assert_eq!((allocated, len), (0, bytes.len()));
}

#[test]
fn switching_rewriting_and_answering_do_not_allocate() {
    let switch = switch(1000);
    let ips = [IpAddr::V4(address(1))];
    let source = PortSource {
        port: PortId(1),
        mac: mac_for_ip(ips[0]),
        ips: &ips,
    };
    let mut out = tcp(1, 7, 100);
    let gateway = IpAddr::from([10, 255, 255, 254]);
    let vtep = IpAddr::from([192, 0, 2, 7]);
    let mut datagram = vec![0; vxlan::HEADER_LEN];
    vxlan::emit(NET, datagram.first_chunk_mut().unwrap());
    datagram.extend(tcp(7, 1, 100));
    let mut seen = (None, None, None);
    let allocated = allocations(|| {
        let parsed = frame::parse(&out).unwrap();
        seen.0 = Some(switch.egress(NET, source, &out, &parsed));
        let at = info(&out);
        rewrite_endpoint(&mut out, &at, Side::Destination, gateway, Some(1), false);
        let (vni, inner) = switch.admit(vtep, &datagram).unwrap();
        let parsed = frame::parse(&datagram[inner.clone()]).unwrap();
        seen.1 = Some(switch.ingress(vni, vtep, &datagram[inner.clone()], &parsed));
        let at = info(&datagram[inner.clone()]);
        seen.2 = Some(superframe::fixup(&mut datagram[inner], &at, 1450));
    });
    assert_eq!(allocated, 0);
    assert!(matches!(seen.0, Some(Egress::Remote(_))));
    assert_eq!(seen.1, Some(Ingress::Local(PortId(1))));
    assert!(matches!(seen.2, Some(Ok(_))));
}
