//! Opened gossip messages, against a node that has one honest peer. Input: steps of one byte for
//! the kind (datagram, stream message, time), two bytes of length, and that many bytes; for time
//! the length is milliseconds. Whatever the node answers goes to the peer, and back.
//!
//! The upper bits of a kind say whether both know who is a member before that step (64), and whether
//! the message comes from the peer's own address (128). Once they know, no stranger is heard, and
//! once the liar is silent both hold what the other says of itself.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_gossip::{
    Config, Gossip, Identity, InputError, MAX_DATAGRAM, MAX_STREAM_MESSAGE, MemberState, Members,
};
use weft_model::id::NodeId;
use weft_model::records::Table;

const MAX_STEPS: usize = 16;
const MAX_EXCHANGES: usize = 64;

const KNOWN: u8 = 64;
const AS_PEER: u8 = 128;

struct Pair {
    now: Duration,
    nodes: [Gossip; 2],
    enrolled: bool,
}

fn addr(index: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index], 7946))
}

fn node(index: u8) -> Gossip {
    let id = Identity::new(NodeId(format!("node{index}")), addr(index), 1000);
    Gossip::new(Config::default(), id, [index; 32], Duration::ZERO)
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            now: Duration::ZERO,
            nodes: [node(0), node(1)],
            enrolled: false,
        };
        for (index, gossip) in pair.nodes.iter_mut().enumerate() {
            let value = vec![u8::try_from(index).expect("0 or 1")].into();
            gossip
                .put(Duration::ZERO, Table::Endpoint, "own", value)
                .expect("small");
        }
        pair.nodes[0].join(Duration::ZERO, addr(1));
        pair.exchange();
        pair.advance(Duration::from_millis(10));
        pair
    }

    fn enrol(&mut self) {
        let addrs = (0..2).map(|i| (NodeId(format!("node{i}")), addr(i)));
        let members = Members {
            addrs: addrs.collect(),
            time_ms: 1_800_000_000_000,
        };
        self.enrolled = true;
        for gossip in &mut self.nodes {
            gossip.set_members(self.now, members.clone());
        }
    }

    /// Delivers what both have to say to each other, for a while.
    fn exchange(&mut self) {
        for _ in 0..MAX_EXCHANGES {
            let mut quiet = true;
            for from in 0..2 {
                let to = 1 - from;
                while let Some(t) = self.nodes[from].poll_transmit() {
                    assert!(t.bytes.len() <= MAX_DATAGRAM);
                    if t.to == addr(u8::try_from(to).expect("0 or 1")) {
                        quiet = false;
                        let source = addr(u8::try_from(from).expect("0 or 1"));
                        // The peer may refuse what the node was talked into, but not choke.
                        drop(self.nodes[to].handle_datagram(self.now, source, &t.bytes));
                    }
                }
                while let Some(s) = self.nodes[from].poll_stream() {
                    self.converse(from, s.bytes);
                    quiet = false;
                }
                while self.nodes[from].poll_event().is_some() {}
            }
            if quiet {
                break;
            }
        }
    }

    fn converse(&mut self, from: usize, first: bytes::Bytes) {
        let mut message = Some(first);
        let mut to = 1 - from;
        for _ in 0..4 {
            let Some(bytes) = message else {
                return;
            };
            assert!(bytes.len() <= MAX_STREAM_MESSAGE);
            message = self.nodes[to]
                .handle_stream_message(
                    self.now,
                    addr(u8::try_from(1 - to).expect("0 or 1")),
                    &bytes,
                )
                .unwrap_or(None);
            to = 1 - to;
        }
        assert!(message.is_none(), "a conversation ends");
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for _ in 0..MAX_EXCHANGES {
            let mut due = false;
            for gossip in &mut self.nodes {
                if gossip.next_deadline().is_some_and(|at| at <= self.now) {
                    gossip.handle_deadline(self.now);
                    due = true;
                }
            }
            self.exchange();
            if !due {
                break;
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut pair = Pair::new();
    let mut rest = data;
    for _ in 0..MAX_STEPS {
        let [kind, hi, lo, tail @ ..] = rest else {
            break;
        };
        let len = usize::from(u16::from_be_bytes([*hi, *lo]));
        if kind & KNOWN != 0 {
            pair.enrol();
        }
        let from = addr(if kind & AS_PEER == 0 { 9 } else { 1 });
        let kind = kind & !(KNOWN | AS_PEER);
        if kind % 3 == 2 {
            pair.advance(Duration::from_millis(u64::try_from(len).expect("16 bits")));
            rest = tail;
        } else {
            let (bytes, after) = tail.split_at(len.min(tail.len()));
            rest = after;
            let heard = if kind % 3 == 0 {
                pair.nodes[0].handle_datagram(pair.now, from, bytes)
            } else {
                let reply = pair.nodes[0].handle_stream_message(pair.now, from, bytes);
                reply.map(|reply| {
                    let len = reply.map_or(0, |r| r.len());
                    assert!(len <= MAX_STREAM_MESSAGE);
                })
            };
            let stranger = matches!(heard, Err(InputError::Stranger { .. }));
            assert!(stranger || !pair.enrolled || from == addr(1));
            pair.exchange();
        }
    }
    pair.advance(Duration::from_millis(500));
    let me = &pair.nodes[0];
    let view = me.view();
    assert_eq!(view.state(&me.identity().node), Some(MemberState::Alive));
    let own = view.get(Table::Endpoint, &me.identity().node, "own");
    assert_eq!(own.map(|v| &v[..]), Some(&[0][..]), "nobody else writes it");
    let loads = view.loads().count() + view.pressures().count();
    let decoded = view.nodes().count() + view.endpoints().count() + loads;
    let entries = [Table::Node, Table::Endpoint, Table::Load];
    let entries: usize = entries.map(|t| view.entries(t).count()).iter().sum();
    assert_eq!(decoded + view.undecodable(), entries);
    assert!(view.has_same(Table::Endpoint, &me.view()) && view.has_same_active(&me.view()));
    if !pair.enrolled {
        return;
    }
    assert!(view.members.len() <= 2, "strangers are not there");
    // Nobody lies any more: both come to know the other as it is.
    let agree = |pair: &Pair| {
        (0..2).all(|i| {
            let other = pair.nodes[1 - i].identity().node.clone();
            let seen = pair.nodes[i].view();
            let own = u8::try_from(1 - i).expect("0 or 1");
            seen.get(Table::Endpoint, &other, "own").map(|v| &v[..]) == Some(&[own][..])
        })
    };
    for _ in 0..1200 {
        if agree(&pair) {
            return;
        }
        pair.advance(Duration::from_millis(50));
    }
    panic!("a lie lasts");
});
