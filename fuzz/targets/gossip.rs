//! Opened gossip messages, against a node that has one honest peer. Input: steps of one byte for
//! the kind (datagram, stream message, time), two bytes of length, and that many bytes; for time
//! the length is milliseconds. Whatever the node answers goes to the peer, and back.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_control::gossip::{
    Config, Gossip, Identity, MAX_DATAGRAM, MAX_STREAM_MESSAGE, MemberState,
};
use weft_control::id::NodeId;
use weft_control::records::Table;

const MAX_STEPS: usize = 16;
const MAX_EXCHANGES: usize = 64;

struct Pair {
    now: Duration,
    nodes: [Gossip; 2],
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
                .handle_stream_message(self.now, &bytes)
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
        if kind % 3 == 2 {
            pair.advance(Duration::from_millis(u64::try_from(len).expect("16 bits")));
            rest = tail;
        } else {
            let (bytes, after) = tail.split_at(len.min(tail.len()));
            rest = after;
            if kind % 3 == 0 {
                drop(pair.nodes[0].handle_datagram(pair.now, addr(9), bytes));
            } else if let Ok(Some(reply)) = pair.nodes[0].handle_stream_message(pair.now, bytes) {
                assert!(reply.len() <= MAX_STREAM_MESSAGE);
            }
            pair.exchange();
        }
    }
    pair.advance(Duration::from_millis(500));
    let me = &pair.nodes[0];
    let view = me.view();
    assert_eq!(view.state(&me.identity().node), Some(MemberState::Alive));
    let own = view.get(Table::Endpoint, &me.identity().node, "own");
    assert_eq!(own.map(|v| &v[..]), Some(&[0][..]), "nobody else writes it");
    assert!(view.nodes().count() + view.endpoints().count() < 10_000);
});
