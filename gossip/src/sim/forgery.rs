//! Somebody who has the key of gossip and lies: a member, or one that was removed.

use prost::Message as _;

use super::*;
use crate::ForgeryKind;
use crate::identity::member_to_pb;
use crate::message::{
    Accuse, Body, Datagram, Hello, OwnerDelta, OwnerDigest, PbMember, StreamBody, StreamMessage,
    SyncPush, SyncRequest, Update, Updates,
};

const N: usize = 10;
/// Whose entries are attacked.
const VICTIM: usize = 3;
/// The liar: a member at its own address.
const LIAR: usize = 9;

fn members(indices: impl Iterator<Item = usize>) -> Members {
    Members {
        addrs: indices.map(|i| (name(i), addr(i))).collect(),
        time_ms: 1_800_000_000_000,
    }
}

fn update() -> Update {
    Update {
        owner: name(VICTIM).0,
        incarnation: 1000,
        table: 2,
        ..Update::default()
    }
}

fn entry(seq: u64, value: &'static [u8]) -> Update {
    Update {
        seq,
        key: format!("own{VICTIM}"),
        value: Bytes::from_static(value),
        ..update()
    }
}

fn left(incarnation: u64) -> Update {
    Update {
        incarnation,
        left: true,
        table: 0,
        ..update()
    }
}

fn identity(i: usize, incarnation: u64) -> Identity {
    Identity::new(name(i), addr(i), incarnation)
}

fn said(id: Identity, swim_incarnation: u16, state: foca::State) -> PbMember {
    member_to_pb(&foca::Member::new(id, swim_incarnation, state))
}

impl Sim {
    /// A cluster whose nodes know who is a member.
    fn enrolled(seed: u64, n: usize) -> Self {
        let mut sim = Self::cluster(seed, 0.0, n);
        sim.enrol(0..n);
        sim.run(3 * SECOND);
        sim.forged.clear();
        sim
    }

    fn enrol(&mut self, who: impl Iterator<Item = usize> + Clone) {
        let now = self.now;
        for i in 0..self.nodes.len() {
            if let Some(node) = &mut self.nodes[i] {
                node.set_members(now, members(who.clone()));
                self.after(i);
            }
        }
    }

    fn say(&mut self, to: usize, from: usize, body: Body) -> Result<(), InputError> {
        let bytes = Datagram { body: Some(body) }.encode_to_vec();
        let now = self.now;
        let node = self.nodes[to].as_mut().expect("runs");
        let result = node.handle_datagram(now, addr(from), &bytes);
        self.after(to);
        result
    }

    fn tell(&mut self, to: usize, update: Update) {
        let updates = vec![update];
        self.say(to, LIAR, Body::Updates(Updates { updates }))
            .unwrap();
    }

    fn push(&mut self, to: usize, from: usize, body: StreamBody) -> Result<(), InputError> {
        let bytes = StreamMessage { body: Some(body) }.encode_to_vec();
        let now = self.now;
        let node = self.nodes[to].as_mut().expect("runs");
        let result = node.handle_stream_message(now, addr(from), &bytes);
        self.after(to);
        result.map(drop)
    }

    /// How long until everybody sees the victim's entry as it is.
    fn recovers(&mut self) -> Duration {
        let own = format!("own{VICTIM}");
        let took = self.until(20 * SECOND, |s| s.all_see(VICTIM, &own, Some(b"first")));
        took.expect("it comes back")
    }

    fn all_agree(&mut self) -> bool {
        let took = self.until(10 * SECOND, |s| {
            let first = s.picture(0);
            first.len() == N && (1..N).all(|i| s.picture(i) == first)
        });
        took.is_some()
    }

    fn untouched(&self) -> bool {
        self.all_see(VICTIM, &format!("own{VICTIM}"), Some(b"first"))
    }

    fn forgeries(&mut self, kind: ForgeryKind) -> usize {
        let all = self.forged.drain(..);
        let about_victim = all.filter(|(_, f)| f.kind == kind && f.about == name(VICTIM));
        about_victim.count()
    }
}

