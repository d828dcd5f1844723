//! Flows that outlive their table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_mesh::{Context, FlowConfig, FlowTable, Forward, Journal, Origin, Record};
use weft_mesh::{Protocol, Reverse, SavedOrigin};
use weft_wire::{FiveTuple, Mac};

use crate::bench::*;

/// Records in memory, shared with the test.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<u32, Record>>>);

impl Journal for Memory {
    fn write(&mut self, place: u32, record: &Record) {
        self.0.lock().unwrap().insert(place, *record);
    }

    fn set_head(&mut self, place: u32, head: u64) {
        let mut records = self.0.lock().unwrap();
        if head == 0 {
            records.remove(&place);
        } else {
            records.get_mut(&place).expect("a record")[0] = head;
        }
    }

    fn clear(&mut self) {
        self.0.lock().unwrap().clear();
    }
}

impl Memory {
    fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().values().copied().collect()
    }
}

pub(crate) fn recorded(bench: &mut Bench) -> Memory {
    let memory = Memory::default();
    bench.table.set_journal(Box::new(memory.clone()));
    memory
}

/// The process was killed: another table takes up what the records say.
pub(crate) fn restart(bench: &mut Bench, memory: &Memory) -> usize {
    bench.table = FlowTable::new(FlowConfig {
        seed: 8,
        ..FlowConfig::default()
    });
    for load in &mut bench.loads {
        *load = Arc::default();
    }
    for (replica, load) in bench.replicas.iter_mut().zip(&bench.loads) {
        replica.load = Arc::clone(load);
    }
    bench.publish();
    let cx = Context {
        now: bench.now,
        epoch: bench.epoch,
        services: &bench.services,
    };
    let origin = |saved| match saved {
        SavedOrigin::Port { ip, .. } => (ip == client()).then(port),
        SavedOrigin::Mesh { keeps_client, .. } => Some(match mesh() {
            Origin::Mesh {
                vni,
                node_ip,
                node_mac,
                ..
            } => Origin::Mesh {
                vni,
                node_ip,
                node_mac,
                keeps_client,
            },
            other => other,
        }),
    };
    let mut records = memory.records();
    bench.table.set_journal(Box::new(memory.clone()));
    bench.table.clear_journal();
    bench.table.restore(&cx, &mut records, origin)
}

#[test]
fn open_connections_go_on_with_their_replica_and_count_as_its_load() {
    let mut bench = Bench::new(3);
    let memory = recorded(&mut bench);
    let seen: Vec<_> = (0..6).map(|i| bench.open(1000 + i)).collect();
    bench.half_open(2000);
    assert_eq!(memory.records().len(), 6, "an attempt has no record");
    assert_eq!(restart(&mut bench, &memory), 6);
    assert_eq!(bench.own(), [2, 2, 2]);
    for (sport, seen) in (1000..).zip(&seen) {
        // The replica speaks first, then the client.
        bench.returned(&port(), answer(*seen, ACK, 501, 101, b"more"));
        let sent = bench.forwarded(&port(), to_vip(sport, ACK, 101, 505, b"x"));
        assert_eq!(info(&sent).five_tuple(), *seen);
    }
    // As good as new: they end, and take their load with them.
    assert_eq!(memory.records().len(), 6);
    for (sport, seen) in (1000..).zip(&seen) {
        bench.forwarded(&port(), to_vip(sport, FIN | ACK, 102, 505, b""));
        bench.returned(&port(), answer(*seen, FIN | ACK, 505, 103, b""));
    }
    assert_eq!(bench.own(), [0, 0, 0]);
    assert_eq!(memory.records(), [] as [Record; 0]);
}

#[test]
fn what_is_over_or_lost_its_ends_is_left_out() {
    let mut bench = Bench::new(2);
    let memory = recorded(&mut bench);
    let first = bench.open(1000);
    let second = bench.open(1001);
    bench.open(1002);
    bench.forwarded(&port(), to_vip(1002, RST, 101, 0, b""));
    assert_eq!(memory.records().len(), 2, "one was reset");
    let gone = bench.replica_at(second.dst);
    assert_ne!(gone, bench.replica_at(first.dst));
    bench.replicas.remove(gone);
    bench.loads.remove(gone);
    assert_eq!(restart(&mut bench, &memory), 1);
    bench.forwarded(&port(), to_vip(1000, ACK, 101, 501, b""));
    let mut lost = to_vip(1001, ACK, 101, 501, b"");
    assert!(matches!(
        bench.forward(&port(), &mut lost),
        Forward::Refuse(_)
    ));
    let mut nonsense = vec![[u64::MAX; 16], [0; 16], [3; 16]];
    let cx = Context {
        now: bench.now,
        epoch: bench.epoch,
        services: &bench.services,
    };
    let restored = bench.table.restore(&cx, &mut nonsense, |_| Some(port()));
    assert_eq!((restored, nonsense.len()), (0, 3), "they may fit later");
}

/// A client outside, a replica, the node and the mesh address of each family.
fn families() -> [(IpAddr, IpAddr, IpAddr, IpAddr); 2] {
    let outside = |ip: &str| ip.parse().unwrap();
    [
        (outside("198.51.100.7"), v4(11), v4(200), mesh_ip()),
        (outside("2001:db8::7"), v6(11), v6(200), v6(0x4d02)),
    ]
}

#[test]
fn a_replicas_node_sends_answers_back_by_the_node_that_the_client_came_through() {
    for (client, replica, ..) in families() {
        answers_return(client, replica);
    }
}

