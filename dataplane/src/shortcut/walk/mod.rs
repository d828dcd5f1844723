//! No packet of a flow takes a way that its tables do not allow: random walks through what happens to
//! flows that the kernel carries, in virtual time.
//!
//! The decisions are the real ones, with the real tables: what a worker notes of a frame, what it
//! enters and deletes, epochs, the flow table of the balancer. The programs, the world around and the
//! rule are models of their own:
//!
//! ```text
//!   world     where endpoints are, what they serve, which ways there are
//!     | tables                                 | says what must be so
//!   bed       two workers, round by round     rule     of each entry, after each step
//!     | entries, epochs, records               |
//!   programs  carry a segment, or leave it to a worker
//! ```
//!
//! A step is something that the ends of a connection do, that happens to the node, or time. Connections
//! are those of sandboxes, over TCP, to each other and to virtual addresses; datagrams and clients
//! outside have their tests elsewhere.

mod bed;
mod cases;
mod connection;
mod counts;
mod frames;
mod programs;
mod rule;
mod segment;
mod talk;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::bed::Bed;
use self::connection::{End, Target};
use self::world::{Change, ENDPOINTS, SERVICES, VTEPS};

/// What the ends of a connection do.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A new one is opened.
    Open { client: usize, target: Target },
    /// One that is over is opened again.
    Again,
    /// Much data, in packets with so much of it.
    Bulk { from: End, size: u16 },
    /// Questions and answers.
    Exchange,
    /// Both ends close.
    Close { first: End },
    /// Data, and at once the end.
    BulkAndClose { from: End },
    /// One end resets it.
    Abort { by: End },
    /// A node that an end is not behind sends in its name.
    Forge { end: End, node: usize },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Of the connection of that number, of those that there are; whether in one round, and which
    /// tables come before that is at its end.
    Act {
        at: usize,
        act: Act,
        batch: bool,
        meanwhile: Option<Change>,
    },
    Change(Change),
    Route {
        vtep: usize,
        way: u8,
    },
    /// A capture begins, or ends.
    Capture(bool),
    /// The kernel's tables are full, or not any more.
    Full(bool),
    Pass {
        seconds: u64,
    },
    /// Half an hour with a word now and then.
    Long,
}

fn end() -> impl Strategy<Value = End> {
    prop::sample::select(End::BOTH.to_vec())
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..ENDPOINTS).prop_map(Target::Endpoint),
        (0..SERVICES).prop_map(Target::Service),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        // Mostly to where it is reached.
        4 => (0..ENDPOINTS, prop::sample::select(vec![0, 0, 1, 2, 1, 2, 3]), any::<bool>())
            .prop_map(|(endpoint, to, anew)| Change::Move { endpoint, to, anew }),
        1 => (0..ENDPOINTS).prop_map(|endpoint| Change::Replace { endpoint }),
        2 => (0..ENDPOINTS, 0..SERVICES + 2)
            .prop_map(|(endpoint, service)| Change::Serve { endpoint, service }),
        1 => (0..ENDPOINTS).prop_map(|endpoint| Change::Drain { endpoint }),
        1 => any::<bool>().prop_map(|narrow| Change::Mtu { narrow }),
        1 => (0..VTEPS, any::<bool>()).prop_map(|(vtep, narrow)| Change::Path { vtep, narrow }),
        1 => Just(Change::Same),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop::sample::select(vec![1100_u16, 1100, 1200, 1410]);
    prop_oneof![
        4 => (0..ENDPOINTS, target()).prop_map(|(client, target)| Act::Open { client, target }),
        1 => Just(Act::Again),
        6 => (end(), size).prop_map(|(from, size)| Act::Bulk { from, size }),
        6 => Just(Act::Exchange),
        1 => end().prop_map(|first| Act::Close { first }),
        1 => end().prop_map(|from| Act::BulkAndClose { from }),
        1 => end().prop_map(|by| Act::Abort { by }),
        1 => (end(), 0..VTEPS).prop_map(|(end, node)| Act::Forge { end, node }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = prop::sample::select(vec![1_u64, 1, 5, 20, 31]);
    let meanwhile = prop::option::weighted(0.2, change());
    prop_oneof![
        12 => (any::<usize>(), act(), prop::bool::weighted(0.3), meanwhile).prop_map(
            |(at, act, batch, meanwhile)| Step::Act { at, act, batch, meanwhile }
        ),
        4 => change().prop_map(Step::Change),
        1 => (0..VTEPS, 0_u8..8).prop_map(|(vtep, way)| Step::Route { vtep, way }),
        1 => any::<bool>().prop_map(Step::Capture),
        1 => prop::bool::weighted(0.3).prop_map(Step::Full),
        2 => seconds.prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Long),
    ]
}

impl Bed {
    /// Whether a client would talk to itself, or may be chosen for its own requests: who does gets both
    /// ends rewritten, and is no matter of the kernel's.
    fn is_own(&self, client: usize, target: Target) -> bool {
        match target {
            Target::Endpoint(server) => server == client,
            Target::Service(_) => self.world.endpoints[client].serves.is_some(),
        }
    }

    fn act(&mut self, at: usize, act: Act) {
        if let Act::Open { client, target } = act {
            if !self.is_own(client, target) {
                self.connect(client, target);
            }
            return;
        }
        let Some(at) = at.checked_rem(self.connections.len()) else {
            return;
        };
        match act {
            Act::Open { .. } => {}
            Act::Again => {
                let connection = &self.connections[at];
                if connection.over && !self.is_own(connection.client, connection.target) {
                    self.open(at);
                }
            }
            Act::Bulk { from, size } => self.bulk(at, from, size),
            Act::Exchange => self.exchange(at, 12),
            Act::Close { first } => self.close(at, first),
            Act::BulkAndClose { from } => {
                self.bulk(at, from, 1100);
                self.close(at, from);
            }
            Act::Abort { by } => self.abort(at, by),
            Act::Forge { end, node } => self.forge(at, end, node),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act {
                at,
                act,
                batch,
                meanwhile,
            } => {
                // What opens or resets waits for what becomes of it.
                self.batch = batch && matches!(act, Act::Bulk { .. } | Act::BulkAndClose { .. });
                self.meanwhile = meanwhile;
                self.act(at, act);
                self.batch = false;
                self.settle();
            }
            Step::Change(change) => self.change(change),
            Step::Route { vtep, way } => self.route(vtep, way),
            Step::Capture(on) => self.capture(on),
            Step::Full(full) => self.programs.borrow_mut().full = full,
            Step::Pass { seconds } => self.pass(Duration::from_secs(seconds)),
            Step::Long => {
                for _ in 0..64 {
                    self.pass(Duration::from_secs(29));
                    for at in 0..self.connections.len().min(3) {
                        self.exchange(at, 1);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_packet_takes_a_way_that_its_tables_do_not_allow(
        steps in prop::collection::vec(step(), 1..60),
        seed in any::<u64>(),
    ) {
        let mut bed = Bed::new(seed);
        for step in steps {
            bed.step(step);
        }
        bed.be_quiet();
    }
}
