//! Costs of the packet vocabulary: parse, checksum, split, merge, rewrite.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft_benches::frames::{datagrams, info, segments, tcp, tcp_super};
use weft_wire::gro::{Coalescer, Offer};
use weft_wire::rewrite::{Side, rewrite_endpoint};
use weft_wire::{checksum, frame, gso, vxlan};

const SUPER: usize = 64_000;

fn parse(c: &mut Criterion) {
    let bytes = tcp(1, 2, 1400);
    c.bench_function("parse", |b| b.iter(|| frame::parse(black_box(&bytes))));
}

fn sums(c: &mut Criterion) {
    let data = vec![0x5a; 65_536];
    let mut group = c.benchmark_group("checksum");
    for len in [64, 1408, 65_536] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |b| {
            b.iter(|| checksum::sum(black_box(&data[..len])));
        });
    }
}

fn split(c: &mut Criterion) {
    let (bytes, vnet) = tcp_super(SUPER);
    let at = info(&bytes);
    let mut prefix = [0; vxlan::HEADER_LEN];
    vxlan::emit(weft_benches::network::NET, &mut prefix);
    let mut headers = vec![0; gso::arena_len(prefix.len())];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let mut group = c.benchmark_group("encap and split");
    group.throughput(Throughput::Bytes(SUPER as u64));
    group.bench_function("64 KB of TCP", |b| {
        b.iter(|| {
            gso::split(
                black_box(&bytes),
                &vnet,
                &at,
                &prefix,
                &mut headers,
                &mut out,
            )
        });
    });
}

/// Segments of one TCP flow, and datagrams of one UDP flow.
fn coalesce(c: &mut Criterion) {
    let (bytes, vnet) = tcp_super(SUPER);
    merge(c, "parse and coalesce TCP", segments(&bytes, &vnet));
    merge(
        c,
        "parse and coalesce 40 datagrams of 64 B",
        datagrams(40, 64),
    );
    merge(
        c,
        "parse and coalesce 40 datagrams of 1400 B",
        datagrams(40, 1400),
    );
}

fn merge(c: &mut Criterion, name: &str, (original, ranges): (Vec<u8>, Vec<Range<usize>>)) {
    let mut arena = original.clone();
    let mut to = Coalescer::default();
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(original.len() as u64));
    for (name, trusted) in [("trusted", true), ("verified", false)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                // Taking a run rewrites its first header.
                arena[..128].copy_from_slice(&original[..128]);
                for range in &ranges {
                    let at = info(&arena[range.clone()]);
                    let offer = to.offer(&arena, range.clone(), &at, 1, trusted);
                    assert_ne!(offer, Offer::Refused);
                }
                to.take(&mut arena).map(|run| run.len)
            });
        });
    }
}

fn rewrite(c: &mut Criterion) {
    let (mut bytes, _) = tcp_super(SUPER);
    let at = info(&bytes);
    let addresses = ["10.0.0.9", "10.0.0.10"].map(|ip| ip.parse().expect("an address"));
    let mut turn = 0;
    c.bench_function("rewrite a super-frame", |b| {
        b.iter(|| {
            turn ^= 1;
            let ip = addresses[turn];
            rewrite_endpoint(&mut bytes, &at, Side::Destination, ip, Some(8080), true)
        });
    });
}

criterion_group!(benches, parse, sums, split, coalesce, rewrite);
criterion_main!(benches);