fn answers_return(client: IpAddr, replica_ip: IpAddr) {
    let mut bench = Bench::new(1);
    bench.replicas[0].ip = replica_ip;
    bench.publish();
    let memory = recorded(&mut bench);
    let (via, other) = (Mac([2, 0x42, 10, 0, 0, 201]), Mac([2, 0x42, 10, 0, 0, 202]));
    let replica = bench.replicas[0].mac;
    let own = tuple(client, 4000, replica_ip, 80, 6);
    let arrive = |bench: &mut Bench, via: Mac, flags: u8| {
        let mut frame = tcp((via, replica), own, (flags, 1, 1), b"");
        let parsed = info(&frame);
        let cx = Context {
            now: bench.now,
            epoch: bench.epoch,
            services: &bench.services,
        };
        bench.table.arrived(&cx, vni(), &mut frame, &parsed, false);
        check(&frame);
        info(&frame).sport
    };
    // To the client as the replica sees it at that port.
    let back = |bench: &mut Bench, port: u16, flags: u8| {
        let to = FiveTuple {
            dport: port,
            ..own.reversed()
        };
        let mut frame = tcp((replica, Mac([8; 6])), to, (flags, 1, 1), b"");
        let before = frame.clone();
        match bench.reverse(&mut frame) {
            Reverse::Return { dst_mac } => {
                check(&frame);
                let tuple = info(&frame).five_tuple();
                assert_eq!(tuple, own.reversed(), "as its client knows it");
                assert_eq!(
                    (frame[..6].to_vec(), frame[6..12].to_vec()),
                    (dst_mac.0.to_vec(), replica.0.to_vec())
                );
                Some(dst_mac)
            }
            Reverse::NotAFlow => {
                assert_eq!(frame, before);
                None
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(back(&mut bench, 4000, ACK), None);
    let port = arrive(&mut bench, via, SYN);
    assert_eq!(back(&mut bench, port, SYN | ACK), Some(via));
    arrive(&mut bench, via, ACK);
    assert_eq!(bench.own(), [0], "counted where the client came in");
    // A second connection of the same ports by another node is another one for the replica.
    let second = arrive(&mut bench, other, SYN);
    assert_ne!(second, port);
    assert_eq!(back(&mut bench, second, SYN | ACK), Some(other));
    assert_eq!(arrive(&mut bench, other, RST), second);
    assert_eq!(back(&mut bench, port, ACK), Some(via));
    bench.pass(Duration::from_secs(100 * 3600));
    bench.table.expire(bench.now, 100);
    let found = back(&mut bench, port, ACK);
    assert_eq!(found, Some(via), "never over by being idle");
    assert_eq!(restart(&mut bench, &memory), 1);
    let found = back(&mut bench, port, ACK);
    assert_eq!(found, Some(via), "the replica speaks first");
    arrive(&mut bench, via, FIN | ACK);
    assert_eq!(back(&mut bench, port, FIN | ACK), Some(via));
    bench.pass(Duration::from_secs(20));
    bench.table.expire(bench.now, 100);
    assert_eq!(back(&mut bench, port, ACK), None);
    // From the middle, as after a restart that lost everything.
    assert_eq!(arrive(&mut bench, other, ACK), second);
    assert_eq!(back(&mut bench, second, ACK), Some(other));
    // Its replica goes, and the entry with it.
    bench.replicas.clear();
    bench.publish();
    let cx = Context {
        now: bench.now,
        epoch: bench.epoch,
        services: &bench.services,
    };
    while !bench.table.sweep(&cx, 100, |_| panic!("nobody to reset")) {}
    assert_eq!(bench.table.len(), 0);
}

#[test]
fn a_client_of_a_published_port_keeps_its_address_where_it_may() {
    for (client, replica, node, mesh) in families() {
        client_is_kept(client, replica, node, mesh);
    }
}

fn client_is_kept(client: IpAddr, replica: IpAddr, node_ip: IpAddr, mesh_ip: IpAddr) {
    let mut bench = Bench::new(1);
    bench.replicas[0].ip = replica;
    bench.publish();
    let Origin::Mesh { vni, node_mac, .. } = mesh() else {
        panic!("weft0")
    };
    let origin = Origin::Mesh {
        vni,
        node_ip,
        node_mac,
        keeps_client: true,
    };
    let sent_as = tuple(client, 4000, mesh_ip, 8000, 6);
    let syn = tcp((CLIENT, VIP_MAC), sent_as, (SYN, 1, 0), b"");
    let sent = bench.forwarded(&origin, syn);
    let seen = info(&sent).five_tuple();
    assert_eq!(seen, tuple(client, 4000, replica, 80, 6));
    assert_eq!(weft_wire::frame::src_mac(&sent), node_mac);
    let back = bench.returned(&origin, answer(seen, SYN | ACK, 5, 2, b""));
    assert_eq!(info(&back).five_tuple(), sent_as.reversed());
    let more = tcp((CLIENT, VIP_MAC), sent_as, (ACK, 2, 6), b"question");
    bench.forwarded(&origin, more);
    bench.returned(&origin, answer(seen, ACK, 6, 10, b"yes"));
    let port = bench.services.published(Protocol::Tcp, 8000).unwrap();
    let port = port.load.tally();
    assert_eq!((port.rx_bytes(), port.tx_bytes()), (8, 3));
    assert_eq!(
        bench.table.state_of(vni, seen),
        None,
        "found by what the client sends only"
    );
    let again = tcp(
        (CLIENT, VIP_MAC),
        tuple(client, 4000, mesh_ip, 8001, 6),
        (SYN, 1, 0),
        b"",
    );
    // Two ports lead to one replica: it has to tell the connections apart.
    let second = info(&bench.forwarded(&origin, again)).five_tuple();
    assert_eq!((second.src, second.dst), (seen.src, seen.dst));
    assert_ne!(second.sport, seen.sport);
}
