//! A simulation of several balancers in front of the same replicas, with the mesh's own balancer.
//!
//! Connections arrive at random moments (Poisson) at one of the balancers, wait for their turn at
//! the replica that was chosen (first come, first served) and take a time that is exponentially
//! distributed. A connection is open from its arrival to its end. Each balancer tells the others
//! at its own regular moments how many it has open to each replica, and they learn it at once.
//! One unit of time is the mean service time of a fast replica.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weft_mesh::{Balancer, Choice, OpenFlow, Policy, Replica, ReplicaLoad, Rng, ServiceLoad};
use weft_wire::{Instant, mac_for_ip};

use crate::network::NET;

/// One unit of time.
const UNIT: f64 = 1e9;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Balancers.
    pub balancers: usize,
    /// Replicas, of which every fourth serves at half the speed.
    pub replicas: usize,
    /// Offered load as a part of what the replicas can serve.
    pub load: f64,
    /// Part of all connections that arrive at the first balancer; the rest is spread evenly over
    /// all of them.
    pub skew: f64,
    /// Time between two reports of one balancer: zero when all know all at any time, infinite
    /// when nobody tells anybody.
    pub interval: f64,
    /// Connections that are measured, after a tenth of that which is not.
    pub connections: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            balancers: 10,
            replicas: 20,
            load: 0.8,
            skew: 0.0,
            interval: 0.0,
            connections: 300_000,
            seed: 1,
        }
    }
}

/// How replicas are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Each balancer in turn, from a random start.
    RoundRobin,
    /// As the mesh does, by that policy.
    Mesh(Policy),
    /// The fewest connections by the true counts at every moment.
    Perfect,
}

/// How long connections were open, in mean service times.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Mean.
    pub mean: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Simulates one way; the same setup gives the same result.
