//! Established flows through virtual addresses are carried by the kernel, with their rewrites, and the
//! balancer knows of them what it would know without.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weft_fastpath::Event;
use weft_mesh::{FlowRow, FlowState};
use weft_sys::offload::set_features;

use super::datagram_shortcuts::{Echo, answer, bind};
use super::shortcuts::{Exchange, carried, count, eventually, fast_nodes};
use crate::common::{Node, Sandbox, VIP, VIP6, inside, pattern, publish, sandbox_at, vni};

/// A client and a server on the first node, and a server on the second one. Different workers of the
/// first node read the two sandboxes.
struct Bed {
    nodes: [Node; 2],
    client: Sandbox,
    near: Sandbox,
    far: Sandbox,
    vip: IpAddr,
    epoch: u64,
}

/// Where the replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Near,
    Far,
}

const PLACES: [Place; 2] = [Place::Far, Place::Near];

impl Bed {
    fn new(vip: IpAddr) -> Self {
        let nodes = fast_nodes();
        let [a, b] = &nodes;
        let at = |id: u8, worker| sandbox_at(id.into(), inside(vip, id), worker, true, a.mtu);
        let worker = a.plane.worker_for(inside(vip, 2));
        Self {
            client: at(2, worker),
            near: at(3, 1 - worker),
            far: at(4, b.plane.worker_for(inside(vip, 4))),
            nodes,
            vip,
            epoch: 0,
        }
    }

    fn server(&self, place: Place) -> &Sandbox {
        match place {
            Place::Near => &self.near,
            Place::Far => &self.far,
        }
    }

    /// From now on the virtual addresses lead there, or nowhere.
    fn lead_to(&mut self, replica: Option<Place>) {
        self.epoch += 1;
        let [a, b] = &self.nodes;
        let (here, there) = ([&self.client, &self.near], [&self.far]);
        let replicas: Vec<_> = replica
            .map(|place| self.server(place))
            .into_iter()
            .collect();
        publish(a, self.epoch, &here, &there, b, &replicas);
        publish(b, self.epoch, &there, &here, a, &[]);
    }

    fn open(&self, place: Place) -> Exchange {
        Exchange::open_by(&self.client, self.server(place), self.vip)
    }

    /// Packets that the kernel of the first node has carried for the client and its replica.
    fn packets(&self, place: Place) -> u64 {
        let events: &[Event] = match place {
            Place::Near => &[Event::Local],
            Place::Far => &[Event::Out, Event::In],
        };
        events
            .iter()
            .map(|event| count(&self.nodes[0], *event))
            .sum()
    }

    fn flows(&self) -> Vec<FlowRow> {
        let (rows, complete) = self.nodes[0].plane.flows().collect(100, |_| true);
        assert!(complete);
        rows
    }

    /// Waits until nothing is left of connections that are over.
    fn settle(&self) {
        eventually("flows that are over leave nothing", || {
            self.nodes.iter().all(|node| carried(node) == 0)
        });
    }
}

/// Sends `total` bytes from one end to the other, which checks them.
pub(crate) fn stream(mut from: &TcpStream, mut to: &TcpStream, total: usize) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut chunk = vec![0; 256 * 1024];
            for at in (0..total).step_by(chunk.len()) {
                pattern(at, &mut chunk);
                from.write_all(&chunk).expect("write");
            }
        });
        let (mut got, mut expected) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
        for at in (0..total).step_by(got.len()) {
            to.read_exact(&mut got).expect("read");
            pattern(at, &mut expected);
            assert!(got == expected, "bytes differ after {at}");
        }
    });
}

pub(crate) fn expect_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn bulk(vip: IpAddr) {
    const TOTAL: usize = 1 << 28;
    let mut bed = Bed::new(vip);
    for place in PLACES {
        bed.lead_to(Some(place));
        let exchange = bed.open(place);
        let a = &bed.nodes[0];
        let (up, down) = match place {
            Place::Near => (Event::Local, Event::Local),
            Place::Far => (Event::Out, Event::In),
        };
        for (event, [from, to]) in [
            (up, [&exchange.near, &exchange.far]),
            (down, [&exchange.far, &exchange.near]),
        ] {
            let before = count(a, event);
            stream(from, to, TOTAL);
            let packets = count(a, event) - before;
            assert!(packets > 1_000, "{place:?}: {event:?} {packets}");
        }
        assert_eq!(count(a, Event::Failed), 0);
        drop(exchange);
        bed.settle();
        let snapshot = a.plane.snapshot();
        let key = u64::from(bed.server(place).port.id.0);
        let replica = snapshot.services.replica(vni(), key).expect("a replica");
        let tally = replica.load.tally();
        for bytes in [tally.rx_bytes(), tally.tx_bytes()] {
            let bytes = usize::try_from(bytes).expect("a few");
            let range = TOTAL - TOTAL / 64..TOTAL + TOTAL / 64;
            assert!(range.contains(&bytes), "{place:?}: {bytes}");
        }
    }
}

#[test]
fn bulk_is_carried_with_its_rewrites_and_counted_for_its_replica() {
    bulk(VIP);
}

#[test]
fn bulk_is_carried_with_its_rewrites_in_ipv6_too() {
    bulk(VIP6);
}

