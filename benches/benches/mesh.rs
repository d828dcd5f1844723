//! Costs of flows through virtual addresses, by the number of flows in the table.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use weft_benches::network::NET;
use weft_benches::services::{Mesh, datagram, services, vip};
use weft_mesh::{Choice, Rng};

/// Datagram flows that nobody answered are forgotten after less.
const IDLE: Duration = Duration::from_secs(60);

/// Flows that come and go in one measurement.
const BATCH: u32 = 1000;

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("VIP lookup");
    for count in [1, 1_000, 10_000] {
        let services = services(count, 3);
        let mut next = 0;
        group.bench_function(format!("{count} services"), |b| {
            b.iter(|| {
                next = (next + 1) % count;
                services
                    .vip(NET, black_box(IpAddr::V4(vip(next))))
                    .is_some()
            });
        });
    }
}

fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick a replica");
    let mut rng = Rng::new(7);
    for replicas in [3, 100] {
        let services = services(1, replicas);
        let service = &services.all()[0];
        group.bench_function(format!("of {replicas}"), |b| {
            b.iter(|| {
                let choice = Choice::default();
                service
                    .balancer
                    .pick(black_box(&service.replicas), choice, &mut rng)
            });
        });
    }
}

fn known(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward a datagram of a known flow");
    for flows in [1, 1_000, 100_000] {
        let mut mesh = Mesh::new(services(1, 3));
        mesh.open(flows);
        // Some of them, each with its bytes as the client sends them.
        let frames: Vec<_> = (0..flows.min(256))
            .map(|n| datagram(n * (flows / 256).max(1)))
            .collect();
        let mut frame = Vec::new();
        let mut next = 0;
        group.bench_function(format!("{flows} flows"), |b| {
            b.iter(|| {
                next = (next + 1) % frames.len();
                frame.clone_from(&frames[next].0);
                assert!(mesh.forward(&mut frame, &frames[next].1));
            });
        });
    }
}

fn come_and_go(c: &mut Criterion) {
    let frames: Vec<_> = (0..BATCH).map(datagram).collect();
    let mut group = c.benchmark_group("1000 flows");
    group.bench_function("insert", |b| {
        b.iter_batched(
            || (Mesh::new(services(1, 3)), frames.clone()),
            |(mut mesh, mut frames)| {
                for (frame, at) in &mut frames {
                    assert!(mesh.forward(frame, at));
                }
                (mesh, frames)
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("expire", |b| {
        b.iter_batched(
            || {
                let mut mesh = Mesh::new(services(1, 3));
                mesh.open(BATCH);
                mesh.now = mesh.now.after(IDLE);
                mesh
            },
            |mut mesh| {
                // An entry may be looked at more than once before its time is really up.
                while mesh.table.expire(mesh.now, BATCH as usize) > 0 {}
                assert!(mesh.table.is_empty());
                mesh
            },
            BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, lookup, pick, known, come_and_go);
criterion_main!(benches);