#[must_use]
pub fn simulate(setup: &Setup, way: Way) -> Times {
    let mut world = World::new(setup, way);
    let mut times = Vec::with_capacity(setup.connections);
    let mut unmeasured = setup.connections / 10;
    while times.len() < setup.connections {
        let Some(Reverse((now, _, event))) = world.events.pop() else {
            break;
        };
        match event {
            Event::Arrival => world.arrive(now),
            Event::Report(balancer) => world.report(now, balancer),
            Event::End(replica) => {
                let Some(time) = world.end(now, replica) else {
                    continue;
                };
                if unmeasured > 0 {
                    unmeasured -= 1;
                } else {
                    times.push(time);
                }
            }
        }
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let at = times.len() * 99 / 100;
    let (_, p99, _) = times.select_nth_unstable_by(at, f64::total_cmp);
    Times { mean, p99: *p99 }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    End(usize),
    Report(usize),
}

/// One balancer and what it knows.
struct Node {
    balancer: Balancer,
    replicas: Vec<Replica>,
    rng: Rng,
    next: usize,
    reported: Vec<u32>,
    reported_at: u64,
}

struct Waiting {
    arrived: u64,
    flow: OpenFlow,
}

struct World<'a> {
    setup: &'a Setup,
    way: Way,
    random: Rng,
    nodes: Vec<Node>,
    queues: Vec<VecDeque<Waiting>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    arrivals_in_a_unit: f64,
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup, way: Way) -> Self {
        let shared: Vec<Replica> = (0..setup.replicas).map(replica).collect();
        let node = |n: usize| Node {
            balancer: Balancer {
                policy: match way {
                    Way::Mesh(policy) => policy,
                    Way::RoundRobin | Way::Perfect => Policy::LeastConnections,
                },
                load: Arc::<ServiceLoad>::default(),
                ..Balancer::default()
            },
            replicas: match way {
                // All count in the same place: what one does, the others see.
                Way::Perfect => shared.clone(),
                _ => (0..setup.replicas).map(replica).collect(),
            },
            rng: Rng::new(setup.seed.wrapping_mul(1000) + n as u64),
            next: n * 7,
            reported: vec![0; setup.replicas],
            reported_at: 0,
        };
        let speed: f64 = (0..setup.replicas).map(speed_of).sum();
        let mut world = Self {
            setup,
            way,
            random: Rng::new(setup.seed),
            nodes: (0..setup.balancers).map(node).collect(),
            queues: (0..setup.replicas).map(|_| VecDeque::new()).collect(),
            events: BinaryHeap::new(),
            scheduled: 0,
            arrivals_in_a_unit: setup.load * speed,
        };
        world.schedule(0, 0.0, Event::Arrival);
        if setup.interval > 0.0 && setup.interval.is_finite() {
            for balancer in 0..setup.balancers {
                let first = setup.interval * world.uniform();
                world.schedule(0, first, Event::Report(balancer));
            }
        }
        world
    }

    fn schedule(&mut self, now: u64, later: f64, event: Event) {
        self.scheduled += 1;
        let at = now + (later * UNIT) as u64 + 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn uniform(&mut self) -> f64 {
        ((self.random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    fn arrive(&mut self, now: u64) {
        let next = self.exponential() / self.arrivals_in_a_unit;
        self.schedule(now, next, Event::Arrival);
        let at = if self.uniform() < self.setup.skew {
            0
        } else {
            (self.uniform() * self.nodes.len() as f64) as usize
        };
        if self.setup.interval == 0.0 && matches!(self.way, Way::Mesh(_)) {
            self.tell_all(now, at);
        }
        let node = &mut self.nodes[at];
        let chosen = if self.way == Way::RoundRobin {
            node.next = (node.next + 1) % node.replicas.len();
            node.next
        } else {
            let choice = Choice {
                now: Instant(now),
                ..Choice::default()
            };
            node.balancer
                .pick(&node.replicas, choice, &mut node.rng)
                .expect("all of them can take it")
        };
        let load = &node.replicas[chosen].load;
        let flow = load.open_at(&node.balancer.load, Instant(now));
        self.queues[chosen].push_back(Waiting { arrived: now, flow });
        if self.queues[chosen].len() == 1 {
            self.serve(now, chosen);
        }
    }

    fn serve(&mut self, now: u64, replica: usize) {
        let time = self.exponential() / speed_of(replica);
        self.schedule(now, time, Event::End(replica));
    }

    fn end(&mut self, now: u64, replica: usize) -> Option<f64> {
        let Waiting { arrived, flow } = self.queues[replica].pop_front()?;
        flow.close(Instant(now));
        if !self.queues[replica].is_empty() {
            self.serve(now, replica);
        }
        Some((now - arrived) as f64 / UNIT)
    }

    /// A balancer's regular report, which the others take in.
    fn report(&mut self, now: u64, balancer: usize) {
        self.schedule(now, self.setup.interval, Event::Report(balancer));
        let node = &mut self.nodes[balancer];
        for (replica, reported) in node.replicas.iter().zip(&mut node.reported) {
            *reported = replica.load.own();
            replica.load.note_reported(*reported);
        }
        node.reported_at = now;
        let others = self.nodes.len().saturating_sub(1).max(1) as u64;
        let all_at: u64 = self.nodes.iter().map(|n| n.reported_at).sum();
        for replica in 0..self.setup.replicas {
            let all: u32 = self.nodes.iter().map(|n| n.reported[replica]).sum();
            for (at, node) in self.nodes.iter().enumerate() {
                if at != balancer {
                    let counted = Instant((all_at - node.reported_at) / others);
                    let said = all - node.reported[replica];
                    node.replicas[replica].load.set_others_at(said, counted);
                }
            }
        }
    }

    /// One balancer learns the truth of this moment.
    fn tell_all(&self, now: u64, to: usize) {
        for (at, replica) in self.nodes[to].replicas.iter().enumerate() {
            let own = |n: &Node| n.replicas[at].load.own();
            let all: u32 = self.nodes.iter().map(own).sum();
            let mine = own(&self.nodes[to]);
            replica.load.set_others_at(all - mine, Instant(now));
            replica.load.note_reported(mine);
        }
    }
}

fn speed_of(replica: usize) -> f64 {
    if replica.is_multiple_of(4) { 0.5 } else { 1.0 }
}

fn replica(n: usize) -> Replica {
    let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
    Replica {
        key: n as u64,
        vni: NET,
        ip,
        mac: mac_for_ip(ip),
        local: false,
        draining: false,
        load: Arc::<ReplicaLoad>::default(),
    }
}
