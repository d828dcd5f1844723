//! What 100,000 flows cost: memory of the kernel, time to write and delete entries, time to look at all
//! records. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that prints what it found"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use weft_fastpath::{FlowCache, FlowKey, InEntry, OutEntry, RecordPool, Rewrite, Scope, Way};
use weft_wire::ecn::Dscp;
use weft_wire::frame::TCP;
use weft_wire::{FiveTuple, Mac, Vni};

const FLOWS: u32 = 100_000;

fn flow(number: u32) -> FiveTuple {
    FiveTuple {
        src: IpAddr::from([10, 0, 0, 2]),
        dst: IpAddr::from(Ipv4Addr::from_bits(0x0a01_0000 + number / 1_000)),
        sport: 10_000 + (number % 1_000) as u16,
        dport: 80,
        proto: TCP,
    }
}

/// Memory that the kernel counts for all BPF tables that this process has open, in bytes.
fn memory() -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        if !text.contains("map_type:") {
            continue;
        }
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        sum += line.map_or(0, |line| line.trim().parse::<u64>().unwrap());
    }
    sum
}

#[test]
#[ignore = "second tier: a measurement"]
fn a_hundred_thousand_flows_have_their_price() {
    let cache = FlowCache::load().unwrap();
    let mut installer = cache.installer().unwrap();
    let mut pool = RecordPool::new(0..FLOWS);
    let empty = memory();
    let vni = Vni::new(4097).unwrap();
    let rewrite: Option<Rewrite> = None;
    let begun = Instant::now();
    let mut records = Vec::new();
    for number in 0..FLOWS {
        let record = pool.open(&cache.records).unwrap();
        let flow = flow(number);
        let out = OutEntry {
            record,
            network: 1,
            epoch: 1,
            second: 3,
            largest: 1450,
            way: Way::Remote {
                device: 2,
                next_hop: Ipv4Addr::new(192, 0, 2, 2),
                from: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 50_000),
                to: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 4789),
                vni,
                dst_mac: Mac([2; 6]),
                src_mac: Mac([4; 6]),
                dscp: Dscp::default(),
            },
            rewrite,
        };
        let inward = InEntry {
            record,
            network: 1,
            epoch: 1,
            device: 5,
            underlay: 2,
            from: Ipv4Addr::new(192, 0, 2, 2),
            to: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 4789),
            by_device: None,
            rewrite,
        };
        let scope = Scope::Out(1);
        installer.put_out(FlowKey { scope, flow }, out).unwrap();
        let (scope, flow) = (Scope::In(vni), flow.reversed());
        installer.put_in(FlowKey { scope, flow }, inward).unwrap();
        records.push(record);
    }
    let written = begun.elapsed();
    let full = memory();
    let begun = Instant::now();
    let packets: u64 = records
        .iter()
        .map(|record| cache.records.read(*record).traffic.out_packets)
        .sum();
    let read = begun.elapsed();
    assert_eq!(packets, 0);
    let begun = Instant::now();
    for number in 0..FLOWS {
        let flow = flow(number);
        let scope = Scope::Out(1);
        installer.remove_out(FlowKey { scope, flow });
        let (scope, flow) = (Scope::In(vni), flow.reversed());
        installer.remove_in(FlowKey { scope, flow });
    }
    let removed = begun.elapsed();
    println!(
        "    figure: {} KiB of tables when empty, {} KiB with {FLOWS} flows; both entries of one are \
         written in {:?} and deleted in {:?}; one look at all records takes {read:?}",
        empty >> 10,
        full >> 10,
        written / FLOWS,
        removed / FLOWS,
    );
    // The kernel may free them a little later.
    assert!(memory() <= full);
    assert!(full < 64 << 20, "{full} bytes");
}
