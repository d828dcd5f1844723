//! The table of places, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use weft_model::id::NodeId;

use super::admission::{Admission, GuestId, Limits, Open, Refusal};

const LIMITS: Limits = Limits {
    strangers: 20,
    per_source: 6,
    per_known: 3,
    per_member: 2,
    burst: 30,
    per_second: 10,
};

fn stranger(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

fn node_addr(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, n).into()
}

fn node(n: u8) -> NodeId {
    NodeId(format!("node{n}"))
}

fn known(nodes: u8) -> BTreeMap<NodeId, BTreeSet<IpAddr>> {
    (1..=nodes)
        .map(|n| (node(n), BTreeSet::from([node_addr(n)])))
        .collect()
}

struct Table {
    admission: Admission,
    start: Instant,
}

impl Table {
    fn new(nodes: u8) -> Self {
        let mut admission = Admission::new(LIMITS);
        admission.set_known(known(nodes));
        Self {
            admission,
            start: Instant::now(),
        }
    }

    fn admit(&mut self, from: IpAddr, ms: u64) -> Result<(GuestId, Option<GuestId>), Refusal> {
        let now = self.start + Duration::from_millis(ms);
        let admitted = self.admission.admit(from, now)?;
        Ok((admitted.id, admitted.displaced))
    }

    fn enter(&mut self, from: IpAddr, ms: u64) -> GuestId {
        let (id, displaced) = self.admit(from, ms).unwrap();
        assert_eq!(displaced, None);
        id
    }

    fn open(&self) -> (usize, usize, usize) {
        let Open {
            strangers,
            known,
            members,
        } = self.admission.open();
        (strangers, known, members)
    }
}

#[test]
fn one_address_gets_its_part_and_no_more() {
    let mut table = Table::new(2);
    let ids: Vec<_> = (0..6).map(|_| table.enter(stranger(1), 0)).collect();
    for _ in 0..2_000 {
        assert_eq!(table.admit(stranger(1), 0), Err(Refusal::Crowded));
    }
    // The others notice nothing.
    table.enter(stranger(2), 0);
    table.enter(node_addr(1), 0);
    assert_eq!(table.open(), (7, 1, 0));
    table.admission.release(ids[3]);
    table.enter(stranger(1), 0);
    assert_eq!(table.admit(stranger(1), 0), Err(Refusal::Crowded));
    let tallies = table.admission.tallies();
    assert_eq!((tallies.admitted, tallies.crowded), (9, 2_001));
    // Giving back twice frees one place.
    table.admission.release(ids[3]);
    assert_eq!(table.admit(stranger(1), 0), Err(Refusal::Crowded));
}

#[test]
fn a_prefix_of_ipv6_is_one_address_and_a_mapped_one_is_its_ipv4() {
    let mut table = Table::new(0);
    let at =
        |host: u16| -> IpAddr { Ipv6Addr::new(0x2001, 0xdb8, 0, 7, host, host, host, host).into() };
    for host in 0..6 {
        table.enter(at(host), 0);
    }
    assert_eq!(table.admit(at(99), 0), Err(Refusal::Crowded));
    table.enter("2001:db8:0:8::1".parse().unwrap(), 0);

    for n in 0..6 {
        let v4 = Ipv4Addr::new(192, 0, 2, 9);
        let from = if n % 2 == 0 {
            v4.into()
        } else {
            v4.to_ipv6_mapped().into()
        };
        table.enter(from, 0);
    }
    assert_eq!(table.admit(stranger(9), 0), Err(Refusal::Crowded));
}

#[test]
fn nodes_of_one_prefix_have_their_own_places_beside_strangers_in_it() {
    let mut table = Table::new(0);
    let at = |n: u16| -> IpAddr { Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, n).into() };
    let known = BTreeMap::from([(node(1), BTreeSet::from([at(1)]))]);
    table.admission.set_known(known);
    for _ in 0..6 {
        table.enter(at(0xbad), 0);
    }
    assert_eq!(table.admit(at(0xbad), 0), Err(Refusal::Crowded));
    table.enter(at(1), 0);
    assert_eq!(table.open(), (6, 1, 0));
}

#[test]
fn connections_that_come_too_fast_wait() {
    let mut table = Table::new(0);
    let mut admitted = 0_u64;
    // A thousand a second for ten seconds, each closed at once.
    for ms in 0..10_000 {
        if let Ok((id, _)) = table.admit(stranger(1), ms) {
            admitted += 1;
            table.admission.release(id);
        }
    }
    assert!((129..=130).contains(&admitted), "{admitted}");
    assert_eq!(table.admission.tallies().too_fast, 10_000 - admitted);
    // Failed attempts to join cost more.
    let (id, _) = table.admit(stranger(1), 11_000).unwrap();
    table.admission.release(id);
    table.admission.strike(stranger(1));
    table.admission.strike(stranger(1));
    assert_eq!(table.admit(stranger(1), 11_000), Err(Refusal::TooFast));
    assert!(table.admit(stranger(2), 11_000).is_ok());
    assert!(table.admit(stranger(1), 12_000).is_ok());
    // A clock that goes back gives nothing.
    for _ in 0..40 {
        if let Ok((id, _)) = table.admit(stranger(3), 20_000) {
            table.admission.release(id);
        }
    }
    assert_eq!(table.admit(stranger(3), 10_000), Err(Refusal::TooFast));
}