#[test]
fn numbers_that_nobody_can_have_reached_change_nothing() {
    let mut sim = Sim::enrolled(31, N);
    sim.downs.clear();
    for absurd in [u64::MAX, u64::MAX - 1, 1 << 62] {
        for to in (0..N).filter(|to| *to != LIAR) {
            sim.tell(to, left(absurd));
            sim.tell(
                to,
                Update {
                    incarnation: absurd,
                    ..entry(1, b"forged")
                },
            );
            sim.tell(to, entry(absurd, b"forged"));
            let alive = identity(VICTIM, absurd);
            let hello = Hello {
                from: Some((&alive).into()),
            };
            assert!(sim.say(to, LIAR, Body::Hello(hello)).is_err());
            let accuse = Accuse {
                from: Some((&identity(LIAR, 1000)).into()),
                target: Some(said(alive.clone(), 0, foca::State::Down)),
            };
            sim.say(to, LIAR, Body::Accuse(accuse)).unwrap();
            let delta = |from, to| OwnerDelta {
                owner: name(VICTIM).0,
                incarnation: 1000,
                from,
                to,
                ..OwnerDelta::default()
            };
            let push = SyncPush {
                deltas: vec![
                    delta(0, absurd),
                    OwnerDelta {
                        incarnation: absurd,
                        left: true,
                        ..delta(0, 1)
                    },
                ],
                updates: Vec::new(),
            };
            sim.push(to, LIAR, StreamBody::Push(push)).unwrap();
            let request = SyncRequest {
                from: Some((&identity(LIAR, 1000)).into()),
                members: [foca::State::Alive, foca::State::Down]
                    .map(|state| said(alive.clone(), u16::MAX, state))
                    .into(),
                digest: vec![OwnerDigest {
                    owner: name(VICTIM).0,
                    incarnation: absurd,
                    complete: absurd,
                    highest: absurd,
                    ..OwnerDigest::default()
                }],
            };
            sim.push(to, LIAR, StreamBody::Request(request)).unwrap();
            assert!(sim.untouched(), "{absurd:x} told to {to}");
        }
        assert!(sim.forgeries(ForgeryKind::Absurd) >= N);
    }
    sim.run(10 * SECOND);
    assert!(sim.untouched());
    assert_eq!(sim.downs, [], "nobody failed");
    let seen = sim.node(VICTIM).identity();
    assert_eq!(seen.incarnation, 1000, "nothing to answer");
}

#[test]
fn a_swim_packet_loses_only_what_cannot_be() {
    let mut sim = Sim::enrolled(32, 4);
    // A real packet of the liar, which is node 2 here, with one member more.
    let mut codec = crate::identity::IdentityCodec;
    let header = foca::Header {
        src: sim.node(2).identity().clone(),
        src_incarnation: 0,
        dst: sim.node(0).identity().clone(),
        message: foca::Message::Ping(7),
    };
    let mut packet = Vec::new();
    foca::Codec::encode_header(&mut codec, &header, &mut packet).unwrap();
    packet.extend(2_u16.to_be_bytes());
    let suspect = said(sim.node(1).identity().clone(), 0, foca::State::Suspect);
    let dead = said(identity(VICTIM, u64::MAX), 0, foca::State::Down);
    for member in [&dead, &suspect] {
        packet.extend(member.encode_length_delimited_to_vec());
    }
    sim.say(0, 2, Body::Swim(packet.clone().into())).unwrap();
    let view = sim.node(0).view();
    assert_eq!(view.state(&name(VICTIM)), Some(MemberState::Alive));
    assert_eq!(
        view.state(&name(1)),
        Some(MemberState::Suspect),
        "the rest is heard"
    );
    assert_eq!(sim.forgeries(ForgeryKind::Absurd), 1);
    // From another place, or from nobody that is known here.
    let refused = sim.say(0, 1, Body::Swim(packet.clone().into()));
    assert!(
        matches!(refused, Err(InputError::Stranger { .. })),
        "{refused:?}"
    );
    let refused = sim.say(0, 77, Body::Swim(packet.into()));
    assert!(
        matches!(refused, Err(InputError::Stranger { .. })),
        "{refused:?}"
    );
    sim.run(5 * SECOND);
    assert_eq!(sim.node(0).view().state(&name(1)), Some(MemberState::Alive));
}

