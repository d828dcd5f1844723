//! A whole cluster in virtual time: seeded latency, loss and partitions.

#![expect(
    clippy::print_stdout,
    reason = "the figures are part of what these tests are for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use weft_model::id::NodeId;
use weft_model::records::Table;

use super::{Config, Event, Forgery, Gossip, Identity, InputError, MemberState, Members};

mod forgery;
mod views;
mod ways;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

enum Packet {
    Datagram(Bytes),
    /// A stream message, and whether the receiver is the one who opened the stream.
    Stream(Bytes),
    Unreachable,
    Wake,
}

struct Sim {
    now: Duration,
    nodes: Vec<Option<Gossip>>,
    wire: BTreeMap<(Duration, u64), (usize, usize, Packet)>,
    wakes: Vec<Option<Duration>>,
    order: u64,
    rng: StdRng,
    loss: f64,
    /// Nodes that only reach each other.
    island: BTreeSet<usize>,
    /// Nodes whose datagrams go nowhere, and nodes that get none.
    mute: BTreeSet<usize>,
    deaf: BTreeSet<usize>,
    sent_bytes: u64,
    downs: Vec<(Duration, usize, NodeId)>,
    forged: Vec<(usize, Forgery)>,
}

fn addr(index: usize) -> SocketAddr {
    let [_, _, hi, lo] = u32::try_from(index).unwrap().to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, hi, lo)), 7946)
}

fn index(addr: SocketAddr) -> usize {
    let IpAddr::V4(ip) = addr.ip() else {
        panic!("{addr}");
    };
    let [_, _, hi, lo] = ip.octets();
    usize::from(hi) * 256 + usize::from(lo)
}

fn name(index: usize) -> NodeId {
    NodeId(format!("node{index:021}"))
}

/// Strangers are refused; nothing else that nodes say to each other is.
fn heard<T>(result: Result<T, InputError>) -> Option<T> {
    match result {
        Err(InputError::Stranger { .. }) => None,
        result => Some(result.expect("well-formed")),
    }
}

impl Sim {
    fn new(seed: u64, loss: f64) -> Self {
        Self {
            now: SECOND,
            nodes: Vec::new(),
            wire: BTreeMap::new(),
            wakes: Vec::new(),
            order: 0,
            rng: StdRng::seed_from_u64(seed),
            loss,
            island: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            sent_bytes: 0,
            downs: Vec::new(),
            forged: Vec::new(),
        }
    }

    /// A cluster of `n` that has settled.
    fn cluster(seed: u64, loss: f64, n: usize) -> Self {
        let mut sim = Self::new(seed, loss);
        for i in 0..n {
            sim.start(i, 1000);
            sim.put(i, &format!("own{i}"), b"first");
        }
        sim.run(8 * SECOND);
        for i in 0..n {
            let view = sim.node(i).view();
            let alive = view.members.values().filter(|m| m.state.is_active());
            assert_eq!(alive.count(), n, "node {i}");
            assert_eq!(view.entries(Table::Endpoint).count(), n, "node {i}");
        }
        sim
    }