#[test]
fn when_strangers_are_many_the_greediest_makes_room() {
    let mut table = Table::new(1);
    let mut greedy = Vec::new();
    for n in 1..=3 {
        for _ in 0..6 {
            greedy.push(table.enter(stranger(n), 0));
        }
    }
    let joiner = table.enter(stranger(50), 0);
    table.enter(stranger(51), 0);
    assert_eq!(table.open(), (20, 0, 0));
    // All places are taken: whoever has most gives up its oldest.
    let (_, displaced) = table.admit(stranger(52), 1).unwrap();
    assert_eq!(displaced, Some(greedy[0]));
    let mut gone = Vec::new();
    for n in 53..=65 {
        gone.push(table.admit(stranger(n), 2).unwrap().1.unwrap());
    }
    assert!(!gone.contains(&joiner), "one connection is no flood");
    assert_eq!(table.open(), (20, 0, 0));
    // Nodes and members are no strangers.
    let own = table.enter(node_addr(1), 3);
    assert_eq!(table.admission.prove(own, &node(1)), None);
    for n in 100..250 {
        let (_, displaced) = table.admit(stranger(n), 4).unwrap();
        assert!(displaced.is_some_and(|d| d != own));
    }
    assert_eq!(table.open(), (20, 0, 1));
}

#[test]
fn a_known_address_always_gets_in_and_takes_from_itself() {
    let mut table = Table::new(2);
    for n in 1..=20 {
        table.enter(stranger(n), 0);
    }
    let first = table.enter(node_addr(1), 0);
    table.enter(node_addr(1), 0);
    table.enter(node_addr(1), 0);
    for _ in 0..100 {
        assert!(table.admit(node_addr(1), 0).unwrap().1.is_some());
    }
    // The first was the first to go, and its end frees nothing twice.
    table.admission.release(first);
    assert_eq!(table.open(), (20, 3, 0));
    table.enter(node_addr(2), 0);

    // Removed from the cluster, it is a stranger like others.
    table.admission.set_known(known(1));
    assert!(!table.admission.is_known(node_addr(2)));
    assert!(table.admit(node_addr(2), 0).unwrap().1.is_some());
}

#[test]
fn a_member_has_its_places_and_brings_its_address() {
    let mut table = Table::new(1);
    // Behind a translator of addresses: not where it says that it is.
    let elsewhere = stranger(77);
    let ids: Vec<_> = (0..3).map(|_| table.enter(elsewhere, 0)).collect();
    assert_eq!(table.admission.prove(ids[0], &node(1)), None);
    assert_eq!(table.admission.prove(ids[1], &node(1)), None);
    assert_eq!(table.admission.prove(ids[2], &node(1)), Some(ids[0]));
    assert_eq!(table.open(), (0, 0, 2));
    assert!(table.admission.is_known(elsewhere));
    let home = table.enter(elsewhere, 0);
    assert_eq!(table.open(), (0, 1, 2));
    // One that was displaced meanwhile cannot come back by showing a certificate.
    assert_eq!(table.admission.prove(ids[0], &node(1)), None);
    assert_eq!(table.open(), (0, 1, 2));
    table.admission.release(home);
    // The node is removed: its address is forgotten.
    table.admission.set_known(BTreeMap::new());
    assert!(!table.admission.is_known(elsewhere));
}

#[test]
fn without_descriptors_half_of_the_strangers_go() {
    let mut table = Table::new(1);
    let ids: Vec<_> = (1..=5).map(|n| table.enter(stranger(n), 0)).collect();
    table.enter(node_addr(1), 0);
    assert_eq!(table.admission.shed(), ids[..3]);
    assert_eq!(table.open(), (2, 1, 0));
    assert_eq!(table.admission.shed(), ids[3..4]);
    assert_eq!(table.admission.shed(), ids[4..]);
    assert!(table.admission.shed().is_empty());
    assert_eq!(table.open(), (0, 1, 0));
}

#[test]
fn a_sweep_of_addresses_does_not_grow_the_table() {
    let mut table = Table::new(0);
    for n in 0..50_000_u32 {
        let from = Ipv4Addr::from(0x0a00_0000 + n).into();
        let (id, displaced) = table.admit(from, u64::from(n)).unwrap();
        assert_eq!(displaced, None);
        table.admission.release(id);
    }
    assert!(table.admission.remembered() <= 1024);
}