#[test]
fn whoever_is_erased_by_what_could_be_comes_back_within_seconds_and_says_so() {
    let mut sim = Sim::enrolled(33, N);
    sim.run(15 * SECOND);
    let at_limit = 1_800_000_000_000 + (1 << 42);
    let forged = [
        ("left in this life", left(1000)),
        ("left in a later life", left(1001)),
        ("left in the latest life that can be", left(at_limit)),
        (
            "a later life with another entry",
            Update {
                incarnation: at_limit,
                ..entry(1, b"forged")
            },
        ),
    ];
    let mut worst = Duration::ZERO;
    for (what, mut update) in forged {
        let own = sim.node(VICTIM).identity().incarnation;
        // In terms of the life that it has by now; the latest one grows with time.
        if update.incarnation < at_limit {
            update.incarnation = own + update.incarnation - 1000;
        } else {
            update.incarnation = update.incarnation.max(own + 1);
        }
        sim.forged.clear();
        sim.tell(0, update);
        assert!(!sim.untouched(), "{what}: believed at first");
        let took = sim.recovers();
        println!("{what}: back everywhere after {took:?}");
        worst = worst.max(took);
        assert!(sim.forgeries(ForgeryKind::Own) >= 1, "{what}");
    }
    // Numbers of this life.
    let forged = [
        ("another value", entry(500, b"forged")),
        ("the highest number that can be", entry(1 << 48, b"forged")),
        (
            "a deletion",
            Update {
                deleted: true,
                ..entry(400, b"")
            },
        ),
    ];
    for (what, mut update) in forged {
        update.incarnation = sim.node(VICTIM).identity().incarnation;
        sim.tell(0, update);
        assert!(!sim.untouched(), "{what}: believed at first");
        let took = sim.recovers();
        println!("{what}: back everywhere after {took:?}");
        worst = worst.max(took);
    }
    assert!(worst <= 2 * SECOND, "{worst:?}");
    assert!(sim.all_agree());
    // What it writes later arrives as ever.
    sim.put(VICTIM, "later", b"1");
    let took = sim.until(2 * SECOND, |s| s.all_see(VICTIM, "later", Some(b"1")));
    assert!(took.is_some());
}

#[test]
fn a_list_without_what_there_is_takes_it_away_for_seconds_only() {
    let mut sim = Sim::enrolled(34, 5);
    let liar = 4;
    let own = sim.node(VICTIM).identity().incarnation;
    for complete in [1, 1 << 40] {
        let delta = OwnerDelta {
            owner: name(VICTIM).0,
            incarnation: sim.node(VICTIM).identity().incarnation.max(own),
            from: 0,
            to: complete,
            ..OwnerDelta::default()
        };
        let push = SyncPush {
            deltas: vec![delta],
            updates: Vec::new(),
        };
        sim.push(0, liar, StreamBody::Push(push)).unwrap();
        assert!(!sim.untouched(), "believed at first");
        let took = sim.recovers();
        println!("a list up to {complete}: back everywhere after {took:?}");
        assert!(took <= 20 * SECOND, "{took:?}");
    }
}

#[test]
fn a_liar_that_goes_on_and_on_leaves_nothing_behind() {
    let mut sim = Sim::enrolled(35, N);
    let start = sim.now;
    let mut round = 0;
    while sim.now - start < 20 * SECOND {
        round += 1;
        let passed = u64::try_from((sim.now - start).as_millis()).unwrap();
        let latest = 1_800_000_000_000 + (1 << 42) + passed;
        sim.tell(round % LIAR, left(latest));
        sim.run(100 * MS);
    }
    let took = sim.recovers();
    println!("after {round} lies in 20 s: back everywhere after {took:?}");
    assert!(took <= 2 * SECOND, "{took:?}");
    // A restart with the clock as it is.
    sim.nodes[VICTIM] = None;
    sim.run(SECOND);
    sim.start(VICTIM, 1_800_000_030_000);
    sim.nodes[VICTIM]
        .as_mut()
        .unwrap()
        .set_members(sim.now, members(0..N));
    sim.put(VICTIM, &format!("own{VICTIM}"), b"first");
    assert!(sim.recovers() <= 5 * SECOND);
    assert!(sim.all_agree());
    // Another one restarts, and its clock is a day behind.
    let behind = 24 * 3600 * 1000;
    sim.nodes[5] = None;
    sim.run(SECOND);
    sim.start(5, 1_800_000_030_000 - behind);
    let stale = Members {
        time_ms: 1_800_000_000_000 - behind,
        ..members(0..N)
    };
    let now = sim.now;
    sim.nodes[5].as_mut().unwrap().set_members(now, stale);
    sim.put(5, "own5", b"first");
    let took = sim.recovers();
    println!("a node whose clock is a day behind knows after {took:?}");
    assert!(sim.all_agree());
}