    fn start(&mut self, i: usize, incarnation: u64) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let id = Identity::new(name(i), addr(i), incarnation);
        let mut gossip = Gossip::new(Config::default(), id, seed, self.now);
        gossip.join(self.now, addr(0));
        if i == 0 {
            gossip.join(self.now, addr(1));
        }
        if self.nodes.len() <= i {
            self.nodes.resize_with(i + 1, || None);
            self.wakes.resize(i + 1, None);
        }
        self.nodes[i] = Some(gossip);
        self.wakes[i] = None;
        self.after(i);
    }

    fn node(&self, i: usize) -> &Gossip {
        self.nodes[i].as_ref().expect("runs")
    }

    fn put(&mut self, i: usize, key: &str, value: &'static [u8]) {
        let now = self.now;
        self.nodes[i]
            .as_mut()
            .expect("runs")
            .put(now, Table::Endpoint, key, Bytes::from_static(value))
            .unwrap();
        self.after(i);
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        self.island.contains(&a) == self.island.contains(&b)
    }

    fn enqueue(&mut self, from: usize, to: usize, delay: Duration, packet: Packet) {
        self.order += 1;
        self.wire
            .insert((self.now + delay, self.order), (from, to, packet));
    }

    fn stream(&mut self, from: usize, to: usize, bytes: Bytes) {
        assert!(bytes.len() <= super::MAX_STREAM_MESSAGE);
        self.sent_bytes += bytes.len() as u64;
        let delay = self.latency();
        if self.connected(from, to) && self.nodes.get(to).is_some_and(Option::is_some) {
            self.enqueue(from, to, delay, Packet::Stream(bytes));
        } else {
            self.enqueue(to, from, SECOND, Packet::Unreachable);
        }
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(200..3000))
    }

    /// Drains a node after any call to it.
    fn after(&mut self, i: usize) {
        let Some(mut gossip) = self.nodes[i].take() else {
            return;
        };
        while let Some(t) = gossip.poll_transmit() {
            assert!(t.bytes.len() <= super::MAX_DATAGRAM);
            self.sent_bytes += t.bytes.len() as u64 + 61;
            let to = index(t.to);
            let delay = self.latency();
            let passes =
                self.connected(i, to) && !self.mute.contains(&i) && !self.deaf.contains(&to);
            if passes && !self.rng.random_bool(self.loss) {
                self.enqueue(i, to, delay, Packet::Datagram(t.bytes));
            }
        }
        while let Some(s) = gossip.poll_stream() {
            self.stream(i, index(s.to), s.bytes);
        }
        while let Some(event) = gossip.poll_event() {
            match event {
                Event::MemberDown(who) => self.downs.push((self.now, i, who)),
                Event::Forged(forgery) => self.forged.push((i, forgery)),
                _ => {}
            }
        }
        let next = gossip.next_deadline();
        self.nodes[i] = Some(gossip);
        if let Some(at) = next
            && self.wakes[i].is_none_or(|w| at < w || w <= self.now)
        {
            self.wakes[i] = Some(at);
            let delay = at.saturating_sub(self.now);
            self.enqueue(i, i, delay, Packet::Wake);
        }
    }

    fn step(&mut self) {
        let ((at, _), (from, to, packet)) = self.wire.pop_first().expect("clocks tick");
        self.now = self.now.max(at);
        let now = self.now;
        if matches!(packet, Packet::Wake) && self.wakes[to].is_some_and(|w| w <= now) {
            self.wakes[to] = None;
        }
        if !self.connected(from, to) {
            return;
        }
        let Some(gossip) = self.nodes.get_mut(to).and_then(Option::as_mut) else {
            return;
        };
        match packet {
            Packet::Datagram(bytes) => {
                heard(gossip.handle_datagram(now, addr(from), &bytes));
            }
            Packet::Stream(bytes) => {
                let reply = gossip.handle_stream_message(now, addr(from), &bytes);
                if let Some(reply) = heard(reply).flatten() {
                    self.stream(to, from, reply);
                }
            }
            Packet::Unreachable => gossip.handle_stream_failure(now, addr(from)),
            Packet::Wake => gossip.handle_deadline(now),
        }
        self.after(to);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.wire.first_key_value().is_some_and(|(k, _)| k.0 <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until `done`, looking every 10 ms; returns how long it took.
    fn until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now - start <= limit {
            if done(self) {
                return Some(self.now - start);
            }
            self.run(10 * MS);
        }
        None
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Gossip)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(i, n)| Some((i, n.as_ref()?)))
    }

    /// What node `i` sees, comparable between nodes.
    fn picture(&self, i: usize) -> Vec<(NodeId, String, Bytes)> {
        let view = self.node(i).view();
        let all = view.entries(Table::Endpoint);
        all.map(|(o, k, v)| (o.clone(), k.to_owned(), v.clone()))
            .collect()
    }

    fn all_see(&self, owner: usize, key: &str, value: Option<&[u8]>) -> bool {
        let name = name(owner);
        self.running()
            .filter(|(i, _)| *i != owner)
            .all(|(_, n)| n.visible(&name, key).map(|v| &v[..]) == value)
    }
}