#[test]
fn a_kept_connection_is_carried_and_is_not_idle_for_the_balancer() {
    let mut bed = Bed::new(VIP);
    for (place, entries) in [(Place::Far, 1), (Place::Near, 2)] {
        bed.lead_to(Some(place));
        let mut exchange = bed.open(place);
        exchange.times(3);
        assert_eq!(carried(&bed.nodes[0]), 0, "three requests are none");
        exchange.times(30);
        assert_eq!(carried(&bed.nodes[0]), entries, "{place:?}");
        let before = bed.packets(place);
        exchange.times(100);
        assert!(bed.packets(place) >= before + 200, "{place:?}");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(2_500) {
            exchange.times(1);
            std::thread::sleep(Duration::from_millis(20));
        }
        let rows = bed.flows();
        let open: Vec<_> = rows
            .iter()
            .filter(|row| row.state == FlowState::Established)
            .collect();
        assert_eq!(open.len(), 1, "{rows:?}");
        assert!(open[0].idle < Duration::from_millis(1_500), "{rows:?}");
        drop(exchange);
        bed.settle();
    }
}

#[test]
fn both_ends_are_reset_when_the_replica_is_gone() {
    let mut bed = Bed::new(VIP);
    for place in PLACES {
        bed.lead_to(Some(place));
        let mut exchange = bed.open(place);
        exchange.times(30);
        // More than makes a difference: a reset with the numbers that the worker saw last would be
        // none for either end.
        stream(&exchange.near, &exchange.far, 1 << 26);
        exchange.times(1);
        assert!(carried(&bed.nodes[0]) > 0);
        bed.lead_to(None);
        expect_reset(&exchange.near);
        expect_reset(&exchange.far);
        bed.settle();
        let lost = bed.flows();
        assert!(
            lost.iter().all(|row| row.state != FlowState::Established),
            "{lost:?}"
        );
        let before = bed.packets(place);
        assert!((&exchange.near).write_all(&[1; 64]).is_err());
        assert_eq!(bed.packets(place), before);
    }
}

#[test]
fn a_reset_of_the_client_ends_its_flow_whatever_the_kernel_has_carried() {
    let mut bed = Bed::new(VIP);
    for place in PLACES {
        bed.lead_to(Some(place));
        let Exchange { near, mut far } = bed.open(place);
        stream(&near, &far, 1 << 26);
        assert!(carried(&bed.nodes[0]) > 0, "{place:?}");
        // What was not read makes a reset of the end.
        far.write_all(b"unread").expect("write");
        near.peek(&mut [0]).expect("it is there");
        drop(near);
        expect_reset(&far);
        eventually("the flow is over", || {
            let rows = bed.flows();
            rows.iter().all(|row| row.state != FlowState::Established)
        });
        bed.settle();
    }
}

/// Datagrams to a virtual address and back; `complete` has their checksums completed before programs
/// change them.
fn datagrams(vip: IpAddr, place: Place, complete: bool) {
    let mut bed = Bed::new(vip);
    bed.lead_to(Some(place));
    if complete {
        for sandbox in [&bed.client, bed.server(place)] {
            let off = || set_features("eth1", &[("tx-checksum-ip-generic", false)]);
            sandbox.ns.run_in(off).expect("thread").expect("switched");
        }
    }
    let echo = Echo::open_by(&bed.client, bed.server(place), vip);
    echo.times(3);
    assert_eq!(carried(&bed.nodes[0]), 0, "three requests are none");
    echo.times(30);
    let entries = match place {
        Place::Far => 1,
        Place::Near => 2,
    };
    assert_eq!(carried(&bed.nodes[0]), entries, "{place:?}");
    let before = bed.packets(place);
    echo.times(100);
    assert!(bed.packets(place) >= before + 200, "{place:?}");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        echo.times(1);
        std::thread::sleep(Duration::from_millis(20));
    }
    let rows = bed.flows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].state, FlowState::DatagramsAnswered);
    assert!(rows[0].idle < Duration::from_millis(1_500), "{rows:?}");
    assert_eq!(count(&bed.nodes[0], Event::Failed), 0);
    // Another replica is there instead: the next datagram is for that one.
    let other = match place {
        Place::Far => Place::Near,
        Place::Near => Place::Far,
    };
    let port = echo.far.local_addr().expect("an address").port();
    let server = bed.server(other);
    let socket = bind(server, SocketAddr::new(server.ip, port));
    bed.lead_to(Some(other));
    let node = &bed.nodes[0];
    eventually("workers have the tables", || node.plane.is_settled());
    let before = bed.packets(place);
    echo.near.send(&[1; 64]).expect("a request");
    answer(&socket, &[1; 64]);
    let mut got = [0; 100];
    assert_eq!(echo.near.recv(&mut got).expect("an answer arrives"), 64);
    assert_eq!(bed.packets(place), before, "{place:?}");
    // And none at all.
    bed.lead_to(None);
    let node = &bed.nodes[0];
    eventually("workers have the tables", || node.plane.is_settled());
    echo.near.send(&[2; 64]).expect("a request");
    let error = echo.near.recv(&mut got).expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    eventually("its entries are gone", || carried(&bed.nodes[0]) == 0);
}

#[test]
fn datagrams_to_a_replica_of_another_node_are_carried_with_their_rewrites() {
    for complete in [false, true] {
        datagrams(VIP, Place::Far, complete);
    }
}

#[test]
fn datagrams_to_a_replica_of_another_worker_are_carried_with_their_rewrites() {
    for complete in [false, true] {
        datagrams(VIP, Place::Near, complete);
    }
}

#[test]
fn datagrams_are_carried_with_their_rewrites_in_ipv6_too() {
    for place in PLACES {
        datagrams(VIP6, place, true);
    }
}