#[test]
fn a_removed_node_is_gone_and_not_heard_and_nobody_else_suffers() {
    let mut sim = Sim::enrolled(36, N);
    sim.downs.clear();
    // Orders arrive one after the other.
    for i in 0..N - 1 {
        let now = sim.now;
        sim.nodes[i]
            .as_mut()
            .unwrap()
            .set_members(now, members(0..N - 1));
        sim.after(i);
        let view = sim.node(i).view();
        assert_eq!(view.state(&name(LIAR)), None);
        assert!(view.get(Table::Endpoint, &name(LIAR), "own9").is_none());
        // The removed node goes on, and its messages are refused.
        for _ in 0..50 {
            sim.step();
        }
    }
    for _ in 0..5000 {
        sim.step();
    }
    for i in 0..N - 1 {
        let picture = sim.picture(i);
        assert_eq!(picture.len(), N - 1, "node {i}");
        assert!(picture.iter().all(|(owner, _, _)| *owner != name(LIAR)));
        assert_eq!(sim.node(i).view().state(&name(LIAR)), None);
    }
    let others = sim
        .downs
        .iter()
        .filter(|(_, at, who)| *at != LIAR && *who != name(LIAR));
    assert_eq!(others.count(), 0, "nobody else failed");
    let updates = vec![left(1001)];
    let refused = sim.say(0, LIAR, Body::Updates(Updates { updates }));
    assert!(
        matches!(refused, Err(InputError::Stranger { .. })),
        "{refused:?}"
    );
    // And neither is a member heard that speaks of it.
    let gone = Update {
        owner: name(LIAR).0,
        ..entry(1, b"again")
    };
    let updates = vec![gone];
    sim.say(0, 1, Body::Updates(Updates { updates })).unwrap();
    assert_eq!(sim.picture(0).len(), N - 1);
}

#[test]
fn a_new_member_is_heard_once_the_managers_have_named_it() {
    let mut sim = Sim::enrolled(37, 4);
    sim.start(4, 1000);
    sim.nodes[4]
        .as_mut()
        .unwrap()
        .set_members(sim.now, members(0..5));
    sim.put(4, "own4", b"first");
    let mut early = 0;
    for _ in 0..400 {
        let Some((_, (4, to, Packet::Datagram(bytes)))) = sim.wire.first_key_value() else {
            sim.step();
            continue;
        };
        let (to, bytes) = (*to, bytes.clone());
        sim.wire.pop_first();
        let now = sim.now;
        let result = sim.nodes[to]
            .as_mut()
            .unwrap()
            .handle_datagram(now, addr(4), &bytes);
        early += usize::from(matches!(result, Err(InputError::Stranger { .. })));
    }
    assert!(early > 0);
    assert_eq!(sim.node(0).view().state(&name(4)), None);
    sim.enrol(0..5);
    let took = sim.until(5 * SECOND, |s| s.all_see(4, "own4", Some(b"first")));
    println!("a new member is known everywhere {took:?} after the orders");
    assert!(took.is_some_and(|t| t <= 2 * SECOND), "{took:?}");
}

#[test]
fn exact_replays_of_old_messages_change_nothing() {
    let mut sim = Sim::enrolled(38, 4);
    let mut old = Vec::new();
    for round in 0..3 {
        sim.put(VICTIM, &format!("own{VICTIM}"), [b"a", b"b", b"c"][round]);
        for _ in 0..400 {
            if let Some((_, (from, 0, packet))) = sim.wire.first_key_value() {
                match packet {
                    Packet::Datagram(bytes) => old.push((*from, false, bytes.clone())),
                    Packet::Stream(bytes) => old.push((*from, true, bytes.clone())),
                    Packet::Unreachable | Packet::Wake => {}
                }
            }
            sim.step();
        }
    }
    let now = sim.now;
    sim.nodes[VICTIM]
        .as_mut()
        .unwrap()
        .delete(now, Table::Endpoint, &format!("own{VICTIM}"));
    sim.put(VICTIM, "last", b"1");
    sim.run(5 * SECOND);
    let before = sim.picture(0);
    assert_eq!(before.len(), 4);
    assert!(old.len() > 100, "{}", old.len());
    sim.downs.clear();
    for (from, stream, bytes) in old {
        let now = sim.now;
        let node = sim.nodes[0].as_mut().unwrap();
        // A probe of long ago is refused as such.
        if stream {
            drop(node.handle_stream_message(now, addr(from), &bytes));
        } else {
            drop(node.handle_datagram(now, addr(from), &bytes));
        }
        sim.after(0);
        assert_eq!(sim.picture(0), before);
    }
    sim.run(5 * SECOND);
    assert_eq!(sim.picture(0), before);
    assert_eq!(sim.downs, []);
    assert_eq!(sim.forged, []);
}
