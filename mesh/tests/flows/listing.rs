//! The list of flows.

use std::net::SocketAddr;
use std::time::Duration;

use weft_mesh::{FlowState, Protocol, Target};
use weft_wire::PortId;

use crate::bench::*;

#[test]
fn every_flow_is_listed_once_whatever_the_size_of_the_pieces() {
    let mut b = Bench::new(3);
    let seen = b.open(1);
    for sport in 2..=10 {
        b.half_open(sport);
    }
    b.pass(Duration::from_secs(5));
    b.forwarded(&mesh(), to_mesh(4000, 8000, SYN, 7));
    for budget in [1, 3, 100] {
        let (mut rows, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            next = b.table.list(b.now, from, budget, &mut rows);
        }
        assert_eq!(rows.len(), 11);
        let first = rows.iter().find(|r| r.client.port() == 1).unwrap();
        assert_eq!(first.state, FlowState::Established);
        assert_eq!(first.protocol, Protocol::Tcp);
        assert_eq!(first.from, Target::Port(PortId(1)));
        assert_eq!(first.client, SocketAddr::new(client(), 1));
        assert_eq!(first.service, SocketAddr::new(vip(), 80));
        assert_eq!(first.replica, SocketAddr::new(seen.dst, seen.dport));
        assert_eq!(first.seen_as, SocketAddr::new(seen.src, seen.sport));
        assert_eq!(first.idle, Duration::from_secs(5));
        let last = rows.iter().find(|r| r.from == Target::Mesh).unwrap();
        assert_eq!(last.service, SocketAddr::new(mesh_ip(), 8000));
        assert_eq!((last.seen_as.ip(), last.idle), (v4(200), Duration::ZERO));
    }
}