#[test]
fn a_change_reaches_100_nodes_at_five_percent_loss() {
    const N: usize = 100;
    let mut sim = Sim::cluster(1, 0.05, N);
    let mut times = Vec::new();
    for round in 0..30 {
        let owner = (round * 37) % N;
        let key = format!("change{round}");
        sim.put(owner, &key, b"x");
        let took = sim.until(10 * SECOND, |s| s.all_see(owner, &key, Some(b"x")));
        times.push(took.expect("everybody hears it"));
    }
    times.sort();
    println!(
        "seen by all of {N} at 5 % loss: p50 {:?}, max {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] <= 1500 * MS, "{times:?}");
    let before = sim.sent_bytes;
    sim.run(30 * SECOND);
    let rate = (sim.sent_bytes - before) / 30 / N as u64;
    println!("at rest: {rate} bytes/s per node");
    assert!(rate < 20_000);
    assert_eq!(sim.downs, [], "nobody failed");
}

/// DESIGN section 10, at 1000 nodes.
#[test]
#[ignore = "second tier: takes minutes; run it when timing or encoding changes"]
fn a_thousand_nodes_hear_of_changes_and_deaths_in_time() {
    const N: usize = 1000;
    let mut sim = Sim::new(21, 0.01);
    for i in 0..N {
        sim.start(i, 1000);
        sim.put(i, "own", b"1");
        sim.run(20 * MS);
    }
    sim.run(20 * SECOND);
    println!("{N} nodes have joined");
    for i in (0..N).step_by(97) {
        assert_eq!(sim.picture(i).len(), N, "node {i}");
    }
    let before = sim.sent_bytes;
    sim.downs.clear();
    sim.run(10 * SECOND);
    let rate = (sim.sent_bytes - before) / 10 / N as u64;
    println!("{N} nodes at rest: {rate} bytes/s per node");
    assert_eq!(sim.downs, [], "nobody failed");
    for round in 0..5 {
        let owner = round * 199;
        sim.put(owner, "change", b"x");
        let took = sim.until(10 * SECOND, |s| s.all_see(owner, "change", Some(b"x")));
        println!("seen by all of {N} after {took:?}");
        assert!(took.is_some_and(|t| t <= 1500 * MS));
    }
    for round in 0..5 {
        let victim = round * 151 + 3;
        sim.nodes[victim] = None;
        let took = sim.until(20 * SECOND, |s| s.all_see(victim, "own", None));
        println!("withdrawn by all of {N} after {took:?}");
        assert!(took.is_some_and(|t| t <= 4 * SECOND));
    }
    assert!(rate < 20_000);
}

#[test]
fn a_dead_node_is_withdrawn_within_two_seconds() {
    const N: usize = 100;
    let mut sim = Sim::cluster(2, 0.0, N);
    let mut times = Vec::new();
    for round in 0..20 {
        let victim = (round * 13 + 5) % N;
        let key = format!("own{victim}");
        sim.island.insert(victim);
        let took = sim.until(10 * SECOND, |s| {
            s.running()
                .filter(|(i, _)| *i != victim)
                .all(|(_, n)| n.view().state(&name(victim)) == Some(MemberState::Down))
        });
        times.push(took.expect("everybody notices"));
        assert!(
            sim.running()
                .filter(|(i, _)| *i != victim)
                .all(|(_, n)| n.view().get(Table::Endpoint, &name(victim), &key).is_none())
        );
        sim.island.clear();
        let back = sim.until(20 * SECOND, |s| s.all_see(victim, &key, Some(b"first")));
        assert!(back.is_some(), "its entries return with it");
    }
    times.sort();
    println!(
        "withdrawn by all of {N}: p50 {:?}, p90 {:?}, max {:?}",
        times[10], times[17], times[19]
    );
    assert!(times[10] <= 2000 * MS, "{times:?}");
    assert!(times[19] <= 2500 * MS, "{times:?}");
}

#[test]
fn three_nodes_withdraw_a_dead_one_within_two_seconds() {
    let mut worst = Duration::ZERO;
    for seed in 0..20 {
        let mut sim = Sim::cluster(seed, 0.01, 3);
        sim.nodes[2] = None;
        let took = sim.until(5 * SECOND, |s| s.all_see(2, "own2", None));
        worst = worst.max(took.expect("noticed"));
    }
    println!("withdrawn by both others of 3: max {worst:?}");
    assert!(worst <= 2000 * MS, "{worst:?}");
}

#[test]
fn a_partition_heals_and_nothing_stays_hidden_or_stale() {
    const N: usize = 100;
    let mut sim = Sim::cluster(3, 0.05, N);
    sim.island = (0..40).collect();
    sim.run(5 * SECOND);
    for i in 0..N {
        let hidden = if i < 40 { 60 } else { 40 };
        let view = sim.node(i).view();
        assert_eq!(view.entries(Table::Endpoint).count(), N - hidden);
    }
    // Both sides write, change and delete meanwhile.
    for i in (0..N).step_by(7) {
        sim.put(i, &format!("own{i}"), b"changed");
        sim.put(i, &format!("new{i}"), b"new");
        let (now, gone) = (sim.now, format!("own{}", i + 1));
        if let Some(Some(node)) = sim.nodes.get_mut(i + 1) {
            node.delete(now, Table::Endpoint, &gone);
            sim.after(i + 1);
        }
    }
    sim.run(5 * SECOND);
    sim.island.clear();
    let expected = N + 15 - 15;
    let took = sim.until(60 * SECOND, |s| {
        let first = s.picture(0);
        first.len() == expected && (1..N).all(|i| s.picture(i) == first)
    });
    println!("partition of 60 and 40 nodes healed in {took:?}");
    assert!(took.is_some_and(|t| t < 20 * SECOND), "{took:?}");
    sim.downs.clear();
    sim.run(10 * SECOND);
    assert_eq!(sim.downs, [], "stays healed");
}

#[test]
fn a_node_that_left_takes_its_entries_along_and_may_return() {
    const N: usize = 30;
    let mut sim = Sim::cluster(4, 0.05, N);
    let now = sim.now;
    sim.nodes[7].as_mut().unwrap().leave(now);
    sim.after(7);
    assert_eq!(sim.node(7).next_deadline(), None);
    sim.nodes[7] = None;
    let took = sim.until(10 * SECOND, |s| {
        s.running()
            .all(|(_, n)| n.view().state(&name(7)) == Some(MemberState::Left))
    });
    println!("a leaving node of {N} is gone after {took:?}");
    assert!(took.is_some_and(|t| t < SECOND), "{took:?}");
    assert!(sim.all_see(7, "own7", None));
    sim.start(7, 2000);
    sim.put(7, "again", b"2");
    let back = sim.until(10 * SECOND, |s| s.all_see(7, "again", Some(b"2")));
    assert!(back.is_some());
    assert!(sim.all_see(7, "own7", None));
}

#[test]
fn a_restart_under_the_same_name_replaces_the_earlier_life() {
    for (seed, incarnation) in [(5, 2000), (6, 500)] {
        let mut sim = Sim::cluster(seed, 0.05, 20);
        // At once, before anybody noticed; with a clock that went forward, or backward.
        sim.nodes[3] = None;
        sim.run(50 * MS);
        sim.start(3, incarnation);
        sim.put(3, "after", b"2");
        let took = sim.until(10 * SECOND, |s| {
            s.all_see(3, "after", Some(b"2")) && s.all_see(3, "own3", None)
        });
        println!("restart with incarnation {incarnation}: {took:?}");
        assert!(took.is_some_and(|t| t < 5 * SECOND), "{took:?}");
        let all = sim.until(2 * SECOND, |s| s.picture(3).len() == 20);
        assert!(all.is_some(), "it sees the others too");
        sim.run(5 * SECOND);
        assert!(sim.all_see(3, "after", Some(b"2")));
    }
}

#[test]
fn islands_that_share_a_seed_merge() {
    let mut sim = Sim::new(8, 0.0);
    sim.island = (0..2).collect();
    for i in 0..4 {
        sim.start(i, 1000);
        let now = sim.now;
        for j in 0..4 {
            sim.nodes[i].as_mut().unwrap().join(now, addr(j));
        }
        sim.after(i);
        sim.put(i, &format!("own{i}"), b"first");
    }
    sim.run(5 * SECOND);
    assert_eq!(sim.picture(0).len(), 2);
    assert_eq!(sim.picture(3).len(), 2);
    sim.island.clear();
    let took = sim.until(10 * SECOND, |s| (0..4).all(|i| s.picture(i).len() == 4));
    assert!(took.is_some());
}

#[test]
fn large_values_and_many_entries_arrive_too() {
    let mut sim = Sim::cluster(9, 0.02, 5);
    static LARGE: [u8; 20_000] = [7; 20_000];
    sim.put(1, "large", &LARGE);
    assert!(
        sim.until(2 * SECOND, |s| s.all_see(1, "large", Some(&LARGE)))
            .is_some()
    );
    for i in 0..1000 {
        sim.put(
            2,
            &format!("many{i}"),
            b"0123456789012345678901234567890123456789",
        );
    }
    let took = sim.until(20 * SECOND, |s| {
        (0..5).all(|i| s.picture(i).len() == 5 + 1 + 1000)
    });
    println!("1000 entries at once reach 5 nodes in {took:?}");
    assert!(took.is_some());
    // A late joiner gets everything.
    sim.start(5, 1000);
    let took = sim.until(5 * SECOND, |s| s.picture(5).len() == 5 + 1 + 1000);
    println!("a late joiner has 1006 entries after {took:?}");
    assert!(took.is_some());
}

#[test]
fn a_process_that_slept_condemns_nobody() {
    let mut sim = Sim::cluster(10, 0.0, 5);
    // Node 4 does not run for 500 ms: its timers and datagrams then come all at once.
    sim.downs.clear();
    let slept = sim.nodes[4].take();
    sim.run(500 * MS);
    sim.nodes[4] = slept;
    sim.wakes[4] = None;
    sim.after(4);
    sim.run(10 * SECOND);
    assert_eq!(sim.downs, []);
}

#[test]
fn same_seed_same_course() {
    let course = |seed| {
        let mut sim = Sim::cluster(seed, 0.05, 10);
        sim.run(5 * SECOND);
        (sim.sent_bytes, sim.order)
    };
    assert_eq!(course(11), course(11));
    assert_ne!(course(11), course(12));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes from nowhere, and real messages with flipped bits, never panic and never take
    /// this node out.
    #[test]
    fn hostile_input_does_no_harm(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        flips in prop::collection::vec((0_usize..2000, 0_u8..8), 1..40),
    ) {
        let mut sim = Sim::new(13, 0.0);
        for i in 0..3 {
            sim.start(i, 1000);
            sim.put(i, &format!("own{i}"), b"first");
        }
        let mut seen = Vec::new();
        for _ in 0..400 {
            if let Some((_, (_, _, Packet::Datagram(b) | Packet::Stream(b)))) =
                sim.wire.first_key_value()
            {
                seen.push(b.clone());
            }
            sim.step();
        }
        let now = sim.now;
        let node = sim.nodes[0].as_mut().unwrap();
        let mut errors = 0;
        for bytes in &noise {
            errors += usize::from(node.handle_datagram(now, addr(9), bytes).is_err());
            errors += usize::from(node.handle_stream_message(now, addr(9), bytes).is_err());
        }
        for (at, bit) in flips {
            let mut bytes = seen[at % seen.len()].to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            errors += usize::from(node.handle_datagram(now, addr(1), &bytes).is_err());
            errors += usize::from(node.handle_stream_message(now, addr(1), &bytes).is_err());
        }
        prop_assert!(errors <= 2 * 60);
        for _ in 0..50 {
            let next = node.next_deadline().expect("still runs");
            node.handle_deadline(next);
            while node.poll_transmit().is_some() {}
            while node.poll_stream().is_some() {}
            while node.poll_event().is_some() {}
        }
        prop_assert_eq!(node.view().state(&name(0)), Some(MemberState::Alive));
    }
}
