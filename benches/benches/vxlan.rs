//! Costs of a switching decision, by the number of endpoints on the network.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use weft_benches::frames::{address, tcp};
use weft_benches::network::{NET, switch};
use weft_vxlan::PortSource;
use weft_wire::{PortId, frame, mac_for_ip, vxlan};

fn decide(c: &mut Criterion) {
    let ips = [IpAddr::V4(address(1))];
    let source = PortSource {
        port: PortId(1),
        mac: mac_for_ip(ips[0]),
        ips: &ips,
    };
    for endpoints in [10, 1_000, 100_000] {
        let switch = switch(endpoints);
        let mut group = c.benchmark_group(format!("{endpoints} endpoints"));
        // A different destination each time, so that the tables are really looked up.
        let out: Vec<_> = (0..64)
            .map(|n| tcp(1, 2 + n * (endpoints - 2) / 64, 64))
            .map(|bytes| (frame::parse(&bytes).expect("a frame"), bytes))
            .collect();
        let mut next = 0;
        group.bench_function("egress", |b| {
            b.iter(|| {
                next = (next + 1) % out.len();
                let (info, bytes) = &out[next];
                switch.egress(NET, source, black_box(bytes), info)
            });
        });
        let mut host = 0;
        group.bench_function("FDB lookup", |b| {
            b.iter(|| {
                host = (host + 1) % endpoints;
                let mac = mac_for_ip(IpAddr::V4(address(1 + black_box(host))));
                switch.lookup(NET, mac)
            });
        });
        let mut datagram = vec![0; vxlan::HEADER_LEN];
        if let Some(header) = datagram.first_chunk_mut() {
            vxlan::emit(NET, header);
        }
        datagram.extend(tcp(2, 1, 64));
        let vtep = IpAddr::from([192, 0, 2, 2]);
        group.bench_function("admit, parse, ingress", |b| {
            b.iter(|| {
                let (vni, inner) = switch.admit(vtep, black_box(&datagram))?;
                let bytes = &datagram[inner];
                frame::parse(bytes).map(|info| switch.ingress(vni, vtep, bytes, &info))
            });
        });
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
